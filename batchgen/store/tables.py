"""The tables as a move takes them, and what it needs of the engines at its two ends.

They go by the names that they have in SQLite, and with its columns; what an engine keeps otherwise
it translates at its end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from batchgen.errors import MovedError, Remedy
from batchgen.store.transaction import Transaction

Row = tuple[Any, ...]

PAGE_ROWS = 512

TABLES: Mapping[str, str] = {
    "parsers": "id", "plans": "id", "experiments": "id", "recipes": "id",
    "variants": "experiment_id, number", "servers": "id", "items": "id", "item_keys": "key",
    "work": "item_id", "selections": "id", "attempts": "seq", "results": "seq",
    "reparsing": "item_id", "counters": "experiment_id, state, reason",
    "parser_counters": "experiment_id, parser_id", "step_counters": "experiment_id",
    "totals": "experiment_id", "failed_calls": "experiment_id, reason, http_status",
    "minutes": "experiment_id, minute", "before_minutes": "attempt_seq",
    "reservations": "item_id", "shared_rates": "server", "proven_recipes": "server, recipe_id",
    "calls_on_trial": "item_id", "sole_askers": "server", "condemned_runs": "server",
    "suspects": "item_id", "reviews": "item_id", "exports": "experiment_id, path",
    "known_files": "path", "live_files": "path", "workers": "id", "provider_batches": "id",
}  # fmt: skip
"""Each with the order of its rows, in which they are written fastest; none names a later table."""

OF_FILES = ("exports", "known_files", "live_files")
"""Their rows begin with the name of the machine that has the file. A database that was moved away
still takes them: what it has may be exported."""

OF_THE_LIVING = ("shares", "calls_ahead")
"""Empty in a database that can be moved; and of the workers, only batches are there."""

NUMBERED: Mapping[str, str] = {
    "parsers": "id", "plans": "id", "experiments": "id", "recipes": "id", "servers": "id",
    "items": "id", "selections": "id", "attempts": "seq", "results": "seq", "workers": "id",
    "provider_batches": "id",
}  # fmt: skip
"""Their rows get numbers, which go on where they were: no row gets that of one that was deleted."""

_MOVED = "was moved to "


class Move(NamedTuple):
    """A move from one database to another, as both note it: `other` is where the other one is, as
    seen from any machine, without its password."""

    id: str
    other: str


def moved_words(other: str) -> str:
    """What a database says to whoever writes to it after it was moved."""
    return f"{_MOVED}{other}, and takes no more work."


def moved_error(name: str, said: str) -> MovedError | None:
    """What a database said, if it is that it was moved."""
    place = said.find(_MOVED)
    if place < 0:
        return None
    words = said[place:].partition("\n")[0]
    return MovedError(f"{name}: {words}", Remedy.NAME_NEW_DATABASE)


class End(Protocol):
    """A database with which nobody else does anything while a move has it."""

    name: str  # for messages

    @property
    def transaction(self) -> Transaction:
        """The one that is under way."""

    def columns(self, table: str) -> Sequence[str]: ...

    def moved_to(self) -> Move | None:
        """That by which it was moved away, or was to be."""

    def busy(self) -> str | None:
        """Who is at work there, besides workers; None: nobody."""

    def count(self, table: str) -> int:
        """How many rows it has; of a target, those that were added."""


class Source(End, Protocol):
    def pages(self, table: str, columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        """All rows of a table, in its order, so many at a time as one has in memory."""

    def numbers(self) -> Mapping[str, int]:
        """Of each table that is numbered, the highest number that was given out; 0: none."""

    def give_up(self, move: Move) -> None:
        """Note, durably, that it was moved: from now on it takes no more work."""

    def take_back(self) -> None:
        """It was not moved after all, and takes work again."""


class Target(End, Protocol):
    replaced_nuls: int  # texts with U+0000, which not every engine takes
    left_files: int  # records of other machines' files, which not every engine keeps

    def has_come(self, move_id: str) -> bool:
        """Whether it is the one to which this move went."""

    def add(self, table: str, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> None:
        """Rows as a source gives them."""

    def fill_up(self, numbers: Mapping[str, int]) -> None:
        """After the last rows: what is left to do before they can be looked at, and the numbers of
        the source."""

    def finish(self, move: Move) -> None:
        """Note by which move all of it has come."""

    def commit(self) -> None:
        """All is there, durably; until then it is empty."""
