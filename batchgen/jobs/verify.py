"""The proof that a database is whole, and that the files which were exported from it are, too."""

from dataclasses import dataclass
from typing import Any

from batchgen.export import check_export, check_live_file
from batchgen.store import Counts, Store


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What is wrong, a line each, and the items that there are."""

    problems: tuple[str, ...]
    counts: Counts

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "problems": list(self.problems)}


async def verify(store: Store) -> VerifyResult:
    """Look for contradictions in the tables; where there are none, in exported files too."""
    problems = await store.verify()
    if not problems:
        checks = [await check_export(store, record) for record in await store.exports()]
        checks += [await check_live_file(store, record) for record in await store.live_files()]
        problems = [problem for problem in checks if problem]
    return VerifyResult(tuple(problems), await store.counts())
