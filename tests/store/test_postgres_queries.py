"""Every statement prepares on a real PostgreSQL, and finds its rows by an index; and what both
engines spell has the same parameters and columns."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from batchgen.store import postgres, sqlite, transactions
from batchgen.store.postgres.opening import connect
from batchgen.store.postgres.sql import STATEMENTS, respelled
from batchgen.store.sqlite.transaction import QUERIES
from batchgen.store.transactions import load_queries
from tests.kits.postgres import Cluster
from tests.kits.table import new_database


@pytest.fixture(scope="module")
def connection(postgres_server: Cluster) -> Iterator[psycopg.Connection]:
    address = postgres_server.new_database()
    made, _ = connect(address)
    yield made
    made.close()
    postgres_server.drop(address)


# Each of these asks all statements, and tells which are not so: a case for each would take longer
# than to ask it.


def test_statements_prepare_with_parameters_of_unknown_type(
    connection: psycopg.Connection,
) -> None:
    prepared = {name: connection.pgconn.prepare(b"", one.text) for name, one in STATEMENTS.items()}
    assert {
        name: result.error_message.decode()
        for name, result in prepared.items()
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK
    } == {}


def nameless(text: str) -> Iterator[str]:
    """What follows its subqueries that have no name."""
    for begun in re.finditer(r"(?:from|join|lateral)\s*\((?=\s*select)", text):
        depth, place = 1, begun.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[place], 0)
            place += 1
        if not re.match(r"\s(?:as )?[a-z_]+", text[place:]):
            yield text[place:]


def test_subqueries_have_names() -> None:
    """Before PostgreSQL 16 they must have one."""
    assert [*nameless("select 1 from (select (2)), work")] == [", work"]
    found = {name: [*nameless(one.text.decode())] for name, one in STATEMENTS.items()}
    assert {name: rests for name, rests in found.items() if rests} == {}


# What goes over whole tables: proofs, deletions, and the rows of an experiment in all states. All
# others are felt at ten million rows.
OF_WHOLE_TABLES = {
    "ask_rows", "children_miscounted", "delete_items", "delete_keys", "delete_results",
    "gatherings_without_row", "gathers_too_few", "give_recipe", "items_without_key",
    "keys_without_item", "missing_parents", "not_followed", "recount", "recount_calls",
    "recount_ends", "recount_failed_calls", "recount_latencies", "recount_lengths",
    "recount_minutes", "recount_parsers", "recount_steps", "results_without_attempt",
    "results_without_item", "rows_to_ask", "rows_to_stale", "set_gathering", "spans_outside",
    "stale_rows", "unreadable_inputs", "unreadable_parsed",
    # By an index of what is rare: stale rows, calls of unknown outcome, and what a worker died at.
    "parsed_alone", "stale_to_ask", "unknown_calls_of_claim",
}  # fmt: skip
BIG = ("work", "items", "item_keys", "attempts", "results")


def whole_scans(node: dict[str, Any], limited: bool = False) -> Iterator[str]:
    """Of big tables, also by an index. What has a limit may begin at an end of one."""
    kind, table = node["Node Type"], node.get("Relation Name")
    rest = re.sub(r"\(*\w+ IS NOT NULL\)*( AND )?", "", node.get("Index Cond", ""))
    by_end = limited and kind.startswith("Index")
    if table in BIG and kind != "Bitmap Heap Scan" and not rest.strip("() ") and not by_end:
        yield f"{kind} {table}"
    for one in node.get("Plans", ()):
        yield from whole_scans(one, limited or kind == "Limit")


def plan(connection: psycopg.Connection, name: str) -> dict[str, Any]:
    """As it is made once and for all, here while the tables are empty."""
    statement = STATEMENTS[name]
    values = f"({', '.join(['null'] * len(statement.names))})" if statement.names else ""
    with connection.transaction(force_rollback=True):
        connection.execute(b"prepare it as " + statement.text, prepare=False)
        explain = f"explain (format json) execute it{values}".encode()
        (text,) = connection.execute(explain, prepare=False).fetchone()  # type: ignore[misc]
        connection.execute("deallocate it", prepare=False)
    (explained,) = json.loads(text)
    return dict(explained["Plan"])


def test_statements_find_their_rows_by_an_index(connection: psycopg.Connection) -> None:
    plans = {name: plan(connection, name) for name in STATEMENTS.keys() - OF_WHOLE_TABLES}
    found = {
        name: [one for one in whole_scans(plans[name]) if "ModifyTable" not in one]
        for name in plans
    }
    assert {name: (scans, plans[name]) for name, scans in found.items() if scans} == {}


@pytest.fixture(scope="module")
def filled(postgres_server: Cluster) -> Iterator[psycopg.Connection]:
    """With tables of some size, of which the planner knows."""
    address = postgres_server.new_database()
    made, _ = connect(address)
    for text in FILLING:
        made.execute(text.encode())
    yield made
    made.close()
    postgres_server.drop(address)


FILLING = (
    "insert into parsers values (1, 'raw', '', '{}', 0)",
    "insert into experiments (id, name, created_at, parser_id) values (1, 'e', 0, 1)",
    "insert into items (id, experiment_id, recipe_id, input)"
    " select n, 1, 1, '{}' from generate_series(1, 20000) n",
    "insert into item_keys select decode(md5(n::text), 'hex'), n from generate_series(1, 20000) n",
    "insert into attempts (seq, item_id, epoch, worker_id, finished_at, outcome, response)"
    " select n, n, 1, 1, 0, 'answered', 'a' from generate_series(1, 20000) n",
    "insert into results (seq, item_id, attempt_seq, state, parser_id, finished_at)"
    " select n, n, n, 'done', 1, 0 from generate_series(1, 20000) n",
    "insert into work (item_id, experiment_id, state, result_seq)"
    " select n, 1, 'done', n from generate_series(1, 20000) n",
    "vacuum analyze",
)


def read_whole(node: dict[str, Any], limited: bool = False) -> Iterator[str]:
    """Big tables, in their order or in none. What has a limit may begin at an end of one."""
    whole = node.get("Index Name", "").endswith("_pkey") or node["Node Type"] == "Seq Scan"
    if whole and node.get("Relation Name") in BIG and "Index Cond" not in node and not limited:
        yield node["Relation Name"]
    for one in node.get("Plans", ()):
        is_first = one["Parent Relationship"] == "Outer"
        yield from read_whole(one, is_first and (limited or node["Node Type"] == "Limit"))


def test_no_whole_table_is_read_for_a_page(filled: psycopg.Connection) -> None:
    """The planner thinks of a limit that it does not know as a tenth of the table."""
    plans = {name: plan(filled, name) for name in STATEMENTS.keys() - OF_WHOLE_TABLES}
    found = {name: [*read_whole(plans[name])] for name in plans}
    assert {name: (tables, plans[name]) for name, tables in found.items() if tables} == {}


def names_of(engine: str, file: Path) -> set[str]:
    """The statements that only its own modules run: those of its last section."""
    _, _, last = file.read_text(encoding="utf-8").partition(f"- of {engine} alone")
    return set(load_queries(last))


ONLY_HERE = names_of("PostgreSQL", Path(postgres.__file__).with_name("postgres.sql"))


def test_both_engines_know_the_same_statements() -> None:
    only_there = names_of("SQLite", Path(sqlite.__file__).with_name("sqlite.sql"))
    assert sorted(STATEMENTS.keys() - ONLY_HERE) == sorted(QUERIES.keys() - only_there)
    assert "append_keys" in only_there  # the mark still finds them


def test_what_is_run_for_many_rows_takes_them_at_once() -> None:
    """A name that is given to `execute_many`, or in a list whose names are."""
    given = set[str]()
    for module in (Path(transactions.__file__).parent).glob("*.py"):
        for call in re.findall(r'execute_many\(\s*"(\w+)"', module.read_text()):
            given.add(call)
    assert {"settle", "forget_suspect"} <= given
    assert [name for name in sorted(given) if not STATEMENTS[name].takes_rows] == []


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(new_database(tmp_path_factory.mktemp("queries") / "batchgen.db")) as made:
        yield made


SPELLED_TWICE = sorted(
    name
    for name in (STATEMENTS.keys() & QUERIES.keys()) - ONLY_HERE
    if STATEMENTS[name] != respelled(QUERIES[name]) and not STATEMENTS[name].takes_rows
)
LISTS = {"ids": "[]", "pairs": "[]", "seqs": "[]", "items": "[]", "claims": "[]", "claimed": "{}",
         "names": "[]", "experiment_ids": "[]"}  # fmt: skip


def test_both_spellings_have_the_same_parameters() -> None:
    unknown = {}
    for name in SPELLED_TWICE:
        own = {one for one in STATEMENTS[name].names if one.startswith("this_")}
        unknown[name] = set(STATEMENTS[name].names) - own - {*respelled(QUERIES[name]).names}
    assert {name: names for name, names in unknown.items() if names} == {}


def test_both_spellings_have_the_same_columns(
    connection: psycopg.Connection, here: sqlite3.Connection
) -> None:
    columns = {}
    for name in SPELLED_TWICE:
        there = columns_there(connection, name)
        if there and name not in ("damage", "missing_parents"):  # what each engine proves of itself
            columns[name] = there, columns_here(here, name)
    assert len(columns) > 100
    assert {name: both for name, both in columns.items() if not same(*both)} == {}


def columns_there(connection: psycopg.Connection, name: str) -> list[str]:
    connection.pgconn.prepare(b"", STATEMENTS[name].text)
    described = connection.pgconn.describe_prepared(b"")
    return [(described.fname(n) or b"").decode() for n in range(described.nfields)]


def columns_here(here: sqlite3.Connection, name: str) -> list[str]:
    values = {one: LISTS.get(one, 1) for one in respelled(QUERIES[name]).names}
    return [column[0] for column in here.execute(QUERIES[name], values).description]


def same(there: list[str], here: list[str]) -> bool:
    """Where SQLite names a column by itself, it has any name."""
    return len(there) == len(here) and all(
        a == b for a, b in zip(there, here, strict=True) if b.isidentifier() and b != "value"
    )


def test_what_is_run_for_many_rows_takes_them_all_at_once() -> None:
    """SQLite runs any statement for each of them."""
    folder = Path(transactions.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    names = {name for text in texts for name in re.findall(r'execute_many\(\s*"(\w+)"', text)}
    assert "charge" in names
    assert [name for name in sorted(names) if not STATEMENTS[name].takes_rows] == []


def test_a_parameter_is_known_by_its_first_place() -> None:
    statement = respelled("select :b, :a::text, ':c', b::text -- :d\n where x = :b and y = '1%';")
    assert statement.text == b"select $1, $2::text, ':c', b::text \n where x = $1 and y = '1%'"
    assert statement.names == ("b", "a")
