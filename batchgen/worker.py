"""One worker: N slots that claim an item, ask the model, decide what the reply means, and hand in.

    slot:  item -> request -> client -> decide -> [answer durable] -> parse -> hand in -> next item

A user's parser runs only after the raw answer is committed, off the event loop and with a deadline,
so that nothing it does can cost the answer. Built-in parsers cannot fail the process; they run
first and share the commit. After a crash an item with an answer and no parse is parsed, not asked
for again.

Stopping: `drain` claims no more and finishes what is in flight, for `grace_s` at most; `now` leaves
it: each call under way is kept as one with unknown outcome, and its item goes back.
"""

import asyncio
import json
import random
import traceback
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from batchgen.client import Client
from batchgen.committer import Committer, Scope
from batchgen.errors import ConfigError, InputError, ParseError, TemplateError
from batchgen.items import (
    Answer,
    Attempt,
    Decision,
    Done,
    Fail,
    Failure,
    Item,
    ItemInput,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Reply,
    Retry,
    StoredAnswer,
)
from batchgen.limits import Pacer
from batchgen.parsers import Parser, ParserRunner, load_parser, to_json
from batchgen.pool import read_item
from batchgen.prices import Most, Prices
from batchgen.prompts import Renderer, with_feedback
from batchgen.responses import UNKNOWN_MODEL, read_reply, storable
from batchgen.retry import RetryPolicy, decide, decide_parse_failure
from batchgen.shutdown import Stop
from batchgen.store import Budget, Grant, Reservation, Spent, Store, now_ms
from batchgen.waiting import clock_ms, to_its_end

_LATENCIES_KEPT = 1000
# The server may have finished what we did not see the end of.
_MAY_BE_CHARGED = (Reason.TIMEOUT, Reason.CONNECTION, Reason.BAD_RESPONSE)
_LOOK_FOR_STALL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """`parsers` are Python callables by their spec, for those that no name can load."""

    slots: int
    policy: RetryPolicy
    scope: Scope
    parse_timeout_s: float = 30.0
    parse_feedback: bool = False
    stall_s: float = 1800.0
    grace_s: float = 30.0
    lease_s: float = 60.0
    parsers: Mapping[str, Parser] = field(default_factory=dict)
    prices: Prices


@dataclass(slots=True)
class Stats:
    """What this worker did so far; read by the display while it runs."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    calls: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies_ms: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    reasons: Counter[str] = field(default_factory=Counter)
    paused_until: int = 0  # of `clock_ms`
    trouble: str = ""
    halted: str | None = None


class RunLog(Protocol):
    """Where a run tells what happens; never given a prompt, an answer or the key."""

    def attempt(self, item: Item, attempt: Attempt, decision: Decision) -> None: ...
    def parsed(self, item: Item, decision: Decision) -> None: ...
    def warn(self, message: str) -> None: ...
    def bug(self, message: str, trace: str) -> None: ...


async def run_worker(
    store: Store, client: Client, options: WorkerOptions, *, stop: Stop, stats: Stats, log: RunLog
) -> None:
    """Work until nothing is left, or `stop`, or a halt (`stats.halted` says why).

    Raises StoreError when the database fails, ConfigError when an item's parser cannot be loaded;
    in each case the items in flight are finished or given back first.
    """
    lease = store.worker(options.slots, options.lease_s, options.policy.max_attempts)
    async with lease as seat:
        pacer = Pacer(options.slots, options.stall_s, clock_ms())
        committer = Committer(
            seat, pacer, options.scope,
            lease_s=options.lease_s, warn=log.warn,
        )  # fmt: skip
        worker = _Worker(store, client, options, committer, pacer, stats, log)
        await worker.run(stop)


class _Worker:
    def __init__(
        self,
        store: Store,
        client: Client,
        options: WorkerOptions,
        committer: Committer,
        pacer: Pacer,
        stats: Stats,
        log: RunLog,
    ) -> None:
        self._store = store
        self._client = client
        self._options = options
        self._committer = committer
        self._pacer = pacer
        self._stats = stats
        self._log = log
        self._runner = ParserRunner()
        self._recipes: dict[int, tuple[Renderer, Parser]] = {}
        self._tried_on_fresh_connection: set[int] = set()
        self._out_of_tries: dict[tuple[int, int], Fail] = {}
        self._unusable_config: ConfigError | None = None
        self._rng = random.Random()

    async def run(self, stop: Stop) -> None:
        """One that is cancelled, however often, first writes what it has."""
        committing = asyncio.create_task(self._committer.run(), name="committer")
        slots = [
            asyncio.create_task(self._slot(), name=f"slot {number}")
            for number in range(self._options.slots)
        ]
        watches = [
            asyncio.create_task(self._watch(stop, slots), name="watch"),
            asyncio.create_task(self._watch_for_stall(), name="watch for stall"),
        ]
        working = asyncio.create_task(_all_done(slots), name="slots")
        try:
            await asyncio.wait([working, committing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await to_its_end(self._end([*slots, *watches, working], committing))
        if not working.cancelled():
            working.result()
        if self._unusable_config:
            raise self._unusable_config

    async def _end(self, tasks: list[asyncio.Task[None]], committing: asyncio.Task[None]) -> None:
        await _cancel(tasks)
        self._committer.close()
        self._runner.close()
        await committing

    async def _watch(self, stop: Stop, slots: list[asyncio.Task[None]]) -> None:
        await stop.drain.wait()
        self._committer.drain()
        try:
            async with asyncio.timeout(self._options.grace_s):
                await stop.now.wait()
        except TimeoutError:
            self._log.warn(f"still in flight after {self._options.grace_s:g} s: left")
        for slot in slots:
            slot.cancel()

    async def _watch_for_stall(self) -> None:
        """Replies tell of a stall; but a server may ask for a wait longer than `stall_s`."""
        while True:
            await asyncio.sleep(min(self._options.stall_s, _LOOK_FOR_STALL_S))
            now = clock_ms()
            if now < self._pacer.paused_until:
                self._halt_if_stalled(now)

    async def _slot(self) -> None:
        while (item := await self._committer.next_item()) is not None:
            claim = _Claim(item)
            self._stats.in_flight = self._committer.in_flight
            try:
                outcome = await self._work_on(claim)
            except asyncio.CancelledError:
                # Otherwise no call is under way, and leaving gives the item back as it is.
                if claim.calling:
                    self._hand_in(Outcome(item, Attempt(finished_at=now_ms()), Release()))
                raise
            except Exception as exc:  # a bug costs one item, not the run
                self._log.bug(f"item {item.id}: {exc}", traceback.format_exc())
                outcome = Outcome(claim.item, claim.attempt, Fail(Reason.REJECTED, _bug(exc)))
            self._hand_in(outcome)

    async def _work_on(self, claim: "_Claim") -> Outcome:
        item = claim.item
        try:
            renderer, parser = await self._recipe(item.recipe_id)
            item_input = read_item(json.loads(item.input_json), f"item {item.id}")
            body = renderer.request_body(item_input) if item.answer is None else {}
        except ConfigError as exc:
            return self._cannot_work(item, exc)
        except (TemplateError, InputError) as exc:
            return Outcome(item, None, Fail(Reason.REJECTED, str(exc)))
        if item.answer is not None:
            return Outcome(item, None, await self._parse(item, parser, item.answer, item_input))
        if out_of_tries := self._out_of_tries.pop((item.id, item.attempts), None):
            return Outcome(item, None, out_of_tries)
        if clock_ms() < self._pacer.paused_until:  # a 429 came while this item was being claimed
            return Outcome(item, None, Release())
        if self._options.parse_feedback and item.parse_failures:
            await self._tell_what_was_wrong(item, body)
        if self._options.scope.budget is not None:
            try:
                granted = await self._granted(item, body, self._options.scope.budget)
            except ConfigError as exc:
                return self._cannot_work(item, exc)
            if not granted:
                return Outcome(item, None, Release())
        claim.calling = True
        reply = await self._client.complete(body)
        claim.calling = False
        verdict = read_reply(reply)
        cost_usd = self._options.prices.cost_usd(str(body["model"]), verdict.usage)
        claim.attempt = attempt = _attempt(reply, verdict, cost_usd)
        verdict = _blame_the_item(self._stale_but_once(verdict, item), item_input)
        decision = self._decide(item, parser, verdict, reply)
        if not isinstance(decision, KeepAnswer):
            return Outcome(item, attempt, decision)
        answer = StoredAnswer(0, attempt.response or "")
        if parser.kind == "inline":
            return Outcome(item, attempt, await self._parse(item, parser, answer, item_input))
        seq = await self._committer.hand_in(Outcome(item, attempt, KeepAnswer()))
        claim.item = item = replace(item, answer=StoredAnswer(seq or 0, answer.text))
        claim.attempt = None
        self._log.attempt(item, attempt, KeepAnswer())
        return Outcome(item, None, await self._parse(item, parser, answer, item_input))

    async def _tell_what_was_wrong(self, item: Item, body: dict[str, Any]) -> None:
        if bad := await self._store.last_bad_answer(item.id):
            body["messages"] = with_feedback(body["messages"], *bad)

    async def _granted(self, item: Item, body: Mapping[str, Any], budget: Budget) -> bool:
        """Whether the budget has the most that this call can cost; halts when it never will."""
        most = self._options.prices.most(body, needs_cost=budget.max_cost_usd is not None)
        grant = await self._committer.reserve(Reservation(item, most.tokens, most.cost_usd))
        if grant is Grant.NEVER:
            spent = await self._store.spent(budget)
            self._halt(_budget_reached(budget, spent, most))
        return grant is Grant.YES

    def _stale_but_once(self, verdict: Answer | Failure, item: Item) -> Answer | Failure:
        """An item is tried at once on another connection, but once: it may be the item itself that
        makes the server drop them."""
        if isinstance(verdict, Answer) or verdict.reason is not Reason.CONNECTION:
            self._tried_on_fresh_connection.discard(item.id)
        elif item.id in self._tried_on_fresh_connection:
            return replace(verdict, stale=False)
        elif verdict.stale:
            self._tried_on_fresh_connection.add(item.id)
        return verdict

    def _decide(
        self, item: Item, parser: Parser, verdict: Answer | Failure, reply: Reply
    ) -> Decision:
        now = clock_ms()
        blame = self._pacer.observe(verdict, item, now - reply.latency_ms, now)
        owed = self._charge_the_guilty(item)
        self._note(verdict, reply)
        if isinstance(verdict, Failure) and verdict.halt:
            self._halt(f"{verdict.halt} The server said: {verdict.message}")
        else:
            self._halt_if_stalled(now)
        owing = replace(item, attempts=item.attempts + owed) if owed else item
        decision = decide(
            verdict, owing, self._options.policy, needs_whole=parser.needs_whole,
            blame=blame, now=now_ms(), rng=self._rng,
        )  # fmt: skip
        if isinstance(decision, Fail):
            self._tried_on_fresh_connection.discard(item.id)
        return decision

    def _charge_the_guilty(self, item: Item) -> int:
        """How many tries `item` itself owes."""
        owed = 0
        for guilty, failure in self._pacer.take_guilty():
            owed += guilty.id == item.id
            if guilty.attempts + 1 < self._options.policy.max_attempts:
                self._committer.charge(guilty)
            elif guilty.id != item.id:  # its next claim ends it, without a call
                fail = Fail(failure.reason, failure.message)
                self._out_of_tries[guilty.id, guilty.attempts] = fail
        return owed

    async def _parse(
        self, item: Item, parser: Parser, answer: StoredAnswer, item_input: ItemInput
    ) -> Decision:
        if parser.spec == "raw":
            return Done(None)
        try:
            parsed = await self._runner.run(
                parser, answer.text, item_input.given, self._options.parse_timeout_s
            )
            return Done(to_json(parsed))
        except ParseError as exc:
            return decide_parse_failure(item, str(exc), self._options.policy)

    async def _recipe(self, recipe_id: int) -> tuple[Renderer, Parser]:
        """Raises ConfigError or TemplateError when the recipe cannot be used."""
        found = self._recipes.get(recipe_id)
        if found is None:
            recipe = await self._store.recipe(recipe_id)
            parser = self._options.parsers.get(recipe.parser) or load_parser(recipe.parser)
            found = self._recipes[recipe_id] = Renderer(recipe), parser
        return found

    def _hand_in(self, outcome: Outcome) -> None:
        self._committer.hand_in(outcome)
        self._committer.finished()
        self._stats.in_flight = self._committer.in_flight
        self._stats.paused_until = self._pacer.paused_until
        match outcome.decision:
            case Done():
                self._stats.done += 1
            case Fail(reason=reason):
                self._stats.failed += 1
                self._stats.reasons[reason] += 1
            case Release() if outcome.attempt is None:
                pass  # nothing was sent
            case Retry():
                self._stats.retried += 1
            case _:
                pass  # given back
        if outcome.attempt is not None:
            self._log.attempt(outcome.item, outcome.attempt, outcome.decision)
        elif not isinstance(outcome.decision, Release):
            self._log.parsed(outcome.item, outcome.decision)

    def _note(self, verdict: Answer | Failure, reply: Reply) -> None:
        stats = self._stats
        stats.calls += 1
        stats.prompt_tokens += verdict.usage.prompt_tokens or 0
        stats.completion_tokens += verdict.usage.completion_tokens or 0
        if isinstance(verdict, Failure):
            stats.trouble = verdict.message  # the latest: the display says it while it pauses
        else:
            stats.latencies_ms.append(reply.latency_ms)

    def _halt_if_stalled(self, now: int) -> None:
        if stalled := self._pacer.stalled(now):
            self._halt(f"{stalled} The last reply: {self._stats.trouble or 'an answer'}")

    def _halt(self, why: str) -> None:
        if self._stats.halted is None:
            self._stats.halted = why
            self._committer.drain()

    def _cannot_work(self, item: Item, exc: ConfigError) -> Outcome:
        self._unusable_config = exc
        self._committer.drain()
        return Outcome(item, None, Release())


@dataclass(slots=True)
class _Claim:
    """What a slot is at; read when it is cancelled or fails."""

    item: Item
    calling: bool = False
    attempt: Attempt | None = None


def _budget_reached(budget: Budget, spent: Spent, most: Most) -> str:
    if budget.max_cost_usd is not None and (spent.cost_usd + most.cost_usd > budget.max_cost_usd):
        return (
            f"the budget is used up: ${spent.cost_usd:,.4f} of ${budget.max_cost_usd:,.4f} are "
            f"spent, and the next call may cost ${most.cost_usd:,.4f}. Raise --max-cost to go on."
        )
    return (
        f"the budget is used up: {spent.tokens:,} of {budget.max_tokens:,} tokens are spent, and "
        f"the next call may need {most.tokens:,}. Raise --max-tokens-total to go on."
    )


def _blame_the_item(verdict: Answer | Failure, item_input: ItemInput) -> Answer | Failure:
    """A model that the item itself asked for is nobody else's trouble."""
    own_model = "model" in item_input.params
    if own_model and isinstance(verdict, Failure) and verdict.halt == UNKNOWN_MODEL:
        return replace(verdict, halt=None)
    return verdict


def _attempt(reply: Reply, verdict: Answer | Failure, cost_usd: float | None) -> Attempt:
    request_id = reply.headers.get("x-request-id")
    what_it_brought: dict[str, Any] = (
        {"response": verdict.text, "body": verdict.rest}
        if isinstance(verdict, Answer)
        else {
            "reason": verdict.reason,
            "error": verdict.message,
            "body": reply.body,
            "may_be_charged": reply.sent and verdict.reason in _MAY_BE_CHARGED,
        }
    )
    return Attempt(
        finished_at=reply.started_at + reply.latency_ms,
        latency_ms=reply.latency_ms,
        http_status=reply.status,
        request_id=None if request_id is None else storable(request_id),
        model=verdict.model,
        finish_reason=verdict.finish_reason,
        usage=verdict.usage,
        cost_usd=cost_usd,
        **what_it_brought,
    )


def _bug(exc: Exception) -> str:
    return f"internal error, please report it: {type(exc).__name__}: {exc}"


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    """Until all have ended; raises what the first one raised, unless it was cancelled."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        if not task.cancelled():
            task.result()
    await asyncio.wait(tasks)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
