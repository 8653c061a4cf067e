"""The database refuses impossible rows, whoever writes them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType

import psycopg
import pytest
from psycopg import errors

from batchgen.store.postgres import migrate as postgres_migrate
from batchgen.store.sqlite import migrate as sqlite_migrate
from tests.kits.postgres import Cluster
from tests.kits.table import new_database

GOOD_ROWS = """
insert into parsers values (1, 'raw', '', '{}', 0);
insert into experiments (id, name, created_at, parser_id) values (1, 'e', 0, 1);
insert into recipes (id, digest, body, created_at) values (1, zeroblob(32), '{}', 0);
insert into items (id, experiment_id, recipe_id, input) values (1, 1, 1, '{}'), (2, 1, 1, '{}');
insert into work (item_id, experiment_id) values (1, 1), (2, 1);
insert into attempts (seq, item_id, epoch, worker_id, finished_at, outcome, response)
values (1, 1, 1, 1, 0, 'answered', 'text');
insert into results (seq, item_id, attempt_seq, state, parser_id, finished_at)
 values (1, 1, 1, 'done', 1, 0);
insert into parser_counters (experiment_id, parser_id, n) values (1, 1, 1);
insert into counters (experiment_id, state, n) values (1, 'pending', 2);
insert into shared_rates values ('s', 0, 0, 0, 0, null, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0);
insert into servers (id, key, name, calls_at_once, found_at) values (1, 's', '', 1, 0);
insert into step_counters (experiment_id) values (1);
insert into suspects values (2, 1, 1, 's', '404', 0, 1, 'rejected', '404', null, 0, 0, null);
insert into live_files (path, experiment_id, result_seq, rows, size_bytes, sha256,
  superseded_results) values ('/out.jsonl', 1, 1, 1, 50, hex(zeroblob(32)), 0);
insert into workers (id, host, boot_id, pid, slots, started_at, lease_until)
values (1, 'h', 'b', 1, 1, 0, 0);
insert into shares values ('s', 1, 2, 2, 2, 0);
insert into calls_ahead values ('s', 1, 2, 0);
insert into reviews values (1, 1, 'accepted', 'why', '{}', '{}', 0);
insert into provider_batches (id, worker_id, experiment_id, recipe_id, server, base_url, endpoint,
  model, token, state, requests, bytes, tokens, input_file, batch_id, sealed_at)
values (1, 9, 1, 1, 's', 'u', 'chat', 'm', '0123456789abcdef0123456789abcdef', 'open', 2, 9, 9, 'f',
  'b', 0);
"""

# The constraint, and a statement that violates it alone.
IMPOSSIBLE = [
    ("state_known", "update work set state = 'lost'"),
    ("claimed_iff_running", "update work set state = 'running'"),
    ("claimed_iff_running", "update work set worker_id = 1"),
    ("finished_iff_terminal", "update work set state = 'done'"),
    ("finished_iff_terminal", "update work set state = 'failed'"),
    ("finished_iff_terminal", "update work set result_seq = 1"),
    ("waits_only_if_pending", "update work set state = 'running', worker_id = 1, available_at = 5"),
    ("waits_only_if_pending", "update work set state = 'done', result_seq = 1, available_at = 5"),
    ("two_calls_at_most", "update work set second_call = 1"),
    ("two_calls_at_most", "update work set state = 'running', worker_id = 1, second_call = 2"),
    ("counts_not_negative", "update work set tries = -1"),
    ("counts_not_negative", "update work set crashes = -1"),
    ("counts_not_negative", "update work set parse_failures = -1"),
    ("outcome_known", "update attempts set outcome = 'lost', response = null"),
    ("answered_has_text", "update attempts set response = null"),
    ("answered_has_text", "update attempts set outcome = 'unknown'"),
    ("vector_is_no_text", "update attempts set vector = '[0.5]'"),
    ("failed_has_reason", "update attempts set outcome = 'failed', response = null"),
    ("failed_has_reason", "update attempts set reason = 'server'"),
    ("unknown_says_nothing",
     "update attempts set outcome = 'unknown', response = null, body = '{}'"),
    ("unknown_says_nothing",
     "update attempts set outcome = 'unknown', response = null, latency_ms = 5"),
    ("done_has_answer", "update results set attempt_seq = null"),
    ("done_has_parser", "update results set parser_id = null"),
    ("reparsed_or_not", "update results set reparsed = 2"),
    ("parser_has_answer",
     "update results set state = 'failed', reason = 'server', error = 'no', attempt_seq = null"),
    ("spec <> ''", "insert into parsers values (2, '', '', '{}', 0)"),
    ("json_valid(sources)", "insert into parsers values (2, 'raw', 'x', '{', 0)"),
    ("number_from_one", "insert into variants values (1, 0, 1, 0)"),
    ("not_negative", "update parser_counters set n = -1"),
    ("failed_has_reason", "update results set state = 'failed'"),
    ("failed_has_reason", "update results set reason = 'server'"),
    ("failed_has_reason", "update results set state = 'failed', reason = 'server'"),
    ("failed_has_reason", "update results set error = 'it broke'"),
    ("parsed_once", "update results set parsed = '[]', spans = '[]'"),
    ("spans_is_json", "update results set parsed = null, spans = '['"),
    ("failed_not_parsed",
     "update results set state = 'failed', reason = 'server', error = 'it broke', spans = '[]'"),
    ("failed_not_parsed",
     "update results set state = 'failed', reason = 'server', error = 'it broke', parsed = '1'"),
    ("not_negative", "update counters set n = -1"),
    ("name <> ''", "insert into experiments (name, created_at, parser_id) values ('', 0, 1)"),
    ("length(digest) = 32",
     "insert into recipes (digest, body, created_at) values (zeroblob(31), '{}', 0)"),
    ("json_valid(body)",
     "insert into recipes (digest, body, created_at) values (randomblob(32), '{', 0)"),
    ("length(key) = 16", "insert into item_keys (key, item_id) values (zeroblob(15), 1)"),
    ("length(key) = 16", "insert into new_item_keys (key, item_id) values (zeroblob(15), 99)"),
    ("state in ('done', 'failed')", "update results set state = 'pending'"),
    ("overuse_from_one", "update experiments set overuse = 0.5"),
    ("alone_or_not", "insert into reparsing values (1, 1, 2)"),
    ("probe_or_not", "update suspects set probe = 2"),
    ("fails_or_waits", "update suspects set reason = null"),
    ("fails_or_waits", "update suspects set available_at = 5"),
    ("ceiling_positive", "update shared_rates set ceiling_per_s = 0"),
    ("never_shrinks", "update shared_rates set limited_s = -1"),
    ("never_shrinks", "update shared_rates set taken_since_cut = -1"),
    ("strays_are_a_share", "update shared_rates set stray_share = 1"),
    ("takes_some", "update servers set calls_at_once = 0"),
    ("found_some_time", "update servers set found_at = null"),
    ("rises_not_negative", "update servers set failed_rises = -1"),
    ("holds_its_share", "update shares set held = 1"),
    ("holds_its_share", "update shares set share = -1"),
    ("needs_not_negative", "update shares set needs = -1"),
    ("never_fewer_than_none", "update calls_ahead set calls = -1"),
    ("went_or_came", "insert into moves (id, other, went, moved_at) values ('m', 'x.db', 2, 0)"),
    ("strays_are_a_share", "update shared_rates set tested_share = -0.1"),
    ("calls_not_negative", "update shared_rates set stray_recent_refused = -1"),
    ("absolute_path", "update live_files set path = 'out.jsonl'"),
    ("sha256_is_hex", "update live_files set sha256 = ''"),
    ("not_negative", "update live_files set result_seq = -1"),
    ("not_negative", "update live_files set superseded_results = -1"),
    ("a_line_has_size", "update live_files set rows = 51"),
    ("superseded_not_negative", "update experiments set superseded_results = -1"),
    ("sample_from_one", "update items set sample = 0, sample_of = 2 where id = 1"),
    ("first_of_none", "update items set sample = 1, sample_of = 2 where id = 1"),
    ("first_of_none", "update items set sample = 2 where id = 1"),
    ("of_another", "update items set sample = 2, sample_of = 1 where id = 1"),
    ("paused_or_not", "update workers set paused = 2"),
    ("requests_not_negative", "update workers set rpm = -1"),
    ("tokens_not_negative", "update workers set tpm = -1"),
    ("stop_known", "update workers set stop = 'later'"),
    ("absolute_path", "insert into known_files (path, use) values ('out.jsonl', 'read')"),
    ("use_known", "insert into known_files (path, use) values ('/out.jsonl', 'lent')"),
    ("later_follows_first", "update experiments set first_id = 1, step = 'b'"),
    ("later_follows_first", "update experiments set number = 1"),
    ("later_has_name", "update experiments set first_id = 1, number = 1"),
    ("first_has_plan", "update experiments set step = 'a'"),
    ("follows_a_plan", "update experiments set followed_plan_id = 1"),
    ("code_or_call", "update experiments set runs_code = 2"),
    ("code_or_call", "update work set runs_code = 2"),
    ("parent_is_older", "update items set parent_id = 2 where id = 1"),
    ("made_of_parent", "update items set parent_result = 1"),
    ("made_of_parent", "update items set gathered = '[]'"),
    ("gathers_a_list", "update items set parent_id = 1, gathered = '{}' where id = 2"),
    ("gathers_a_list",
     "update items set parent_id = 1, gathered = '[]', parent_result = 1 where id = 2"),
    ("element_from_0", "update items set parent_id = 1, element = -1 where id = 2"),
    ("outdated_runs", "update work set outdated = 1"),
    ("followed_whole", "update results set children = 0"),
    ("followed_whole", "update results set children = 0, passed_over = 0"),
    ("followed_whole",
     "update results set children = -1, passed_over = 0, passed_on = zeroblob(8)"),
    ("followed_whole",
     "update results set children = 0, passed_over = 0, passed_on = zeroblob(7)"),
    ("hash_of_8_bytes", "update results set made_of = zeroblob(7)"),
    ("not_negative", "update step_counters set ended = -1"),
    ("not_negative", "insert into minutes (experiment_id, minute, calls) values (1, 1, -1)"),
    ("slowest_took_some", "insert into minutes (experiment_id, minute, slowest) values (1, 1, 1)"),
    ("report_is_json", "update workers set report = '{'"),
    ("servers_are_a_list", "update workers set servers = '{}'"),
    ("verdict_known", "update reviews set verdict = 'liked'"),
    ("says_something", "update reviews set verdict = null, note = null, edited = null"),
    ("note_has_text", "update reviews set note = ''"),
    ("edited_is_json", "update reviews set edited = '{'"),
    ("before_is_object", "update reviews set before = '[]'"),
    ("kind_known", "update workers set kind = 'other'"),
    ("state_known", "update provider_batches set state = 'lost'"),
    ("token_is_hex", "update provider_batches set token = 'short'"),
    ("has_some", "update provider_batches set requests = 0"),
    ("settled_of_all", "update provider_batches set settled = 3"),
    ("settled_of_all", "update provider_batches set settled = -1"),
    ("closed_holds_nothing", "update provider_batches set state = 'closed', closed_at = 5"),
    ("created_has_id", "update provider_batches set batch_id = null"),
    ("creating_has_none", "update provider_batches set state = 'creating'"),
    ("ended_some_time", "update provider_batches set state = 'ended'"),
    ("ended_some_time", "update provider_batches set ended_at = 5"),
    ("closed_some_time", "update provider_batches set closed_at = 5"),
    ("not_negative", "update provider_batches set reserved_tokens = -1"),
    ("not_negative", "update provider_batches set answered = -1"),
    ("absent_while_creating", "update provider_batches set absent = 1"),
    ("gone_when_closed", "update provider_batches set files_gone = 1"),
]  # fmt: skip

REPEATED = [
    ("experiments.name",
     "insert into experiments (id, name, created_at, parser_id) values (2, 'e', 0, 1)"),
    ("parsers.spec, parsers.fingerprint", "insert into parsers values (2, 'raw', '', '{}', 0)"),
    ("recipes.digest",
     "insert into recipes (id, digest, body, created_at) values (2, zeroblob(32), '{}', 0)"),
    ("items.parent_id, items.experiment_id, items.element",
     "insert into items (id, experiment_id, recipe_id, input, parent_id)"
     " values (3, 1, 1, '{}', 1), (4, 1, 1, '{}', 1)"),
    ("work.item_id", "insert into work (item_id, experiment_id) values (1, 1)"),
]  # fmt: skip

POINTING_NOWHERE = [
    "insert into work (item_id, experiment_id) values (3, 1)",
    "insert into items (id, experiment_id, recipe_id, input) values (3, 2, 1, '{}')",
    "insert into items (id, experiment_id, recipe_id, input) values (3, 1, 2, '{}')",
    "update attempts set item_id = 3",
    "delete from recipes",
    "delete from parsers",
    "update experiments set parser_id = 2",
    "update results set parser_id = 2",
    "update reviews set item_id = 3",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("checks") / "batchgen.db"
    with closing(new_database(path)) as connection:
        connection.executescript(GOOD_ROWS)
        yield connection


@pytest.fixture
def db(good: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The good rows, whatever a test before did to them."""
    good.execute("begin")
    yield good
    good.rollback()


@pytest.mark.parametrize(("constraint", "statement"), IMPOSSIBLE)
def test_impossible_row_is_refused(db: sqlite3.Connection, constraint: str, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError) as caught:
        db.execute(statement)
    assert str(caught.value) == f"CHECK constraint failed: {constraint}"


@pytest.mark.parametrize(("column", "statement"), REPEATED)
def test_repeated_row_is_refused(db: sqlite3.Connection, column: str, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError) as caught:
        db.execute(statement)
    assert str(caught.value) == f"UNIQUE constraint failed: {column}"


@pytest.mark.parametrize("statement", POINTING_NOWHERE)
def test_row_that_points_nowhere_is_refused(db: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY constraint failed"):
        db.execute(statement)


def test_every_named_constraint_is_violated_above() -> None:
    assert named_in(sqlite_migrate) == {name for name, _ in IMPOSSIBLE if name.isidentifier()}


def named_in(engine: ModuleType) -> set[str]:
    schema = "".join(file.read_text(encoding="utf-8") for file in engine.migrations())
    return set(re.findall(r"\bconstraint (\w+)", schema))


@pytest.mark.parametrize(
    "statement", ["update work set tries = 'many'", "update items set input = x'00'"]
)
def test_value_of_another_type_is_refused(db: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="cannot store"):
        db.execute(statement)


# The same on PostgreSQL. Its counters are by worker, and only their sums are not negative; what
# rows of the big tables name is proven by `verify`.

OF_SUMS = [("not_negative", f"update {name} set {column} = -1")
           for name, column in (("counters", "n"), ("parser_counters", "n"),
                                ("step_counters", "ended"))]  # fmt: skip
ON_POSTGRES = [
    one for one in IMPOSSIBLE if one not in OF_SUMS and "new_item_keys" not in one[1]
] + [
    ("name_known", "insert into leases values ('exporting', 1, 'h', 'b', 1, 0)"),
]
NAMED_BY_BIG_TABLES = [*POINTING_NOWHERE[:5], POINTING_NOWHERE[-2]]
SPELLED_HERE = """
create function zeroblob(n integer) returns bytea language sql
  as $$ select decode(repeat('00', n), 'hex') $$;
create function randomblob(n integer) returns bytea language sql
  as $$ select decode(repeat('5a', n), 'hex') $$;
create function hex(bytes bytea) returns text language sql as $$ select encode(bytes, 'hex') $$;
alter table live_files alter machine set default 'here';
alter table known_files alter machine set default 'here';
"""


@pytest.fixture(scope="module")
def filled(postgres_server: Cluster) -> Iterator[psycopg.Connection]:
    address = postgres_server.new_database()
    with psycopg.connect(address.url) as connection:
        connection.execute(SPELLED_HERE)
        connection.execute(spelled(GOOD_ROWS))
        connection.commit()
        yield connection
    postgres_server.drop(address)


def spelled(statements: str) -> bytes:
    return re.sub(r"\b(\w*counters|minutes)\b", r"\1_by_worker", statements).encode()


def refused(filled: psycopg.Connection, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, filled.transaction(force_rollback=True):
        filled.execute(spelled(statement))
    return caught.value


@pytest.mark.parametrize(("constraint", "statement"), ON_POSTGRES)
def test_impossible_row_is_refused_by_postgresql(
    filled: psycopg.Connection, constraint: str, statement: str
) -> None:
    problem = refused(filled, statement)
    if not isinstance(problem, errors.InvalidTextRepresentation):  # no JSON
        assert isinstance(problem, errors.CheckViolation)
        assert not constraint.isidentifier() or problem.diag.constraint_name == constraint


@pytest.mark.parametrize(("column", "statement"), REPEATED)
def test_repeated_row_is_refused_by_postgresql(
    filled: psycopg.Connection, column: str, statement: str
) -> None:
    problem = refused(filled, statement)
    assert isinstance(problem, errors.UniqueViolation)
    columns = ", ".join(re.findall(r"\.(\w+)", column))
    assert f"({columns})" in str(problem)


@pytest.mark.parametrize(
    "statement", [one for one in POINTING_NOWHERE if one not in NAMED_BY_BIG_TABLES]
)
def test_row_that_points_nowhere_is_refused_by_postgresql(
    filled: psycopg.Connection, statement: str
) -> None:
    assert isinstance(refused(filled, statement), errors.ForeignKeyViolation)


def test_every_named_constraint_of_postgresql_is_violated_above() -> None:
    violated = {name for name, _ in ON_POSTGRES if name.isidentifier()}
    assert named_in(postgres_migrate) == violated


@pytest.mark.parametrize(
    "statement", ["update work set tries = 'many'", "update item_keys set item_id = 'x'"]
)
def test_value_of_another_type_is_refused_by_postgresql(
    filled: psycopg.Connection, statement: str
) -> None:
    assert isinstance(refused(filled, statement), psycopg.DataError)
