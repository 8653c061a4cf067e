"""A committer on a real database, without the rest of its worker."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.clock import clock_ms
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
    database: Path
    running: asyncio.Task[None]
    bugs: list[str]

    def query(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def execute(self, sql: str) -> None:
        """As a stranger would."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(sql)


@asynccontextmanager
async def desk(path: Path, **spec: Any) -> AsyncIterator[Desk]:
    """One worker of three slots, on three items. It is left when all is handed in."""
    database = path / "batchgen.db"
    work = WorkSpec(concurrency=3, servers=(SERVER,), **spec)
    pacer = Pacer(work.concurrency, 1800, clock_ms())
    servers = servers_of(pacer)
    permits = Permits(servers)
    store_retries = StoreRetries(permits, 5, print)
    demand = Demand(work, servers, permits, TokenMeter(None))
    async with open_store(database, create=True) as store:
        recipe = Recipe(None, Template("Say {word}"), "m", {})
        async with store.enqueueing("e", recipe, OtherRecipe.STOP) as into:
            texts = [f'{{"word": "w{number}"}}' for number in range(ITEMS)]
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
