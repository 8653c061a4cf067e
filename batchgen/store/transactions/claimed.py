"""Rows that a transaction has claimed, as the items that a worker gets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.items import Item
from batchgen.store.server_wants import ServerWant
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.links import with_links
from batchgen.store.transactions.rows import listed, rows_of

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.store.plan_links import Made


def items_claimed(
    db: Transaction, claimed: dict[int, str], wants: Mapping[str, ServerWant], made: "Made"
) -> list[Item]:
    """Those claimed, each for its server."""
    if not claimed:
        return []
    found = list(rows_of(db, "claimed_items", Item, {"claimed": listed(claimed)}))
    return with_values(db, found, wants, made)


def with_values(
    db: Transaction, found: list[Item], wants: Mapping[str, ServerWant], made: "Made"
) -> list[Item]:
    """With what they were made of, and the tokens that each will use."""
    items = with_links(db, found, made)
    tokens_of = {
        server: one.call_tokens.of for server, one in wants.items() if one.limits.tpm is not None
    }
    if not tokens_of:
        return items
    return [
        replace(item, reserved_tokens=tokens_of[item.server](len(item.input_json.encode())))
        if item.server in tokens_of
        else item
        for item in items
    ]
