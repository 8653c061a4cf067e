"""What the rows were made of that a transaction makes, without reading it again: most of them are
claimed by the transaction that makes them. Pure."""

from collections.abc import Iterable, Sequence

from batchgen.items import Done, Outcome
from batchgen.steps import Followed, Link
from batchgen.store.chain import Steps
from batchgen.store.chain_records import MadeOf
from batchgen.store.plan import Parent

Made = dict[tuple[int, int], MadeOf]
"""By their parent and their step's experiment."""


def made_now(outcomes: Iterable[Outcome], parents: Sequence[Parent], steps: Steps) -> Made:
    """Of the parents that are done by these outcomes, as far as these know all of it."""
    by_item = {outcome.item.id: outcome for outcome in outcomes if _followed(outcome) is not None}
    made: Made = {}
    for parent in parents:
        outcome = by_item.get(parent.item_id)
        if outcome is None or _followed(outcome) is not parent.followed:
            continue
        if parent.followed.children and (link := _link(outcome, parent, steps)) is not None:
            made_of = MadeOf((*outcome.item.links, link))
            for number in {child.number for child in parent.followed.children}:
                step = steps.beside(parent.experiment_id, number)
                made[parent.item_id, step.experiment_id] = made_of
    return made


def _followed(outcome: Outcome) -> Followed | None:
    return outcome.decision.followed if isinstance(outcome.decision, Done) else None


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
