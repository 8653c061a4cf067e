"""The formats of the export: one entry in FORMATS each, from which the command line takes its
choices, requests their errors, and the documentation its table."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.export.chat import alpaca_line, batch_line, messages_line, sharegpt_line
from batchgen.export.files import Hashed
from batchgen.export.lines import export_line
from batchgen.export.parquet_table import results_as_parquet, see_parsed
from batchgen.export.table import results_as_csv, see_columns
from batchgen.export.writer import Content, Extra, LineWriter, Writer
from batchgen.installed import load_pyarrow
from batchgen.store import ResultRow


def _nothing_to_install() -> None:
    """Most formats need no optional package."""


class FormatSpec(Struct, frozen=True, kw_only=True):
    """A format: how it is asked for, what it can hold, and what its writer needs to know.

    `suffix` is that of the file's name when the user gives none; a file whose name ends so is in
    this format. `row` says what a row is, as Markdown. `check_installed` raises UsageError when an
    optional package is missing.
    """

    name: str
    suffix: str
    row: str
    writer: Callable[[Hashed, Content], Writer[ResultRow]]
    extras: tuple[Extra, ...] = ()  # those that a row has a place for
    is_json: bool = True  # lines of it
    is_text: bool = True
    is_sheet: bool = False  # its columns can be chosen, and its cells run as formulas
    is_for_training: bool = False  # conversations as they were sent; so failed items have no place
    is_export_line: bool = False  # so it can be followed, grouped, and compared by `verify`
    see: Callable[[Content, ResultRow], None] | None = None  # each row, before any is written
    needs_bodies: bool = False  # what the server sent, in `Content.details`
    check_installed: Callable[[], object] = _nothing_to_install


JSONL = FormatSpec(
    name="jsonl",
    suffix=".jsonl",
    row="the line below",
    writer=partial(LineWriter, lambda row, content: export_line(row, content.extras_of(row))),
    extras=tuple(Extra),
    is_export_line=True,
)
_SPECS = (
    JSONL,
    FormatSpec(
        name="csv",
        suffix=".csv",
        row="a sheet: a field of an object in `input`, `parsed` or `metadata` has its own column "
        "(`input.topic`, `parsed.label`), a list is JSON text",
        writer=results_as_csv,
        is_json=False,
        is_sheet=True,
        extras=tuple(Extra),
        see=see_columns,
    ),
    FormatSpec(
        name="parquet",
        suffix=".parquet",
        row="typed columns; `parsed` has a type where all its values have one shape (an object is "
        "a struct: `parsed.label`), else it is JSON as text, as `input` and `metadata` are; `id` "
        "is text, the counts of `usage` are columns",
        writer=results_as_parquet,
        is_json=False,
        is_text=False,
        extras=tuple(Extra),
        see=see_parsed,
        check_installed=load_pyarrow,
    ),
    FormatSpec(
        name="messages",
        suffix=".messages.jsonl",
        row='`{"messages": [...]}` with the answer as the last one, and `metadata` if there is any',
        writer=partial(LineWriter, messages_line),
        extras=(Extra.REASONING,),
        is_for_training=True,
    ),
    FormatSpec(
        name="alpaca",
        suffix=".alpaca.jsonl",
        row='`{"instruction", "input": "", "output"}`, and `system` if there is one',
        writer=partial(LineWriter, alpaca_line),
        is_for_training=True,
    ),
    FormatSpec(
        name="sharegpt",
        suffix=".sharegpt.jsonl",
        row='`{"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}]}`, and '
        "`system` if there is one",
        writer=partial(LineWriter, sharegpt_line),
        is_for_training=True,
    ),
    FormatSpec(
        name="openai-batch",
        suffix=".openai-batch.jsonl",
        row="a line as in the output of OpenAI's batch API, the whole answer in it",
        writer=partial(LineWriter, batch_line),
        needs_bodies=True,
    ),
)

FORMATS: Mapping[str, FormatSpec] = {spec.name: spec for spec in _SPECS}


# What files with these suffixes are expected to hold, no format here writes.
_OTHER_SUFFIXES = (
    ".json", ".tsv", ".xls", ".xlsx", ".arrow", ".feather", ".gz", ".bz2", ".xz", ".zst", ".zip",
)  # fmt: skip


def format_of(path: Path | None, name: str | None = None, *, of_sheet: bool = False) -> FormatSpec:
    """The format that is called `name` or, without one, that the suffix of a file's name means; if
    that means none, JSON lines, or CSV where what is asked for is `of_sheet`. Raises UsageError for
    a format that is not there."""
    if name is not None:
        if name not in FORMATS:
            raise UsageError(f"format: {name!r} is not one of {', '.join(FORMATS)}")
        return FORMATS[name]
    suffix = path.suffix.lower() if path else ""
    if suffix in _OTHER_SUFFIXES:
        raise UsageError(f"{path}: no export is a {suffix} file; name it .jsonl, .csv or .parquet.")
    default = FORMATS["csv"] if of_sheet else JSONL
    return next((spec for spec in _SPECS if spec.suffix == suffix), default)


def names_of(which: Callable[[FormatSpec], bool]) -> list[str]:
    """The names of the formats for which it holds."""
    return [spec.name for spec in FORMATS.values() if which(spec)]
