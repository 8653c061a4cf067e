"""A pool whose items have got ids, or lost them, since the experiment was enqueued: none of them is
known then, and all would be asked once more."""

from collections.abc import Sequence

from batchgen.errors import Remedy, UsageError
from batchgen.items import NewItem
from batchgen.store import Intake, Store

_LOOKED_AT = 20


async def refuse_changed_ids(
    store: Store, intake: Intake, first: Sequence[NewItem], experiment: str
) -> None:
    """Raises UsageError when that is so, by the first items of the pool."""
    twin = await store.find_twin(intake, first[:_LOOKED_AT])
    if twin is None:
        return
    if twin.custom_id is None:
        stored, given = f"as item {twin.item_id}, without an id", "with one"
    else:
        stored, given = f"as item {twin.item_id}, with the id {twin.custom_id!r}", "without it"
    raise UsageError(
        f"{twin.item.where}: experiment {experiment!r} has this very item already, {stored}; "
        f"{given}, it would be another one, asked once more and exported beside it. Enqueue the "
        "pool as it was, or into another experiment.",
        Remedy.NAME_EXPERIMENT,
    )
