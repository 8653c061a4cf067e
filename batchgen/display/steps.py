"""Steps of chains as text: what each would cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.display.commands import Commands

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.retry_stale import StaleResult
    from batchgen.jobs.step_estimate import StepCost


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
            f"({commands.work}; then again: {commands.retry_stale}), or makes no such row any "
            "more, as a condition or a list is another one now; then nothing is to be done."
        )
    if result.unmade:
        stay = (
            "is made by the steps no more; it stays"
            if result.unmade == 1
            else ("are made by the steps no more; they stay")
        )
        lines.append(f"{_rows(result.unmade)} {stay} stored, and out of the export.")
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
        how = "as it had so far" if one.is_measured else "at most"
        line += f", {round(one.completion_tokens):,} out ({how})"
    return line if one.cost_usd is None else f"{line}, ${one.cost_usd:,.4f}"
