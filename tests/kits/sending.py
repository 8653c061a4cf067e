"""A sender of provider batches, on a table of the store's tests."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from batchgen.items import Attempt, Item, KeepAnswer, Outcome
from batchgen.store import (
    AskedServer,
    Budget,
    Grant,
    NewBatch,
    ProviderBatch,
    Reserved,
    WorkerKind,
    claim_of,
)
from batchgen.store.transactions import batches, held_rows, known_batches, queue
from tests.kits.table import LEASE_MS, MACHINE, MAX_CRASHES, SERVER, Table, answered

TOKEN = "0123456789abcdef" * 2


def new_batch(token: str = TOKEN, **others: Any) -> NewBatch:
    given: dict[str, Any] = {
        "experiment_id": 1, "recipe_id": 1, "server": AskedServer(SERVER, "api.example"),
        "base_url": "https://api.example/v1", "endpoint": "chat", "model": "m", "token": token,
        "input_file": f"file-{token}", "bytes": 900, "tokens": 30,
    }  # fmt: skip
    return NewBatch(**{**given, **others})


class Sending:
    """A sender of a table, and its batches."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.id = self.join()

    def join(self) -> int:
        kind = WorkerKind.SENDER
        return self.table.run(
            queue.join, MACHINE, 4242, 10, self.table.now, LEASE_MS, (), kind
        )  # fmt: skip

    def dies(self) -> int:
        return self.table.run(
            queue.remove_worker,
            self.id,
            crashed=True,
            max_crashes=MAX_CRASHES,
            now=self.table.now,
            kind=WorkerKind.SENDER,
        )

    def seal(self, items: Sequence[Item], token: str = TOKEN, **others: Any) -> ProviderBatch:
        found = self.try_to_seal(items, token, **others)
        assert isinstance(found, ProviderBatch)
        return found

    def try_to_seal(
        self, items: Sequence[Item], token: str = TOKEN, within: Budget | None = None, **others: Any
    ) -> ProviderBatch | Grant | None:
        claims = [claim_of(item) for item in items]
        batch = new_batch(token, **others)
        try:
            return self.table.run(batches.seal, self.id, batch, claims, within, self.table.now)
        except batches.NotHeldError:
            return None

    def sealed(self, n: int, **others: Any) -> tuple[ProviderBatch, list[Item]]:
        """So many fresh rows, at the provider as `batch_1`."""
        self.table.enqueue(*[f"row {one}" for one in range(n)])
        items = self.table.claim(self.id, n)
        batch = self.seal(items, **others)
        self.created(batch)
        return self.now(batch), items

    def created(self, batch: ProviderBatch, batch_id: str = "batch_1") -> None:
        self.table.run(batches.created, batch.number, batch_id, "validating", 5, 9)

    def now(self, batch: ProviderBatch) -> ProviderBatch:
        found = known_batches.batch_of(self.table.transaction, batch.number)
        assert found is not None
        return found

    def collect(
        self, batch: ProviderBatch, *outcomes: Outcome, reserved: dict[Any, Reserved] | None = None
    ) -> int:
        return self.table.run(
            batches.collect, batch.number, outcomes, reserved or {}, self.table.now
        )

    def close(self, batch: ProviderBatch, error: str | None = None) -> bool:
        return self.table.run(batches.close, batch.number, error, self.table.now)

    def give_up(
        self, batch: ProviderBatch, most: int = 100, *, was_sent: bool = True
    ) -> tuple[int, bool]:
        return self.table.run(
            batches.give_up,
            batch.number,
            "given up",
            was_sent=was_sent,
            most=most,
            now=self.table.now,
        )

    def held(self, batch: ProviderBatch, *item_ids: int) -> list[Item]:
        return held_rows.items_held(self.table.transaction, batch.number, item_ids)


def in_batch(text: str = "an answer") -> Attempt:
    """How long a line took, nobody says."""
    return replace(answered(text), latency_ms=None)


def kept_answer(item: Item, text: str = "an answer") -> Outcome:
    return Outcome(item, (in_batch(text),), KeepAnswer())
