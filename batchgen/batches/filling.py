"""Rows become lines of files: claimed as by any worker, rendered, and written to the file of their
batch, until that is full, nothing is pending, or a budget, an order or a halt ends it."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from batchgen.batches.local import LocalWork, needs_call
from batchgen.batches.place import Ground
from batchgen.batches.purse import Purse
from batchgen.batches.sizes import Sizes
from batchgen.batches.spool import Spool, SpoolKey, custom_id_of, tokens_of
from batchgen.endpoints import Endpoint
from batchgen.errors import ConfigError, InputError, Remedy, StoreError, TemplateError
from batchgen.items import Decision, Fail, Item, Outcome, Reason, Release
from batchgen.llm.prices import WorstCase
from batchgen.shutdown import uninterrupted
from batchgen.store import ClaimRequest, Exchange, Seat, ServerWant, claim_of
from batchgen.userfunctions import text_of
from batchgen.worker.answering import Answering
from batchgen.worker.fallback import internal_error
from batchgen.worker.halts import too_many_failed
from batchgen.worker.requests import Requests
from batchgen.worker.stats import Halt, HaltKind

_CLAIM = 500
# What asks for a stream, or for none: in a batch there is none.
_NOT_IN_BATCHES = ("stream", "stream_options")


class Room(NamedTuple):
    """For so many files more, and so many tokens in them (None: any)."""

    files: int
    tokens: int | None


class _Request(NamedTuple):
    """What a row asks, and the most that it can use (None: nobody has to know)."""

    key: SpoolKey
    endpoint: Endpoint
    body: dict[str, Any]
    most: WorstCase | None


class Filler:
    """Fills the files of one round. When `next` has given back None: `is_over` says that nothing is
    open, or that as many are done as were wanted; `is_expelled`, that this process was taken for
    dead, and its rows are others'. `left` rows may be claimed (None: any), and none for servers
    that are `resting`."""

    def __init__(
        self, ground: Ground, seat: Seat, requests: Requests, local: LocalWork, purse: Purse,
        answers: Answering, sizes: Sizes, room: Room, left: int | None,
        resting: Collection[str],
    ) -> None:  # fmt: skip
        self._ground = ground
        self._seat = seat
        self._requests = requests
        self._local = local
        self._purse = purse
        self._answers = answers
        self._sizes = sizes
        self._files_left, self._tokens_left = room
        self._filling: dict[SpoolKey, Spool] = {}
        self._full: deque[Spool] = deque()
        self._is_done = False
        self._resting = resting
        self.left = left
        self.is_over = self.is_expelled = self.is_paused = False

    async def next(self) -> Spool | None:
        """The next file to be sent, as soon as it is full, or as full as it will be; None: there is
        none. Whoever gets it closes it. Raises ConfigError when a recipe or a parser cannot be
        used."""
        while not self._full and not self._is_done:
            items = await self._claim()
            ended = [one for item in items if (one := await self._put(item)) is not None]
            if ended:
                await self._seat.exchange(ended, ClaimRequest())
            if self._must_end or not items:
                self._is_done = True
                self._full.extend(self._filling.values())
                self._filling.clear()
        return self._full.popleft() if self._full else None

    def close(self) -> None:
        for spool in (*self._full, *self._filling.values()):
            spool.close()

    @property
    def _must_end(self) -> bool:
        has_room = self._files_left >= 0 and (self._tokens_left is None or self._tokens_left > 0)
        goes_on = has_room and not (self._purse.is_short or self.is_expelled)
        return self._ground.is_halted or not goes_on

    async def _claim(self) -> list[Item]:
        """Rows that need a call, once those that need none are done. Empty: there are none."""
        while not self._must_end:
            done = await self._seat.exchange([], self._want())
            self._observe(done)
            calls = [item for item in done.items if needs_call(item)]
            others = [item for item in done.items if not needs_call(item)]
            if self.left is not None:
                self.left -= len(done.items)
            if others:
                await uninterrupted(self._do(others))
            if calls or not others:
                return calls
        return []

    async def _do(self, items: Sequence[Item]) -> None:
        """What needs no call."""
        outcomes = await asyncio.gather(*map(self._local.outcome, items))
        await self._seat.exchange(list(filter(None, outcomes)), ClaimRequest())

    def _observe(self, done: Exchange) -> None:
        self.is_expelled = done.orders is None
        self.is_paused = done.orders is not None and done.orders.paused
        if done.failed is not None:
            words = too_many_failed(done.failed, str(self._ground.spec.max_failures))
            self._ground.halt(Halt(words, Remedy.ALLOW_MORE_FAILURES, HaltKind.FAILURES))
        self.is_over = (done.open == 0 and not self._ground.spec.wait_for_more) or done.enough

    def _want(self) -> ClaimRequest:
        spec = self._ground.spec
        most = _CLAIM if self.left is None else min(_CLAIM, self.left)
        wants = [
            ServerWant(place.key, most, capacity=_CLAIM, experiments=answered)
            for place, answered in zip(self._ground.places, self._answers.servers, strict=True)
            if place.key not in self._resting
        ]
        if self._answers.code:
            code = min(most, spec.concurrency)
            wants.append(ServerWant("", code, experiments=self._answers.code, runs_code=True))
        return ClaimRequest(
            tuple(wants), spec.experiments, spec.until, selection=spec.selection,
            max_failures=spec.max_failures, most=most, run=spec.run, waits_for_batches=True,
        )  # fmt: skip

    async def _put(self, item: Item) -> Outcome | None:
        """Into the file of its batch; else what becomes of it."""
        try:
            request = await self._request(item)
        except (TemplateError, InputError) as exc:
            return Outcome(item, (), Fail(Reason.REJECTED, text_of(exc)))
        except (ConfigError, StoreError):
            raise
        except Exception as exc:  # a bug costs one row
            self._ground.bug(item, exc)
            return Outcome(item, (), internal_error(exc, has_answer=False))
        decision = self._put_request(item, request)
        return None if decision is None else Outcome(item, (), decision)

    def _put_request(self, item: Item, request: _Request) -> Decision | None:
        place = self._ground.place(item.server)
        assert place is not None
        key, claim = request.key, claim_of(item)

        def line_in(spool: Spool) -> bytes:
            custom_id = custom_id_of(spool.token, claim)
            return place.server.line(custom_id, request.body, request.endpoint)

        spool = self._filling.get(key) or Spool(key, self._ground.directory)
        line = line_in(spool)
        most_bytes = min(self._ground.config.max_mb * 1_000_000, place.server.most_bytes)
        if len(line) > most_bytes:
            words = f"the request has {len(line) / 1e6:.1f} MB; a batch takes {most_bytes / 1e6:g}"
            return Fail(Reason.REJECTED, words)
        most_requests = min(self._sizes.most(key.server, key.model), place.server.most_requests)
        if spool.requests >= most_requests or spool.bytes + len(line) > most_bytes:
            self._full.append(self._filling.pop(key))
            spool = Spool(key, self._ground.directory)
            line = line_in(spool)
        if not spool.requests:
            self._files_left -= 1
        if self._must_end or not self._purse.takes(request.most, item.experiment_id):
            return Release()
        if self._tokens_left is not None:
            self._tokens_left -= tokens_of(len(line))
        spool.add(line, claim, request.most)
        self._filling[key] = spool
        return None

    async def _request(self, item: Item) -> _Request:
        prepared = await self._requests.prepare(item)
        most = await self._purse.most(item, prepared)
        request = await self._requests.complete(prepared)
        body = {name: of for name, of in request.body.items() if name not in _NOT_IN_BATCHES}
        key = SpoolKey(
            item.server, item.experiment_id, item.recipe_id, prepared.endpoint.name,
            str(body["model"]),
        )  # fmt: skip
        return _Request(key, prepared.endpoint, body, most)
