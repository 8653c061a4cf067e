"""Whether a pool's items are in the experiment already, but for their ids: these came or went
since, so that the items' keys are others."""

import json
from collections.abc import Sequence

from batchgen.items import NewItem
from batchgen.store.keys import key_of_content
from batchgen.store.transaction import Transaction
from batchgen.store.values import Intake, Twin
from batchgen.text.json_text import content_of


def find_twin(db: Transaction, intake: Intake, items: Sequence[NewItem]) -> Twin | None:
    """The first of the items that has one. None of them, when one is known as it is."""
    which = {"experiment_id": intake.experiment_id, "variant": intake.variant}
    (rows,) = db.execute("count_rows", which).fetchone()
    if not rows or any(_is_known(db, item.key) for item in items):
        return None
    with_ids = [item for item in items if item.custom_id is not None]
    without = [item for item in items if item.custom_id is None]
    for item in with_ids:
        key = key_of_content(intake.experiment_id, intake.variant, _without_id(item.input_json))
        if row := db.execute("item_by_key", {"key": key}).fetchone():
            return Twin(item, row[0], None)
    if not without:
        return None
    stored = {
        _without_id(input_json): (item_id, custom_id)
        for item_id, custom_id, input_json in db.execute("first_items_with_ids", which)
    }
    for item in without:
        if found := stored.get(_without_id(item.input_json)):
            return Twin(item, *found)
    return None


def _is_known(db: Transaction, key: bytes) -> bool:
    return db.execute("item_by_key", {"key": key}).fetchone() is not None


def _without_id(input_json: str) -> bytes:
    given = json.loads(input_json)
    return content_of({name: value for name, value in given.items() if name != "id"})
