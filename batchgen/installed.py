"""What is installed: the files that ship with the package (migrations, the starter config, prompts
and pool), and pyarrow and psycopg, which may be."""

import importlib
from pathlib import Path
from typing import Any

from batchgen.errors import UsageError


def shipped_path(name: str) -> Path:
    """Where `name` (a path such as `prompts/user_prompts/default.txt`) is installed.

    In a wheel that is beside the code; in a checkout or an editable install, the top of the
    checkout. Raises FileNotFoundError when it is in neither: the installation is damaged.
    """
    package = Path(__file__).parent
    for home in (package / "shipped_files", package.parent):
        if (home / name).exists():
            return home / name
    raise FileNotFoundError(f"{name} is missing from the installation of batchgen in {package}")


def load_pyarrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`, which only Parquet needs. Raises UsageError without them."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as exc:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed: pip install 'batchgen-llm[parquet]'"
        ) from exc


def load_psycopg() -> Any:
    """`psycopg`, which only a database on a PostgreSQL server needs. Raises UsageError without it,
    or without the library of PostgreSQL that it calls."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as exc:
        raise UsageError(
            "A database on PostgreSQL needs psycopg, which is not installed: "
            "pip install 'batchgen-llm[postgres]'"
        ) from exc


def load_ray() -> Any:
    """`ray`, which only work on a cluster needs. Raises UsageError without it."""
    try:
        return importlib.import_module("ray")
    except ImportError as exc:
        raise UsageError(
            "Ray is not installed: pip install 'batchgen-llm[ray]', here and on each machine of "
            "the cluster"
        ) from exc
