"""What an export is asked for, and what came of it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from batchgen.errors import UsageError
from batchgen.items import State
from batchgen.where import Where


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    OPENAI_BATCH = "openai-batch"

    @property
    def suffix(self) -> str:
        """Of a file's name, when the user gives none."""
        if self in (Format.JSONL, Format.CSV, Format.PARQUET):
            return f".{self}"
        return f".{self}.jsonl"

    @property
    def is_chat(self) -> bool:
        """For training on: what was asked and what was answered."""
        return self in (Format.MESSAGES, Format.ALPACA, Format.SHAREGPT)


class Extra(StrEnum):
    """What a row can have beside what it always has."""

    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"
    LOGPROBS = "logprobs"
    BODY = "body"


def format_by_name(path: Path | None) -> Format:
    """By the suffix of the file's name: CSV, Parquet, or else JSON lines."""
    suffix = path.suffix.lower() if path else ""
    return {".csv": Format.CSV, ".parquet": Format.PARQUET}.get(suffix, Format.JSONL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`where` chooses among the rows of `state`; `shards` is the number of files they go into;
    `summary` is a file that tells about them; `extras` go into each row; `group` puts the samples
    of an item into one line. Raises UsageError for what cannot be had."""

    format: Format = Format.JSONL
    state: State = State.DONE
    where: Where | None = None
    shards: int = 1
    summary: Path | None = None
    extras: tuple[Extra, ...] = ()
    group: bool = False

    def __post_init__(self) -> None:
        self._check_extras()
        if self.state is State.FAILED and self.format.is_chat:
            raise UsageError(
                f"--failed with --format {self.format}: failed items have no answer to train on; "
                "choose jsonl, csv, parquet or openai-batch."
            )

        if self.group:
            self._check_group()

    def _check_group(self) -> None:
        refused = {
            f"--format {self.format}": self.format is not Format.JSONL,
            "--failed": self.state is State.FAILED,
            "--shards": self.shards > 1,
            "--summary": self.summary is not None,
            "--with": bool(self.extras),
        }
        given = ", ".join(option for option, is_given in refused.items() if is_given)
        if given:
            raise UsageError(
                "--group writes the done samples of an item as one JSON line, in one file, so it "
                f"does not go with {given}."
            )

    def _check_extras(self) -> None:
        if self.format in (Format.JSONL, Format.CSV, Format.PARQUET):
            return
        has_place = (Extra.REASONING,) if self.format is Format.MESSAGES else ()
        if refused := [extra for extra in self.extras if extra not in has_place]:
            raise UsageError(
                f"--with {refused[0]} with --format {self.format}: it has no place for that; "
                "choose jsonl, csv or parquet."
            )

    @property
    def is_all(self) -> bool:
        """All results as JSON lines in one file: what `verify` can compare with the table."""
        everything = self.where is None and self.shards == 1 and self.state is State.DONE
        everything = everything and self.format is Format.JSONL
        return everything and not self.extras and not self.group

    @property
    def is_plain(self) -> bool:
        """Nothing but the stored texts is needed."""
        alone = self.where is None and self.shards == 1 and self.summary is None
        alone = alone and self.format is Format.JSONL
        return alone and not self.extras and not self.group


@dataclass(frozen=True, slots=True)
class ExportedFile:
    path: Path
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Exported:
    """The files of one export, several if it was sharded."""

    files: tuple[ExportedFile, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)
