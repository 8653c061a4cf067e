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
        """The suffix of the file's name, when the user gives no name."""
        if self in (Format.JSONL, Format.CSV, Format.PARQUET):
            return f".{self}"
        return f".{self}.jsonl"

    @property
    def is_chat(self) -> bool:
        """A format of conversations to train on."""
        return self in (Format.MESSAGES, Format.ALPACA, Format.SHAREGPT)


class Extra(StrEnum):
    """What a row can hold beside what it always holds."""

    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"
    LOGPROBS = "logprobs"
    BODY = "body"


def format_by_name(path: Path | None) -> Format:
    """The format that the suffix of a file's name means: CSV, Parquet, or else JSON lines."""
    suffix = path.suffix.lower() if path else ""
    return {".csv": Format.CSV, ".parquet": Format.PARQUET}.get(suffix, Format.JSONL)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """`where` chooses among the rows of `state`; `shards` is the number of files that they go into;
    `summary` is a file that describes them; `extras` go into each row; `group` puts the samples of
    an item into one line. Raises UsageError for a combination that cannot be had."""

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
                f"format {self.format}: failed items have no answer to train on; "
                "choose jsonl, csv, parquet or openai-batch."
            )

        if self.group:
            self._check_group()

    def _check_group(self) -> None:
        refused = {
            f"format {self.format}": self.format is not Format.JSONL,
            "failed items": self.state is State.FAILED,
            "shards": self.shards > 1,
            "a summary": self.summary is not None,
            "extras": bool(self.extras),
        }
        given = ", ".join(option for option, is_given in refused.items() if is_given)
        if given:
            raise UsageError(
                "groups hold the done samples of an item as one JSON line, in one file, so they "
                f"do not go with {given}."
            )

    def _check_extras(self) -> None:
        if self.format in (Format.JSONL, Format.CSV, Format.PARQUET):
            return
        has_place = (Extra.REASONING,) if self.format is Format.MESSAGES else ()
        if refused := [extra for extra in self.extras if extra not in has_place]:
            raise UsageError(
                f"format {self.format}: it has no place for {refused[0]}; "
                "choose jsonl, csv or parquet."
            )

    @property
    def is_all(self) -> bool:
        """All done rows as JSON lines in one file: what `verify` can compare with the table."""
        return self._is_one_file_of_lines and self.state is State.DONE

    @property
    def is_plain(self) -> bool:
        """No stored text has to be parsed."""
        return self._is_one_file_of_lines and self.summary is None

    @property
    def _is_one_file_of_lines(self) -> bool:
        """All rows of the state, as they always are, as JSON lines in one file."""
        has_all_rows = self.where is None and self.shards == 1
        has_usual_lines = self.format is Format.JSONL and not self.extras and not self.group
        return has_all_rows and has_usual_lines


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
