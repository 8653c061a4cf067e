"""What a transaction function is given, whatever engine keeps the store.

A transaction function takes a `Transaction` first, names the statements that it runs, and knows no
engine. An engine has a text for each name: the one of `transactions/common.sql`, or its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

_NOTHING: Mapping[str, object] = {}


class Rows(Protocol):
    """What a statement gives back, row by row as tuples; that part of a cursor which all engines
    have. An engine may send the statement no sooner than it is asked for something: so whoever
    needs several that do not depend on each other begins all before it fetches any."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement has changed."""

    @property
    def description(self) -> Any:
        """A sequence for each column, with its name first."""

    def __iter__(self) -> Iterator[Any]: ...

    def fetchone(self) -> Any:
        """None: there is no row, or no more."""

    def fetchall(self) -> list[Any]: ...


class Transaction(Protocol):
    """One transaction, or one snapshot, under way; it begins and ends outside of whoever has it.
    `is_far`: each answer costs the way to a server and back, so that one statement for several
    things is worth having."""

    is_far: bool

    def execute(self, name: str, parameters: Mapping[str, object] = _NOTHING) -> Rows:
        """Run the statement of this name; what it has no use for among the parameters is ignored.
        Lists are given as JSON, yes and no as 1 and 0."""

    def execute_many(self, name: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Run it for each of the rows, in their order; for none, nothing is run. How many it has
        changed, or -1 where the engine cannot tell."""

    def first_new(self, table: str, n: int = 1) -> int:
        """The first of `n` numbers in a row for new rows of a table (items, attempts or results).
        None of them was ever given out, and all are larger than those of rows that are there. They
        are to be used before more are asked for; some may stay unused. Of no numbers it is 0."""

    def begin_new(self, table: str, n: int) -> Callable[[], int]:
        """The same, as of several reads that are begun together: what is given back gives it."""

    def newest(self, table: str) -> int:
        """The highest number ever given out in a table, also to rows deleted since; 0: none."""

    def alone(self) -> None:
        """From here on no other transaction that writes is under way: for what may concern rows of
        others. Of one that runs beside others the function is begun anew, so it is called as soon
        as that is known. Where writers take turns it does nothing."""

    def lock(self, kind: str, keys: Sequence[object] = ()) -> None:
        """Keep others, until the transaction ends, from what is called so, or from these of it; in
        the order of the keys. Where transactions that write take turns it does nothing."""
