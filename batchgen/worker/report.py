"""What a worker reports to other terminals and to the live display: kept as JSON in its row of the
database, and nothing else passes between them."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple


class Straggler(NamedTuple):
    """A call that takes much longer than most did. It began at `began_at` (epoch ms)."""

    item_id: int
    began_at: int


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker is doing; what it has not reported yet is as in a new one.

    paused            it has seen the order to pause, and sends nothing
    halted            why no request would work; it only waits for the calls in flight
    waits_for_server  it sends nothing, or one call at a time, until the server takes calls again
    limited_to_rpm    the calls a minute that a limit holds it to
    paused_until_ms   when it sends again (epoch ms), while it gives the server time
    trouble           the newest thing that went wrong, until something goes well
    calls             of this worker so far
    late_after_ms     how long a call takes before it is late; None: too few answers to say
    stragglers        the calls that are late, the longest in flight first, a few at most
    """

    paused: bool = False
    halted: str | None = None
    waits_for_server: bool = False
    limited_to_rpm: float | None = None
    paused_until_ms: int | None = None
    trouble: str = ""
    calls: int = 0
    late_after_ms: int | None = None
    stragglers: tuple[Straggler, ...] = ()

    def is_urgent_after(self, last: "WorkerReport") -> bool:
        """Whether it says why nothing moves and the last one did not, or the other way round."""
        return self.held_back_by() != last.held_back_by()

    def held_back_by(self) -> tuple[bool, ...]:
        """Which kinds of reason there are to send less than it could."""
        held = self.halted, self.limited_to_rpm, self.paused_until_ms
        return (self.paused, self.waits_for_server, *(one is not None for one in held))

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> "WorkerReport":
        """What a row holds; None: the worker has not reported yet. What another version added is
        left out."""
        found: dict[str, Any] = json.loads(text or "{}")
        known = {field.name: found[field.name] for field in fields(cls) if field.name in found}
        late = known.pop("stragglers", ())
        return cls(**known, stragglers=tuple(Straggler(*one) for one in late))
