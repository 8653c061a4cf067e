"""Faults of a provider of batches, by name, and how often each happens.

Those of a batch are drawn when it is made; the others when a request comes that they are for.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchgen.errors import ConfigError
from batchgen.simulate.behaviours import Behaviour, number_of


class Kind(NamedTuple):
    """`value` is what stands behind the equals sign; `of_batch`: it is drawn when one is made."""

    value: str
    says: str
    of_batch: bool = False


BATCH_FAULTS = {
    "lost_upload": Kind("N", "the file is kept, and the connection closed without a reply"),
    "lost_create": Kind("N", "the batch is made, and the connection closed without a reply"),
    "dropped_create": Kind("N", "no batch is made, and the connection closed without a reply"),
    "false_create": Kind("STATUS", "the batch is made, and the reply is an error"),
    "refuse_create": Kind("STATUS", "no batch is made, and the reply is an error"),
    "no_list": Kind("N", "the list of batches is a 404"),
    "late_list": Kind("SECONDS", "the list has a batch only so long after it was made", True),
    "validation": Kind("TEXT", "the batch fails for each line with TEXT, or its first one", True),
    "failed": Kind("CODE", "the batch fails with this code, and no line is named", True),
    "token_limit": Kind("TOKENS", "a batch fails that is beyond so many in open ones", True),
    "token_limit_429": Kind("TOKENS", "such a batch is refused when it is to be made"),
    "slow": Kind("N", "half of the lines are answered, and no more until it is cancelled", True),
    "expire": Kind("SHARE", "this share of the lines is not answered in time", True),
    "server_error": Kind("SHARE", "this share of the lines ends with a 500", True),
    "no_line": Kind("LINES", "so many answers, which are charged for, are in no file", True),
    "twice_line": Kind("LINES", "so many answers are there twice", True),
    "foreign_line": Kind("LINES", "so many answers are of another batch", True),
    "text_body": Kind("N", "the body of a reply is JSON in a text", True),
    "late_output": Kind("SECONDS", "the ids of its files come so long after its end", True),
    "empty_id": Kind("N", "an id that is not there is an empty text", True),
    "cut_download": Kind("N", "the connection is closed in the middle of a file"),
}
_OPTIONAL = {"LINES": 1, "TEXT": ""}  # which value may be left out, and what it is then


class _Fault(NamedTuple):
    value: Any
    times: int | None  # None: always


class BatchFaults:
    """Each is there `take`n as often as it is to happen."""

    def __init__(self, faults: Mapping[str, _Fault]) -> None:
        self._left = dict(faults)

    @classmethod
    def parse(cls, spec: str) -> "BatchFaults":
        """Reads `lost_create=1,late_list=30,expire=0.5:2`: NAME=VALUE, and VALUE:N for the first N
        times only; of those without another value, N is the value. Raises ConfigError."""
        found: dict[str, _Fault] = {}
        for part in filter(None, map(str.strip, spec.split(","))):
            name, _, text = (piece.strip() for piece in part.partition("="))
            if name not in BATCH_FAULTS:
                allowed = ", ".join(BATCH_FAULTS)
                raise ConfigError(f"batch faults: unknown {name!r} in {part!r}; allowed: {allowed}")
            if name in found:
                raise ConfigError(f"batch faults: {name!r} is there twice")
            found[name] = _read(part, text, BATCH_FAULTS[name].value)
        return cls(found)

    def take(self, name: str) -> Any:
        """Its value if it happens now, True if it has none; else None."""
        fault = self._left.get(name)
        if fault is None or fault.times == 0:
            return None
        if fault.times is not None:
            self._left[name] = fault._replace(times=fault.times - 1)
        return fault.value

    def take_those_of_batch(self) -> dict[str, Any]:
        taken = {name: self.take(name) for name, kind in BATCH_FAULTS.items() if kind.of_batch}
        return {name: value for name, value in taken.items() if value is not None}


def _read(part: str, text: str, kind: str) -> _Fault:
    if kind == "N":
        return _Fault(True, _whole(part, text) if text else None)
    value, colon, times = text.rpartition(":")
    if not (colon and times.isdecimal()):
        value, times = text, ""
    return _Fault(_value(part, value, kind), int(times) if times else None)


def _value(part: str, text: str, kind: str) -> Any:
    if not text and kind in _OPTIONAL:
        return _OPTIONAL[kind]
    if kind in ("TEXT", "CODE") and text:
        return text
    if kind in ("LINES", "TOKENS"):
        return _whole(part, text)
    if kind == "STATUS" and text:
        behaviour = Behaviour.of(text)
        if behaviour.kind == "status":
            return behaviour
    number = number_of(text)
    if kind == "SECONDS" and number is not None:
        return number
    if kind == "SHARE" and number is not None and number <= 1:
        return number
    raise ConfigError(f"batch faults: {part!r} must be {part.partition('=')[0]}={kind}")


def _whole(part: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"batch faults: {part!r} must have a whole number")
    return int(text)
