"""Steps of chains as text: how each stands, and what each would cost."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.display.commands import Commands
from batchgen.jobs.experiments import ExperimentSummary, StepSummary
from batchgen.jobs.status import Status

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.retry_stale import StaleResult
    from batchgen.jobs.step_estimate import StepCost


def steps_table(summary: ExperimentSummary) -> list[str]:
    """Below a line for the experiment, a line for each step."""
    cost = f", ${summary.counts.cost_usd:,.4f}" if summary.counts.cost_usd else ""
    begun = f"{summary.items:,} row{'' if summary.items == 1 else 's'}"
    of = f" of {summary.steps[0].name}" if len(summary.steps) > 1 else ""  # with all samples
    chains = f"{summary.counts.ended:,} chain{'' if summary.counts.ended == 1 else 's'} ended"
    head = f"{summary.name}: {begun}{of}, {chains}{cost}"
    states = ("pending", "running", "done", "skipped", "failed", "stale")
    rows = [["step", *states, "cost"], *(_step_cells(one) for one in summary.steps)]
    width, *widths = (max(7, *map(len, column)) for column in zip(*rows, strict=True))
    return [head] + [
        "  ".join(
            [f"  {name:<{width}}", *(f"{n:>{w}}" for n, w in zip(cells, widths, strict=True))]
        )
        for name, *cells in rows
    ]


def _step_cells(step: StepSummary) -> list[str]:
    counts = step.counts
    numbers = (
        counts.pending, counts.running, counts.done, step.skipped, counts.failed, counts.stale,
    )  # fmt: skip
    cost = f"${counts.cost_usd:,.4f}" if counts.cost_usd else "-"
    return [step.name, *(f"{n:,}" for n in numbers), "-" if step.experiment.runs_code else cost]


def stale_lines(status: Status, commands: Commands) -> list[str]:
    """What was made of something that has been replaced since, and what asks it anew."""
    several = len(status.experiments) > 1
    lines = []
    for one in status.experiments:
        experiment = one.name if several else ""
        of_experiment = f" --experiment {shlex.quote(one.experiment.name)}" if several else ""
        for step in one.steps if one.counts.stale else ():
            unmade = status.stale_to_ask.get(step.experiment.id)
            asks = "" if unmade is None else f": {commands.retry_stale}{of_experiment}"
            if step.counts.stale:
                lines.append(stale_text(step, experiment, unmade) + asks)
    return lines


def stale_text(step: StepSummary, experiment: str, unmade: int | None) -> str:
    """`unmade` of them are made by the steps no more; None: all."""
    n = step.counts.stale
    of = f"{experiment}/{step.name}" if experiment else step.name
    rows = f"1 row of {of} is stale" if n == 1 else f"{n:,} rows of {of} are stale"
    if unmade is None:
        return f"{rows}: the steps make {'it' if n == 1 else 'them'} no more"
    if unmade:
        rows += f" ({unmade:,} of them the steps make no more)"
    was = "it was" if n == 1 else "they were"
    return f"{rows}: what {was} made of is being replaced, or has been"


def step_progress_text(steps: Sequence[StepSummary]) -> str:
    """How far each is; in one line."""
    return ", ".join(f"{one.name} {one.counts.finished:,}/{one.counts.total:,}" for one in steps)


def steps_text(steps: Sequence["StepCost"]) -> str:
    """A line for each, below each other."""
    width = max(len(one.step) for one in steps)
    return "\n".join(f"  {one.step:<{width}}  {_cost_text(one)}" for one in steps)


def stale_result_text(result: "StaleResult", commands: Commands) -> str:
    """`retry --stale`."""
    if not (result.rows or result.restored or result.waiting or result.unmade):
        return "No row is stale."
    went = "would go" if result.dry_run else "went"
    line = f"{_rows(result.rows)} {went} back to pending"
    if len(result.asked) > 1:
        line += f" ({', '.join(f'{n:,} of {name}' for name, n in result.asked.items())})"
    if result.calls:
        line += f": {result.calls:,} call{'' if result.calls == 1 else 's'}"
        line += f", about ${result.cost_usd:,.4f}" if result.cost_usd else ""
    lines = [f"{line}."]
    if result.restored:
        be = "would be" if result.dry_run else "is" if result.restored == 1 else "are"
        lines.append(
            f"{_rows(result.restored)} {be} as before, without a call, as nothing has changed for "
            f"{'it' if result.restored == 1 else 'them'}."
        )
    if result.waiting:
        be, its = ("is", "it is") if result.waiting == 1 else ("are", "they are")
        lines.append(
            f"{_rows(result.waiting)} {be} not asked: what {its} made of is not done yet "
            f"({commands.work}; then again: {commands.retry_stale})."
        )
    if result.unmade:
        be, stay = ("is", "it stays") if result.unmade == 1 else ("are", "they stay")
        lines.append(
            f"{_rows(result.unmade)} {be} made by the steps no more, as a condition or a list is "
            f"another one now; {stay} stored, and out of the export. Nothing is to be done."
        )
    return "\n".join(lines)


def _rows(n: int) -> str:
    return "1 stale row" if n == 1 else f"{n:,} stale rows"


def _cost_text(one: "StepCost") -> str:
    if one.runs_code:
        return "a function, no call"
    if not one.calls:
        return "no call"
    calls = f"{one.calls:,} call{'' if one.calls == 1 else 's'}"
    line = f"{one.bound} {calls}".strip() + f", {one.prompt_tokens:,} tokens in"
    if one.completion_tokens:
        how = "as it had so far" if one.is_measured else "by max_tokens"
        line += f", {round(one.completion_tokens):,} out ({how})"
    return line if one.cost_usd is None else f"{line}, ${one.cost_usd:,.4f}"
