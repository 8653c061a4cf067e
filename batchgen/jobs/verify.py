"""The proof that a database is whole, and that the files which were exported from it are, too."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from batchgen.config import Config
from batchgen.export import check_export, check_live_file
from batchgen.jobs.experiments import list_experiments
from batchgen.jobs.present_parser import Outdated, outdated
from batchgen.store import Counts, Store


class VerifyResult(Struct, frozen=True):
    """What is wrong, a line each; where all was `moved_to`, if it was; and the `items` that there
    are, with the `counts` of all their rows; those of `outdated` have the value of another parser
    than their experiment's present one, which is no contradiction, and nor are stale rows; with
    `stays_stale` the steps make none of these any more."""

    problems: tuple[str, ...]
    counts: Counts
    items: int
    outdated: tuple[Outdated, ...] = ()
    stays_stale: bool = False
    moved_to: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "outdated": {one.experiment: one.n for one in self.outdated},
            **({"moved_to": self.moved_to} if self.moved_to else {}),
            **({"stale": self.counts.stale} if self.counts.stale else {}),
        }


async def verify(
    store: Store, config: Config, say: Callable[[str], object] = lambda _: None
) -> VerifyResult:
    """Look for contradictions in the tables; where there are none, in exported files too. `say` is
    told what is looked at."""
    say("the tables")
    found: tuple[Outdated, ...] = ()
    problems = await store.verify()
    if not problems:
        checks = []
        for record in await store.files.exports():
            name = Path(record.path).name
            told = partial(_tell_rows, say, name)
            say(name)
            checks.append(await check_export(store, record, told))
        checks += [
            await check_live_file(store, record) for record in await store.files.live_files()
        ]
        problems = [problem for problem in checks if problem]
        found = tuple((await outdated(store, config, await store.experiments())).values())
    items = sum(one.items for one in await list_experiments(store))
    counts = await store.counts()
    stays = bool(counts.stale) and not await store.stale_to_ask()
    moved_to = await store.moved_to()
    return VerifyResult(tuple(problems), counts, items, found, stays, moved_to)


def _tell_rows(say: Callable[[str], object], name: str, rows: int) -> None:
    say(f"{name}, {rows:,} rows")
