"""A committer on a real database, without the rest of its worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.clock import clock_ms
from batchgen.database_address import DatabaseAddress
from batchgen.items import Item, NewItem, Recipe, Template
from batchgen.limits import TokenMeter
from batchgen.store import AskedServer, OtherRecipe, key_of_content, open_store
from batchgen.worker.committer import Committer
from batchgen.worker.demand import Demand
from batchgen.worker.membership import Membership
from batchgen.worker.pacer import Pacer
from batchgen.worker.permits import Permits
from batchgen.worker.report import WorkerReport
from batchgen.worker.servers import Servers
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Stats
from batchgen.worker.store_retries import StoreRetries
from tests.kits.database import ask, change, database_in
from tests.kits.job import Log
from tests.kits.servers import SERVER, servers_of

ITEMS = 3


@dataclass
class Desk:
    """A committer that runs, and what it goes by."""

    committer: Committer
    servers: Servers
    permits: Permits
    demand: Demand
    database: DatabaseAddress
    running: asyncio.Task[None]
    bugs: list[str]

    def query(self, sql: str) -> list[Any]:
        return ask(self.database, sql)

    def execute(self, sql: str) -> None:
        """As a stranger would."""
        change(self.database, sql)

    def poison(self, event: str, table: str, rows: str = "true") -> None:
        """From now on the database refuses this."""
        name = f"poison_{event}"
        when = f"create trigger {name} before {event} on {table}"
        if isinstance(self.database, Path):
            self.execute(f"{when} when {rows} begin select raise(abort, 'poisoned'); end")
            return
        self.execute(
            "create or replace function poison() returns trigger language plpgsql as"
            " $$ begin raise check_violation using message = 'poisoned'; end $$"
        )
        self.execute(f"{when} for each row when ({rows}) execute function poison()")

    def cure(self, event: str, table: str) -> None:
        of_table = "" if isinstance(self.database, Path) else f" on {table}"
        self.execute(f"drop trigger poison_{event}{of_table}")


@asynccontextmanager
async def desk(
    path: Path, *, items: int = ITEMS, slots: int = 3, **spec: Any
) -> AsyncIterator[Desk]:
    """One worker, on these items. It is left when all is handed in."""
    database = database_in(path)
    work = WorkSpec(concurrency=slots, servers=(SERVER,), **spec)
    pacer = Pacer(work.concurrency, 1800, clock_ms())
    servers = servers_of(pacer)
    permits = Permits(servers)
    store_retries = StoreRetries(permits, 5, print)
    demand = Demand(work, servers, permits, TokenMeter(None))
    async with open_store(database, create=True) as store:
        recipe = Recipe(None, Template("Say {word}"), "m", {})
        async with store.enqueueing("e", recipe, OtherRecipe.STOP) as into:
            texts = [f'{{"word": "w{number}"}}' for number in range(items)]
            key = partial(key_of_content, into.experiment_id, into.variant)
            await store.add_items(
                into, [NewItem(key(text.encode()), text, None, "here") for text in texts]
            )
        async with store.seat(work.concurrency, 60, 3, [AskedServer(SERVER.key)]) as seat:
            membership = Membership(
                seat, work, servers, demand, store_retries, report=WorkerReport, warn=print
            )
            log = Log()
            committer = Committer(
                seat, demand, membership, permits, store_retries, servers, work, Stats(), log,
            )  # fmt: skip
            running = asyncio.create_task(committer.run())
            yield Desk(committer, servers, permits, demand, database, running, log.bugs)
            committer.close()
            if not running.done():  # else the test has seen why
                await running


async def claimed(committer: Committer) -> Item:
    item = await committer.next_item()
    assert item is not None
    return item
