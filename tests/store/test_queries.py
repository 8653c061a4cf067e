"""Every statement is used, runs, and where it matters finds its rows by an index."""

import ast
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.store import sqlite, transactions
from batchgen.store.sqlite.item_keys import begin_pass
from batchgen.store.sqlite.transaction import QUERIES, SqliteTransaction, statement_for
from batchgen.store.transactions import load_queries
from tests.kits.table import new_database


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(new_database(tmp_path_factory.mktemp("queries") / "batchgen.db")) as connection:
        begin_pass(SqliteTransaction(connection))  # its tables are temporary ones
        yield connection


def parameters(statement: str) -> dict[str, None]:
    return dict.fromkeys(re.findall(r"(?<!\w):(\w+)", statement))


def plan(db: sqlite3.Connection, name: str) -> list[str]:
    statement = QUERIES[name]
    rows = db.execute(f"explain query plan {statement}", parameters(statement))
    return [row[3] for row in rows]


def strings_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in values if isinstance(value, str)}


def names_looked_up(file: Path) -> set[str]:
    """The literals in db.execute("...") and rows_of(db, "...")."""
    by_name = r'(?:db\.execute(?:_many)?\(|rows?_of\(db, |dicts_of\(db, )\s*"(\w+)"'
    return set(re.findall(by_name, file.read_text(encoding="utf-8")))


def store_modules() -> list[Path]:
    folders = (Path(file).parent for file in (sqlite.__file__, transactions.__file__))
    return sorted(file for folder in folders for file in folder.glob("*.py"))


def test_every_statement_is_used_by_its_name() -> None:
    used = {text for file in store_modules() for text in strings_in(file)}
    assert sorted(QUERIES.keys() - used) == []


def test_every_name_looked_up_exists() -> None:
    looked_up = {name for file in store_modules() for name in names_looked_up(file)}
    where_answers_are_far = {"claim_at_once"}
    assert sorted(looked_up - QUERIES.keys() - where_answers_are_far) == []
    assert len(looked_up) > 40  # the pattern still finds them


def test_statements_are_valid_on_the_newest_schema(db: sqlite3.Connection) -> None:
    refused = {}
    for name, statement in QUERIES.items():
        try:
            assert db.execute(f"explain {statement}", parameters(statement)).fetchall()
        except sqlite3.Error as exc:
            refused[name] = str(exc)
    assert refused == {}


def test_a_name_given_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="given twice"):
        load_queries("-- name: one\nselect 1;\n-- name: one\nselect 2;\n")


def test_rules_between_sections_belong_to_no_statement() -> None:
    line = "-" * 30
    text = f"{line} a\n\n-- name: one\nselect 1;\n\n{line} b\n\n-- name: two\nselect 2;\n"
    assert load_queries(text) == {"one": "select 1;", "two": "select 2;"}


@pytest.mark.parametrize("n", [0, 1, 3, 63, 64, 65, 200])
def test_rows_are_all_written_however_many_there_are(n: int) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as bare:
        bare.execute(
            "create table work (item_id integer primary key, epoch, state, available_at, worker_id,"
            " second_call, outdated, tries default 0, parse_failures default 0, answer_seq,"
            " result_seq)"
        )
        for number in range(n + 1):
            claim = (number, number % 7, "running")
            bare.execute("insert into work (item_id, epoch, state) values (?, ?, ?)", claim)
        ended = {"state": "done", "available_at": None, "charged": 1, "parse_failed": 0}
        rows = [
            {"item_id": one, "epoch": one % 7, "answer_seq": None, "result_seq": 7 * one, **ended}
            for one in range(n)
        ]
        lost = {**rows[-1], "epoch": 8} if rows else None
        assert SqliteTransaction(bare).execute_many(
            "settle", [*rows[:-1], lost] if lost else []
        ) == max(0, n - 1)
        found = bare.execute("select item_id, result_seq, tries from work where state = 'done'")
        assert found.fetchall() == [(one, 7 * one, 1) for one in range(n - 1)]


def test_a_statement_for_many_rows_searches_as_the_one_for_one(db: sqlite3.Connection) -> None:
    statement = statement_for("settle", 64)
    steps = db.execute(f"explain query plan {statement}", [None] * statement.count("?"))
    searches = [row[3] for row in steps if row[3].startswith("SEARCH")]
    assert searches == ["SEARCH work USING INTEGER PRIMARY KEY (rowid=?)"]


OF_STATE = "(selection=? AND experiment_id=? AND state=?"

# What each hot statement does, step by step. A change here is felt at ten million rows.
PLANS = {
    "orders": ["SEARCH workers USING INTEGER PRIMARY KEY (rowid=?)"],
    "due_items": [
        "CO-ROUTINE (subquery-1)",
        "SEARCH work USING INDEX work_waiting "
        "(experiment_id=? AND available_at>? AND available_at<?)",
        "SCAN (subquery-1)",
    ],
    "claim_items": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    ],
    "due_and_fresh_items": [
        "CO-ROUTINE (subquery-4)",
        "COMPOUND QUERY",
        "LEFT-MOST SUBQUERY",
        "CO-ROUTINE (subquery-1)",
        "SEARCH work USING INDEX work_waiting "
        "(experiment_id=? AND available_at>? AND available_at<?)",
        "SCAN (subquery-1)",
        "UNION ALL",
        "CO-ROUTINE (subquery-3)",
        "SEARCH work USING INDEX work_fresh (experiment_id=?)",
        "SCAN (subquery-3)",
        "SCAN (subquery-4)",
    ],
    "selected_due_items": [
        "CO-ROUTINE (subquery-1)",
        f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at>? AND available_at<?)",
        "SCAN (subquery-1)",
    ],
    "selected_due_and_fresh_items": [
        "CO-ROUTINE (subquery-4)",
        "COMPOUND QUERY",
        "LEFT-MOST SUBQUERY",
        "CO-ROUTINE (subquery-1)",
        f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at>? AND available_at<?)",
        "SCAN (subquery-1)",
        "UNION ALL",
        "CO-ROUTINE (subquery-3)",
        f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at=?)",
        "SCAN (subquery-3)",
        "SCAN (subquery-4)",
    ],
    "next_selected_at": [f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at>?)"],
    "unselect": ["SEARCH work USING INDEX work_selected (selection=?)"],
    "fresh_span": [
        "CO-ROUTINE last",
        "SEARCH work USING INDEX work_fresh (experiment_id=?)",
        "SCAN last",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH work USING INDEX work_fresh (experiment_id=? AND priority=?)",
    ],
    "claim_fresh_from": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
        "SCALAR SUBQUERY",
        "SEARCH work USING INDEX work_fresh (experiment_id=? AND priority=? AND item_id>?)",
    ],
    "selected_fresh_span": [
        "CO-ROUTINE last",
        f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at=?)",
        "SCAN last",
        "CORRELATED SCALAR SUBQUERY",
        f"SEARCH work USING INDEX work_selected {OF_STATE} AND available_at=? AND priority=?)",
    ],
    "claim_selected_fresh_from": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
        "SCALAR SUBQUERY",
        "SEARCH work USING INDEX work_selected "
        f"{OF_STATE} AND available_at=? AND priority=? AND item_id>?)",
    ],
    "begin_second_calls": [
        "SCAN claim VIRTUAL TABLE INDEX 1:",
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "settle": [
        "MATERIALIZE ended",
        "SCAN CONSTANT ROW",
        "SCAN ended",
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "shared_rate": ["SEARCH shared_rates USING PRIMARY KEY (server=?)"],
    "shared_rates": ["SCAN shared_rates"],
    "write_shared_rate": [],
    "keep_answer": ["SEARCH work USING INTEGER PRIMARY KEY (rowid=?)"],
    "take_back": ["SEARCH work USING INTEGER PRIMARY KEY (rowid=?)"],
    "reopen": ["SEARCH work USING INTEGER PRIMARY KEY (rowid=?)"],
    "claims_of_worker": [
        "SEARCH w USING INDEX work_claimed (worker_id=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "parsed_alone": [
        "CO-ROUTINE (subquery-2)",
        "SEARCH work USING INDEX work_claimed (worker_id=?)",
        "SCAN (subquery-2)",
        "SCALAR SUBQUERY",
        "SCAN work USING INDEX work_crashed",  # until there is one
    ],
    "claim_crashed": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
        "SCALAR SUBQUERY",
        "SEARCH work USING INDEX work_crashed (experiment_id=?)",
    ],
    "next_available_at": [
        "SEARCH work USING INDEX work_waiting (experiment_id=? AND available_at>?)"
    ],
    # json_each is the list of ids that were just claimed, not a table.
    "claimed_items": [
        "SCAN claimed VIRTUAL TABLE INDEX 1:",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH f USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "steps_of": [
        "SEARCH f USING INTEGER PRIMARY KEY (rowid=?)",
        "LIST SUBQUERY",
        "SCAN wanted VIRTUAL TABLE INDEX 1:",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "MULTI-INDEX OR",
        "INDEX 1",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
        "INDEX 2",
        "SEARCH s USING INDEX experiments_by_step (first_id=?)",
        "SEARCH v USING PRIMARY KEY (experiment_id=? AND number=?)",
    ],
    "children_of": [
        "SCAN parent VIRTUAL TABLE INDEX 1:",
        "SEARCH i USING INDEX items_children (parent_id=?)",
    ],
    "complete_gatherings": [
        "SCAN root VIRTUAL TABLE INDEX 1:",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH w USING INDEX work_gathering (gathering=?)",
    ],
    "gathering_rows": [
        "SCAN root VIRTUAL TABLE INDEX 1:",
        "SEARCH g USING INDEX items_children (parent_id=?)",
    ],
    "add_work_of_children": [
        "SEARCH i USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "stale_page": ["SEARCH work USING INDEX work_stale (experiment_id=? AND item_id>?)"],
    "other_samples": [
        "SEARCH i USING INDEX items_by_sample (sample_of=?)",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    # What is sorted are numbers, of one page.
    "sample_numbers": [
        "MERGE (UNION ALL)",
        "LEFT",
        "MATERIALIZE firsts",
        "SEARCH items USING INTEGER PRIMARY KEY (rowid>?)",
        "SCAN firsts",
        "USE TEMP B-TREE FOR ORDER BY",
        "RIGHT",
        "SCAN f",
        "SEARCH s USING INDEX items_by_sample (sample_of=?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "any_samples": ["SEARCH items USING INDEX items_by_sample (sample_of>?)"],
    "result_rows": [
        "SCAN chosen VIRTUAL TABLE INDEX 1:",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH attempts USING INDEX attempts_by_item (item_id=?)",
    ],
    "failed_items": [
        "SEARCH w USING INDEX work_failed (experiment_id=? AND item_id>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "unparsed_answers": [
        "SEARCH w USING INDEX work_failed (experiment_id=? AND item_id>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
    ],
    "all_answers": [
        "SEARCH w USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
    ],
    "failed_rows": [
        "SEARCH w USING INDEX work_failed (experiment_id=? AND item_id>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH attempts USING INDEX attempts_by_item (item_id=?)",
    ],
    # Grouping by message, and the biggest group first, cannot come out of an index: messages are
    # free text in another table. It holds one row a message, not one an item.
    "failures_by_message": [
        "SEARCH w USING INDEX work_failed (experiment_id=?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "USE TEMP B-TREE FOR GROUP BY",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "last_failures_by_message": [
        "CO-ROUTINE w",
        "SEARCH work USING INDEX work_failed (experiment_id=? AND item_id<?)",
        "SCAN w",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "USE TEMP B-TREE FOR GROUP BY",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "done_rows": [
        "SEARCH w USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH attempts USING INDEX attempts_by_item (item_id=?)",
    ],
    # The list that is scanned has the numbers of one page.
    "live_window": [
        "MATERIALIZE r",
        "SEARCH results USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN r LEFT-JOIN",
    ],
    "live_rows": [
        "SEARCH new USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
        "SCAN span VIRTUAL TABLE INDEX 1:",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH attempts USING INDEX attempts_by_item (item_id=?)",
    ],
    "unknown_calls": [
        "SEARCH a USING INDEX attempts_unknown (seq>?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "calls_of_worker": [
        "SEARCH w USING INDEX work_claimed (worker_id=?)",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",  # one or two numbers
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "item_by_key": [
        "COMPOUND QUERY",
        "LEFT-MOST SUBQUERY",
        "SEARCH item_keys USING PRIMARY KEY (key=?)",
        "UNION ALL",
        "SCAN new_item_keys",  # few: those of a pool that is being enqueued
    ],
    "look_up_keys": [
        "MATERIALIZE wanted",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
        "USE TEMP B-TREE FOR ORDER BY",
        "SCAN w",
        "SEARCH k USING PRIMARY KEY (key=?) LEFT-JOIN",
        "SEARCH n USING PRIMARY KEY (key=?) LEFT-JOIN",
    ],
    "changed_inputs": [
        "SCAN pair VIRTUAL TABLE INDEX 1:",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "sort_keys_in": ["SCAN new_item_keys", "USE TEMP B-TREE FOR ORDER BY"],
    "key_page": ["SEARCH item_keys USING PRIMARY KEY (key>?)"],
    "append_keys": ["SCAN json_each VIRTUAL TABLE INDEX 1:"],
    "count_new_keys": [
        "SCAN CONSTANT ROW",
        "SCALAR SUBQUERY",
        "SEARCH new_item_keys",
        "SCALAR SUBQUERY",
        "SEARCH new_item_keys",
    ],
    "attempts_of_item": [
        "SEARCH a USING INDEX attempts_by_item (item_id=?)",
        "SEARCH s USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH b USING INDEX sqlite_autoindex_provider_batches_1 (worker_id=?) LEFT-JOIN",
        "SCALAR SUBQUERY",
        "SCAN servers USING INDEX sqlite_autoindex_servers_1",
    ],
    "calls_on_trial": [
        "SCAN t",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "CORRELATED SCALAR SUBQUERY",
        "SEARCH p USING PRIMARY KEY (server=? AND recipe_id=?)",
    ],
    # Browsing: the lists are those of one page, and of a few experiments.
    "results_before": [
        "SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    ],
    "results_after": [
        "SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    ],
    "rows_after": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    ],
    "rows_before": [
        "SEARCH work USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
    ],
    "failed_after": [
        "SEARCH w USING INDEX work_failed (experiment_id=? AND item_id>?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "failed_before": [
        "SEARCH w USING INDEX work_failed (experiment_id=? AND item_id<?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "stale_before": ["SEARCH work USING INDEX work_stale (experiment_id=? AND item_id<?)"],
    "waiting_after": ["SEARCH work USING INDEX work_waiting (experiment_id=? AND available_at>?)"],
    "waiting_before": [
        "SEARCH work USING INDEX work_waiting "
        "(experiment_id=? AND available_at>? AND available_at<?)"
    ],
    "fresh_after": [
        "SEARCH work USING INDEX work_fresh (experiment_id=? AND priority=? AND item_id>?)"
    ],
    "fresh_before": [
        "SEARCH work USING INDEX work_fresh (experiment_id=? AND priority=? AND item_id<?)"
    ],
    "next_lower_priority": ["SEARCH work USING INDEX work_fresh (experiment_id=? AND priority<?)"],
    "next_higher_priority": ["SEARCH work USING INDEX work_fresh (experiment_id=? AND priority>?)"],
    "crashed_rows": ["SEARCH work USING INDEX work_crashed (experiment_id=?)"],
    "running_rows": [
        "SCAN k",
        "SEARCH w USING INDEX work_claimed (worker_id=?)",
        "LIST SUBQUERY",
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "rows_with_text": [
        "SCAN chosen VIRTUAL TABLE INDEX 1:",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH a USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
    "done_by_results": [
        "SCAN chosen VIRTUAL TABLE INDEX 1:",
        "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    # Of provider batches: one may hold as many rows as a table has.
    "seal_claims": [
        "SCAN claim VIRTUAL TABLE INDEX 1:",
        "SEARCH work USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "held_by_batch": [
        "SCAN chosen VIRTUAL TABLE INDEX 1:",
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "page_of_batch": ["SEARCH work USING INDEX work_claimed (worker_id=? AND rowid>?)"],
    "page_of_batch_before": ["SEARCH work USING INDEX work_claimed (worker_id=? AND rowid<?)"],
    "some_claims_of_worker": [
        "SEARCH w USING INDEX work_claimed (worker_id=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "unclosed_batches": [
        "SCAN b USING INDEX provider_batches_unclosed",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "batch_of_item": [
        "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH b USING INDEX sqlite_autoindex_provider_batches_1 (worker_id=?)",
    ],
    "was_sent_before": [
        "SEARCH provider_batches USING INDEX provider_batches_of_recipe "
        "(experiment_id=? AND recipe_id=?)"
    ],
    # Inserts: the conflict is found by the primary key, which no plan shows; nothing else is read.
    "append_attempt": [],
    "append_result": [],
    "move_counter": [],
}


def plain(step: str) -> str:
    """A step of a plan as each version of SQLite words it: newer ones leave out COVERING, or number
    the subqueries otherwise."""
    return re.sub(r"(SUBQUERY) \d+", r"\1", step.replace("COVERING INDEX", "INDEX")).rstrip()


@pytest.mark.parametrize("name", PLANS)
def test_hot_statement_searches_by_the_intended_index(db: sqlite3.Connection, name: str) -> None:
    assert [plain(step) for step in plan(db, name)] == PLANS[name]


def test_no_statement_scans_a_big_table_once_a_row(db: sqlite3.Connection) -> None:
    """One pass over a table is what verify and delete are for; a pass in a pass never ends."""
    found = {name: scans_in_a_scan(plan(db, name)) for name in QUERIES if name not in PLANS}
    assert {name: steps for name, steps in found.items() if steps} == {}


def scans_in_a_scan(steps: list[str]) -> list[str]:
    big = r"SCAN (work|items|item_keys|attempts|results|[wirak])\b"
    scans = [step for step in steps if re.match(big, step)]
    return [step for step in scans[1:] if "LEFT-JOIN" in step or "CORRELATED" in step]
