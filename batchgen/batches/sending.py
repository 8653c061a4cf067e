"""A file of requests becomes a batch: uploaded, sealed, made. From the seal on the batch holds its
rows, and it is durable that the provider may have been asked to make it.

Who asked and heard nothing does not ask again on a guess: a batch that was made is in the
provider's list, by its input file and by our token in its metadata. Only when it is not there,
looked for over some time, it is made of the same file once more; so a twin that turns up later is
seen, and cancelled.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from batchgen.batches.place import Ground, Place
from batchgen.batches.sizes import REFUSED_WHOLE
from batchgen.batches.spool import Spool
from batchgen.clock import clock_ms
from batchgen.endpoints import ENDPOINTS
from batchgen.errors import Remedy
from batchgen.items import Failure, Reason, Trouble
from batchgen.llm.batches import BatchServerError, Refused, Seen, Unclear
from batchgen.shutdown import uninterrupted, unless
from batchgen.store import AskedServer, Grant, NewBatch, ProviderBatch, Seat, Store
from batchgen.text.sentences import as_sentence
from batchgen.worker.halts import refused
from batchgen.worker.stats import Halt, HaltKind

_ASKED_IN_VAIN = 3
_LOOKS, _LONGEST_LOOK_S = 3, 120.0
_BEFORE_MS = 3_600_000  # how far the provider's clock may differ from ours
_UPLOADS, _UPLOAD_AGAIN_S = 3, 5.0
_TOKEN_WORDS = ("enqueued", "token_limit", "token limit")


class _Search(NamedTuple):
    """So often a batch was looked for in vain, first at this time."""

    looks: int
    first_at: int


class Sender:
    """Sends for one run. `asked_twice`: the provider may have made these before, for all its list
    told."""

    def __init__(self, ground: Ground, store: Store, seat: Seat) -> None:
        self._ground = ground
        self._store = store
        self._seat = seat
        self._searches: dict[int, _Search] = {}
        self._unclear: dict[int, list[str]] = {}  # what was said that does not tell, by number
        self._uploads_fail_since: int | None = None
        self.asked_twice = list[ProviderBatch]()

    async def send(self, spool: Spool, place: Place) -> ProviderBatch | None:
        """None: nothing of it was sent, and its rows are still the sender's. Not interrupted from
        the seal on."""
        input_file = await self._upload(spool, place)
        if input_file is None:
            return None
        sealed = await uninterrupted(self._seal_and_create(spool, place, input_file))
        if sealed is None:
            await place.server.forget([input_file])
        return sealed

    async def _upload(self, spool: Spool, place: Place) -> str | None:
        name = f"batchgen-{spool.token}.jsonl"
        failure = Failure(Reason.SERVER, "")
        for attempt in range(_UPLOADS):
            try:
                input_file = await place.server.upload(spool.rewound(), spool.bytes, name)
                self._uploads_fail_since = None
                return input_file
            except BatchServerError as exc:
                failure = exc.failure
            if failure.halt is not None:
                self._ground.halt(refused(failure, place.spec))
                return None
            await asyncio.sleep(failure.retry_after_s or _UPLOAD_AGAIN_S * 2**attempt)
        self._could_not_upload(spool, failure)
        return None

    def _could_not_upload(self, spool: Spool, failure: Failure) -> None:
        now, stall_s = clock_ms(), self._ground.spec.stall_s
        self._uploads_fail_since = self._uploads_fail_since or now
        words = f"a file of {spool.requests} requests could not be uploaded: {failure.message}"
        if now - self._uploads_fail_since > 1000 * stall_s:
            words = (
                f"nothing could be uploaded for {stall_s:g} s (work.stall_s). The newest: {words}"
            )
            self._ground.halt(Halt(words, kind=HaltKind.STALLED))
        else:
            self._ground.warn(f"{as_sentence(words)} Its rows are pending again.")

    async def _seal_and_create(
        self, spool: Spool, place: Place, input_file: str
    ) -> ProviderBatch | None:
        key, spec = spool.key, place.spec
        new = NewBatch(
            experiment_id=key.experiment_id, recipe_id=key.recipe_id,
            server=AskedServer(spec.key, spec.name), base_url=spec.shown_url,
            endpoint=key.endpoint, model=key.model, token=spool.token, input_file=input_file,
            bytes=spool.bytes, tokens=spool.tokens, reserved_tokens=spool.reserved_tokens,
            reserved_cost_usd=spool.reserved_cost_usd,
        )  # fmt: skip
        budget = self._ground.spec.budget
        sealed = await self._store.batches.seal(self._seat.id, new, spool.claims, budget)
        if isinstance(sealed, Grant):
            return None  # others have reserved what is left of the budget, meanwhile
        if sealed is None:
            self._ground.warn("this process was taken for dead: its rows are others' now.")
            return None
        self._ground.context.stats.in_flight += sealed.requests
        await self._create(sealed, place)
        return sealed

    async def go_on(self, batch: ProviderBatch, place: Place, seen: Sequence[Seen] | None) -> None:
        """With a batch of which it is not known whether the provider has made it. `seen` is what
        its list has; None: there is none."""
        if batch.absent:
            await uninterrupted(self._create_now(batch, place))
            return
        if seen is None:
            self._ask_who_knows(batch)
            return
        found = [one for one in seen if is_of(one, batch)]
        if found:
            await self._adopt(batch, min(found, key=lambda one: one.created_at or 0))
            return
        search = self._searches.get(batch.number) or _Search(0, clock_ms())
        search = self._searches[batch.number] = search._replace(looks=search.looks + 1)
        if search.looks < _LOOKS or clock_ms() - search.first_at < 1000 * self._look_s:
            return
        unclear = self._unclear.get(batch.number, [])
        if len(unclear) >= _ASKED_IN_VAIN:
            words = (
                f"batch {batch.number}: the provider was asked {len(unclear)} times to make it, "
            )
            words += f"and its list does not have it. It last said: {as_sentence(unclear[-1])}"
            self._ground.halt(Halt(words, kind=HaltKind.STALLED))
            return
        self._ground.say(
            f"batch {batch.number}: the provider's list does not have it, so it was not made; it "
            "is made now, of the same file."
        )
        del self._searches[batch.number]
        self.asked_twice.append(batch)
        await uninterrupted(self._create_now(batch, place))

    @property
    def look_again_s(self) -> float:
        """Until a batch that is looked for is looked for again."""
        return self._look_s / _LOOKS

    @property
    def _look_s(self) -> float:
        return min(_LONGEST_LOOK_S, 2 * self._ground.config.poll_s)

    @property
    def looks(self) -> bool:
        """Whether some batch is being looked for."""
        return bool(self._searches)

    async def _create_now(self, batch: ProviderBatch, place: Place) -> None:
        """One that was sealed before: unless another sender has had it made meanwhile. It is no
        more certain that the provider does not have it, before it is asked to."""
        if await self._store.batches.mark_absent(batch.number, absent=False):
            await self._create(batch, place)

    async def _create(self, batch: ProviderBatch, place: Place) -> None:
        """Ask once to make it."""
        asked = place.server.create(
            batch.input_file, endpoint=ENDPOINTS[batch.endpoint], model=batch.model,
            window=self._ground.config.completion_window, token=batch.token,
        )  # fmt: skip
        made = await unless(self._ground.no_patience, asked)
        if made is None:
            return  # who comes after us looks for it
        if isinstance(made, Seen):
            await self._adopt(batch, made)
        elif isinstance(made, Refused):
            await self._was_refused(batch, made.failure, place)
        else:
            self._was_unclear(batch, made)

    def _was_unclear(self, batch: ProviderBatch, made: Unclear) -> None:
        self._searches[batch.number] = _Search(0, clock_ms())
        self._unclear.setdefault(batch.number, []).append(made.message)
        self._ground.warn(
            f"batch {batch.number}: whether the provider has made it is not known "
            f"({made.message}); it is looked for there."
        )

    async def _adopt(self, batch: ProviderBatch, seen: Seen) -> None:
        self._searches.pop(batch.number, None)
        await self._store.batches.created(
            batch.number, seen.batch_id, status=seen.status, created_at=seen.created_at,
            expires_at=seen.expires_at,
        )  # fmt: skip
        self._ground.say(
            f"batch {batch.number}: {batch.requests:,} requests, {_size(batch.bytes)} -> "
            f"{seen.batch_id}"
        )

    async def _was_refused(self, batch: ProviderBatch, failure: Failure, place: Place) -> None:
        """It was certainly not made."""
        is_of_tokens = any(word in failure.message.lower() for word in _TOKEN_WORDS)
        is_away = failure.trouble is Trouble.UNREACHABLE
        if failure.halt is not None:
            await self._store.batches.release(batch.number, failure.message)
            self._ground.halt(refused(failure, place.spec))
        elif is_away or (
            failure.reason is Reason.RATE_LIMIT and (not is_of_tokens or await self._has_open())
        ):
            await self._store.batches.mark_absent(batch.number)
            self._ground.warn(
                f"batch {batch.number}: the provider does not make it now ({failure.message}); it "
                "is asked again."
            )
        elif failure.reason is Reason.RATE_LIMIT:
            await self._store.batches.release(batch.number, f"{REFUSED_WHOLE}{failure.message}")
        else:
            await self._store.batches.release(batch.number, failure.message)
            words = f"the provider refuses to make a batch. It said: {failure.message}"
            self._ground.halt(Halt(words))

    async def _has_open(self) -> bool:
        return any(one.batch_id is not None for one in await self._store.batches.unfinished())

    def _ask_who_knows(self, batch: ProviderBatch) -> None:
        """There is no list: a person has to look."""
        words = (
            f"batch {batch.number} was to be made of the file {batch.input_file}, and nothing was "
            "heard of it: the provider may have made it, and has no list to look in. Look there "
            "for a batch of that file."
        )
        self._ground.halt(Halt(words, Remedy.FIND_BATCH, HaltKind.STALLED))


def is_of(seen: Seen, batch: ProviderBatch) -> bool:
    """Whether it was made of the batch's file, by whichever of its marks the provider tells."""
    if seen.token is not None:
        return seen.token == batch.token
    return seen.input_file == batch.input_file


def since(batches: Sequence[ProviderBatch]) -> int:
    """From when on the provider's list has all of these."""
    return min(one.sealed_at for one in batches) - _BEFORE_MS


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1000:.1f} kB"
