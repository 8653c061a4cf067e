"""What the displays say of refusals: how many of the newest calls are refused, and with what."""

from batchgen.items import Failure

_NEWEST_CALLS = 300


class RefusalsSeen:
    """At one server. `share` of the newest calls were refused; `newest` is the status of the newest
    refusal, or "connection", `said` are its words, and `limited_with` is the status of the newest
    that a limit made."""

    def __init__(self) -> None:
        self.share = 0.0
        self.newest = self.said = ""
        self.limited_with = ""
        self._calls = 0

    def served(self) -> None:
        self._count(0)

    def refused(self, failure: Failure, *, by_limit: bool) -> None:
        """`by_limit`: it was no stray."""
        self._count(1)
        self.said = failure.message
        status = failure.message.partition(" ")[0]
        self.newest = status if status.isdigit() else "connection"
        if by_limit:
            self.limited_with = self.newest

    def _count(self, refused: int) -> None:
        self._calls = min(self._calls + 1, _NEWEST_CALLS)
        self.share += (refused - self.share) / self._calls
