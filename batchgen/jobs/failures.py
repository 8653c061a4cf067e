"""What failed, grouped by reason and message."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from batchgen.store import Experiment, FailureGroup, Store


@dataclass(frozen=True, slots=True)
class Failures:
    """Those of one experiment, the most frequent first."""

    experiment: str
    groups: tuple[FailureGroup, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """What `failures --json` has of this experiment."""
        return [
            {
                "experiment": self.experiment, "reason": group.reason, "error": group.error,
                "count": group.n, "example": group.example,
            }
            for group in self.groups
        ]  # fmt: skip


async def failures_of(
    store: Store, experiments: Iterable[Experiment], reason: str | None = None
) -> list[Failures]:
    """Of each experiment; of one `reason` only, or all."""
    return [Failures(one.name, tuple(await store.failures(one.id, reason))) for one in experiments]
