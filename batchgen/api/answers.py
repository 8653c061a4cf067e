"""What the methods of a pipeline give: results, and how it stands.

All but `run` are done when they return. What they give may be awaited nevertheless, and is there at
once, so that it is no mistake to write `await` in code that is async.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self, SupportsIndex, overload

from msgspec.structs import asdict

from batchgen.api.words import COMMANDS, failure_hint
from batchgen.display.status import status_text
from batchgen.display.visible import visible_line
from batchgen.errors import UsageError
from batchgen.jobs.export import ExportResult
from batchgen.jobs.failures import FailedLike
from batchgen.jobs.reparsing import ReparseResult
from batchgen.jobs.retry import RetryResult
from batchgen.jobs.status import Status as WholeStatus
from batchgen.store import Counts

_SHOWN = 5  # results in a cell of a notebook


class _Ready:
    """A value that is there; awaiting it gives it."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


def _as_printed(value: object, printer: Any, cycle: bool) -> None:
    """`_repr_pretty_` of what a cell of a notebook shows as `print` does. IPython finds it only in
    the class itself, where that has, or inherits from a list, a `__repr__`."""
    printer.text("..." if cycle else str(value))


class Results(list[dict[str, Any]]):
    """The results of a run, one per row, in the order of the pool."""

    @overload
    def __getitem__(self, place: SupportsIndex, /) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice, /) -> "Results": ...
    def __getitem__(self, place: SupportsIndex | slice, /) -> "dict[str, Any] | Results":
        found = super().__getitem__(place)
        return Results(found) if isinstance(found, list) else found

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """The first ones in a cell of a notebook, not thousands of lines."""
        printer.pretty(list(self[:_SHOWN]))
        if (more := len(self) - _SHOWN) > 0:
            printer.text(f"\n... and {more} more: results.to_pandas() is a table of them")

    def to_pandas(self) -> Any:
        """A pandas DataFrame, a row each. A field of an object has a column of its own, as in a CSV
        export: `input.topic`, `parsed.label`, `usage.prompt_tokens`. Raises UsageError where pandas
        is not installed."""
        return _to_pandas(self)


class Failed(NamedTuple):
    """`n` failed rows of one message; `example` is the number of one of them, `hint` what can be
    done about them."""

    reason: str
    error: str
    n: int
    example: int
    hint: str


class Failures(list[Failed], _Ready):
    """What failed, grouped by reason and message, the most frequent first."""

    @classmethod
    def of(cls, groups: Iterable[FailedLike]) -> "Failures":
        return cls(
            Failed(
                one.group.reason, one.group.error, one.group.n, one.group.example, failure_hint(one)
            )
            for one in groups
        )

    def to_pandas(self) -> Any:
        return _to_pandas([one._asdict() for one in self])

    _repr_pretty_ = _as_printed

    def __str__(self) -> str:
        lines = [
            f"{one.n:>7}  {one.reason}: {visible_line(one.error)}\n{'':>9}{one.hint}"
            for one in self
        ]
        return "\n".join(lines) or "no failures"


@dataclass(frozen=True)
class Retried(_Ready):
    """`retried` rows went back to pending, or would have in a `dry_run`; `overridden` ones did not,
    as parameters of their own win over the new ones."""

    retried: int
    overridden: int
    dry_run: bool

    @classmethod
    def of(cls, result: RetryResult) -> "Retried":
        return cls(**asdict(result))


@dataclass(frozen=True)
class Reparsed(_Ready):
    """What came of the stored answers, each counted once.

    done                 had failed, and can be parsed now
    changed, unchanged   were done and still are
    failing              had failed and still do
    broken               were done and fail now
    skipped              something else became of the item meanwhile

    `differences` are some of them, of a `dry_run`.
    """

    done: int
    changed: int
    unchanged: int
    failing: int
    broken: int
    skipped: int
    differences: tuple[Any, ...]
    dry_run: bool

    @classmethod
    def of(cls, result: ReparseResult) -> "Reparsed":
        shown = result.differences if result.dry_run else ()
        return cls(**{**asdict(result), "differences": shown})


@dataclass(frozen=True)
class Exported(_Ready):
    """`rows` went to `path`. An export of done rows leaves out the `failed` ones, and the `open`
    ones, which are not answered yet. None of the rows has the `absent_columns`, which were asked
    for."""

    path: Path
    rows: int
    failed: int
    open: int
    absent_columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: ExportResult) -> "Exported":
        left_out = result.left_out
        return cls(result.path, result.rows, left_out.failed, left_out.open, result.absent_columns)


@dataclass(frozen=True)
class Told(_Ready):
    """How many running workers were told."""

    workers: int


@dataclass(frozen=True)
class Status(_Ready):
    """How an experiment stands. `reasons` are those of its failed rows; `workers` are alive, on
    whatever experiment of the database. Printed, it is what `batchgen status` shows."""

    experiment: str
    total: int
    pending: int
    running: int
    done: int
    failed: int
    reasons: dict[str, int]
    calls: int
    unknown_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    workers: int
    text: str

    @classmethod
    def of(cls, experiment: str, counts: Counts, whole: WholeStatus) -> "Status":
        names = [one.name for one in fields(cls)]
        known = {name: getattr(counts, name) for name in names if hasattr(counts, name)}
        return cls(
            **{
                **known,
                "experiment": experiment,
                "reasons": dict(counts.reasons.most_common()),
                "workers": sum(worker.alive for worker in whole.workers),
                "text": status_text(whole, COMMANDS),
            }
        )

    _repr_pretty_ = _as_printed

    def __str__(self) -> str:
        return self.text


def _to_pandas(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas as pd
    except ImportError as exc:
        raise UsageError(f"to_pandas: needs pandas ({exc}): pip install pandas") from None
    return pd.json_normalize(rows)
