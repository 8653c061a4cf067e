"""How much the simulated model takes at once, and when it is out of service. Pure."""

from msgspec.structs import replace

from batchgen.errors import ConfigError
from batchgen.simulate.behaviours import Behaviour, number_of


class Outage:
    """From `start_s` to `end_s`, in seconds since the first call, each call gets `behaviour`."""

    def __init__(self, start_s: float, end_s: float, behaviour: Behaviour) -> None:
        self._start_s = start_s
        self._end_s = end_s
        self._behaviour = behaviour
        self._began_at: float | None = None

    @classmethod
    def parse(cls, spec: str) -> "Outage":
        """Reads `20:80` or `20:80:500`; the kind is one of the error mix, by default 503. Raises
        ConfigError."""
        start, _, rest = spec.partition(":")
        end, _, kind = rest.partition(":")
        start_s, end_s = number_of(start), number_of(end)
        if start_s is None or end_s is None or start_s >= end_s:
            raise ConfigError(
                f"outage {spec!r} is not understood; write START:END or START:END:KIND, in seconds "
                "since the first call (20:80:500)"
            )
        behaviour = Behaviour.of(kind or "503")
        if behaviour.kind == "status":
            behaviour = replace(behaviour, delay_s=0.0)
        return cls(start_s, end_s, behaviour)

    def behaviour(self, now: float) -> Behaviour | None:
        """What a call gets that comes now, in seconds of any clock; None: the server serves."""
        if self._began_at is None:
            self._began_at = now
        is_out = self._start_s <= now - self._began_at < self._end_s
        return self._behaviour if is_out else None


class Capacity:
    """It takes `at_once` calls at a time (None: any number) and refuses the rest with the status
    `refuse_with`. `begin` each call, and `end` those that it takes."""

    def __init__(self, at_once: int | None, refuse_with: int) -> None:
        self._at_once = at_once
        self._refusal = Behaviour.error(refuse_with, delay_s=0.0)
        self._taken = 0

    def begin(self) -> Behaviour | None:
        """None: it is taken. Otherwise what it gets."""
        if self._at_once is not None and self._taken >= self._at_once:
            return self._refusal
        self._taken += 1
        return None

    def end(self) -> None:
        self._taken -= 1
