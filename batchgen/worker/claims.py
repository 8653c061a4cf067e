"""What a slot does with an item it has claimed: ask the model, and decide what the reply means.

request -> [budget] -> client -> verdict -> decide -> [answer durable] -> parse -> outcome
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchgen.clock import clock_ms, now_ms
from batchgen.errors import ConfigError, InputError, ParseError, TemplateError
from batchgen.items import (
    Answer,
    Attempt,
    Beside,
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
    StoredAnswer,
    Trouble,
)
from batchgen.llm.client import Client
from batchgen.llm.decide import decide, decide_parse_failure
from batchgen.llm.prices import Prices, WorstCase
from batchgen.llm.responses import UNKNOWN_MODEL, storable
from batchgen.parsers import Parser, ParserRunner, to_json
from batchgen.store import Budget, Grant, Reservation, Spent, Store
from batchgen.worker.calls import Caller
from batchgen.worker.committer import Committer
from batchgen.worker.options import RunLog, Stats
from batchgen.worker.pacer import Pacer
from batchgen.worker.parameters import Parameters
from batchgen.worker.requests import Prepared, Requests
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stragglers import CallsUnderWay

# The server may have finished what we did not see the end of.
_MAY_BE_CHARGED = (Reason.TIMEOUT, Reason.CONNECTION, Reason.BAD_RESPONSE)


@dataclass(slots=True)
class Claim:
    """What a slot is at; read when it is cancelled or fails."""

    item: Item
    calling: bool = False
    attempt: Attempt | None = None


class Claims:
    """One a worker, for all its slots."""

    def __init__(
        self,
        store: Store,
        client: Client,
        spec: WorkSpec,
        prices: Prices,
        parsers: Mapping[str, Parser],
        committer: Committer,
        pacer: Pacer,
        stats: Stats,
        calls: CallsUnderWay,
        log: RunLog,
    ) -> None:
        self._store = store
        self._caller = Caller(client, committer, pacer, calls, hedge=spec.hedge)
        self._spec = spec
        self._prices = prices
        self._committer = committer
        self._pacer = pacer
        self._stats = stats
        self._log = log
        self._requests = Requests(store, spec, parsers)
        self._parameters = Parameters(self._requests, log.warn)
        self._runner = ParserRunner()
        self._tried_on_fresh_connection: set[int] = set()
        self._out_of_tries: dict[tuple[int, int], Fail] = {}
        self._rng = random.Random()
        self.unusable_config: ConfigError | None = None

    async def work_on(self, claim: Claim) -> Outcome:
        """What became of the claim. Whoever cancels it finds in `claim` whether a call is lost."""
        item = claim.item
        try:
            prepared = await self._requests.of(item)
        except ConfigError as exc:
            return self._cannot_work(item, exc)
        except (TemplateError, InputError) as exc:
            return Outcome(item, None, Fail(Reason.REJECTED, str(exc)))
        if item.answer is not None:
            return Outcome(item, None, await self._parse(item, prepared, item.answer))
        if out_of_tries := self._out_of_tries.pop((item.id, item.attempts), None):
            return Outcome(item, None, out_of_tries)
        if clock_ms() < self._pacer.paused_until:  # a 429 came while this item was being claimed
            return Outcome(item, None, Release())
        if self._spec.budget is not None:
            try:
                granted = await self._granted(item, prepared.body, self._spec.budget)
            except ConfigError as exc:
                if not self._is_bounded_without_its_own(prepared, self._spec.budget):
                    return self._cannot_work(item, exc)
                said = f"the item's own params cannot be kept to a budget. {exc}"
                return Outcome(item, None, Fail(Reason.REJECTED, said))
            if not granted:
                return Outcome(item, None, Release())
        return await self._ask(claim, prepared)

    def halt(self, why: str) -> None:
        """Claim no more: no request would work."""
        if self._stats.halted is None:
            self._stats.halted = why
            self._committer.drain()

    def halt_if_stalled(self, now: int) -> None:
        if stalled := self._pacer.stalled(now):
            self.halt(f"{stalled} The last reply: {self._stats.trouble or 'an answer'}")

    def close(self) -> None:
        self._runner.close()

    async def _granted(self, item: Item, body: Mapping[str, Any], budget: Budget) -> bool:
        """Whether the budget has the most that this call can cost; halts when it never will."""
        most = self._prices.worst_case(body, needs_cost=budget.max_cost_usd is not None)
        grant = await self._committer.reserve(Reservation(item, most.tokens, most.cost_usd or 0.0))
        if grant is Grant.NEVER:
            spent = await self._store.spent(budget)
            self.halt(_budget_reached(budget, spent, most))
        return grant is Grant.YES

    def _is_bounded_without_its_own(self, prepared: Prepared, budget: Budget) -> bool:
        """Whether the item alone, and not its recipe, asks for what has no limit or no price."""
        body = prepared.renderer.request_body(replace(prepared.input, params={}))
        try:
            self._prices.worst_case(body, needs_cost=budget.max_cost_usd is not None)
        except ConfigError:
            return False
        return True

    async def _ask(self, claim: Claim, prepared: Prepared) -> Outcome:
        item, parser = claim.item, prepared.parser
        try:
            body, paths = await self._requests.to_send(prepared)
        except InputError as exc:
            return Outcome(item, None, Fail(Reason.REJECTED, str(exc)))
        claim.calling = True
        called = await self._caller.call(item, body, paths)
        claim.calling = False
        reply = called.reply
        verdict = self._parameters.judge(item, prepared, called.verdict, reply)
        claim.attempt = attempt = self._attempt(reply, verdict, body)
        if called.beside is not None:
            other = self._attempt(called.beside.reply, called.beside.verdict, body)
            self._committer.hand_in(Outcome(item, other, Beside()))
        verdict = _blame_the_item(self._stale_but_once(verdict, item), prepared.input)
        decision = self._decide(item, verdict, reply, needs_whole=parser.needs_whole)
        if not isinstance(decision, KeepAnswer):
            return Outcome(item, attempt, decision)
        answer = StoredAnswer(0, attempt.response or "")
        if parser.kind == "inline":
            return Outcome(item, attempt, await self._parse(item, prepared, answer))
        seq = await self._committer.hand_in(Outcome(item, attempt, KeepAnswer()))
        claim.item = item = replace(item, answer=StoredAnswer(seq or 0, answer.text))
        claim.attempt = None
        self._log.attempt(item, attempt, KeepAnswer())
        return Outcome(item, None, await self._parse(item, prepared, answer))

    def _attempt(self, reply: Reply, verdict: Answer | Failure, body: Mapping[str, Any]) -> Attempt:
        price = self._prices.cost_usd(str(body["model"]), verdict.usage)
        return _attempt(reply, verdict, price)

    def _stale_but_once(self, verdict: Answer | Failure, item: Item) -> Answer | Failure:
        """An item is tried at once on another connection, but once: it may be the item itself that
        makes the server drop them."""
        if isinstance(verdict, Answer) or verdict.reason is not Reason.CONNECTION:
            self._tried_on_fresh_connection.discard(item.id)
        elif verdict.trouble is Trouble.STALE_CONNECTION:
            if item.id in self._tried_on_fresh_connection:
                return replace(verdict, trouble=None)
            self._tried_on_fresh_connection.add(item.id)
        return verdict

    def _decide(
        self, item: Item, verdict: Answer | Failure, reply: Reply, *, needs_whole: bool
    ) -> Decision:
        now = clock_ms()
        blame = self._pacer.observe(verdict, item, now - reply.latency_ms, now)
        owed = self._charge_the_guilty(item)
        self._note(verdict, reply)
        if isinstance(verdict, Failure) and verdict.halt:
            self.halt(f"{verdict.halt} The server said: {verdict.message}")
        else:
            self.halt_if_stalled(now)
        owing = replace(item, attempts=item.attempts + owed) if owed else item
        decision = decide(
            verdict, owing, self._spec.retry_policy, needs_whole=needs_whole,
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
            if guilty.attempts + 1 < self._spec.retry_policy.max_attempts:
                self._committer.charge(guilty)
            elif guilty.id != item.id:  # its next claim ends it, without a call
                fail = Fail(failure.reason, failure.message)
                self._out_of_tries[guilty.id, guilty.attempts] = fail
        return owed

    async def _parse(self, item: Item, prepared: Prepared, answer: StoredAnswer) -> Decision:
        if prepared.parser.spec == "raw":
            return Done(None)
        try:
            parsed = await self._runner.run(
                prepared.parser, answer.text, prepared.input.given, self._spec.parse_timeout_s
            )
            return Done(to_json(parsed))
        except ParseError as exc:
            return decide_parse_failure(item, str(exc), self._spec.retry_policy)

    def _note(self, verdict: Answer | Failure, reply: Reply) -> None:
        stats = self._stats
        stats.calls += 1
        stats.prompt_tokens += verdict.usage.prompt_tokens or 0
        stats.completion_tokens += verdict.usage.completion_tokens or 0
        if isinstance(verdict, Failure):
            stats.trouble = verdict.message  # the latest: the display says it while it pauses
        else:
            stats.latencies_ms.append(reply.latency_ms)
            if clock_ms() >= self._pacer.paused_until:
                stats.trouble = ""

    def _cannot_work(self, item: Item, exc: ConfigError) -> Outcome:
        self.unusable_config = exc
        self._committer.drain()
        return Outcome(item, None, Release())


def _budget_reached(budget: Budget, spent: Spent, most: WorstCase) -> str:
    cost_usd = most.cost_usd or 0.0
    if budget.max_cost_usd is not None and spent.cost_usd + cost_usd > budget.max_cost_usd:
        return (
            f"the budget is used up: ${spent.cost_usd:,.4f} of ${budget.max_cost_usd:,.4f} are "
            f"spent, and the next call may cost ${cost_usd:,.4f}. Raise --max-cost to go on."
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
