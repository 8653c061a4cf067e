"""What an export is asked for, and what came of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.export.chosen_columns import check_columns
from batchgen.export.columns import GROUPS
from batchgen.export.formats import JSONL, FormatSpec, names_of
from batchgen.export.reviewed import EDITED, REVIEW_NAMES, Reviewed, verdict_of
from batchgen.export.writer import Extra
from batchgen.items import State
from batchgen.store import Counts, ResultRow
from batchgen.where import Where

MOST_SHARDS = 200

Progress = Callable[[int], object]
"""Is told how many rows have been read so far; a table is read twice."""


def untold(_: int) -> None:
    """The progress of what nobody watches."""


class LeftOut(Struct, frozen=True):
    """What is not in an export of done rows: `open` are pending or running, `not_chosen` are done,
    but no condition chose them. Of chains, `stale` are those with a row that was made of what was
    replaced since, and `without_answer` those that have none of the step that the format is of."""

    failed: int = 0
    open: int = 0
    not_chosen: int = 0
    stale: int = 0
    without_answer: int = 0


class ExportRequest(Struct, frozen=True):
    """`where` chooses among the rows of `state`, and with `failed_too` among the failed ones too;
    `shards` is the number of files that they go into; `summary` is a file that describes them;
    `extras` go into each row; `group` puts the samples of an item into one line; `columns` are the
    only ones of a table, in this order (none: all); with `is_guarded` no cell of it is a formula.
    Of an experiment with steps there is a row a chain or, with a `step`, one for each row of it.
    `groups` are the values whose fields have columns. `reviewed` chooses by what people said of
    rows; `review_names` are those names in `where` that mean it.
    Raises UsageError for a combination that cannot be had."""

    format: FormatSpec = JSONL
    state: State = State.DONE
    where: Where | None = None
    shards: int = 1
    summary: Path | None = None
    extras: tuple[Extra, ...] = ()
    group: bool = False
    failed_too: bool = False
    columns: tuple[str, ...] = ()
    is_guarded: bool = True
    step: str | None = None
    groups: tuple[str, ...] = tuple(GROUPS)
    reviewed: Reviewed | None = None
    review_names: tuple[str, ...] = REVIEW_NAMES

    def __post_init__(self) -> None:
        place = f"format {self.format.name}"
        if refused := [extra for extra in self.extras if extra not in self.format.extras]:
            others = names_of(lambda spec: set(self.extras) <= set(spec.extras))
            raise UsageError(f"{place}: it has no place for {refused[0]}; choose {_or(others)}.")
        if self.has_failed and self.format.is_for_training:
            others = names_of(lambda spec: not spec.is_for_training)
            raise UsageError(
                f"{place}: failed items have no answer to train on; choose {_or(others)}."
            )
        if self.has_failed and self.reviewed:
            raise UsageError(
                "failed items have no answer that could be reviewed, so they do not go with "
                f"reviewed {self.reviewed}."
            )
        if self.group:
            self._check_group()
        if self.columns or not self.is_guarded:
            self._check_sheet()

    def _check_sheet(self) -> None:
        if not self.format.is_sheet:
            others = names_of(lambda spec: spec.is_sheet)
            what = "columns cannot be chosen" if self.columns else "it has no guarded cells"
            raise UsageError(f"format {self.format.name}: {what}; choose {_or(others)}.")
        marks = (EDITED,) if self.needs_reviews else ()
        check_columns(self.columns, (*self.extras, *marks), self.groups)

    def _check_group(self) -> None:
        refused = {
            f"format {self.format.name}": not self.format.is_export_line,
            "failed items": self.has_failed,
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

    @property
    def chooses(self) -> bool:
        """Whether it has some of the rows only."""
        return self.where is not None or self.reviewed is not None

    @property
    def needs_reviews(self) -> bool:
        """Whether it is about what people said of rows; then edits stand in it."""
        if self.reviewed is not None:
            return True
        return self.where is not None and not self.where.names.isdisjoint(self.review_names)

    @property
    def has_failed(self) -> bool:
        """Whether there may be failed rows in it."""
        return self.state is State.FAILED or self.failed_too

    @property
    def only_state(self) -> State | None:
        """The state that all its rows have; None: they are done or failed."""
        return None if self.failed_too else self.state

    def takes(self, row: ResultRow) -> bool:
        """Whether the row is to be in it, by what was said of it."""
        return self.reviewed is None or self.reviewed.takes(verdict_of(row))

    def rows_of(self, counts: Counts) -> int:
        """How many rows there are, before any is chosen."""
        return counts.finished if self.failed_too else int(getattr(counts, self.state))

    @property
    def needs_bodies(self) -> bool:
        """What the server sent has to be read, for each row."""
        return self.format.needs_bodies or bool(self.extras)

    @property
    def needs_details(self) -> bool:
        """The recipe of each row, at least, has to be read."""
        return self.needs_bodies or self.format.is_for_training or self.summary is not None

    @property
    def is_all(self) -> bool:
        """All done rows as JSON lines in one file: what `verify` can compare with the table."""
        return self._is_one_file_of_lines and not self.has_failed

    @property
    def is_plain(self) -> bool:
        """No stored text has to be parsed."""
        return self._is_one_file_of_lines and self.summary is None

    @property
    def _is_one_file_of_lines(self) -> bool:
        """All rows of the state, as they always are, as JSON lines in one file."""
        has_all_rows = not self.chooses and self.shards == 1
        has_usual_lines = self.format.is_export_line and not self.extras and not self.group
        has_usual_lines = has_usual_lines and self.step is None
        return has_all_rows and has_usual_lines


class ExportedFile(Struct, frozen=True):
    path: Path
    rows: int
    sha256: str


class Exported(Struct, frozen=True):
    """The files of one export, several if it was sharded; `absent_columns` are those asked for that
    none of its rows has. What was left out is known of chains alone."""

    files: tuple[ExportedFile, ...]
    absent_columns: tuple[str, ...] = ()
    left_out: LeftOut | None = None

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def _or(names: Sequence[str]) -> str:
    """As in `csv, parquet or jsonl`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
