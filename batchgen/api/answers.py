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
from batchgen.jobs.experiments import ExperimentSummary, StepSummary
from batchgen.jobs.export import ExportResult
from batchgen.jobs.failures import FailedLike
from batchgen.jobs.reparsing import ReparseResult
from batchgen.jobs.retry import RetryResult
from batchgen.jobs.retry_stale import StaleResult
from batchgen.jobs.status import Status as WholeStatus

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
        export: `input.topic`, `parsed.label`, `usage.prompt_tokens`, and of a step `draft.parsed`.
        Raises UsageError where pandas is not installed."""
        frame = _to_pandas(self)
        return frame.rename(columns=lambda name: str(name).removeprefix("steps."))


class Failed(NamedTuple):
    """`n` failed rows of one message; `example` is the number of one of them, `hint` what can be
    done about them. `step` is theirs; None: the items have no steps."""

    reason: str
    error: str
    n: int
    example: int
    hint: str
    step: str | None = None


class Failures(list[Failed], _Ready):
    """What failed, grouped by reason and message, the most frequent first."""

    @classmethod
    def of(cls, groups: Iterable[tuple[str | None, FailedLike]]) -> "Failures":
        """Of groups, each with its step."""
        return cls(
            Failed(
                one.group.reason, one.group.error, one.group.n, one.group.example,
                failure_hint(one, step), step,
            )
            for step, one in groups
        )  # fmt: skip

    def to_pandas(self) -> Any:
        return _to_pandas([one._asdict() for one in self])

    _repr_pretty_ = _as_printed

    def __str__(self) -> str:
        lines = [
            f"{one.n:>7}  {_of_step(one.step)}{one.reason}: {visible_line(one.error)}\n"
            f"{'':>9}{one.hint}"
            for one in self
        ]
        return "\n".join(lines) or "no failures"


@dataclass(frozen=True)
class Retried(_Ready):
    """`retried` rows went back to pending, or would have in a `dry_run`; `overridden` ones did not,
    as parameters of their own win over the new ones.

    `cost_usd` is what as many calls cost before, told by a `dry_run` and of stale rows; None: not
    known. Of stale rows, `restored` ones see what they saw before, and are as they were, without a
    call; `waiting` ones wait for what they are made of, and `unmade` ones are made by the steps no
    more.
    """

    retried: int
    overridden: int
    dry_run: bool
    restored: int = 0
    waiting: int = 0
    unmade: int = 0
    cost_usd: float | None = None

    @classmethod
    def of(cls, result: RetryResult) -> "Retried":
        cost_usd = result.cost.cost_usd if result.cost else None
        return cls(result.retried, result.overridden, result.dry_run, cost_usd=cost_usd)

    @classmethod
    def of_stale(cls, result: StaleResult) -> "Retried":
        cost_usd = result.cost_usd or None
        of_others = result.restored, result.waiting, result.unmade
        return cls(result.rows, 0, result.dry_run, *of_others, cost_usd)


@dataclass(frozen=True)
class Reparsed(_Ready):
    """What came of the stored answers, each counted once.

    done                 had failed, and can be parsed now
    changed, unchanged   were done and still are
    failing              had failed and still do
    broken               were done and fail now
    skipped              something else became of the item meanwhile

    `differences` are some of them, of a `dry_run`. Of steps, `made` are the rows that are made of
    what can be parsed now, and `stale` those that were made of other values.
    """

    done: int
    changed: int
    unchanged: int
    failing: int
    broken: int
    skipped: int
    differences: tuple[Any, ...]
    dry_run: bool
    made: int = 0
    stale: int = 0

    @classmethod
    def of(cls, result: ReparseResult) -> "Reparsed":
        shown = result.differences if result.dry_run else ()
        return cls(**{**asdict(result), "differences": shown})


@dataclass(frozen=True)
class Exported(_Ready):
    """`rows` went to `path`, or to the `shards` that it was split into. An export of done rows
    leaves out the `failed` ones, and the `open` ones, which are not answered yet; of chains, also
    those that are `stale`. None of the rows has the `absent_columns`, which were asked for."""

    path: Path
    rows: int
    failed: int
    open: int
    absent_columns: tuple[str, ...] = ()
    stale: int = 0
    shards: tuple[Path, ...] = ()

    @classmethod
    def of(cls, result: ExportResult) -> "Exported":
        left_out, absent = result.left_out, result.absent_columns
        return cls(
            result.path, result.rows, left_out.failed, left_out.open, absent, left_out.stale,
            result.shards,
        )  # fmt: skip


@dataclass(frozen=True)
class Told(_Ready):
    """How many running workers were told."""

    workers: int


@dataclass(frozen=True)
class StepStatus:
    """How the rows of one step stand; of the `skipped` ones `when` said no."""

    name: str
    pending: int
    running: int
    done: int
    skipped: int
    failed: int
    stale: int
    cost_usd: float

    @classmethod
    def of(cls, step: StepSummary) -> "StepStatus":
        names = [one.name for one in fields(cls)]
        counted = {name: getattr(step.counts, name) for name in names if hasattr(step.counts, name)}
        return cls(**{**counted, "name": step.name, "skipped": step.skipped})


@dataclass(frozen=True)
class Status(_Ready):
    """How an experiment stands. `reasons` are those of its failed rows; `workers` are alive, on
    whatever experiment of the database. Of items with `steps`, the rows are those of all steps;
    `items` are those of the first one, each sample for itself, and `ended` chains have come to
    their end. Printed, it is what `batchgen status` shows."""

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
    items: int
    ended: int
    stale: int
    steps: tuple[StepStatus, ...] = ()

    @classmethod
    def of(cls, summary: ExperimentSummary, whole: WholeStatus) -> "Status":
        names, counts = [one.name for one in fields(cls)], summary.counts
        known = {name: getattr(counts, name) for name in names if hasattr(counts, name)}
        return cls(
            **{
                **known,
                "experiment": summary.name,
                "items": summary.items,
                "reasons": dict(counts.reasons.most_common()),
                "workers": sum(worker.alive for worker in whole.workers),
                "text": status_text(whole, COMMANDS),
                "steps": tuple(map(StepStatus.of, summary.steps)),
            }
        )

    _repr_pretty_ = _as_printed

    def __str__(self) -> str:
        return self.text


def _of_step(name: str | None) -> str:
    return "" if name is None else f"{name}: "


def _to_pandas(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas as pd
    except ImportError as exc:
        raise UsageError(f"to_pandas: needs pandas ({exc}): pip install pandas") from None
    return pd.json_normalize(rows)
