"""What each call gets: what is scripted, what limits say, an error of the mix, or an answer."""

import struct
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice

from msgspec import Struct

from batchgen.simulate.answers import Chat
from batchgen.simulate.behaviours import (
    Behaviour,
    ErrorMix,
    ItemErrors,
    Latency,
    retry_after_headers,
)
from batchgen.simulate.capacity import Capacity, Outage
from batchgen.simulate.limiter import Limiter
from batchgen.simulate.streams import is_streamed

# Far more calls than come between a call and its retry; about 25 MB.
KEPT_TRIES = 200_000


class Call(Struct, frozen=True):
    """A POST and what it will get. `chat` is None if it is not a valid request; `tries` is which
    try of its request it is, from 1."""

    chat: Chat | None
    tries: int
    behaviour: Behaviour
    delay_s: float
    headers: Mapping[str, str]
    has_room: bool

    @property
    def is_streamed(self) -> bool:
        """Then the delay is spread over the stream."""
        return is_streamed(self.behaviour.kind, self.chat)


class Decider:
    """Decides by the seed, the request and the number of its try; `keep_tries=False` forgets those
    of old requests."""

    def __init__(
        self, *, latency: Latency, errors: ErrorMix, item_errors: ItemErrors, limiter: Limiter,
        limit_headers: bool, capacity: Capacity, outage: Outage | None, seed: int, keep_tries: bool,
    ) -> None:  # fmt: skip
        self._latency = latency
        self._errors = errors
        self._item_errors = item_errors
        self._limiter = limiter
        self._limit_headers = limit_headers
        self._capacity = capacity
        self._outage = outage
        self._seed = seed
        self._keep_tries = keep_tries
        self._tries: dict[bytes, int] = {}
        self._scripts: list[tuple[str, deque[Behaviour]]] = []

    def script(self, text: str, *behaviours: str | Behaviour) -> None:
        self._scripts.append((text, deque(map(Behaviour.of, behaviours))))

    def decide(self, chat: Chat | None, refusal: Behaviour | None, now: float) -> Call:
        """`refusal` is what no server would accept of the request; `end` the call when it is over.
        `now` is time.monotonic()."""
        tries = self._count(chat) if chat else 0
        error_roll, latency_roll = rolls(self._seed, chat, tries)
        out = self.out(now)
        behaviour = refusal or self._scripted(chat) or out
        no_room = None if behaviour else self._capacity.begin()
        has_room = not (behaviour or no_room)
        behaviour = behaviour or no_room or self._chosen(chat, error_roll, now)
        delay_s = self._delay_s(behaviour, latency_roll)
        headers = self._limiter.headers(now) if self._limit_headers else {}
        return Call(chat, tries, behaviour, delay_s, headers, has_room)

    def end(self, call: Call) -> None:
        if call.has_room:
            self._capacity.end()

    def decide_line(self, chat: Chat) -> tuple[Behaviour, int]:
        """The same for a line of a batch, which no limit, outage or latency is for; and which try
        of its request it is."""
        tries = self._count(chat)
        picked = self._errors.pick(rolls(self._seed, chat, tries)[0])
        return self._scripted(chat) or Behaviour.of(picked or "ok"), tries

    def is_drawn(self, chat: Chat, tries: int, share: float) -> bool:
        """Whether a try of a request is of that share, whatever the error mix is."""
        return rolls(self._seed + 1, chat, tries)[0] < share

    def out(self, now: float) -> Behaviour | None:
        """What every request gets now; None: the server serves."""
        return self._outage.behaviour(now) if self._outage else None

    def _count(self, chat: Chat) -> int:
        if not self._keep_tries and len(self._tries) >= KEPT_TRIES:
            for oldest in list(islice(self._tries, KEPT_TRIES // 2)):
                del self._tries[oldest]
        tries = self._tries.get(chat.digest, 0) + 1
        self._tries[chat.digest] = tries
        return tries

    def _scripted(self, chat: Chat | None) -> Behaviour | None:
        text = chat.text if chat else ""
        for fragment, behaviours in self._scripts:
            if behaviours and fragment in text:
                return behaviours.popleft()
        return self._item_errors.of(text)

    def _chosen(self, chat: Chat | None, error_roll: float, now: float) -> Behaviour:
        wait_s = self._limiter.take(chat, now)
        if wait_s > 0:
            return Behaviour.error(429, headers=retry_after_headers(wait_s))
        return Behaviour.of(self._errors.pick(error_roll) or "ok")

    def _delay_s(self, behaviour: Behaviour, roll: float) -> float:
        if behaviour.delay_s is not None:
            return behaviour.delay_s
        # A server refuses a request at once.
        if behaviour.kind == "status" and 400 <= behaviour.status < 500:
            return 0.0
        return self._latency.seconds(roll)


def rolls(seed: int, chat: Chat | None, tries: int) -> tuple[float, float]:
    """Two numbers between 0 and 1, both excluded, that depend on the arguments alone."""
    digest = chat.digest if chat else b""
    high, low = struct.unpack(">QQ", sha256(b"%d:%d:" % (seed, tries) + digest).digest()[:16])
    # 52 bits: with one more, the half added could round up to 1.
    return ((high >> 12) + 0.5) / 2**52, ((low >> 12) + 0.5) / 2**52
