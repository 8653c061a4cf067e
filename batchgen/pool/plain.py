"""Python's values as JSON has them: what comes out of notebooks, tables and other libraries.

A missing value (NaN, NaT, pandas' NA) is null. A number of numpy's is a number; a date or a time is
text as ISO 8601 writes it; a path, a UUID and a Decimal are text; a set is a list in the order of
its JSON, since an item is known again by its content. No library is imported to know its types.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping, Set
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from batchgen.pool.strict_json import LONE_SURROGATE
from batchgen.text.json_text import canonical_json, dump_json, is_storable

_DEEPEST = 200  # further down, json itself would give up
_MOST_BITS = 14_000  # Python writes no number of more than 4,300 digits


class NotPlainError(ValueError):
    """What cannot be had, and where it stands in the item."""


def plain_text(item: Any) -> str:
    """The item as JSON text. Raises NotPlainError, which names the place of what cannot be had."""
    if not isinstance(item, dict | list | str):
        item = _as_object(item)
    try:
        return dump_json(item)
    except (TypeError, ValueError):  # most items need no more than that
        return dump_json(plain(item, ""))


def _as_object(item: Any) -> Any:
    """A row of another library, with its columns as names: a named tuple (as of pandas'
    itertuples), a row of pandas, a row of a database."""
    for method in ("_asdict", "to_dict"):
        if callable(found := getattr(item, method, None)) and not isinstance(item, type):
            return found()
    if callable(getattr(item, "keys", None)) and not isinstance(item, type):
        return {key: item[key] for key in item.keys()}  # noqa: SIM118  not all are iterated by key
    return item


def plain(value: Any, place: str, depth: int = 0) -> Any:
    """`value` as JSON has it; `place` is where it stands: `column`, `column[3]`, `column.name`."""
    if depth > _DEEPEST:
        raise NotPlainError(f"{_at(place)}nested too deep")
    if isinstance(value, Enum):
        return plain(value.value, place, depth)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not is_storable(value):
            raise NotPlainError(f"{_at(place)}{LONE_SURROGATE}")
        return str(value)
    if isinstance(value, int | float):
        return _number(value, place)
    if isinstance(value, Mapping):
        return {
            _key(key, place): plain(one, _inside(place, key), depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(one, f"{place}[{n}]", depth + 1) for n, one in enumerate(value)]
    if isinstance(value, Set):
        return sorted((plain(one, f"{place}{{}}", depth + 1) for one in value), key=canonical_json)
    if _is_missing(value):
        return None
    return plain(_simpler(value, place), place, depth + 1)


def _number(value: float, place: str) -> float | None:
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise NotPlainError(f"{_at(place)}the number is too long")
        return int(value)
    if math.isinf(value):
        raise NotPlainError(f"{_at(place)}{value} is no number that JSON has")
    return None if math.isnan(value) else float(value)


def _key(key: Any, place: str) -> str:
    if isinstance(key, str) and is_storable(key):
        return str(key)
    if isinstance(key, int | float) or key is None:
        return str(json.loads(json.dumps({key: 0}, allow_nan=True).partition(":")[0][1:]))
    raise NotPlainError(f"{_at(place)}the name {key!r} is no text")


def _is_missing(value: Any) -> bool:
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return getattr(getattr(value, "dtype", None), "kind", "") in "mM" and str(value) == "NaT"


def _is_span(value: Any) -> bool:
    """A time or a range of pandas'."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in ("Period", "Interval")


def _simpler(value: Any, place: str) -> Any:
    """The same as a plainer value, which is looked at again."""
    if isinstance(value, dt.date | dt.time):  # a datetime and pandas' Timestamp are dates
        return value.isoformat()
    if isinstance(value, PurePath | UUID | Decimal | dt.timedelta) or _is_span(value):
        return str(value)
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M") and not value.shape:
        return str(value)  # numpy's date; as a number it would have lost its unit
    for method in ("tolist", "to_list", "model_dump"):  # numpy and torch, polars, pydantic
        if callable(found := getattr(value, method, None)) and not isinstance(value, type):
            return found()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise NotPlainError(f"{_at(place)}a value of type {type(value).__name__} is nothing JSON has")


def _inside(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _at(place: str) -> str:
    return f"{place}: " if place else ""
