"""What the tables may not say of batches: a constraint refuses it, or the proof finds it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.kits.engines import postgres_engine
from tests.kits.sending import Sending
from tests.kits.table import Table, new_database


@pytest.fixture
def table(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """With a batch that is open, and has two rows."""
    if engine == "sqlite":
        with closing(new_database(tmp_path / "batchgen.db")) as db:
            yield filled(Table(db))
    else:
        with postgres_engine(request.getfixturevalue("postgres")) as opened:
            yield filled(Table(opened))


def filled(table: Table) -> Table:
    Sending(table).sealed(2)
    assert table.problems() == []
    return table


PLANTED = {
    "a claim has ended": (
        "update work set worker_id = 1 where item_id = 1",
        ["batch 1 was sealed with 2 rows, but 0 of them are settled, and it has 1"],
    ),
    "a row is settled twice": (
        "update provider_batches set settled = 1",
        ["batch 1 was sealed with 2 rows, but 1 of them are settled, and it has 2"],
    ),
    "its holder is another": (
        "update workers set kind = 'caller' where kind = 'batch'",
        ["batch 1 is not closed, but nothing holds its rows"],
    ),
    "it is gone": (
        "delete from provider_batches",
        ["worker 2 holds rows for a batch that is not there, or is closed"],
    ),
    "it was closed too early": (
        "update provider_batches set state = 'closed', closed_at = 1, settled = 2",
        ["batch 1 was sealed with 2 rows, but 2 of them are settled, and it has 2",
         "worker 2 holds rows for a batch that is not there, or is closed"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "problems"), PLANTED.values(), ids=PLANTED)
def test_a_planted_contradiction_is_found(
    table: Table, statement: str, problems: list[str]
) -> None:
    table.query(statement)
    assert table.problems() == problems


IMPOSSIBLE = (
    "set state = 'lost'", "set token = 'short'", "set requests = 0", "set settled = -1",
    "set settled = 3", "set state = 'closed', closed_at = 1", "set state = 'creating'",
    "set batch_id = null", "set state = 'ended'", "set ended_at = 1", "set closed_at = 1",
    "set settled = 2, state = 'closed'", "set answered = -1", "set reserved_cost_usd = -0.1",
    "set files_gone = 1",
)  # fmt: skip


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_an_impossible_row_is_refused(table: Table, change: str) -> None:
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation)):
        table.query(f"update provider_batches {change}")


def test_a_worker_of_no_known_kind_is_refused(table: Table) -> None:
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation)):
        table.query("update workers set kind = 'other'")
