"""A list of texts out of the answer is stored as their places in it, and read as it was."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.items import Done
from batchgen.store.records import ResultRow
from batchgen.store.transactions import results, verify
from batchgen.text.json_text import dump_json
from batchgen.text.spans import spans_of
from tests.kits.table import Table, answered
from tests.store.conftest import NewTable

LONG = "what was found is longer than its place"


@pytest.fixture(scope="module")
def table(new_table: NewTable) -> Iterator[Table]:
    with new_table() as opened:
        yield opened


def result_of(table: Table, answer: str, parsed: Any) -> ResultRow:
    """The newest item, which was answered so."""
    (number,) = table.enqueue({"n": table.one("select count(*) from items")})
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Done(dump_json(parsed)), answered(answer))
    table.leave(worker)
    (row,) = results.results_of(table.transaction, [number])
    return row


def stored(table: Table) -> tuple[str | None, str | None]:
    (row,) = table.query("select parsed, spans from results order by seq desc limit 1")
    return row[0], row[1]


def test_pieces_of_the_answer_are_stored_as_their_places(table: Table) -> None:
    row = result_of(table, f"So: <a>{LONG}</a><a>😀 {LONG}</a>", [LONG, f"😀 {LONG}"])
    assert stored(table) == (None, f"[[8,{len(LONG)}],[{15 + len(LONG)},{len(LONG) + 2}]]")
    assert row.parsed == f'["{LONG}", "😀 {LONG}"]'


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        (f"a {LONG}", [f"another {LONG}"]),
        (f"a {LONG}", [LONG, LONG]),  # the second is not there
        (f"\0 {LONG}", [LONG]),  # for SQL the answer ends there
        (f"a {LONG}", {"found": LONG}),
        (f"a {LONG}", [LONG, 1]),
        ("ab", ["ab"]),
        ("", []),
    ],
)
def test_what_is_not_pieces_of_it_is_stored_as_it_is(
    table: Table, answer: str, parsed: Any
) -> None:
    assert result_of(table, answer, parsed).parsed == dump_json(parsed)
    assert stored(table) == (dump_json(parsed), None)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.text(max_size=3))
def test_any_list_reads_as_it_was_stored_to_the_byte(
    table: Table, pieces: list[str], between: str
) -> None:
    answer = between.join(["", *pieces, ""])
    assert result_of(table, answer, pieces).parsed == dump_json(pieces)
    assert verify.verify_tables(table.transaction) == []


@given(st.lists(st.text(min_size=30, max_size=60), min_size=1, max_size=4))
def test_long_pieces_take_no_room(pieces: list[str]) -> None:
    spans = spans_of("|".join(pieces), dump_json(pieces))
    assert (spans is None) == any("\0" in piece for piece in pieces)
