"""A database from before minutes were kept gets them when it is opened. A big one has them from
then on, and what is told of the time before is a sample."""

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.items import Done, Fail, Outcome, Reason, Retry
from batchgen.store import open_store
from batchgen.store.postgres.migrate import migrations as of_postgres
from batchgen.store.sqlite.migrate import migrate, migrations
from tests.kits.engines import PostgresEngine, SqliteEngine
from tests.kits.table import START, Table, answered, broken
from tests.store.test_minutes import kept, recounted, rows_in

MINUTE = START // 60_000
MANY = 300_000  # calls


def work_on(table: Table) -> None:
    """All kinds of calls and ends, in three minutes; two are left to do."""
    table.enqueue(*"abcdefgh")
    worker, dead = table.join(), table.join()
    one, two, three, four, five, six = table.claim(worker, 6)
    table.claim(dead, 2)
    table.take_over(dead)
    slow = replace(answered("x" * 500), latency_ms=9_000, cost_usd=0.25)
    table.exchange(worker, [
        Outcome(one, (answered(),), Done("[1]")),
        Outcome(two, (slow,), Done("[1]")),
        Outcome(three, (answered("a\0b中文"),), Fail(Reason.PARSE, "no JSON")),
        Outcome(four, (broken(Reason.RATE_LIMIT),), Retry(None, charged=False)),
    ])  # fmt: skip
    table.now += 60_000
    table.exchange(worker, [Outcome(five, (answered(at=table.now),), Done("[1]"))])
    table.now += 300_000
    failed = broken(Reason.REJECTED, at=table.now)
    table.exchange(worker, [Outcome(six, (failed,), Fail(Reason.REJECTED, "no"))])
    table.leave(worker)


def make_old(table: Table) -> None:
    """As if the second migration had not been there."""
    if isinstance(table.engine, SqliteEngine):
        objects = ["table minutes", "table before_minutes"]
    else:
        objects = [
            "trigger minutes_of_gone on workers", "function take_over_minutes", "view minutes",
            "table minutes_by_worker", "table before_minutes", "aggregate added_up (text)",
            "function add_up", "function bucket",
        ]  # fmt: skip
    for one in objects:
        table.query(f"drop {one}")


def number_calls_from(table: Table, first: int) -> None:
    """As if there had been so many more before them."""
    is_file = isinstance(table.engine, SqliteEngine)
    if is_file:
        table.query("pragma foreign_keys = 0")
        table.query("update sqlite_sequence set seq = seq + ? where name = 'attempts'", first)
    else:
        table.query("select setval('attempts_numbers', nextval('attempts_numbers') + ?)", first)
    table.query("update attempts set seq = -seq")
    table.query(f"update attempts set seq = {first} - seq")
    table.query(f"update results set attempt_seq = attempt_seq + {first}")
    table.query(f"update work set answer_seq = answer_seq + {first}")


def open_anew(table: Table) -> None:
    """The second migration is run."""
    if isinstance(table.engine, SqliteEngine):
        db, newest = table.db, len(migrations())
        (path,) = (file for _, name, file in db.execute("pragma database_list") if name == "main")
        db.execute("pragma user_version = 1")
        with pytest.MonkeyPatch.context() as patch:
            both = migrations()[:2]
            patch.setattr("batchgen.store.sqlite.migrate.migrations", lambda: both)
            migrate(db, path)
        db.execute(f"pragma user_version = {newest}")
    else:
        text = of_postgres()[1].read_text("utf-8")
        assert isinstance(table.engine, PostgresEngine)
        table.engine._looking.connection.execute(text.encode(), prepare=False)


def test_a_database_from_before_gets_its_minutes(table: Table) -> None:
    work_on(table)
    before = kept(table)
    assert len(before) == 3
    make_old(table)
    open_anew(table)
    assert kept(table) == before == recounted(table)
    assert table.query("select * from before_minutes") == []
    assert table.problems() == []


def test_an_empty_one_has_none(table: Table) -> None:
    make_old(table)
    open_anew(table)
    assert (table.query("select * from minutes"), table.problems()) == ([], [])


def test_a_big_one_has_them_from_then_on_and_stays_provable(table: Table) -> None:
    work_on(table)
    number_calls_from(table, MANY)
    make_old(table)
    open_anew(table)
    newest = table.one("select max(seq) from attempts")
    assert table.query("select attempt_seq, result_seq from before_minutes") == [(newest, 5)]
    (row,) = kept(table).values()
    assert [*kept(table)] == [(1, 0)]
    assert {name: row[name] for name in ("done", "failed", "calls", "cost_usd", "reasons")} == {
        "done": 3, "failed": 2, "calls": 6, "cost_usd": 0.25,
        "reasons": {"rate_limit": 1, "rejected": 1},
    }  # fmt: skip
    worker = table.join()
    table.now += 60_000
    (four, *_) = table.claim(worker, 3)
    late = Outcome(four, (answered(at=START),), Done("[1]"))  # by a clock that was set back
    table.exchange(worker, [late])
    assert sorted(kept(table)) == [(1, 0), (1, MINUTE), (1, table.now // 60_000)]
    assert table.problems() == []
    table.query(f"update {rows_in(table)} set calls = calls + 1 where minute = {MINUTE}")
    assert [problem.split(":")[0] for problem in table.problems()] == ["experiment 1"] * 2
    table.query(f"update {rows_in(table)} set calls = calls - 1 where minute = {MINUTE}")


async def test_what_was_before_is_a_sample_that_adds_up(table: Table, database: Any) -> None:
    work_on(table)
    number_calls_from(table, MANY)
    make_old(table)
    open_anew(table)
    newest = table.one("select max(seq) from attempts")
    # Of the calls that are looked for, so many that are there.
    table.query("update attempts set seq = seq - 300000 - 8 + 1 where seq = ?", newest)
    table.query("update results set attempt_seq = 1 where attempt_seq = ?", newest)
    async with open_store(database) as store:
        series = await store.minutes.series([1])
        other = await store.minutes.series([2])
    table.query("update attempts set seq = ? where seq = 1", newest)
    table.query("update results set attempt_seq = ? where attempt_seq = 1", newest)
    assert other.points == []
    assert series.sampled_until == MINUTE + 7
    (point,) = series.points
    assert (point.minute, point.calls, point.failed, point.cost_usd) == (MINUTE + 6, 6, 2, 0.25)
    assert point.reasons == Counter(rejected=6)
    assert (point.slowest, point.slowest_ms) == (1, 5)
    assert (series.before.calls, series.before.failed, series.before.done) == (0, 0, 3)
