"""Parquet: an item in each row, decoded a batch of rows at a time.

Types that JSON does not have are converted: dates and times become ISO 8601 text (instants in UTC,
ending in Z; nanoseconds are cut to microseconds), decimals become text, digit for digit. Bytes,
durations and the like are refused with the name of their column.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, BinaryIO

from batchgen.installed import load_pyarrow
from batchgen.pool.shapes import BadLine, Entry, entry_of
from batchgen.pool.strict_json import problem_of, read_json
from batchgen.text.json_text import dump_json

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 1000
# Every row has a cell in every column, so an empty cell means that these are left out.
_OPTIONAL_NAMES = (
    "id", "custom_id", "metadata", "params", "messages", "user_prompt_kwargs",
    "system_prompt_kwargs", "method", "url",
)  # fmt: skip


class _RefusedError(Exception):
    """A column or a cell holds what an item cannot hold."""


def read_parquet_rows(file: BinaryIO, name: str) -> Iterator[Entry]:
    pa, parquet = load_pyarrow()
    try:
        # With a buffer a column is read as it is needed, not a whole row group at once.
        source = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        schema = source.schema_arrow
        _check_names(schema.names)
        target = pa.schema(
            [(field.name, _readable(pa, field.type, field.name)) for field in schema]
        )
    except _RefusedError as exc:
        yield BadLine(name, str(exc), fatal=True)
        return
    except (pa.ArrowException, OSError, ValueError) as exc:
        yield BadLine(name, f"not Parquet: {_first_line(exc)}", fatal=True)
        return
    number = 0
    batches = source.iter_batches(_batch_rows(source.metadata), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            columns = [
                column.cast(kind, safe=False) if column.type != kind else column
                for column, kind in zip(batch.columns, target.types, strict=True)
            ]
        except (pa.ArrowException, OSError, ValueError) as exc:
            where = _where(name, number + 1)
            yield BadLine(where, f"cannot be read from here on: {_first_line(exc)}", fatal=True)
            return
        batch = pa.record_batch(columns, schema=target)
        for row in _rows(batch):
            number += 1
            yield _entry(row, schema, _where(name, number))


def _where(name: str, number: int) -> str:
    return f"{name}: row {number}"


def _first_line(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]


def _check_names(names: list[str]) -> None:
    for name in names:
        if not name:
            raise _RefusedError("a column has no name")
        if names.count(name) > 1:
            raise _RefusedError(f"there are two columns {name!r}")


def _batch_rows(metadata: Any) -> int:
    """How many rows of this file fit into a batch."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    row_bytes = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(row_bytes, 1)))


def _readable(pa: Any, kind: Any, name: str) -> Any:
    """The type that a column is read as. Raises _RefusedError for one that an item cannot hold."""
    is_a = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _readable(pa, kind.storage_type, name)
    if is_a.is_dictionary(kind):
        return _readable(pa, kind.value_type, name)
    if is_a.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit)
    if is_a.is_time(kind):
        return pa.time64("us")
    if is_a.is_float16(kind):
        return pa.float32()
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return pa.list_(_readable(pa, kind.value_type, f"{name}[]"))
    if str(kind).startswith(("list_view", "large_list_view")):  # not in every pyarrow
        return pa.list_view(_readable(pa, kind.value_type, f"{name}[]"))
    if is_a.is_struct(kind):
        return pa.struct(
            [(field.name, _readable(pa, field.type, f"{name}.{field.name}")) for field in kind]
        )
    if is_a.is_map(kind) and is_a.is_string(kind.key_type):
        return pa.map_(pa.string(), _readable(pa, kind.item_type, f"{name}{{}}"))
    plain = (
        is_a.is_null, is_a.is_boolean, is_a.is_integer, is_a.is_floating, is_a.is_string,
        is_a.is_large_string, is_a.is_date, is_a.is_decimal,
    )  # fmt: skip
    if any(test(kind) for test in plain) or str(kind) == "string_view":
        return kind
    if is_a.is_map(kind):
        raise _RefusedError(f"column {name} is a map whose keys are not text; drop it")
    what = "bytes" if "binary" in str(kind) else str(kind)
    hint = "; write them as text, such as base64, or drop it" if what == "bytes" else "; drop it"
    raise _RefusedError(f"column {name} holds {what}, which an item cannot hold{hint}")


def _rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """The rows as Python values, or the error when Python has no such value (the year 20000)."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
        return
    except (ValueError, OverflowError, KeyError):
        pass  # raised before the first row, as all rows are made at once
    for index in range(batch.num_rows):
        try:
            yield batch.slice(index, 1).to_pylist(maps_as_pydicts="strict")[0]
        except (ValueError, OverflowError, KeyError) as exc:
            yield exc


def _entry(row: dict[str, Any] | Exception, schema: Any, where: str) -> Entry:
    if isinstance(row, Exception):
        return BadLine(where, f"a value cannot be read: {_first_line(row)}")
    if all(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in row.values()):
        return BadLine(where, "the row is blank", blank=True)
    try:
        item = {
            field.name: _as_json(row[field.name], field.type, field.name)
            for field in schema
            if not (row[field.name] is None and field.name in _OPTIONAL_NAMES)
        }
        _restore_shape(item)
    except _RefusedError as exc:
        return BadLine(where, str(exc), dump_json(_shown(row)))
    found = entry_of(item, where, "")
    return BadLine(where, found.problem, dump_json(item)) if isinstance(found, BadLine) else found


def _as_json(value: Any, kind: Any, name: str) -> Any:
    """The value of a cell as JSON can hold it. `kind` is the type in the file, by which instants
    differ from times without a zone. Raises _RefusedError."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _RefusedError(f"column {name}: {value} is not JSON")
        return value
    if isinstance(value, list):
        inner = _value_kind(kind).value_type
        return [_as_json(one, inner, f"{name}[{n}]") for n, one in enumerate(value)]
    if isinstance(value, dict):
        inner_of = _kinds_within(_value_kind(kind))
        return {key: _as_json(one, inner_of(key), f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, dt.datetime):
        return value.isoformat() + ("Z" if _value_kind(kind).tz else "")
    return str(value) if isinstance(value, Decimal) else str(value.isoformat())


def _value_kind(kind: Any) -> Any:
    """The type of the values; of a column of categories, that of the categories."""
    if hasattr(kind, "storage_type"):
        return _value_kind(kind.storage_type)
    return kind.value_type if hasattr(kind, "index_type") else kind


def _kinds_within(kind: Any) -> Callable[[str], Any]:
    if hasattr(kind, "item_type"):
        return lambda _: kind.item_type
    return lambda key: kind.field(key).type


def _restore_shape(item: dict[str, Any]) -> None:
    """Undo what a table makes of an item: params are a text of JSON, and each chat message has
    every field that any of them has."""
    if isinstance(item.get("params"), str):
        try:
            item["params"] = read_json(item["params"])
        except (ValueError, RecursionError) as exc:
            raise _RefusedError(f"params: {problem_of(exc)}") from None
    if isinstance(item.get("messages"), list):
        item["messages"] = _without_nulls(item["messages"])
    if "custom_id" in item and isinstance(item.get("body"), dict):
        item["body"] = _without_nulls(item["body"])


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {
            key: _without_nulls(one)
            for key, one in value.items()
            if one is not None or key == "content"
        }
    return value


def _shown(value: Any) -> Any:
    """A refused row as it goes into the file of bad lines."""
    if isinstance(value, dict):
        return {key: _shown(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shown(one) for one in value]
    kept = value is None or isinstance(value, str | int)
    return value if kept or (isinstance(value, float) and math.isfinite(value)) else str(value)
