"""A database with chains on it, and workers on them, without a command line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.config import load
from batchgen.database_address import DatabaseAddress, PostgresAddress
from batchgen.jobs.chain import configured_chain
from batchgen.jobs.work import WorkResult, spec_of, work
from batchgen.shutdown import Stop
from batchgen.store import OtherRecipe, Store, open_store
from batchgen.worker.stats import RunContext
from tests.kits.database import ask, database_in
from tests.kits.job import Log
from tests.kits.project import KEY
from tests.kits.table import new_item

NAME = "demo"
_OPTIONS = ("max_cost_usd", "max_items", "until")


@dataclass
class ChainJob:
    """An experiment with steps in a directory of its own. `steps` are as in a config."""

    path: Path
    base_url: str
    steps: list[dict[str, Any]]
    log: Log = field(default_factory=Log)
    stop: Stop = field(default_factory=Stop)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def database(self) -> DatabaseAddress:
        return database_in(self.path)

    def config(self, **settings: Any) -> Any:
        model = {"base_url": self.base_url, "api_key": KEY, "model": "simulated", **self.model}
        given = {
            "model": model, "steps": self.steps, "output_data": {"experiment_name": NAME},
            "work": {"retry_wait_s": 0.05, **settings},
        }  # fmt: skip
        if isinstance(self.database, PostgresAddress):  # worker processes get it from here
            given["database"] = self.database.to_url()
        file = self.path / "config.yaml"
        file.write_text(json.dumps(given))
        return load(file, env={}, overrides={}, cwd=self.path)

    async def enqueue(
        self, store: Store, items: Iterable[dict[str, Any]], samples: int = 1,
        mode: OtherRecipe = OtherRecipe.STOP,
    ) -> None:  # fmt: skip
        chain = configured_chain(self.config())
        first = chain.steps[0]
        begin = store.enqueueing(
            NAME, first.recipe, mode, samples, first.version, chain=chain.intake
        )
        async with begin as into:
            rows = [new_item(one, into.experiment_id, custom_id=one.get("id")) for one in items]
            await store.add_items(into, rows)

    async def work(
        self, store: Store, *, slots: int = 4, experiments: tuple[int, ...] = (), **settings: Any
    ) -> WorkResult:
        """Of all steps, or of these experiments."""
        options = {name: settings.pop(name) for name in _OPTIONS if name in settings}
        config = self.config(**settings)
        chain = await store.chain_of(1)
        assert chain is not None
        ids = tuple(step.experiment_id for step in reversed(chain.steps))
        spec = spec_of(config, experiments=experiments or ids, concurrency=slots, **options)
        return await work(store, config, spec, RunContext(self.stop, self.log))

    async def run(
        self, items: Iterable[dict[str, Any]], samples: int = 1, **settings: Any
    ) -> WorkResult:
        """Enqueue, and work until nothing is left."""
        async with open_store(self.database, create=True) as store:
            await self.enqueue(store, items, samples)
            result = await self.work(store, **settings)
            assert await store.verify() == []
        assert self.log.bugs == []
        return result

    def query(self, sql: str) -> list[Any]:
        return ask(self.database, sql)

    def ends(self, step: str) -> list[tuple[Any, ...]]:
        """(state, reason, value) of each row of a step: the value as JSON, where it is parsed."""
        return self.query(
            "select w.state, r.reason, r.parsed from work w"
            " join experiments e on e.id = w.experiment_id"
            " left join results r on r.seq = w.result_seq"
            f" where e.step = '{step}' order by w.item_id"
        )

    def errors(self, step: str) -> list[str]:
        found = self.query(
            "select r.error from results r join items i on i.id = r.item_id"
            f" join experiments e on e.id = i.experiment_id where e.step = '{step}'"
            " and r.error is not null order by r.seq"
        )
        return [error for (error,) in found]
