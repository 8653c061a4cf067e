"""How many requests the next batch of a model may have: fewer after the provider refused a file
whole, and more again once it took one. Pure: it is learned from the batches in the table, so it
outlives the process."""

from collections.abc import Iterable

from batchgen.store import ProviderBatch

REFUSED_WHOLE = "refused whole: "
"""How the error of a batch begins of which nothing ran, for no line's fault."""


class Sizes:
    """`most` is what the config and the provider allow at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[tuple[str, str], int] = {}

    def learn(self, batches: Iterable[ProviderBatch]) -> None:
        """From the newest batches that have ended, the oldest first."""
        for batch in batches:
            of = batch.server, batch.model
            if (batch.error or "").startswith(REFUSED_WHOLE):
                self._of[of] = max(1, min(batch.requests, self.most(*of)) // 2)
            elif batch.batch_id is not None and of in self._of:
                # By a little, or every second one would be too large again.
                self._of[of] = max(self._of[of], min(self._most, batch.requests * 5 // 4 + 1))

    def most(self, server: str, model: str) -> int:
        return self._of.get((server, model), self._most)
