"""A database with items and workers on it, without a command line."""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.config import load
from batchgen.database_address import DatabaseAddress
from batchgen.items import (
    Attempt,
    Decision,
    Item,
    ParserVersion,
    Reason,
    Recipe,
    Template,
)
from batchgen.jobs.enqueue import enqueue
from batchgen.jobs.work import WorkResult, spec_of, work
from batchgen.parsers import parser_from_callable
from batchgen.pool import open_pool
from batchgen.shutdown import Stop
from batchgen.store import Acquitted, Store, open_store
from batchgen.worker.requests import PresentParser
from batchgen.worker.stats import RunContext
from tests.kits.database import ask, database_in
from tests.kits.project import KEY


@dataclass
class Log:
    """What the worker told. `seen` maps a reason to an event that is set at its first attempt."""

    attempts: list[tuple[int, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    seen: dict[str | None, asyncio.Event] = field(default_factory=dict)

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None:
        self.attempts.append((item.id, attempt.outcome, type(decision).__name__))
        self.first(attempt.reason).set()

    def parsed(self, item: Item, decision: Decision) -> None:
        """The tests look at the table for this."""

    def acquitted(self, one: Acquitted) -> None:
        """They do for this, too."""

    def event(self, name: str, **fields: Any) -> None:
        """Of a whole run: the tests look at log files for this."""

    def first(self, reason: Reason | None) -> asyncio.Event:
        return self.seen.setdefault(reason, asyncio.Event())

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def bug(self, message: str, trace: str) -> None:
        self.bugs.append(f"{message}\n{trace}")


@dataclass
class Job:
    """A database with items, and workers on it. Item 1 is the first word, and so on."""

    path: Path
    base_url: str
    log: Log = field(default_factory=Log)
    stop: Stop = field(default_factory=Stop)

    @property
    def database(self) -> DatabaseAddress:
        return database_in(self.path)

    async def enqueue(
        self, store: Store, words: Iterable[str | dict[str, Any]], parser: str = "raw"
    ) -> None:
        pool = self.path / "pool.jsonl"
        items = [{"word": word} if isinstance(word, str) else word for word in words]
        pool.write_text("".join(json.dumps(item) + "\n" for item in items))
        recipe = Recipe(None, Template("Say {word}"), "simulated", {})
        await enqueue(store, open_pool(str(pool)), recipe, "default", parser=ParserVersion(parser))

    async def work(
        self,
        store: Store,
        *,
        slots: int = 4,
        parse: Callable[..., Any] | None = None,
        max_items: int | None = None,
        wait_for_more: bool = False,
        rpm: int | None = None,
        **settings: Any,
    ) -> WorkResult:
        overrides = {
            "base_url": self.base_url, "api_key": KEY, "model": "simulated",
            "retry_wait_s": 0.05, **settings,
        }  # fmt: skip
        config = load(None, env={}, overrides=overrides, cwd=self.path)
        parser = parse and parser_from_callable(parse)
        parsers = {}
        if parser:
            parsers[1] = PresentParser(await store.parsers.number(parser.version), parser)
        spec = spec_of(
            config, concurrency=slots, rpm=rpm, max_items=max_items, wait_for_more=wait_for_more
        )
        return await work(store, config, spec, RunContext(self.stop, self.log), parsers)

    async def run(
        self, words: Iterable[str | dict[str, Any]], parser: str = "raw", **options: Any
    ) -> WorkResult:
        """Enqueue, and work until nothing is left."""
        if options.get("parse"):
            parser = "python:test"
        async with open_store(self.database, create=True) as store:
            await self.enqueue(store, words, parser)
            result = await self.work(store, **options)
            assert await store.verify() == []
        assert self.log.bugs == []
        return result

    def query(self, sql: str) -> list[Any]:
        return ask(self.database, sql)

    def ends(self) -> list[tuple[str, str | None, int]]:
        """(state, reason, tries used up) of each item."""
        return self.query(
            "select w.state, r.reason, w.tries from work w"
            " left join results r on r.seq = w.result_seq order by w.item_id"
        )

    def calls(self, item: int = 1) -> list[tuple[str, str | None, int | None]]:
        """(outcome, reason, HTTP status) of each attempt kept for an item."""
        return self.query(
            f"select outcome, reason, http_status from attempts where item_id = {item} order by seq"
        )

    def error(self, item: int = 1) -> str:
        ((error,),) = self.query(f"select error from results where item_id = {item}")
        return str(error)

    def parsed(self, item: int = 1) -> Any:
        ((parsed,),) = self.query(f"select parsed from result_values where item_id = {item}")
        return json.loads(parsed)
