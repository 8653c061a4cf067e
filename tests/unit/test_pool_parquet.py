"""Parquet as a data pool."""

import datetime as dt
import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchgen.errors import UsageError
from batchgen.items import PoolItem
from batchgen.pool import BadLine, open_pool
from tests.kits.project import Project


def read(path: Path, table: pa.Table, **options: Any) -> list[PoolItem | BadLine]:
    pq.write_table(table, path, **options)
    return list(open_pool(str(path)))


def given(path: Path, table: pa.Table, **options: Any) -> list[Any]:
    """The items as JSON gives them back."""
    entries = read(path, table, **options)
    return [
        json.loads(json.dumps(entry.input.given)) if isinstance(entry, PoolItem) else entry
        for entry in entries
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.parquet"


def test_each_row_is_an_item(path: Path) -> None:
    rows = [
        {"topic": "茶", "n": 1, "x": 0.5, "ok": True},
        {"topic": None, "n": 2, "x": 1, "ok": None},
    ]
    table = pa.Table.from_pylist(rows)
    entries = read(path, table)
    assert [entry.where for entry in entries] == [f"{path}: row 1", f"{path}: row 2"]
    assert given(path, table) == rows
    first = entries[0]
    assert isinstance(first, PoolItem)
    assert first.input.user_variables == first.input.system_variables == rows[0]


def test_rows_are_counted_through_all_row_groups(path: Path) -> None:
    entries = read(path, pa.table({"n": range(2500)}), row_group_size=700)
    assert [entry.where for entry in entries] == [f"{path}: row {n + 1}" for n in range(2500)]
    assert given(path, pa.table({"n": pa.array([], pa.int64())})) == []


def test_views_of_text_are_text(path: Path) -> None:
    view = pa.array(["茶", None], pa.string_view())
    assert given(path, pa.table({"topic": view, "n": [1, 2]})) == [
        {"topic": "茶", "n": 1},
        {"topic": None, "n": 2},
    ]


def test_what_an_extension_type_holds_is_read(path: Path) -> None:
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))
    assert given(path, pa.table({"made": column})) == [{"made": '{"a": 1}'}]


def test_a_row_of_nothing_but_nulls_and_white_space_is_blank(path: Path) -> None:
    table = pa.table({"a": pa.array([None, None, 1], pa.int64()), "b": [None, " ", ""]})
    *blank, last = read(path, table)
    assert blank == [BadLine(f"{path}: row {n}", "the row is blank", blank=True) for n in (1, 2)]
    assert not isinstance(last, BadLine)


def test_nested_columns_are_json_values(path: Path) -> None:
    kind = pa.struct([("a", pa.list_(pa.int64())), ("b", pa.map_(pa.string(), pa.float64()))])
    value = {"a": [1, None], "b": {"x": 0.5, "y": None}}
    table = pa.table({"s": pa.array([value, None], kind), "n": [1, 2]})
    assert given(path, table) == [{"s": value, "n": 1}, {"s": None, "n": 2}]


def test_kinds_that_json_does_not_know_go_by_the_rule(path: Path) -> None:
    at = dt.datetime(2026, 11, 20, 12, 30, 1, 250_000, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    table = pa.table(
        {
            "day": pa.array([dt.date(2026, 11, 20)]),
            "time": pa.array([dt.time(1, 2, 3)]),
            "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "second": pa.array([1_700_000_000], pa.timestamp("s")),
            "zoned": pa.array([at], pa.timestamp("us", "+02:00")),
            "price": pa.array([Decimal("12.50")], pa.decimal128(10, 2)),
            "color": pa.array(["red"]).dictionary_encode(),
            "half": pa.array([0.5], pa.float16()),
            "days": pa.array([[dt.date(2026, 1, 2)]]),
            "deep": pa.array([{"at": 1_700_000_000_000_000_001}],
                             pa.struct([("at", pa.timestamp("ns", "UTC"))])),
        }
    )  # fmt: skip
    assert given(path, table) == [
        {
            "day": "2026-11-20",
            "time": "01:02:03",
            "ns": "2023-11-14T22:13:20.123456",
            "second": "2023-11-14T22:13:20",
            "zoned": "2026-11-20T10:30:01.250000Z",
            "price": "12.50",
            "color": "red",
            "half": 0.5,
            "days": ["2026-01-02"],
            "deep": {"at": "2023-11-14T22:13:20Z"},
        }
    ]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([b"x"]),
         "column c holds bytes, which an item cannot hold; "
         "write them as text, such as base64, or drop it"),
        (pa.array([{"bytes": b"x"}]),
         "column c.bytes holds bytes, which an item cannot hold; "
         "write them as text, such as base64, or drop it"),
        (pa.array([[dt.timedelta(1)]]),
         "column c[] holds duration[us], which an item cannot hold; drop it"),
        (pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())),
         "column c is a map whose keys are not text; drop it"),
    ],
)  # fmt: skip
def test_a_column_that_no_item_can_hold_is_refused_by_name(
    path: Path, column: pa.Array, problem: str
) -> None:
    assert read(path, pa.table({"c": column})) == [BadLine(str(path), problem, fatal=True)]


def test_two_columns_of_one_name_are_refused(path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert read(path, table) == [BadLine(str(path), "there are two columns 'a'", fatal=True)]


def test_a_bad_row_is_told_and_the_next_one_read(path: Path) -> None:
    table = pa.table({"x": [0.5, float("nan"), 1.5]})
    assert read(path, table)[1] == BadLine(
        f"{path}: row 2", "column x: nan is not JSON", '{"x": "nan"}'
    )
    assert given(path, table)[2] == {"x": 1.5}


def test_a_date_beyond_the_calendar_costs_its_row_alone(path: Path) -> None:
    entries = given(path, pa.table({"at": pa.array([0, 2**60, 1], pa.timestamp("us"))}))
    assert (entries[0], entries[2]) == (
        {"at": "1970-01-01T00:00:00"},
        {"at": "1970-01-01T00:00:00.000001"},
    )
    assert isinstance(entries[1], BadLine)
    assert entries[1].where == f"{path}: row 2"


def test_an_empty_cell_leaves_out_what_has_a_meaning(path: Path) -> None:
    rows = [{"id": "a", "params": '{"seed": 1}', "metadata": None, "topic": None},
            {"id": None, "params": None, "metadata": {"k": 1}, "topic": "tea"}]  # fmt: skip
    first, second = read(path, pa.Table.from_pylist(rows))
    assert isinstance(first, PoolItem)
    assert isinstance(second, PoolItem)
    assert (first.input.id, first.input.params, first.input.metadata) == ("a", {"seed": 1}, None)
    assert (second.input.id, second.input.params, second.input.metadata) == (None, {}, {"k": 1})
    assert first.input.user_variables["topic"] is None


def test_params_that_are_no_json_are_a_bad_row(path: Path) -> None:
    (found,) = read(path, pa.table({"params": ["{"]}))
    assert isinstance(found, BadLine)
    assert found.problem.startswith("params: not JSON: ")


def test_messages_come_without_the_fields_that_only_others_have(path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "see"},
                                     {"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]  # fmt: skip
    table = pa.Table.from_pylist([{"messages": messages}])
    (item,) = read(path, table)
    assert isinstance(item, PoolItem)
    assert item.input.messages == messages
    (named,) = read(
        path, pa.Table.from_pylist([{"messages": [{"role": "user", "content": "a", "name": "x"},
                                                  {"role": "assistant", "content": None}]}])
    )  # fmt: skip
    assert isinstance(named, PoolItem)
    assert named.input.messages == [
        {"role": "user", "content": "a", "name": "x"},
        {"role": "assistant", "content": None},
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}\n" * 9, b"PAR1" + b"\xff" * 50 + b"PAR1"])
def test_what_is_no_parquet_is_told_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    (found,) = open_pool(str(path))
    assert isinstance(found, BadLine)
    assert (found.where, found.fatal) == (str(path), True)
    assert found.problem.startswith("not Parquet: ")
    assert "\n" not in found.problem


def test_a_damaged_page_ends_the_pool_at_its_row(path: Path) -> None:
    pq.write_table(pa.table({"t": [f"text {n}" for n in range(3000)]}), path,
                   row_group_size=1000, use_dictionary=False)  # fmt: skip
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = group.data_page_offset
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(content)
    entries = list(open_pool(str(path)))
    last = entries[-1]
    assert isinstance(last, BadLine)
    assert last.fatal
    assert last.where == f"{path}: row {len(entries)}"
    assert len(entries) == 1001


def test_a_pipe_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(UsageError, match="Parquet is read from its end"):
        open_pool(str(path))


def test_without_pyarrow_one_line_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'batchgen-llm\[parquet\]'"):
        open_pool(str(path))


@pytest.mark.slow
def test_one_row_group_of_a_hundred_megabytes_is_not_in_memory_at_once(path: Path) -> None:
    texts = [f"{number:06}" * 300 for number in range(60_000)]
    pq.write_table(
        pa.table({"t": texts}), path,
        row_group_size=len(texts), use_dictionary=False, compression="none",
    )  # fmt: skip
    assert path.stat().st_size > 100_000_000
    del texts
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in open_pool(str(path))]
    assert len(held) == 60_000
    assert max(held) < 20_000_000


async def test_a_parquet_pool_is_run_and_told_by_row(project: Project) -> None:
    pool = project.path / "data.parquet"
    pq.write_table(pa.table({"word": ["a", "b"], "id": [1, 2]}), pool)
    assert (await project.batchgen("run", "data.parquet", "-o", "out.jsonl")).code == 0
    lines = (project.path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == [
        {"word": "a", "id": 1}, {"word": "b", "id": 2},
    ]  # fmt: skip
    pq.write_table(pa.table({"word": ["c", "d"], "id": [3.0, 4.0]}), pool)
    refused = await project.batchgen("enqueue", "data.parquet")
    assert (refused.code, refused.err) == (
        2,
        "error: data.parquet: row 1: id must be a text that is not empty, not 3.0\n",
    )
    skipped = await project.batchgen("enqueue", "data.parquet", "--skip-invalid", "bad.jsonl")
    assert skipped.code == 0
    assert (project.path / "bad.jsonl").read_text() == (
        '{"word": "c", "id": 3.0}\n{"word": "d", "id": 4.0}\n'
    )
