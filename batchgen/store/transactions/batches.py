"""What is at providers: a batch holds its rows as the claims of a worker that has no process.

One sender a database makes batches, and writes what comes of them; others may look, and give one
up. A batch's rows, and how many of them are settled, change together, while nobody else changes
those of the same batch.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.errors import UsageError
from batchgen.items import Item, KeepAnswer, Outcome
from batchgen.store.batch_records import BatchState, NewBatch, ProviderBatch
from batchgen.store.chain import Steps
from batchgen.store.plan import Claim, ClaimRow, Known, Reserved, claim_of
from batchgen.store.plan_removal import most_rows_given_up, plan_given_up
from batchgen.store.transactions.budget import look_at_budget, overuse
from batchgen.store.transactions.finish import finish, write_plan
from batchgen.store.transactions.held_rows import items_held, next_items_held, rows_held
from batchgen.store.transactions.known_batches import KnownBatches, batch_of
from batchgen.store.transactions.rows import listed, rows_of
from batchgen.store.values import Budget, Grant, Spent
from batchgen.text.json_text import storable

if TYPE_CHECKING:
    from batchgen.store.database import Database
    from batchgen.store.transaction import Transaction

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE = 5000  # rows that go back in one transaction
_SEALED_AT_ONCE = 1000  # rows that one statement looks up


class Batches(KnownBatches):
    """The side of the store that is about provider batches: each method is one transaction or
    snapshot, unless it says otherwise, and does nothing where it was done before. Those that write
    raise UsageError in a process that was the sender, and stood still until another one was."""

    def __init__(self, database: "Database") -> None:
        super().__init__(database)
        self._db: Database = database

    async def seal(
        self, sender_id: int, batch: NewBatch, claims: Sequence[Claim], budget: Budget | None = None
    ) -> ProviderBatch | Grant | None:
        """Before the provider is asked to make it: these claims of a sender become those of the
        batch. None: the sender does not hold them all (it was taken for dead). WAIT or NEVER, as of
        a call: the budget does not reach. In both cases nothing has changed."""

        try:
            return await self._db.write_beside(
                self._as_sender(seal), sender_id, batch, claims, budget, now_ms()
            )
        except NotHeldError:
            return None

    async def created(
        self, number: int, batch_id: str, *, status: str, created_at: int | None,
        expires_at: int | None,
    ) -> None:  # fmt: skip
        """The provider has it, by this id. Raises UsageError when it has another id by now, or is
        closed, or another batch has this one."""
        await self._db.write_beside(
            self._as_sender(created), number, batch_id, status, created_at, expires_at
        )

    async def mark_absent(self, number: int, *, absent: bool = True) -> bool:
        """Somebody has looked, and the provider does not have it: it is to be made without a look.
        To be taken back before the provider is asked to. False: it is `creating` no more, and
        nothing has changed."""
        return await self._db.write_beside(self._as_sender(mark_absent), number, absent=absent)

    async def note(
        self, number: int, *, status: str, answered: int, failed: int, expires_at: int | None
    ) -> None:
        """What the provider says of one that is open."""
        await self._db.write_beside(
            self._as_sender(note), number, status, answered, failed, expires_at
        )

    async def end(
        self, number: int, *, status: str, output_file: str | None, error_file: str | None,
        answered: int, failed: int, error: str | None = None,
    ) -> None:  # fmt: skip
        """The provider has said its last word of it, but for files that it may name later."""
        said: dict[str, object] = {
            "status": storable(status), "output_file": output_file, "error_file": error_file,
            "answered": answered, "failed": failed, "error": error and storable(error),
        }  # fmt: skip
        await self._db.write_beside(self._as_sender(end), number, said, now_ms())

    async def booked(self, budget: Budget) -> tuple[Spent, Spent]:
        """What is spent of a budget, and what is reserved, for calls and for batches."""
        return await self._db.read(look_at_budget, budget)

    async def claims(self, number: int, item_ids: Sequence[int]) -> list[Item]:
        """Those of these rows that it holds, as they were claimed; one with an `answer_seq` has its
        answer already, which is to be parsed."""
        return await self._db.read(items_held, number, item_ids)

    async def open_claims(self, number: int, after: int, limit: int) -> list[Item]:
        """The next rows that it holds, after row `after`; an empty list at the end."""
        return await self._db.read(next_items_held, number, after, limit)

    async def collect(
        self, number: int, outcomes: Sequence[Outcome], reserved: Mapping[Claim, Reserved] = {}
    ) -> int:
        """Write what became of rows that it holds; of how many. An outcome of a claim that does not
        hold any more, or whose answer is there already, was written before: nothing is kept of it.
        `reserved`: the most of calls whose end nobody knows, by which a budget counts them."""
        return await self._db.write_beside(
            self._as_sender(collect), number, outcomes, reserved, now_ms()
        )

    async def close(self, number: int, error: str | None = None) -> bool:
        """All of its rows are settled. False: not yet, and nothing has changed."""
        return await self._db.write(self._as_sender(close), number, error, now_ms())

    async def abandon(self, number: int, error: str = "given up for lost") -> int:
        """The rows that it holds go back to the others, though they may be answered, and billed,
        for all we know: a try of each is used up, and what was reserved for it is spent. Then it is
        closed. How many these were. Of very many rows it takes several transactions; when it is cut
        off, the rest are still those of the batch."""
        return await self._give_up(number, error, was_sent=True)

    async def release(self, number: int, error: str) -> int:
        """The same of one of which nothing was, or ever will be, answered: its rows go back
        untouched."""
        return await self._give_up(number, error, was_sent=False)

    async def files_gone(self, number: int) -> None:
        """The provider has no file of it any more; it is closed."""
        await self._db.write_beside(files_gone, number)

    async def _give_up(self, number: int, error: str, *, was_sent: bool) -> int:
        total, is_closed = 0, False
        while not is_closed:
            n, is_closed = await self._db.write(
                self._as_sender(give_up), number, storable(error),
                was_sent=was_sent, most=_AT_ONCE, now=now_ms(),
            )  # fmt: skip
            total += n
        return total

    def _as_sender(
        self, transaction: "Callable[Concatenate[Transaction, P], T]"
    ) -> "Callable[Concatenate[Transaction, P], T]":
        """The same, but for who was the sender and is it no more."""

        def checked(db: "Transaction", /, *args: P.args, **kwargs: P.kwargs) -> T:
            self._db.check_sending(db)
            return transaction(db, *args, **kwargs)

        return checked


class NotHeldError(Exception):
    """A claim that was to be sealed is not the sender's: all of it is undone."""


def seal(
    db: "Transaction", sender_id: int, batch: NewBatch, claims: Sequence[Claim],
    budget: Budget | None, now: int,
) -> ProviderBatch | Grant:  # fmt: skip
    known = db.execute("batch_of_token", {"token": batch.token}).fetchone()
    if known is None:
        db.lock("budget")
        times = overuse(db).get(batch.experiment_id, 1.0)
        most = Spent(ceil(batch.reserved_tokens * times), batch.reserved_cost_usd * times)
        grant = _grant(db, budget, most)
        if grant is not Grant.YES:
            return grant
        known = (_seal(db, sender_id, batch, claims, most, now),)
    found = batch_of(db, known[0])
    assert found is not None
    return found


def _grant(db: "Transaction", budget: Budget | None, most: Spent) -> Grant:
    if budget is None:
        return Grant.YES
    spent, reserved = look_at_budget(db, budget)
    if budget.is_exceeded_by(spent + most):
        return Grant.NEVER
    return Grant.WAIT if budget.is_exceeded_by(spent + reserved + most) else Grant.YES


def _seal(
    db: "Transaction", sender_id: int, batch: NewBatch, claims: Sequence[Claim], most: Spent,
    now: int,
) -> int:  # fmt: skip
    (worker_id,) = db.execute("join_batch", {"now": now}).fetchone()
    db.execute("know_server", {"key": batch.server.key, "name": batch.server.name})
    row = {
        "worker_id": worker_id, "experiment_id": batch.experiment_id,
        "recipe_id": batch.recipe_id, "server": batch.server.key, "base_url": batch.base_url,
        "endpoint": batch.endpoint, "model": batch.model, "token": batch.token,
        "requests": len(claims), "bytes": batch.bytes, "tokens": batch.tokens,
        "reserved_tokens": most.tokens, "reserved_cost_usd": most.cost_usd,
        "input_file": batch.input_file, "now": now,
    }  # fmt: skip
    (number,) = db.execute("add_batch", row).fetchone()
    sealed = [
        db.execute("seal_claims", {
            "batch": worker_id, "sender": sender_id,
            "claims": listed(claims[begin : begin + _SEALED_AT_ONCE]),
        })
        for begin in range(0, len(claims), _SEALED_AT_ONCE)
    ]  # fmt: skip
    if sum(one.rowcount for one in sealed) != len(claims):
        raise NotHeldError
    return int(number)


def created(
    db: "Transaction", number: int, batch_id: str, status: str, created_at: int | None,
    expires_at: int | None,
) -> None:  # fmt: skip
    batch = _alone(db, number)
    if batch is None or batch.state is BatchState.CLOSED:
        raise UsageError(
            f"batch {number}: was closed before it was known that the provider has it, as "
            f"{batch_id}. Nobody collects that one; cancel it there."
        )
    if batch.state is not BatchState.CREATING:
        if batch.batch_id != batch_id:
            raise UsageError(f"batch {number}: is known as {batch.batch_id} already.")
        return
    row = {
        "number": number, "server": batch.server, "batch_id": batch_id, "status": storable(status),
        "created_at": created_at, "expires_at": expires_at,
    }  # fmt: skip
    if other := db.execute("batch_of_id", row).fetchone():
        raise UsageError(f"batch {number}: {batch_id} is batch {other[0]} already.")
    db.execute("batch_was_created", row)


def mark_absent(db: "Transaction", number: int, *, absent: bool) -> bool:
    batch = _alone(db, number)
    if batch is None or batch.state is not BatchState.CREATING:
        return False
    db.execute("mark_absent", {"number": number, "absent": int(absent)})
    return True


def note(
    db: "Transaction", number: int, status: str, answered: int, failed: int, expires_at: int | None
) -> None:
    batch = _alone(db, number)
    if batch is None or batch.state is not BatchState.OPEN:
        return
    now = replace(
        batch, status=storable(status), answered=answered, failed=failed,
        expires_at=batch.expires_at if expires_at is None else expires_at,
    )  # fmt: skip
    if now != batch:
        row = {"status": now.status, "answered": answered, "failed": failed}
        db.execute("note_batch", {**row, "number": number, "expires_at": now.expires_at})


def end(db: "Transaction", number: int, said: Mapping[str, object], now: int) -> None:
    if _alone(db, number) is not None:
        db.execute("end_batch", {**said, "number": number, "now": now})


def collect(
    db: "Transaction", number: int, outcomes: Sequence[Outcome],
    reserved: Mapping[Claim, Reserved], now: int,
) -> int:  # fmt: skip
    batch = _alone(db, number)
    if batch is None:
        return 0
    own = _not_written(db, batch, outcomes)
    finish(db, batch.worker_id, own, now, reserved)
    _settle(db, number, sum(not isinstance(one.decision, KeepAnswer) for one in own))
    return len(own)


def _not_written(
    db: "Transaction", batch: ProviderBatch, outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """The first of each claim that holds, and of an answer only where there is none yet."""
    is_answered = {
        (item_id, epoch): answer_seq is not None
        for item_id, epoch, answer_seq in rows_held(db, batch, {one.item.id for one in outcomes})
    }
    own = []
    for outcome in outcomes:
        claim = claim_of(outcome.item)
        if claim not in is_answered or (is_answered[claim] and outcome.attempts):
            continue
        own.append(outcome)
        if isinstance(outcome.decision, KeepAnswer):
            is_answered[claim] = True
        else:
            del is_answered[claim]
    return own


def close(db: "Transaction", number: int, error: str | None, now: int) -> bool:
    batch = batch_of(db, number)
    if batch is None or batch.state is BatchState.CLOSED:
        return True
    if batch.unsettled:
        return False
    _close(db, batch, error and storable(error), now)
    return True


def give_up(
    db: "Transaction", number: int, error: str, *, was_sent: bool, most: int, now: int
) -> tuple[int, bool]:
    """So many of its rows at most; how many, and whether it is closed by now."""
    batch = batch_of(db, number)
    if batch is None or batch.state is BatchState.CLOSED:
        return 0, True
    which = {"worker_id": batch.worker_id, "limit": most}
    claims = list(rows_of(db, "some_claims_of_worker", ClaimRow, which))
    share = _share(batch) if was_sent else None
    known = Known(
        last_attempt_seq=db.first_new("attempts", most_rows_given_up(claims, share)) - 1,
        server_ids=dict(db.execute("server_ids").fetchall()),
    )
    plan = plan_given_up(claims, known, batch.worker_id, batch.server, share, now)
    write_plan(db, plan, Steps(), now)
    _settle(db, number, len(claims))
    is_all = len(claims) < most or len(claims) == batch.unsettled
    if is_all:
        _close(db, batch, error, now)
    return len(claims), is_all


def files_gone(db: "Transaction", number: int) -> None:
    db.execute("files_of_batch_gone", {"number": number})


def _alone(db: "Transaction", number: int) -> ProviderBatch | None:
    """Nobody else writes to it, or to its rows, until the transaction ends."""
    db.lock("batch", [number])
    return batch_of(db, number)


def _share(batch: ProviderBatch) -> Spent:
    """Of what is reserved for it, what is for each of its requests."""
    return Spent(
        ceil(batch.reserved_tokens / batch.requests), batch.reserved_cost_usd / batch.requests
    )


def _settle(db: "Transaction", number: int, n: int) -> None:
    if n:
        db.execute("settle_of_batch", {"number": number, "n": n})


def _close(db: "Transaction", batch: ProviderBatch, error: str | None, now: int) -> None:
    db.execute("close_batch", {"number": batch.number, "error": error, "now": now})
    db.execute("remove_worker", {"worker_id": batch.worker_id})
