"""What the store's tests share: a database file with the transactions of the store on it, and a
clock that only the test moves. After every transaction the counters are compared with a recount."""

import functools
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from batchgen.database_address import PostgresAddress
from batchgen.items import (
    RAW,
    Attempt,
    Decision,
    Item,
    NewItem,
    Outcome,
    ParserVersion,
    Reason,
    Recipe,
    Usage,
)
from batchgen.limits import UNKNOWN_CALL, CallTokens
from batchgen.limits.buckets import NO_LIMITS, Limits
from batchgen.store import (
    Added,
    AskedServer,
    ChainIntake,
    ClaimRequest,
    Exchange,
    Intake,
    OtherRecipe,
    ServerWant,
    Trial,
    key_of_content,
    key_of_id,
)
from batchgen.store.sqlite.migrate import migrate
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import admin, intake, queue, repair, verify
from batchgen.text.json_text import content_of, dump_json
from tests.kits.engines import Engine, SqliteEngine, postgres_engine

P = ParamSpec("P")
T = TypeVar("T")

RECIPE = Recipe(system=None, user=None, model="m", params={})
OTHER_RECIPE = Recipe(system=None, user=None, model="m", params={"seed": 1})
SERVER = "server"
MACHINE = ("host", "boot")
START = 1_700_000_000_000
LEASE_MS = 60_000
MAX_CRASHES = 3
_OF_STEPS = ("gathering", "outdated", "runs_code")


def new_database(path: Path) -> sqlite3.Connection:
    """A migrated database, foreign keys on, without the store's doors and locks."""
    if not path.exists():
        path.write_bytes(_migrated())
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma foreign_keys = 1")
    db.execute("pragma synchronous = 0")
    return db


@functools.cache
def _migrated() -> bytes:
    """A file with our tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("template.db"))
        return db.serialize()


def new_item(
    given: Any, experiment_id: int = 1, variant: int = 1, custom_id: str | None = None
) -> NewItem:
    """A row to enqueue, as `batchgen.jobs.enqueue` makes it."""
    if custom_id is None:
        key = key_of_content(experiment_id, variant, content_of(given))
    else:
        key = key_of_id(experiment_id, variant, custom_id)
    return NewItem(key, dump_json(given), custom_id, "pool.jsonl:1")


def answered(text: str = "an answer", at: int = START) -> Attempt:
    return Attempt(
        finished_at=at,
        latency_ms=700,
        http_status=200,
        model="m-1",
        finish_reason="stop",
        usage=Usage(10, 20, 3, 4),
        response=text,
        body="{}",
    )


def broken(reason: Reason = Reason.SERVER, at: int = START) -> Attempt:
    return Attempt(finished_at=at, latency_ms=5, reason=reason, error="it broke", http_status=500)


def claims(
    slots: int = 0,
    experiments: tuple[int, ...] | None = None,
    *,
    limits: Limits = NO_LIMITS,
    call_tokens: CallTokens = UNKNOWN_CALL,
    pause_ms: int = 0,
    trial: Trial | None = None,
    probes: int | None = None,
    server: str = SERVER,
    **others: Any,
) -> ClaimRequest:
    """Of a worker that asks one server."""
    want = ServerWant(
        server, slots, limits, call_tokens, pause_ms, trial=trial, probes=probes
    )  # fmt: skip
    return ClaimRequest((want,), experiments, **others)


class Table:
    """One database, one clock (`now`, epoch ms), and every transaction of the store."""

    def __init__(self, engine: Engine | sqlite3.Connection) -> None:
        self.engine = SqliteEngine(engine) if isinstance(engine, sqlite3.Connection) else engine
        self.now = START

    @property
    def transaction(self) -> Transaction:
        """For looking, outside of `run`."""
        return self.engine.transaction

    @property
    def db(self) -> sqlite3.Connection:
        """Of SQLite's engine."""
        assert isinstance(self.engine, SqliteEngine)
        return self.engine.db

    def run(
        self,
        transaction: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """One transaction, all or nothing, as `Database.write` runs it."""
        return self._run(0, lambda db: transaction(db, *args, **kwargs))

    def _run(self, worker_id: int, transaction: Callable[[Transaction], T]) -> T:
        result = self.engine.run(transaction, worker_id)
        assert self.counters() == self.recount()
        assert self.parser_counters() == self.recount_parsers()
        assert self.step_counters() == self.recount_steps()
        return result

    # Enqueueing

    def begin(
        self,
        experiment: str = "e",
        recipe: Recipe = RECIPE,
        mode: OtherRecipe = OtherRecipe.STOP,
        samples: int = 1,
        parser: ParserVersion = RAW,
        chain: ChainIntake | None = None,
    ) -> Intake:
        def begin(db: Transaction) -> Intake:
            into = intake.begin_intake(
                db, experiment, recipe, parser, mode, self.now, samples, chain
            )
            return replace(into, seen=self.engine.begin_pass(db)) if into.first else into

        return self.run(begin)

    def add(self, into: Intake, rows: Sequence[NewItem], priority: int = 0) -> Added:
        return self.run(self.engine.add_items, into, rows, priority)

    def enqueue(
        self, *contents: Any, experiment: str = "e", recipe: Recipe = RECIPE, priority: int = 0
    ) -> list[int]:
        """A whole pool of contents, in one chunk; the numbers of its items."""
        into = self.begin(experiment, recipe, OtherRecipe.ADD)
        rows = [new_item(each, into.experiment_id, into.variant) for each in contents]
        return self.add(into, rows, priority).ids

    # Workers

    def join(self, slots: int = 10, lease_ms: int = LEASE_MS, *servers: str) -> int:
        asked = [AskedServer(key, f"{key}:8000") for key in servers or (SERVER,)]
        return self.run(queue.join, MACHINE, 4242, slots, self.now, lease_ms, asked)

    def exchange(
        self,
        worker_id: int,
        outcomes: Sequence[Outcome] = (),
        want: int = 0,
        experiments: tuple[int, ...] | None = None,
        rpm: int | None = None,
    ) -> Exchange:
        wanted = claims(want, experiments, limits=Limits(rpm))
        return self.exchange_want(worker_id, wanted, outcomes)

    def exchange_want(
        self, worker_id: int, want: ClaimRequest, outcomes: Sequence[Outcome] = ()
    ) -> Exchange:
        done = self._run(
            worker_id, lambda db: queue.exchange(db, worker_id, outcomes, want, self.now)
        )
        assert len(done.items) <= want.slots
        assert len(done.attempt_seqs) == len(outcomes)
        return done

    def claim(self, worker_id: int, want: int) -> list[Item]:
        return self.exchange(worker_id, want=want).items

    def finish(
        self, worker_id: int, item: Item, decision: Decision, *attempts: Attempt | None
    ) -> Exchange:
        made = tuple(attempt for attempt in attempts if attempt is not None)
        return self.exchange(worker_id, [Outcome(item, made, decision)])

    def begin_second_calls(self, *items: Item, limits: Limits = NO_LIMITS) -> set[int]:
        return self.run(queue.begin_second_calls, items, {SERVER: limits}, self.now)

    def leave(self, worker_id: int) -> int:
        return self._remove(worker_id, crashed=False)

    def take_over(self, worker_id: int) -> int:
        """What the next worker does about one that died."""
        return self._remove(worker_id, crashed=True)

    def _remove(self, worker_id: int, *, crashed: bool) -> int:
        return self.run(
            queue.remove_worker, worker_id, crashed=crashed, max_crashes=MAX_CRASHES, now=self.now
        )

    # Operator

    def reopen_all(self, experiment_id: int = 1, reason: str | None = None) -> int:
        """As `batchgen retry` does: page by page."""
        after, reopened = 0, 0
        while page := repair.failed_page(self.transaction, experiment_id, reason, None, after, 2):
            after = page[-1][0]
            reopened += self.run(repair.reopen, page, None, self.now)
        return reopened

    def delete(self, experiment_id: int) -> None:
        self.run(admin.delete_experiment, experiment_id)

    # Looking

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        _, rows = self.engine.query(sql, parameters)
        return rows

    def one(self, sql: str, *parameters: Any) -> Any:
        """The only value of the only row."""
        ((value,),) = self.query(sql, *parameters)
        return value

    def states(self) -> dict[int, str]:
        return dict(self.query("select item_id, state from work order by item_id"))

    def work(self, item_id: int) -> dict[str, Any]:
        """An item's hot row by column, without what never changes."""
        names, (found,) = self.engine.query("select * from work where item_id = ?", (item_id,))
        row = dict(zip(names, found, strict=True))
        return {
            k: v
            for k, v in row.items()
            if k not in ("item_id", "experiment_id", "priority", "selection", *_OF_STEPS)
        }

    def attempts(self, item_id: int) -> list[tuple[int, int, str, str | None]]:
        """(worker, epoch, outcome, response) of each call made for an item."""
        return self.query(
            "select worker_id, epoch, outcome, response from attempts where item_id = ?"
            " order by seq",
            item_id,
        )

    def inputs(self) -> list[Any]:
        """The contents in the work table, in the order of the pool."""
        rows = self.query("select input from items join work on item_id = id order by id")
        return [json.loads(text) for (text,) in rows]

    def counters(self) -> dict[tuple[int, str, str], int]:
        rows = self.query("select experiment_id, state, reason, n from counters where n <> 0")
        return {(e, state, reason): n for e, state, reason, n in rows}

    def recount(self) -> dict[tuple[int, str, str], int]:
        """What the counters must say, counted without any statement of the store."""
        rows = self.query(
            "select experiment_id, state, coalesce((select reason from results where seq ="
            " result_seq and work.state <> 'stale'), ''), count(*) from work group by 1, 2, 3"
        )
        return {(e, state, reason): n for e, state, reason, n in rows}

    def parser_counters(self) -> dict[tuple[int, int], int]:
        rows = self.query("select experiment_id, parser_id, n from parser_counters where n <> 0")
        return {(e, parser): n for e, parser, n in rows}

    def recount_parsers(self) -> dict[tuple[int, int], int]:
        rows = self.query(
            "select experiment_id, parser_id, count(*) from work, results where seq = result_seq"
            " and work.state <> 'stale' and parser_id is not null group by 1, 2"
        )
        return {(e, parser): n for e, parser, n in rows}

    def step_counters(self) -> set[tuple[int, int, int]]:
        return set(self.query("select * from step_counters where ended + passed_over > 0"))

    def recount_steps(self) -> set[tuple[int, int, int]]:
        """By step, the chains that ended there, and the done rows for which it was passed over."""
        return set(
            self.query(
                "select * from (select s.id,"
                " (select count(*) from work, results where seq = result_seq and"
                " work.state = 'done' and work.experiment_id = s.id and children = 0 and"
                " s.gathered_by is null) as ended,"
                " (select count(*) from work, results, experiments e where seq = result_seq and"
                " work.state = 'done' and e.id = work.experiment_id and"
                " coalesce(e.first_id, e.id) = coalesce(s.first_id, s.id) and e.number < s.number"
                " and e.number + passed_over >= s.number) as passed_over"
                " from experiments s where s.step is not null) counted"
                " where ended + passed_over > 0"
            )
        )

    def problems(self) -> list[str]:
        return verify.verify_tables(self.transaction)


@contextmanager
def open_table(where: Path | PostgresAddress) -> Iterator[Table]:
    """A new file, or a database without rows; in the end it must be free of contradictions."""
    with _engine_of(where) as engine, sound_table(engine) as table:
        yield table


@contextmanager
def sound_table(engine: Engine) -> Iterator[Table]:
    """The same on an engine whose database has no rows."""
    table = Table(engine)
    yield table
    assert table.problems() == []


@contextmanager
def _engine_of(where: Path | PostgresAddress) -> Iterator[Engine]:
    if isinstance(where, Path):
        with closing(new_database(where)) as db:
            yield SqliteEngine(db)
    else:
        with postgres_engine(where) as engine:
            yield engine
