"""What a person does about provider batches: has them cancelled, gives them up, and says what has
become of those of which nothing was heard.

To cancel is safe beside a sender, which collects what comes of it. For all else nobody else may be
at work on them: a sender that is in the middle of making, finding or collecting the same batch
would come to another end.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from batchgen.config import Config, ModelConfig
from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.jobs.batches import list_batches, sender_of
from batchgen.jobs.configured_servers import configured_servers, server_specs
from batchgen.llm.batches import BatchServer, BatchServerError, Seen, open_batch_server
from batchgen.store import BatchState, Counts, ProviderBatch, ReadStore, Store
from batchgen.text.sentences import as_sentence

_PATIENCE_S = 60.0  # a person waits
_BEFORE_MS = 3_600_000  # how far the provider's clock may differ from ours
_UNCLOSED = (BatchState.CREATING, BatchState.OPEN, BatchState.ENDED)
_STATES = {
    BatchState.CREATING: "it is not known yet whether the provider has it",
    BatchState.OPEN: "the provider has it, and works on it",
    BatchState.ENDED: "the provider has ended it, and its answers are to be collected",
    BatchState.CLOSED: "nothing of it is at the provider any more",
}


class Cancelled(Struct, frozen=True):
    """`asked` are those that the provider was asked to cancel, as they stand there since; `failed`
    those of which it was not, and why. With --all: `elsewhere` are at servers of another config,
    and of `unknown` ones nobody knows yet whether the provider has them. `sender` goes on
    meanwhile, and sends what becomes pending."""

    asked: tuple[ProviderBatch, ...]
    failed: tuple[tuple[ProviderBatch, str], ...] = ()
    elsewhere: tuple[ProviderBatch, ...] = ()
    unknown: tuple[ProviderBatch, ...] = ()
    sender: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "cancelled": [one.number for one in self.asked],
            "failed": {one.number: why for one, why in self.failed},
            "elsewhere": [one.number for one in self.elsewhere],
            "unknown": [one.number for one in self.unknown],
        }


class Loss(Struct, frozen=True):
    """What it means to give a batch up: its `rows` go back, each as a call whose answer is unknown.
    The provider may charge for them, and they are asked again: for about `cost_usd`, by what calls
    have cost so far (None: not known). Of one that the provider certainly does not have nothing is
    lost: they go back untouched."""

    batch: ProviderBatch
    rows: int
    cost_usd: float | None


class Adopted(Struct, frozen=True):
    """The batch as it is now. With `is_proven` the provider has told that it was made of our file;
    else it tells of no file."""

    batch: ProviderBatch
    is_proven: bool


async def cancel(store: Store, config: Config, numbers: Sequence[int]) -> Cancelled:
    """Ask the provider to cancel these. What is done by then comes with the next collecting.

    Raises UsageError, before any is asked for, when one is not open or was sent to a server that
    the config does not have; ConfigError when there is no key.
    """
    chosen = [
        await _batch_in(store, one, "cancelled", BatchState.OPEN) for one in dict.fromkeys(numbers)
    ]
    models = {one.server: _model_of(config, one) for one in chosen}
    asked, failed = await _cancel(store, chosen, models)
    return Cancelled(asked, failed, sender=await sender_of(store))


async def cancel_all(store: Store, config: Config, experiment: str | None = None) -> Cancelled:
    """The same of all that are open, at the servers of the config."""
    listed = await list_batches(store, experiment)
    unfinished = [one.batch for one in listed.batches]
    found = [one for one in unfinished if one.state is BatchState.OPEN]
    models = _models(config)
    here = [one for one in found if one.server in models]
    asked, failed = await _cancel(store, here, models)
    return Cancelled(
        asked, failed,
        elsewhere=tuple(one for one in found if one.server not in models),
        unknown=tuple(one for one in unfinished if one.state is BatchState.CREATING),
        sender=listed.sender,
    )  # fmt: skip


async def loss_of(store: ReadStore, number: int) -> Loss:
    """What is lost when it is given up. Raises UsageError when there is no such batch, or it is
    closed."""
    batch = await _batch_in(store, number, "given up", *_UNCLOSED)
    counts = (await store.counts_by_experiment()).get(batch.experiment_id, Counts())
    return Loss(batch, batch.unsettled, batch.unsettled * counts.cost_of_a_call or None)


async def abandon(store: Store, number: int) -> int:
    """Give it up for lost; how many rows went back to the others, each counted as a call whose
    answer is unknown, but for one that the provider certainly does not have. What the provider has,
    or makes, of it is collected no more. Raises UsageError as `loss_of`, and while a sender is at
    work."""
    async with _alone(store, number):
        batch = await _batch_in(store, number, "given up", *_UNCLOSED)
        if batch.absent:
            return await store.batches.release(number, "given up before it was made")
        return await store.batches.abandon(number)


async def adopt(store: Store, config: Config, number: int, batch_id: str) -> Adopted:
    """One of which nothing was heard is this one at the provider, which is asked whether that can
    be. Raises UsageError when it cannot, and while a sender is at work; BatchgenError when the
    provider cannot be asked."""
    async with _alone(store, number):
        batch = await _batch_in(store, number, "adopted", BatchState.CREATING)
        async with _at_provider(config, batch) as server:
            seen = await server.get(batch_id)
        if seen is None:
            raise UsageError(
                f"batch {number}: no batch {batch_id} is known at {batch.base_url} under this key."
            )
        is_proven = _check_is_of(seen, batch)
        await store.batches.created(
            number, seen.batch_id, status=seen.status, created_at=seen.created_at,
            expires_at=seen.expires_at,
        )  # fmt: skip
        await _note(store, batch, seen)
        return Adopted(await _now(store, batch), is_proven)


async def let_create(store: Store, config: Config, number: int) -> ProviderBatch:
    """There is none at the provider, whoever says so has looked: the next sender makes it, of the
    file that is there. Raises UsageError where the provider's list has it, and while a sender is at
    work; BatchgenError when the provider cannot be asked."""
    async with _alone(store, number):
        batch = await _batch_in(store, number, "made", BatchState.CREATING)
        async with _at_provider(config, batch) as server:
            listed = await server.recent(batch.sealed_at - _BEFORE_MS)
        for seen in listed or ():
            if _mark(seen, batch):
                raise UsageError(
                    f"batch {number}: the provider has it, as {seen.batch_id} ({seen.status}).",
                    Remedy.ADOPT_BATCH, number=number, batch_id=seen.batch_id,
                )  # fmt: skip
        await store.batches.mark_absent(number)
        return await _now(store, batch)


async def _batch_in(store: ReadStore, number: int, what: str, *states: BatchState) -> ProviderBatch:
    """The batch of that number. Raises UsageError when it is not in one of these states, in which
    alone it can be `what`."""
    batch = await store.batches.batch(number)
    if batch is None:
        raise UsageError(f"there is no batch {number}.", Remedy.LIST_BATCHES)
    if batch.state not in states:
        named = " or ".join(state.value for state in states)
        raise UsageError(
            f"batch {number} is {batch.state.value}: {_STATES[batch.state]}. Only one that is "
            f"{named} can be {what}.",
            Remedy.LIST_BATCHES,
        )
    return batch


@asynccontextmanager
async def _alone(store: Store, number: int) -> AsyncIterator[None]:
    """No sender is at work inside, or begins."""
    async with store.sending() as is_alone:
        if not is_alone:
            sender = await sender_of(store)
            raise UsageError(
                f"batch {number}: another process sends and collects the batches of this database, "
                "and may be at work on it; when that stops, its batches go on at the provider.",
                Remedy.RUN_AGAIN if sender is None else Remedy.STOP_SENDER, worker=sender,
            )  # fmt: skip
        yield


async def _cancel(
    store: Store, batches: Sequence[ProviderBatch], models: Mapping[str, ModelConfig]
) -> tuple[tuple[ProviderBatch, ...], tuple[tuple[ProviderBatch, str], ...]]:
    """Those of which it was asked, and those of which it could not be."""
    asked, failed = [], []
    for key in dict.fromkeys(one.server for one in batches):
        async with open_batch_server(models[key], timeout_s=_PATIENCE_S) as server:
            for batch in (one for one in batches if one.server == key):
                assert batch.batch_id is not None
                try:
                    await server.cancel(batch.batch_id)
                except BatchServerError as exc:
                    failed.append((batch, _words(exc)))
                    continue
                with suppress(BatchServerError):  # that it was asked is what counts
                    if (seen := await server.get(batch.batch_id)) is not None:
                        await _note(store, batch, seen)
                asked.append(await _now(store, batch))
    return tuple(asked), tuple(failed)


async def _note(store: Store, batch: ProviderBatch, seen: Seen) -> None:
    await store.batches.note(
        batch.number, status=seen.status, answered=seen.answered, failed=seen.failed,
        expires_at=seen.expires_at,
    )  # fmt: skip


async def _now(store: ReadStore, batch: ProviderBatch) -> ProviderBatch:
    return await store.batches.batch(batch.number) or batch


def _models(config: Config) -> dict[str, ModelConfig]:
    """Of the servers of the config, by their keys."""
    servers = configured_servers(config)
    specs = server_specs(servers)
    return {spec.key: one.model for spec, one in zip(specs, servers, strict=True)}


def _model_of(config: Config, batch: ProviderBatch) -> ModelConfig:
    model = _models(config).get(batch.server)
    if model is None:
        raise UsageError(
            f"batch {batch.number}: was sent to {batch.base_url}, which is no server of this "
            "config: set model.base_url and the key that it was sent with."
        )
    return model


@asynccontextmanager
async def _at_provider(config: Config, batch: ProviderBatch) -> AsyncIterator[BatchServer]:
    """Raises BatchgenError inside in place of BatchServerError."""
    model = _model_of(config, batch)
    try:
        async with open_batch_server(model, timeout_s=_PATIENCE_S) as server:
            yield server
    except BatchServerError as exc:
        raise BatchgenError(
            f"batch {batch.number}: {batch.base_url} cannot be asked, and nothing has changed. "
            f"{_words(exc)}"
        ) from None


def _words(exc: BatchServerError) -> str:
    said = f"The server said: {as_sentence(exc.failure.message)}"
    return f"{exc.failure.halt} {said}" if exc.failure.halt else said


def _mark(seen: Seen, batch: ProviderBatch) -> bool | None:
    """Whether it was made of the batch's file; None: the provider does not tell."""
    if seen.token is not None:
        return seen.token == batch.token
    return None if seen.input_file is None else seen.input_file == batch.input_file


def _check_is_of(seen: Seen, batch: ProviderBatch) -> bool:
    """Whether that is proven. Raises UsageError when it certainly is another one."""
    is_of, number = _mark(seen, batch), batch.number
    if is_of is False:
        of = f" ({seen.input_file})" if seen.input_file else ""
        raise UsageError(
            f"batch {number}: {seen.batch_id} was made of another file{of}, not of "
            f"{batch.input_file}."
        )
    if is_of is None and seen.total not in (None, 0, batch.requests):
        raise UsageError(
            f"batch {number}: {seen.batch_id} has {seen.total:,} requests, and this one has "
            f"{batch.requests:,}."
        )
    return is_of is True
