"""What all workers of a database together may send."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    adaptive: bool = False


NO_LIMITS = Limits()
