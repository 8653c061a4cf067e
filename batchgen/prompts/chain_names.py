"""By which names the rows of a chain know its item, and the values of the steps before them."""

from collections.abc import Mapping
from typing import Any

from batchgen.items import ItemInput


def input_of_step(first: ItemInput, values: Mapping[str, Any]) -> ItemInput:
    """The input of a later step, for its templates and its parser: the item of the chain's first
    row, and over it the `values` of the steps before. Where that item has ready messages, all that
    was given with it are its variables. Its params are for the first step alone."""
    is_ready = first.messages is not None or first.prompt is not None
    user, system = first.user_variables, first.system_variables
    return ItemInput(
        given={**first.given, **values},
        id=first.id,
        metadata=first.metadata,
        user_variables={**(first.given if is_ready else user), **values},
        system_variables={**(first.given if is_ready else system), **values},
    )


def item_names(first: ItemInput, first_id: int) -> dict[str, Any]:
    """What conditions and paths of a plan may name of the chain's first row, as in the export.
    `first_id` is its number."""
    return {"id": first.id or first_id, "input": first.given, "metadata": first.metadata}
