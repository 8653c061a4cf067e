"""Values of Python and of other libraries become what JSON has, or are named by their column."""

import dataclasses
import datetime as dt
import json
import sqlite3
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import BaseModel

from batchgen.errors import InputError
from batchgen.pool import rows_of_frame
from batchgen.pool.plain import NotPlainError, plain_text


class Color(Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Model(BaseModel):
    when: dt.date


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (float("nan"), None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (np.int64(3), 3),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(5), 5),
        (np.datetime64("2024-01-02T03:04:05.123456789"), "2024-01-02T03:04:05.123456789"),
        (pd.Timestamp("2024-01-02 03:04", tz="UTC"), "2024-01-02T03:04:00+00:00"),
        (pd.Period("2024-01", "M"), "2024-01"),
        (pd.Interval(0, 1), "(0, 1]"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.datetime.fromisoformat("2024-01-02T03:00"), "2024-01-02T03:00:00"),
        (dt.time(3), "03:00:00"),
        (Path("/data/x.txt"), "/data/x.txt"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("0.10"), "0.10"),
        ({"a"}, ["a"]),
        (frozenset({2, 1}), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (Color.RED, "red"),
        (Point(1), {"x": 1}),
        (Model(when=dt.date(2024, 1, 2)), {"when": "2024-01-02"}),
        (pd.Series([1.0, None]), [1.0, None]),
        ({1: {None: 2, True: 3}}, {"1": {"null": 2, "true": 3}}),
    ],
    ids=repr,
)
def test_a_value_becomes_what_json_has(value: Any, wanted: Any) -> None:
    assert json.loads(plain_text({"v": value, "other": float("nan")})) == {
        "v": wanted, "other": None,
    }  # fmt: skip


def test_a_row_of_another_library_is_an_object() -> None:
    frame = pd.DataFrame([{"word": "a", "n": float("nan")}])
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    rows = [
        *frame.itertuples(index=False),
        *(row for _, row in frame.iterrows()),
        *database.execute("select 'a' as word, null as n"),
        MappingProxyType({"word": "a", "n": None}),
    ]
    database.close()
    assert [json.loads(plain_text(row)) for row in rows] == [{"word": "a", "n": None}] * 4


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"price": float("inf")}, "price: inf is no number that JSON has"),
        ({"a": {"b": [1, object()]}}, r"a\.b\[1\]: a value of type object is nothing JSON has"),
        ({"image": b"png"}, "image: a value of type bytes is nothing JSON has"),
        ({"a": {(1, 2): 3}}, r"a: the name \(1, 2\) is no text"),
        ({"a": "\ud800"}, "a: it has a lone surrogate"),
        ({"f": len}, "f: a value of type builtin_function_or_method"),
        ({"c": int}, "c: a value of type type"),
        ({"id": 10**5000}, "id: the number is too long"),
    ],
)
def test_what_cannot_be_had_is_named_by_its_place(item: Any, said: str) -> None:
    with pytest.raises(NotPlainError, match=said):
        plain_text(item)


def test_an_item_that_holds_itself_is_refused() -> None:
    item: dict[str, Any] = {}
    item["self"] = item
    with pytest.raises(NotPlainError, match="nested too deep"):
        plain_text(item)


def as_json(frame: Any) -> list[Any]:
    rows = rows_of_frame(frame, "data_pool")
    assert rows is not None
    assert list(map(plain_text, rows)) == list(map(plain_text, rows))  # as often as one likes
    return [json.loads(plain_text(row)) for row in rows]


ROWS: list[dict[str, Any]] = [{"word": "a", "n": 1}, {"word": None, "n": 2}]


@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame(ROWS, index=["x", "y"]), pa.Table.from_pylist(ROWS)],
    ids=["pandas", "pyarrow"],
)
def test_the_rows_of_a_table_are_items(frame: Any) -> None:
    assert as_json(frame) == ROWS


@pytest.mark.slow
def test_the_rows_of_a_hugging_face_dataset_are_items_but_not_those_of_all_its_splits() -> None:
    import datasets  # here: it takes seconds, of each process that collects tests

    rows = datasets.Dataset.from_list(ROWS)
    assert as_json(rows) == ROWS
    with pytest.raises(InputError, match=r"data_pool: .*splits: 'train'"):
        rows_of_frame(datasets.DatasetDict({"train": rows}), "data_pool")


def test_an_index_with_a_name_is_a_column_too() -> None:
    frame = pd.DataFrame(ROWS)
    by_id: list[Any] = [{"id": 7, **ROWS[0]}, {"id": 8, **ROWS[1]}]
    assert as_json(frame.set_index(pd.Index([7, 8], name="id"))) == by_id
    assert as_json(frame.set_index("word", drop=False)) == ROWS
    levels = pd.MultiIndex.from_tuples([(7, 0), (8, 0)], names=["id", None])
    assert as_json(frame.set_index(levels)) == by_id


def test_a_frame_with_a_timestamp_somewhere_is_text() -> None:
    frame = pd.DataFrame({"word": ["a", "b"], "at": [pd.Timestamp("2024-01-02"), pd.NaT]})
    assert [row["at"] for row in as_json(frame)] == ["2024-01-02T00:00:00", None]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame([[1]]), "the name of column 0 is of type int"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns 'a'"),
        (pd.Series(["a"]), "is a single column"),
    ],
    ids=["number", "twice", "series"],
)
def test_a_table_that_makes_no_items_is_refused_with_words(frame: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"data_pool: .*{said}"):
        rows_of_frame(frame, "data_pool")


def test_what_is_no_table_is_left_to_others() -> None:
    assert rows_of_frame([{"a": 1}], "data_pool") is None
