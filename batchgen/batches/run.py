"""One round after another: what is over is collected, what is pending is sent, and what the
provider works on is waited for. Whatever ends it, the batches go on at the provider, and the next
run goes on with them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from msgspec import Struct

from batchgen.batches.collecting import Collector
from batchgen.batches.filling import Filler, Room
from batchgen.batches.judging import LineJudge
from batchgen.batches.keeping import Keeper
from batchgen.batches.local import LocalWork
from batchgen.batches.place import Ground
from batchgen.batches.purse import Purse
from batchgen.batches.sending import Sender
from batchgen.batches.sizes import Sizes
from batchgen.batches.spool import Spool
from batchgen.batches.watching import Watcher
from batchgen.clock import clock_ms
from batchgen.errors import Remedy, UsageError
from batchgen.shutdown import uninterrupted, unless
from batchgen.store import ProviderBatch, Seat, Store, WorkerKind
from batchgen.worker.answering import Answering, answering
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.requests import Present, Requests
from batchgen.worker.stats import Halt, HaltKind

_NEWEST = 50  # batches, from which it is learned how large the next may be
# With these no more is sent, but what was sent is waited for.
_SENDS_NO_MORE = (HaltKind.BUDGET, HaltKind.FAILURES)
_FEW, _MANY = 100, 1000

Probe = Callable[[int], Coroutine[Any, Any, None]]
"""Ask one row of this experiment online, to see whether the recipe works at all; it halts the run
where it does not."""


class BatchRun(Struct, frozen=True):
    """`present` as a worker has it. `probe` None: nothing is asked online. With `waits` it goes on
    until nothing is left; else it is over after one round."""

    present: Mapping[int, Present]
    probe: Probe | None
    waits: bool


async def run_batches(store: Store, ground: Ground, run: BatchRun) -> None:
    """Until nothing is left, it is stopped, or it halts (`stats.halted` says why).

    Raises UsageError where another process sends batches of this database, StoreError when that
    fails, ConfigError when a recipe or a parser cannot be used. Nothing is lost in any case.
    """
    spec = ground.spec
    store.wait_for_server(spec.patience_s, ground.warn)
    async with store.sending() as is_alone:
        if not is_alone:
            raise UsageError(
                f"{store.name}: another process sends and collects the provider batches of this "
                "database; one at a time does."
            )
        attempts = spec.retry_policy.max_attempts
        async with store.seat(1, spec.lease_s, attempts, kind=WorkerKind.SENDER) as seat:
            keeper = Keeper(ground, seat)
            parser = AnswerParser(spec.retry_policy, spec.parse_timeout_s)
            with closing(parser):
                async with keeper.at_work():
                    answers = await answering(store, spec)
                    rounds = _Rounds(store, ground, run, seat, keeper, parser, answers)
                    await unless(ground.context.stop.drain, rounds.go_on())


class _Rounds:
    def __init__(
        self, store: Store, ground: Ground, run: BatchRun, seat: Seat, keeper: Keeper,
        parser: AnswerParser, answers: Answering,
    ) -> None:  # fmt: skip
        self._store = store
        self._ground = ground
        self._run = run
        self._seat = seat
        self._keeper = keeper
        self._answers = answers
        self._left = ground.spec.max_items
        self._requests = Requests(store, ground.spec, run.present)
        self._local = LocalWork(ground, self._requests, parser)
        self._purse = Purse(ground, store)
        self._sender = Sender(ground, store, seat)
        judge = LineJudge(ground.spec.retry_policy, self._requests.leave_out, ground.warn)
        self._collector = Collector(ground, store, self._requests, judge, parser)
        self._watcher = Watcher(ground, store, self._sender, self._collector)
        self._probed: set[tuple[int, int]] = set()
        self._is_over = False

    async def go_on(self) -> None:
        await self._count()
        while True:
            left = await self._watcher.look()
            if self._may_send:
                await self._send(left)
            left = await self._count()
            if self._ground.config.delete_files:
                await self._watcher.delete_files()
            if self._has_ended(left):
                await self._watcher.look_for_twins()
                return
            await self._wait()

    async def _count(self) -> list[ProviderBatch]:
        """The batches that this run waits for, whose rows are in flight."""
        left = self._of_scope(await self._store.batches.unfinished())
        self._ground.context.stats.in_flight = sum(one.unsettled for one in left)
        return left

    @property
    def _may_send(self) -> bool:
        ground = self._ground
        return self._left != 0 and not (ground.is_halted or self._keeper.is_paused)

    def _has_ended(self, left: Sequence[ProviderBatch]) -> bool:
        if not self._run.waits:
            return True
        halted = self._ground.context.stats.halted
        if halted is not None and halted.kind not in _SENDS_NO_MORE:
            return True
        late = [one for one in left if one.number in self._watcher.late]
        if left and len(late) == len(left):
            self._ground.halt(_too_late(late))
            return True
        return not left and (self._is_over or halted is not None or self._left == 0)

    def _of_scope(self, batches: Sequence[ProviderBatch]) -> list[ProviderBatch]:
        """Those that this run waits for."""
        ids, place = self._ground.spec.experiments, self._ground.place
        return [
            one
            for one in batches
            if place(one.server) and (ids is None or one.experiment_id in ids)
        ]

    async def _send(self, unfinished: Sequence[ProviderBatch]) -> None:
        """What is pending, as far as there is room for it at the provider."""
        if self._keeper.is_expelled:
            await self._keeper.join_again()
        await self._probe()
        if not self._may_send:
            return
        sizes = Sizes(self._ground.config.max_requests)
        sizes.learn(reversed(await self._store.batches.newest(_NEWEST)))
        config, files = self._ground.config, 0
        is_at_limit = self._collector.refused.is_at_limit and any(
            one.batch_id for one in unfinished
        )
        if not (is_at_limit or any(one.absent for one in unfinished)):  # which are refused for now
            files = max(0, config.max_open - len(unfinished))
        tokens = config.max_enqueued_tokens
        if tokens is not None:
            tokens -= sum(one.tokens for one in unfinished)
        await self._purse.open()
        filler = Filler(
            self._ground, self._seat, self._requests, self._local, self._purse, self._answers,
            sizes, Room(files, tokens), self._left, self._collector.outages.resting(clock_ms()),
        )  # fmt: skip
        sent = 0
        try:
            while (spool := await filler.next()) is not None:
                place = self._ground.place(spool.key.server)
                assert place is not None
                await self._tell_of_few(spool)
                with closing(spool):
                    batch = await self._sender.send(spool, place)
                if batch is None:
                    break
                sent += batch.requests
        finally:
            filler.close()
            given_back = await self._seat.give_back()
        self._is_over = filler.is_over
        if self._left is not None:
            self._left = (filler.left or 0) + given_back

    async def _probe(self) -> None:
        """Of each recipe that was never sent in a batch, one row is asked online."""
        if self._run.probe is None:
            return
        for experiment_id, counts in (await self._store.counts_by_experiment()).items():
            if not counts.pending or not self._is_asked(experiment_id) or not self._may_send:
                continue
            recipes = (await self._store.present_recipes(experiment_id))[:1]
            for recipe_id in recipes:
                key = experiment_id, recipe_id
                if key in self._probed or await self._store.batches.has_sent(*key):
                    continue
                self._probed.add(key)
                await uninterrupted(self._run.probe(experiment_id))  # it stops by itself
                if self._left is not None:
                    self._left -= 1

    def _is_asked(self, experiment_id: int) -> bool:
        ids = self._ground.spec.experiments
        return experiment_id not in self._answers.code and (ids is None or experiment_id in ids)

    async def _wait(self) -> None:
        """Until it is time to look again, or an order comes."""
        config, sender = self._ground.config, self._sender
        pause_s = min(config.poll_s, sender.look_again_s) if sender.looks else config.poll_s
        self._keeper.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._keeper.changed.wait()

    async def _tell_of_few(self, spool: Spool) -> None:
        """A tail of stragglers does not wait once more for a day without a word."""
        if spool.requests > _FEW:
            return
        counts = await self._store.counts([spool.key.experiment_id])
        if counts.done >= _MANY:
            self._ground.say(
                f"{spool.requests} rows are left, and wait for a batch of their own; asked online "
                "they would be answered now, at the full price."
            )


def _too_late(late: Sequence[ProviderBatch]) -> Halt:
    names = ", ".join(f"{one.number} ({one.batch_id})" for one in late)
    return Halt(
        f"all that is left is in batches which should have ended hours ago: {names}. They are "
        "never sent again by themselves.",
        Remedy.END_LATE_BATCHES,
        HaltKind.STALLED,
    )
