"""Servers that answer nobody: all requests of one batch after another fail. The next goes there
after a while, and not for ever. Pure; times are of `clock_ms`."""

from typing import NamedTuple

from batchgen.llm.decide import wait_s

_LONGEST_WAIT_S = 600.0


class _Outage(NamedTuple):
    batches: int
    since: int
    until: int


class Outages:
    """By the keys of servers. `first_wait_s` is the wait after the first batch of one."""

    def __init__(self, first_wait_s: float) -> None:
        self._first_wait_s = first_wait_s
        self._of: dict[str, _Outage] = {}

    def answered(self, server: str) -> None:
        """Of a batch, one request or more."""
        self._of.pop(server, None)

    def not_answered(self, server: str, now: int) -> float:
        """Of a batch, none. For how many seconds nothing is sent there."""
        n, since, _ = self._of.get(server, _Outage(0, now, now))
        rest_s = wait_s(n, self._first_wait_s, _LONGEST_WAIT_S)
        self._of[server] = _Outage(n + 1, since, now + int(1000 * rest_s))
        return rest_s

    def lasts_s(self, server: str, now: int) -> float:
        """Since the end of the first batch of which nothing was answered."""
        return (now - self._of[server].since) / 1000

    def resting(self, now: int) -> frozenset[str]:
        """Those to which nothing is sent now."""
        return frozenset(server for server, one in self._of.items() if now < one.until)
