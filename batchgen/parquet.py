"""Loads pyarrow, an optional dependency that Parquet needs, when it is first used."""

import importlib
from typing import Any

from batchgen.errors import UsageError


def load_pyarrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`. Raises UsageError when they are not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as exc:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed: pip install 'batchgen-llm[parquet]'"
        ) from exc
