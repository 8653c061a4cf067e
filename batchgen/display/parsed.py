"""What came of stored answers that were parsed again, as text."""

from batchgen.jobs.reparsing import ReparseResult

_KINDS = {
    "done": "done that had failed",
    "changed": "changed",
    "unchanged": "unchanged",
    "failing": "failed as before",
    "broken": "failed that were done",
    "skipped": "skipped, as something else became of them meanwhile",
}


def kinds_text(result: ReparseResult) -> str:
    """How many of each kind there are, of those that there are."""
    return ", ".join(f"{n} {kind}" for name, kind in _KINDS.items() if (n := getattr(result, name)))
