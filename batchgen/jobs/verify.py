"""The proof that a database is whole, and that the files which were exported from it are, too."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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


async def verify(store: Store, say: Callable[[str], object] = lambda _: None) -> VerifyResult:
    """Look for contradictions in the tables; where there are none, in exported files too. `say` is
    told what is looked at."""
    say("the tables")
    problems = await store.verify()
    if not problems:
        checks = []
        for record in await store.exports():
            name = Path(record.path).name
            told = partial(_tell_rows, say, name)
            say(name)
            checks.append(await check_export(store, record, told))
        checks += [await check_live_file(store, record) for record in await store.live_files()]
        problems = [problem for problem in checks if problem]
    return VerifyResult(tuple(problems), await store.counts())


def _tell_rows(say: Callable[[str], object], name: str, rows: int) -> None:
    say(f"{name}, {rows:,} rows")
