"""The transactions, each file by who runs them; written once, for whatever engine: what they are
given is in store/transaction.py. What each promises is said where it is asked for, at the door
(store/__init__.py), or by `Seat`, `Parsers`, `Files`, `Chains`, `Reviews` and `Batches`, which
ask for them here.

    intake       enqueueing              twins         pools known but for their ids
    additions    new items, in packed lists             new_rows      told from known ones
    seat         a worker's place: lease, exchanges    living        which workers there are
    queue        exchange, take over     claims, quota which items a worker gets
    claimed      what it gets of them    links         what they were made of
    finish       how claims end, as planned            follow        rows of later steps
    trials       recipes that nobody has been answered to            suspects      and their ends
    fencing      which claims hold       deltas        counters and totals
    budget       what may be spent       limiter, ahead             what all may send, capacities
    steering     orders for workers      selections    items that a run chose
    repair       retry and reparse       replaced      what was made of these
    plans        chains as a whole       refollow      rows followed by another plan
    admin        whole experiments       files         live files, exports
    reviews      what people say of answers           batches, known_batches   what is at providers
    held_rows    what one of these holds
    look         how it goes             results, chain_rows         what export reads
    pages        what is browsed           stretches, random_rows        the rows that it has
    minutes      what was done in each minute          series        and over time, for plots
    verify       the proof                             verify_minutes
    rows         rows of statements as values

common.sql has the statements that all engines take as they are; the others each has in a file.
"""

from pathlib import Path

_HEAD = "\n-- name: "
_RULE = "\n--------------------"


def load_queries(text: str) -> dict[str, str]:
    """Split a file of `-- name: ...` statements. Raises ValueError on a name given twice."""
    queries: dict[str, str] = {}
    for part in f"\n{text}".split(_HEAD)[1:]:
        name, _, statement = part.partition("\n")
        if name in queries:
            raise ValueError(f"the query name {name} is given twice")
        queries[name] = statement.partition(_RULE)[0].strip()
    return queries


def queries_of(engine: Path) -> dict[str, str]:
    """The statements of common.sql and of an engine's file. Raises ValueError on a name that both
    have."""
    common = Path(__file__).with_name("common.sql")
    texts = [file.read_text(encoding="utf-8") for file in (common, engine)]
    return load_queries("\n".join(texts))
