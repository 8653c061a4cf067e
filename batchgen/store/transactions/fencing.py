"""Which claims still hold, and what is kept for those that do not."""

from collections.abc import Collection

from batchgen.store.plan import Claim
from batchgen.store.transaction import Rows, Transaction
from batchgen.store.transactions.rows import listed


def held_claims(db: Transaction, claims: Collection[Claim]) -> dict[Claim, int]:
    """Those that still hold: the item is running, and nobody has claimed it since. By them, whether
    what it was made of is being replaced (1), or has been (2), or not (0)."""
    return held_of(claims, look_at_claims(db, claims))


def look_at_claims(db: Transaction, claims: Collection[Claim]) -> Rows:
    """For `held_of`; so it can be begun with other reads."""
    return db.execute("claims_not_as_usual", {"claims": listed(list(claims))})


def held_of(claims: Collection[Claim], not_as_usual: Rows) -> dict[Claim, int]:
    """See `held_claims`."""
    held: dict[Claim, int] = dict.fromkeys(claims, 0)
    for item_id, epoch, outdated in not_as_usual:
        if outdated is None:
            del held[item_id, epoch]
        else:
            held[item_id, epoch] = outdated
    return held


def unknown_calls_of(db: Transaction, claims: Collection[Claim]) -> dict[Claim, int]:
    """How many attempts of unknown outcome are kept for each, as far as its item is still there."""
    found = {}
    for item_id, epoch in claims:  # few: of workers that were taken for dead
        which = {"item_id": item_id, "epoch": epoch}
        row = db.execute("unknown_calls_of_claim", which).fetchone()
        if row is not None:
            found[item_id, epoch] = int(row[0])
    return found
