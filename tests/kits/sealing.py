"""Batches as a sender leaves them: sealed, and made at the simulated provider or not."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex

from batchgen.config import Config, load
from batchgen.endpoints import CHAT
from batchgen.items import Item
from batchgen.jobs.configured_servers import configured_servers, server_specs
from batchgen.llm.batches import BatchServer, Seen, Unclear, open_batch_server
from batchgen.store import (
    AskedServer,
    ClaimRequest,
    NewBatch,
    ProviderBatch,
    ServerWant,
    Store,
    WorkerKind,
    claim_of,
    open_store,
)
from tests.kits.project import Project


@dataclass
class Sealer:
    """Of one project, which has pending rows."""

    project: Project

    @property
    def config(self) -> Config:
        path = self.project.path
        return load(path / "config.yaml", env={}, overrides={}, cwd=path)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        async with open_store(self.project.database) as store:
            yield store

    async def seal(
        self,
        n: int = 2,
        experiment: str = "default",
        *,
        is_made: bool = True,
        known_as: str | None = None,
    ) -> ProviderBatch:
        """A batch of `n` rows. If the reply to its making was lost, or it was not asked for, it is
        not known whether the provider has it; else it is known by the provider's id, or another."""
        config = self.config
        spec = server_specs(configured_servers(config))[0]
        async with self.store() as store, self._server() as server:
            ids = {one.own_name: one.id for one in await store.experiments()}
            async with store.seat(1, 30.0, 3, kind=WorkerKind.SENDER) as seat:
                want = ServerWant(spec.key, n, capacity=n)
                claimed = await seat.exchange([], ClaimRequest((want,), (ids[experiment],), most=n))
                items = list(claimed.items)
                assert len(items) == n
                token = token_hex(16)
                file = b"".join(_line(server, token, item) for item in items)
                file_id = await server.upload(io.BytesIO(file), len(file), f"batchgen-{token}")
                new = NewBatch(
                    experiment_id=ids[experiment], recipe_id=items[0].recipe_id,
                    server=AskedServer(spec.key, spec.name), base_url=spec.shown_url,
                    endpoint="chat", model="simulated", token=token, input_file=file_id,
                    bytes=len(file), tokens=len(file) // 4,
                )  # fmt: skip
                batch = await store.batches.seal(seat.id, new, [claim_of(one) for one in items])
                assert isinstance(batch, ProviderBatch)
                if is_made:
                    await self._create(store, server, batch, known_as)
                return await self.now(store, batch.number)

    async def end(self, number: int, status: str = "completed") -> ProviderBatch:
        """As the provider has said its last word, and nothing is collected."""
        async with self.store() as store:
            await store.batches.end(
                number, status=status, output_file="file-out", error_file=None, answered=1, failed=0
            )
            return await self.now(store, number)

    async def close(self, number: int, error: str) -> None:
        """Its rows go back as if nothing of it had been asked."""
        async with self.store() as store:
            await store.batches.release(number, error)

    async def seen(self, batch_id: str) -> Seen | None:
        """As the provider has it."""
        async with self._server() as server:
            return await server.get(batch_id)

    async def listed(self) -> list[Seen]:
        """What the provider has, newest first."""
        async with self._server() as server:
            return await server.recent(0) or []

    @staticmethod
    async def now(store: Store, number: int) -> ProviderBatch:
        batch = await store.batches.batch(number)
        assert batch is not None
        return batch

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[BatchServer]:
        async with open_batch_server(self.config.model, timeout_s=30.0) as server:
            yield server

    async def _create(
        self, store: Store, server: BatchServer, batch: ProviderBatch, known_as: str | None
    ) -> None:
        made = await server.create(
            batch.input_file, endpoint=CHAT, model=batch.model, window="24h", token=batch.token
        )
        if isinstance(made, Unclear):
            return
        assert isinstance(made, Seen), made
        await store.batches.created(
            batch.number, known_as or made.batch_id, status=made.status, created_at=made.created_at,
            expires_at=made.expires_at,
        )  # fmt: skip


def _line(server: BatchServer, token: str, item: Item) -> bytes:
    body = {"model": "simulated", "messages": [{"role": "user", "content": f"Say {item.id}"}]}
    return server.line(f"{token[:8]}-{item.id}-{item.epoch}", body, CHAT)
