"""Where a worker goes on to claim fresh items: after its last ones. Pure: time is passed in.

Of those before them, what was claimed may not be cleared away yet, as long as anybody looks at an
older state of the database; each claim would look through all of it. What came back to the others,
or goes before by its priority, is found by a look from the first one on, once in a while.
"""

from collections.abc import Sequence

from batchgen.items import Item

_FROM_THE_FIRST_MS = 1000


class ClaimPlace:
    def __init__(self) -> None:
        self._after = 0
        self._from_the_first_at: int | None = None

    def after(self, now: int) -> int:
        """Of `clock_ms`. 0: from the first one on."""
        last = self._from_the_first_at
        if last is None or now - last >= _FROM_THE_FIRST_MS:
            self._from_the_first_at, self._after = now, 0
        return self._after

    def go_on(self, claimed: Sequence[Item]) -> None:
        """After these. What was tried before says nothing of where the fresh ones are."""
        self._after = next((item.id for item in reversed(claimed) if not item.tries), 0)
