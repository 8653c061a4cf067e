"""Steps of chains as text: what each would cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.step_estimate import StepCost


def steps_text(steps: Sequence["StepCost"]) -> str:
    """A line for each, below each other."""
    width = max(len(one.step) for one in steps)
    return "\n".join(f"  {one.step:<{width}}  {_cost_text(one)}" for one in steps)


def _cost_text(one: "StepCost") -> str:
    if one.runs_code:
        return "a function, no call"
    calls = f"{one.calls:,} call{'' if one.calls == 1 else 's'}"
    line = f"{one.bound} {calls}".strip() + f", {one.prompt_tokens:,} tokens in"
    if one.completion_tokens:
        how = "as it had so far" if one.is_measured else "at most"
        line += f", {round(one.completion_tokens):,} out ({how})"
    return line if one.cost_usd is None else f"{line}, ${one.cost_usd:,.4f}"
