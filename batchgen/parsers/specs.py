"""What a parser is called, and what the name alone tells of it."""

from contextlib import suppress
from pathlib import Path

PREFIXES = frozenset({"tag", "regex", "json_schema", "python"})
"""Of the names of parsers that are not the user's code."""
_LONGEST_SHOWN = 80


def is_script_parser(spec: str) -> bool:
    """Whether it is a function that only a Python script has."""
    return spec.startswith("python:")


def is_function_parser(spec: str) -> bool:
    """Whether the user's code is behind it, which may change while the spec stays."""
    prefix, colon, _ = spec.partition(":")
    return spec not in ("raw", "json") and not (colon and prefix in PREFIXES)


def shown_spec(spec: str) -> str:
    """For messages: short, and a path as it is seen from the current directory."""
    source, colon, name = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    with suppress(ValueError, OSError):  # it is no path, or not below it
        if Path(source).is_absolute():
            spec = f"{Path(source).relative_to(Path.cwd())}{colon}{name}"
    return spec if len(spec) <= _LONGEST_SHOWN else f"{spec[: _LONGEST_SHOWN - 3]}..."
