"""`verify_tables` finds every contradiction that a constraint cannot prevent."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.items import Done, Fail, KeepAnswer, Outcome, Reason
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transactions.verify import verify_tables
from tests.kits.engines import SqliteEngine, postgres_engine
from tests.kits.table import Table, answered, broken, new_database, new_item

ONLY_SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
ONLY_POSTGRES = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


@pytest.fixture
def table(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """1 done, 2 failed, 3 running with an answer, 4 running, 5 pending with an id."""
    if engine == "sqlite":
        with closing(new_database(tmp_path / "batchgen.db")) as db:
            yield filled(Table(db))
    else:
        with postgres_engine(request.getfixturevalue("postgres")) as opened:
            yield filled(Table(opened))


def filled(table: Table) -> Table:
    table.enqueue("a", "b", "c", "d")
    table.add(table.begin(), [new_item("e", custom_id="x")])
    worker = table.join()
    done, failed, kept, _ = table.claim(worker, 4)
    table.exchange(
        worker,
        [
            Outcome(done, (answered(),), Done("[1]")),
            Outcome(failed, (broken(Reason.REJECTED),), Fail(Reason.REJECTED, "no")),
            Outcome(kept, (answered(),), KeepAnswer()),
        ],
    )
    return table


def test_a_database_in_order_has_no_problem(table: Table) -> None:
    assert table.problems() == []


ONE_ANSWER_LESS = (
    "experiment 1: its totals say 3 calls, 1405 ms of latency, 20 prompt tokens, 40 completion "
    "tokens, 6 cached tokens, 8 reasoning tokens, but its attempts add up to 2, 705, 10, 20, 3, 4"
)
FAILED_CALL_GONE = "experiment 1: 1 calls counted as failed by 500 rejected, but there are 0"
ONE_FAILURE_LESS = (
    "experiment 1: its totals say 3 calls, 1405 ms of latency, but its attempts add up to 2, 1400"
)

# What somebody did to the tables, and what is said about it.
PLANTED = {
    "done, its result gone": (
        "delete from results where seq = 1",
        ["item 1 is done, but has no answer",
         "experiment 1: 1 items counted as read by parser 1, but there are 0"],
    ),
    "done, its attempt gone": (
        "delete from attempts where seq = 1",
        ["item 1 is done, but has no answer", "result 1 belongs to no attempt", ONE_ANSWER_LESS],
    ),
    "done with the answer of another item": (
        "update results set attempt_seq = 3 where seq = 1",
        ["item 1 is done, but has no answer", "result 1 belongs to no attempt"],
    ),
    "done by a call that failed": (
        "update attempts set outcome = 'failed', reason = 'server', response = null where seq = 1",
        ["item 1 is done, but has no answer",
         "experiment 1: 0 calls counted as failed by 200 server, but there are 1"],
    ),
    "done by the result of another item": (
        "update work set result_seq = 2 where item_id = 1",
        ["item 1 is done, but has no answer",
         "experiment 1: 1 items counted as done, but there are 0",
         "experiment 1: 0 items counted as done rejected, but there are 1",
         "experiment 1: 1 items counted as read by parser 1, but there are 0"],
    ),
    "failed, its result gone": (
        "delete from results where seq = 2",
        ["item 2 is failed, but there is no record of how",
         "experiment 1: 0 items counted as failed, but there are 1",
         "experiment 1: 1 items counted as failed rejected, but there are 0"],
    ),
    "failed by a result that says done": (
        "update results set state = 'done', reason = null, error = null, parser_id = 1"
        " where seq = 2",
        ["item 2 is failed, but there is no record of how",
         "experiment 1: 0 items counted as failed, but there are 1",
         "experiment 1: 1 items counted as failed rejected, but there are 0",
         "experiment 1: 1 items counted as read by parser 1, but there are 2"],
    ),
    "its attempt gone": (
        "delete from attempts where seq = 2",
        ["result 2 belongs to no attempt", FAILED_CALL_GONE, ONE_FAILURE_LESS],
    ),
    "a stored answer gone": (
        "delete from attempts where seq = 3",
        ["item 3 has a stored answer that is not there", ONE_ANSWER_LESS],
    ),
    "a stored answer of another item": (
        "update work set answer_seq = 1 where item_id = 3",
        ["item 3 has a stored answer that is not there"],
    ),
    "a result of no item": (
        "insert into results (seq, item_id, state, reason, error, finished_at)"
        " values (3, 99, 'failed', 'server', 'no', 0)",
        ["result 3 belongs to no item"],
    ),
    "a failed call that nobody counted": (
        "update failed_calls set n = n - 1",
        ["experiment 1: 0 calls counted as failed by 500 rejected, but there are 1"],
    ),
    "running without a worker": (
        "delete from workers",
        ["item 3 is running, but no worker has it", "item 4 is running, but no worker has it"],
    ),
    "an id twice": (
        "update items set custom_id = 'x' where id = 4",
        ["id 'x' is there more than once"],
    ),
    "a key without item": (
        "insert into item_keys (key, item_id) values (zeroblob(16), 99)",
        ["an identity key names item 99, which is not there, so it cannot be enqueued"],
    ),
    "pieces that the answer does not have": (
        "update results set parsed = null, spans = '[[1, 1000]]' where seq = 1",
        ["item 1: its parsed value is pieces that its answer does not have"],
    ),
    "parsed is no JSON": (
        "update results set parsed = '{' where seq = 1",
        ["item 1: its parsed value is not JSON"],
    ),
    "input is no JSON": (
        "update items set input = '{' where id = 5",
        ["item 5: its input is not JSON"],
    ),
    "a counter too high": (
        "update counters set n = n + 1 where state = 'running'",
        ["experiment 1: 3 items counted as running, but there are 2"],
    ),
    "a counter of nothing": (
        "insert into counters (experiment_id, state, reason, n) values (7, 'failed', 'parse', 3)",
        ["experiment 7: 3 items counted as failed parse, but there are 0"],
    ),
    "a counter missing": (
        "delete from counters where state = 'failed'",
        ["experiment 1: 0 items counted as failed rejected, but there are 1"],
    ),
    "a total too high": (
        "update totals set cost_usd = cost_usd + 0.01, prompt_tokens = prompt_tokens + 1",
        ["experiment 1: its totals say 21 prompt tokens, 0.01 dollars, but its attempts add up to "
         "20, 0"],
    ),
    "an unknown call forgotten": (
        "insert into attempts (seq, item_id, epoch, worker_id, finished_at, outcome)"
        " values (4, 4, 1, 1, 0, 'unknown')",
        ["experiment 1: its totals say 3 calls, 0 unknown calls, but its attempts add up to 4, 1"],
    ),
    "a call too many in a minute": (
        "update minutes set calls = calls + 1, cost_usd = cost_usd + 0.5",
        ["experiment 1: its minute 2023-11-14T22:13Z says 4 calls, 0.5 cost usd, but there are "
         "3, 0",
         "experiment 1: its minutes add up to 4 calls, 0.5 cost usd, but its totals to 3, 0"],
    ),
    "a row that ended in another minute": (
        "update minutes set done = 0, failed = 2",
        ["experiment 1: its minute 2023-11-14T22:13Z says 0 done, 2 failed, but there are 1, 1"],
    ),
    "a minute gone": (
        "delete from minutes",
        ["experiment 1: its minute 2023-11-14T22:13Z says 0 done, 0 failed, 0 calls, 0 latency ms, "
         "0 prompt tokens, 0 completion tokens, 0 cached tokens, 0 reasoning tokens, 0 latencies, "
         "0 lengths, 0 reasons, 0 slowest ms, but there are 1, 1, 3, 1405, 20, 40, 6, 8, 2, 2, 1, "
         "700",
         "experiment 1: its minutes add up to 0 calls, 0 latency ms, 0 prompt tokens, 0 completion "
         "tokens, 0 cached tokens, 0 reasoning tokens, but its totals to 3, 1405, 20, 40, 6, 8",
         "experiment 1: 0 latencies of its minutes are in bucket 68, but there are 2",
         "experiment 1: 0 lengths of its minutes are in bucket 23, but there are 2"],
    ),
    "a latency in another bucket": (
        """update minutes set latencies = '{"68":1,"69":1}'""",
        ["experiment 1: 1 latencies of its minutes are in bucket 68, but there are 2"],
    ),
    "a length less": (
        """update minutes set lengths = '{"23":1}'""",
        ["experiment 1: its minute 2023-11-14T22:13Z says 1 lengths, but there are 2",
         "experiment 1: 1 lengths of its minutes are in bucket 23, but there are 2"],
    ),
    "a minute's slowest call is another one": (
        "update minutes set slowest = 2",
        ["experiment 1: its slowest call of 2023-11-14T22:13Z is none that took so long"],
    ),
    "totals of nothing": (
        "insert into totals (experiment_id, calls) values (7, 2)",
        ["experiment 7: its totals say 2 calls, but its attempts add up to 0"],
    ),
    "a reservation for an item that is not running": (
        "insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens,"
        " cost_usd)"
        " values (5, 1, 1, 1, 10, 10, 0.5)",
        ["item 5 has a part of a budget reserved, but no call under way"],
    ),
    "a reservation for an earlier claim": (
        "insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens,"
        " cost_usd)"
        " values (4, 0, 1, 1, 10, 10, 0.5)",
        ["item 4 has a part of a budget reserved, but no call under way"],
    ),
    "a reservation of a worker that is gone": (
        "insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens,"
        " cost_usd)"
        " values (4, 1, 1, 9, 10, 10, 0.5)",
        ["item 4 has a part of a budget reserved, but no call under way"],
    ),
}  # fmt: skip


# Where keys wait, and rows go with those that they name.
PLANTED_IN_SQLITE = {
    "an item without key": (
        "delete from new_item_keys where item_id = 5",
        ["item 5 has no identity key, so it could be enqueued twice"],
    ),
    "a key that waits without item": (
        "insert into new_item_keys (key, item_id) values (zeroblob(16), 99)",
        ["an identity key names item 99, which is not there, so it cannot be enqueued"],
    ),
    "a key of two items": (
        "insert into item_keys select key, 4 from new_item_keys where item_id = 5",
        ["item 5 has the identity key of another one"],
    ),
    "a key of two items that waits": (
        "update new_item_keys set key = (select key from new_item_keys where item_id = 4) "
        "where item_id = 5",
        ["item 5 has the identity key of another one"],
    ),
    "an item gone": (
        "delete from items where id = 5",
        ["an identity key names item 5, which is not there, so it cannot be enqueued",
         "experiment 1: 1 items counted as pending, but there are 0"],
    ),
}  # fmt: skip

# Where a key is in one table, and only this proves what rows name.
PLANTED_IN_POSTGRES = {
    "an item without key": (
        "delete from item_keys where item_id = 5",
        ["item 5 has no identity key, so it could be enqueued twice"],
    ),
    "an item gone": (
        "delete from items where id = 5",
        ["work row 5 points at a missing row of items"],
    ),
    "an attempt of no item": (
        "update attempts set item_id = 99 where seq = 2",
        ["attempts row 2 points at a missing row of items", "result 2 belongs to no attempt",
         FAILED_CALL_GONE, ONE_FAILURE_LESS],
    ),
    "an item of no experiment": (
        "update items set experiment_id = 7 where id = 5",
        ["items row 5 points at a missing row of experiments"],
    ),
    "an item with no recipe": (
        "update items set recipe_id = 7 where id = 5",
        ["items row 5 points at a missing row of recipes"],
    ),
    "a result of no parser": (
        "update results set parser_id = 7 where seq = 1",
        ["results row 1 points at a missing row of parsers",
         "experiment 1: 1 items counted as read by parser 1, but there are 0",
         "experiment 1: 0 items counted as read by parser 7, but there are 1"],
    ),
    "counted by a worker that took it from nobody": (
        "update counters_by_worker set n = n - 1 where state = 'pending' and worker_id = 0;"
        "insert into counters_by_worker (experiment_id, state, worker_id, n)"
        " values (1, 'pending', 3, 1), (1, 'pending', 4, 1)",
        ["experiment 1: 2 items counted as pending, but there are 1"],
    ),
}  # fmt: skip

SUMMED = re.compile(r"(?<= )(counters|parser_counters|totals|failed_calls|minutes)(?= |$)")


def plant(table: Table, statement: str) -> None:
    """As the engine spells it."""
    if not isinstance(table.engine, SqliteEngine):
        statement = SUMMED.sub(r"\1_by_worker", statement)
        statement = statement.replace("zeroblob(16)", "decode(repeat('00', 16), 'hex')")
    for one in statement.split(";"):
        table.query(one)


@pytest.mark.parametrize(("statement", "problems"), PLANTED.values(), ids=PLANTED)
def test_a_planted_contradiction_is_found(
    table: Table, statement: str, problems: list[str]
) -> None:
    plant(table, statement)
    assert table.problems() == problems


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("statement", "problems"), PLANTED_IN_SQLITE.values(), ids=PLANTED_IN_SQLITE
)
def test_what_only_sqlite_s_tables_can_say_is_found(
    table: Table, statement: str, problems: list[str]
) -> None:
    plant(table, statement)
    assert table.problems() == problems


@ONLY_POSTGRES
@pytest.mark.parametrize(
    ("statement", "problems"), PLANTED_IN_POSTGRES.values(), ids=PLANTED_IN_POSTGRES
)
def test_what_only_postgresql_s_tables_can_say_is_found(
    table: Table, statement: str, problems: list[str]
) -> None:
    plant(table, statement)
    assert table.problems() == problems


def test_what_dollars_lose_as_they_are_added_is_no_contradiction(table: Table) -> None:
    plant(table, "update totals set cost_usd = cost_usd + 1e-9")
    assert table.problems() == []


def test_a_reservation_of_a_call_under_way_is_none(table: Table) -> None:
    table.query(
        "insert into reservations (item_id, epoch, experiment_id, worker_id, asked, tokens,"
        " cost_usd)"
        " values (4, 1, 1, 1, 10, 10, 0.5)"
    )
    assert table.problems() == []


# What the constraints prevent can still be in a file that something else wrote.
PLANTED_PAST_CONSTRAINTS = {
    "an attempt of no item": (
        "update attempts set item_id = 99 where seq = 2",
        ["attempts row 2 points at a missing row of items", "result 2 belongs to no attempt",
         FAILED_CALL_GONE, ONE_FAILURE_LESS],
    ),
    "work of no item": (
        "delete from items where id = 5",
        ["work row 5 points at a missing row of items"],
    ),
}  # fmt: skip


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("statement", "problems"), PLANTED_PAST_CONSTRAINTS.values(), ids=PLANTED_PAST_CONSTRAINTS
)
def test_a_row_that_points_nowhere_is_found(
    table: Table, statement: str, problems: list[str]
) -> None:
    table.query("pragma foreign_keys = 0")
    table.query(statement)
    assert table.problems() == problems


@ONLY_SQLITE
def test_a_row_that_a_constraint_forbids_is_found(table: Table) -> None:
    table.query("pragma ignore_check_constraints = 1")
    table.query("update work set state = 'lost' where item_id = 5")
    table.query("pragma ignore_check_constraints = 0")
    assert table.problems() == ["file: CHECK constraint failed in work"]


@ONLY_SQLITE
def test_a_damaged_file_is_found(table: Table, tmp_path: Path) -> None:
    table.db.close()
    file = tmp_path / "batchgen.db"
    with closing(sqlite3.connect(file)) as db:
        page_size = db.execute("pragma page_size").fetchone()[0]
        page = db.execute(
            "select rootpage from sqlite_master where name = 'work_fresh'"
        ).fetchone()[0]
    content = bytearray(file.read_bytes())
    start = (page - 1) * page_size
    entry = start + int.from_bytes(content[start + 8 : start + 10], "big")  # the only one
    number = entry + content[entry]  # its last byte is the number of its item
    assert content[number] == 5
    content[number] = 4
    file.write_bytes(content)
    with closing(sqlite3.connect(file)) as db:
        assert (
            verify_tables(SqliteTransaction(db))[0] == "file: row 5 missing from index work_fresh"
        )


def test_at_most_twenty_of_a_kind_are_listed(table: Table) -> None:
    table.enqueue(*range(30))
    table.query("update items set input = '{' where id > 5")
    assert table.problems() == [f"item {number}: its input is not JSON" for number in range(6, 26)]
