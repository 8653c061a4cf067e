"""What a simulated call gets, and the text form of it: latency, error mix, behaviours. Pure."""

import json
import math
from asyncio import Event
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Literal

from msgspec import Struct, field

from batchgen.errors import ConfigError
from batchgen.simulate.vendor_replies import VENDOR_REPLIES

_FAULTS = (
    "reset",
    "hang",
    "trickle",
    "html",
    "cut",
    "bad_json",
    "no_choices",
    "empty",
    "refusal",
    "content_filter",
    "length",
    "prose",
    "stale",
    "unasked_stream",
    "stream_error",
    "no_done",
    "keep_alive",
)
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class Latency(Struct, frozen=True):
    """How long an answer takes: `low` seconds, between `low` and `high`, or lognormal with median
    `low` and sigma `high`."""

    shape: Literal["fixed", "uniform", "lognormal"] = "fixed"
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, spec: str) -> "Latency":
        """Reads `0.2`, `uniform:LOW:HIGH` or `lognormal:MEDIAN:SIGMA`, in seconds. Raises
        ConfigError."""
        shape, *numbers = spec.split(":") if ":" in spec else ("fixed", spec)
        values = [number_of(text) for text in numbers]
        if shape == "fixed" and len(values) == 1 and values[0] is not None:
            return cls("fixed", values[0])
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            if shape == "uniform" and values[0] <= values[1]:
                return cls("uniform", values[0], values[1])
            if shape == "lognormal":
                return cls("lognormal", values[0], values[1])
        raise ConfigError(
            f"latency {spec!r} is not understood; write seconds (0.2), uniform:LOW:HIGH "
            "(uniform:0.1:0.5) or lognormal:MEDIAN:SIGMA (lognormal:1.0:0.5), none of them negative"
        )

    def seconds(self, roll: float) -> float:
        """The latency at `roll`, which is between 0 and 1, both excluded."""
        if self.shape == "uniform":
            return self.low + (self.high - self.low) * roll
        if self.shape == "lognormal":
            return self.low * math.exp(self.high * NormalDist().inv_cdf(roll))
        return self.low


class ItemErrors(Struct, frozen=True):
    """What each call gets whose prompt has a text in it."""

    kinds: tuple[tuple[str, "Behaviour"], ...] = ()

    @classmethod
    def parse(cls, specs: Iterable[str]) -> "ItemErrors":
        """Reads `TEXT=KIND` of each. Raises ConfigError."""
        kinds = []
        for spec in specs:
            text, equals, kind = spec.rpartition("=")
            if not equals or not text:
                raise ConfigError(f"item error: {spec!r} must be TEXT=KIND")
            if not _is_known(kind):
                raise ConfigError(f"item error: unknown kind {kind!r} in {spec!r}; {_allowed()}")
            kinds.append((text, Behaviour.of(kind)))
        return cls(tuple(kinds))

    def of(self, prompt: str) -> "Behaviour | None":
        """The first whose text is in it."""
        return next((kind for text, kind in self.kinds if text in prompt), None)


class ErrorMix(Struct, frozen=True):
    """The share of the calls that gets each error."""

    shares: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, spec: str) -> "ErrorMix":
        """Reads `429=0.1,reset=0.01`; an empty text means no errors. Raises ConfigError."""
        shares: dict[str, float] = {}
        for part in filter(None, map(str.strip, spec.split(","))):
            kind, equals, text = (piece.strip() for piece in part.partition("="))
            share = number_of(text)
            if not equals or share is None or share > 1:
                raise ConfigError(f"error mix: {part!r} must be KIND=SHARE, SHARE from 0 to 1")
            if kind in shares:
                raise ConfigError(f"error mix: {kind!r} is there twice")
            if not _is_known(kind):
                raise ConfigError(f"error mix: unknown kind {kind!r} in {part!r}; {_allowed()}")
            shares[kind] = share
        total = math.fsum(shares.values())
        if total > 1 + 1e-9:
            raise ConfigError(f"error mix: the shares in {spec!r} add up to {total:g}, more than 1")
        return cls(tuple(shares.items()))

    def pick(self, roll: float) -> str | None:
        """The kind of error at `roll` (0 to 1), or None for no error."""
        edge = 0.0
        for kind, share in self.shares:
            edge += share
            if roll < edge:
                return kind
        return None


class Behaviour(Struct, frozen=True):
    """What one call gets.

    kind `ok` is an answer, with `body` as its text if that is set. `status` is a response of
    `status` and `headers`: `body` as it is, or an OpenAI error object when it is None (a 429 with
    no `headers` then carries Retry-After). The other kinds are those of the error mix; `stale` is
    an answer, after which the next request on the same connection is met by a reset;
    `unasked_stream` is an answer as a stream, asked for or not. `stream_error` (an error in
    mid-stream), `no_done` (no [DONE]) and `keep_alive` (nothing but comments, for ever) are answers
    where no stream is asked for. `delay_s`
    None means the simulator's latency, except that refusing a request (4xx) takes no time. Until
    `after` is set, if it is given, nothing is sent.
    """

    kind: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | None = None
    delay_s: float | None = None
    after: Event | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("ok", "status", *_FAULTS):
            raise ConfigError(f"unknown behaviour {self.kind!r}; ok, or {_allowed()}")

    @classmethod
    def of(cls, kind: "str | Behaviour") -> "Behaviour":
        """A kind of the error mix, or `ok`, by its name. Raises ConfigError."""
        if isinstance(kind, Behaviour):
            return kind
        if reply := VENDOR_REPLIES.get(kind):
            return cls.response(reply.status, reply.body, content_type=reply.content_type)
        return cls.error(int(kind)) if _is_error_status(kind) else cls(kind)

    @classmethod
    def ok(
        cls, text: str | None = None, *, delay_s: float | None = None, after: Event | None = None
    ) -> "Behaviour":
        """A chat completion that says `text`."""
        return cls("ok", body=text, delay_s=delay_s, after=after)

    @classmethod
    def error(
        cls,
        status: int,
        *,
        message: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay_s: float | None = None,
        after: Event | None = None,
    ) -> "Behaviour":
        """`status` with OpenAI's error object. A 429 carries the simulator's Retry-After, unless
        `message`, `code` or `headers` is given."""
        if message is None and code is None:
            return cls("status", status, headers or {}, delay_s=delay_s, after=after)
        body = error_object(status, message or f"simulated {status}", code)
        return cls("status", status, headers or {}, body, delay_s, after)

    @classmethod
    def response(
        cls,
        status: int,
        body: bytes | str,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        delay_s: float | None = None,
    ) -> "Behaviour":
        """Exactly this response; a lone surrogate in `body` goes out as invalid UTF-8."""
        return cls(
            "status", status, {"Content-Type": content_type, **(headers or {})}, body, delay_s
        )

    @classmethod
    def redirect(cls, location: str, status: int = 307) -> "Behaviour":
        return cls.response(status, "", headers={"Location": location})

    @property
    def text(self) -> str | None:
        """What an answer says, if that is set."""
        return self.body.decode() if isinstance(self.body, bytes) else self.body

    @property
    def outcome(self) -> str:
        """The name in the ledger: the kind, or the status."""
        return str(self.status) if self.kind == "status" else self.kind


def error_object(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of OpenAI's error responses."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}
    return json.dumps({"error": error}).encode()


def retry_after_headers(wait_s: float) -> dict[str, str]:
    """Retry-After knows whole seconds only; the exact wait goes beside it, as OpenAI does."""
    return {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def _is_known(kind: str) -> bool:
    return kind in _FAULTS or kind in VENDOR_REPLIES or _is_error_status(kind)


def _is_error_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit() and text[0] in "45"


def number_of(text: str) -> float | None:
    """A finite number that is not negative, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _allowed() -> str:
    return f"allowed: a status from 400 to 599, {', '.join((*_FAULTS, *VENDOR_REPLIES))}"
