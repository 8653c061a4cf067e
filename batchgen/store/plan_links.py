"""What the rows were made of that a transaction makes, without reading it again: most of them are
claimed by the transaction that makes them. Pure."""

from collections.abc import Sequence

from batchgen.items import Done, Outcome
from batchgen.steps import Link
from batchgen.store.chain import Steps
from batchgen.store.chain_records import MadeOf
from batchgen.store.plan import Parent

Made = dict[tuple[int, int], MadeOf]
"""By their parent and their step's experiment."""


def made_now(parents: Sequence[Parent], steps: Steps) -> Made:
    """Of the parents that were done just now, as far as their outcomes know all of it."""
    made: Made = {}
    for parent in parents:
        children, outcome = parent.followed.children, parent.outcome
        if not children or outcome is None:
            continue
        if (link := _link(outcome, parent, steps)) is not None:
            step = steps.beside(parent.experiment_id, children[0].number)  # all are of one
            made[parent.item_id, step.experiment_id] = MadeOf((*outcome.item.links, link))
    return made


def _link(outcome: Outcome, parent: Parent, steps: Steps) -> Link | None:
    """None: its answer was stored before, and it may be a vector, which is not at hand."""
    item, attempt, decision = outcome.item, outcome.attempt, outcome.decision
    assert isinstance(decision, Done)
    response, vector = item.answer_text, None
    if attempt is not None:
        response, vector = attempt.response, attempt.vector
    elif item.answer_seq is not None and not response:
        return None
    parsed_json = vector if decision.parsed_json is None else decision.parsed_json
    return Link(
        item.id, item.experiment_id, steps.of(item.experiment_id).number, item.recipe_id,
        parent.result_seq, item.input_json, parsed_json, response,
        parent.followed.passed_on, item.sample, item.custom_id, item.gathered,
    )  # fmt: skip
