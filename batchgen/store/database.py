"""What the store needs of an engine: its doors. Each engine has a folder beside transactions/."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from batchgen.store.records import WorkerRow
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:  # who only reads need not load them
    from batchgen.items import NewItem
    from batchgen.store.seen_keys import SeenKeys
    from batchgen.store.values import Added, Intake, NewRows

P = ParamSpec("P")
T = TypeVar("T")


class SeatLock(Protocol):
    """What a worker holds for as long as it lives, where an engine has such a thing."""

    def acquire(self) -> bool:
        """True when nobody held it and we do now. Never blocks."""

    def holder(self) -> str:
        """For a message."""

    def release(self, *, keep_file: bool = False) -> None:
        """Harmless when it is not held. `keep_file`: others are still to see that its owner is
        gone."""

    def remove(self) -> None:
        """After its owner, of whom nothing is left to be seen."""


class Members(Protocol):
    """Which workers live, as far as this process can tell."""

    def machine(self) -> tuple[str, str]:
        """This one: its name, and one that it has until it is started anew."""

    def is_dead(self, row: WorkerRow, *, leases_count: bool = True) -> bool:
        """Without `leases_count`, a lease that ran out tells nothing."""

    def lock_of(self, worker_id: int) -> SeatLock: ...


class Additions(Protocol):
    """How new items get in. To tell them from known ones is each engine's own matter: where keys
    are kept, and how thousands are looked up at once. One process at a time enqueues."""

    def begin_pass(self, db: Transaction) -> "SeenKeys":
        """Before a pass over a pool, in the transaction that begins its intake."""

    def items_by_keys(
        self, db: Transaction, keys: Sequence[bytes]
    ) -> Sequence[tuple[int, int, str]]:
        """The place among the keys, the number and the input of each item that has one of them."""

    async def add_items(
        self, into: "Intake", items: "Sequence[NewItem]", priority: int,
        begun: Callable[[], object],
    ) -> "Added":  # fmt: skip
        """As `Store.add_items`."""

    async def end_pass(self) -> None:
        """After a pass that added items; also before the next, of one that was killed."""

    async def begin_count(self) -> int:
        """Before a pass over a pool that is only counted: the number of what would be its first
        row."""

    async def count_new(self, into: "Intake", items: "Sequence[NewItem]", first: int) -> "NewRows":
        """What `add_items` would add, if none of the items had a conflict; as if these rows were
        there, from number `first` on."""


class Reads(Protocol):
    """What can be read of a database, whether or not it is written to as well."""

    name: str  # for messages

    @property
    def members(self) -> Members: ...

    async def read(
        self, query: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `query` on one snapshot. Keep it short: an open snapshot keeps the engine from
        clearing up."""

    def warnings(self) -> list[str]:
        """What is to be known of the engine that keeps this database; none when all is well."""


class Database(Reads, Protocol):
    """A database that is written to as well."""

    is_served: bool  # by a server, which works while this process does something else
    takes_turns: bool  # who writes: so a transaction of its own for a part holds up the others more

    def held_up_s(self) -> float:
        """In a transaction: the longest that any took since this was asked before, this one
        included; without end where the connection was lost. Meanwhile it may be that no worker
        could say that it lives."""

    @property
    def additions(self) -> Additions: ...

    @property
    def danger(self) -> str | None:
        """A warning, when somebody else does to the database what may damage it."""

    async def write(
        self,
        transaction: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `transaction` while no other one writes: all of it is durable on return, or none of
        it is there. A caller that is cancelled meanwhile gets its CancelledError after the commit.
        """

    async def write_beside(
        self,
        transaction: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `write`, but others of these may be under way: for transactions that say by `lock`
        what they must have alone, or by `alone` that they are not for this after all."""

    async def settled(
        self, query: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `read`, on a snapshot into which no lower number of a result can come any more: for
        whoever reads on from the last one that was there."""

    def counts_for(self, worker_id: int) -> None:
        """From now on what transactions count is counted by this worker; 0: by none. It matters
        only where several write at a time."""

    def wait_for_server(self, patience_s: float, say: Callable[[str], None]) -> None:
        """For how long a server that went away is waited for, where it is one that keeps the
        database; `say` gets why, when it takes long."""

    def hurry(self) -> None:
        """Nobody has time any more: from now on no server is waited for, but for a moment."""

    async def compare_clocks(self) -> None:
        """Times are those of the clock that all who use the database share: look at it again."""

    def owns(self, path: Path) -> bool:
        """Whether it is a file of the database's, which nobody else may write to then."""

    def only_enqueueing(
        self, patience_s: float, say: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]:
        """One process at a time enqueues into a database; others wait for it. `say` gets why.
        Raises UsageError after `patience_s`."""

    def only_parsing_again(self) -> AbstractAsyncContextManager[bool]:
        """Whether no other process parses stored answers again, for as long as one is inside."""

    def only_sending(self) -> AbstractAsyncContextManager[bool]:
        """Whether no other process sends provider batches, for as long as one is inside."""

    def check_sending(self, db: Transaction) -> None:
        """In a transaction: raises UsageError when another process has begun to send meanwhile, as
        this one stood still."""
