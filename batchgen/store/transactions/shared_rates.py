"""What all workers together may send to a server, as it is kept: a row for each server."""

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from batchgen.store.transactions.rows import dicts_of

if TYPE_CHECKING:
    from batchgen.limits import SharedRate
    from batchgen.store.transaction import Transaction


def read_shared_rate(db: "Transaction", server: str) -> "SharedRate":
    columns = next(dicts_of(db, "shared_rate", {"server": server}), None)
    if columns is not None:
        return _shared_rate(columns)
    from batchgen.limits import SharedRate

    return SharedRate()


def write_shared_rate(db: "Transaction", server: str, shared: "SharedRate") -> None:
    columns = asdict(shared)
    learned = asdict(columns.pop("learned"))
    strays = asdict(learned.pop("strays"))
    learned |= {f"stray_{name}": value for name, value in strays.items()}
    db.execute("write_shared_rate", {"server": server} | columns | learned)


def _shared_rate(columns: dict[str, Any]) -> "SharedRate":
    from batchgen.limits import LearnedRate, SharedRate, Strays  # here: mostly there is no row

    strays = Strays(**{name: columns.pop(f"stray_{name}") for name in Strays.__struct_fields__})
    names = set(LearnedRate.__struct_fields__) - {"strays"}
    learned = LearnedRate(**{name: columns.pop(name) for name in names}, strays=strays)
    return SharedRate(**columns, learned=learned)


def learned_rates(db: "Transaction") -> dict[str, float]:
    """The calls a minute that --adaptive has found a server to take, by server."""
    rows = dicts_of(db, "shared_rates")
    found = {str(columns.pop("server")): _shared_rate(columns).learned for columns in rows}
    return {
        server: learned.per_s * 60
        for server, learned in found.items()
        if learned.ceiling_per_s is not None
    }
