"""The work on one item, from its claim to its outcome: prepare, send, judge, parse.

    Item ─prepare▶ Prepared ─[budget]─send▶ Sent ─judge▶ Record ─[durable]─parse▶ Outcome

Each stage is a module of its own and hands the next one a value (requests, calls, judge, parsing);
here is their order, and what is handed in for an item whose work was broken off. Only this module
and `calls` know that there are slots and a committer.
"""

from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from batchgen.clock import clock_ms
from batchgen.errors import InputError, TemplateError
from batchgen.items import (
    Answer,
    Attempt,
    Decision,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
)
from batchgen.userfunctions import text_of
from batchgen.worker.budget import BudgetGuard
from batchgen.worker.calls import Calls
from batchgen.worker.committer import Committer
from batchgen.worker.fallback import internal_error, unknown_attempt
from batchgen.worker.judge import CallResult, Judge, Record, Sent, plain_attempt
from batchgen.worker.parsing import AnswerParser
from batchgen.worker.requests import Prepared, Request, Requests
from batchgen.worker.servers import Servers
from batchgen.worker.stats import RunLog


class Stages(Struct, frozen=True):
    """What a worker's items go through. `budget` is None where there is none."""

    requests: Requests
    budget: BudgetGuard | None
    calls: Calls
    judge: Judge
    parser: AnswerParser
    committer: Committer
    servers: Servers
    log: RunLog


class ItemRun:
    """One claim of an item."""

    def __init__(self, item: Item, stages: Stages) -> None:
        self._item = item
        self._stages = stages
        self._prepared: Prepared | None = None
        self._calls: list[CallResult | None] = []  # sent, and not among the attempts yet
        self._attempts: tuple[Attempt, ...] = ()  # made, and not handed in yet

    async def work(self) -> Outcome:
        """What became of the item, to be handed in. Raises ConfigError when its recipe cannot be
        used; whoever gets that, another exception or a cancellation hands in `given_back`, `broken`
        or `abandoned`."""
        stages, item = self._stages, self._item
        try:
            if item.runs_code:
                return await self._run_code()
            prepared = await stages.requests.prepare(item)
            if item.parser_id != prepared.parser_id:
                item = self._item = replace(item, parser_id=prepared.parser_id)
            if item.answer_seq is not None:
                vector = await stages.requests.vector_of(prepared, item.answer_seq)
                return await self._parse(prepared, item.answer_text or "", vector)
            if failure := stages.judge.take_failure(item):
                return self._outcome(failure)
            if stages.servers[item.server].is_closed(clock_ms()):
                return self._outcome(Release())  # a 429 came while this item was being claimed
            if stages.budget is not None and not await stages.budget.grants(item, prepared):
                return self._outcome(Release())
            request = await stages.requests.complete(prepared)
        except (TemplateError, InputError) as exc:
            return self._outcome(Fail(Reason.REJECTED, text_of(exc)))
        return await self._ask(prepared, request)

    def given_back(self) -> Outcome:
        """To others, or for another time."""
        return self._broken_off(Release())

    def broken(self, exc: Exception) -> Outcome:
        """A bug costs one item, not the run; and not what its calls brought."""
        self._record_somehow()
        waits = self._item.answer_seq is not None
        return self._broken_off(internal_error(exc, has_answer=waits or self._has_answer()))

    def abandoned(self) -> Outcome | None:
        """When it is cancelled: a call in flight is kept as one with unknown outcome, and an answer
        that came meanwhile as such. None: there is no call, and the item goes back as the worker
        leaves."""
        try:
            decision = self._decide_on_answer()
        except Exception:  # a bug; the answer is kept, and the next worker parses it
            self._record_somehow()
            decision = KeepAnswer() if self._has_answer() else Release()
        return self._broken_off(decision) if self._calls or self._attempts else None

    def _broken_off(self, decision: Decision) -> Outcome:
        unknown = tuple(unknown_attempt() for _ in self._calls)
        return Outcome(self._item, self._attempts + unknown, decision)

    def _decide_on_answer(self) -> Decision:
        """What becomes of an item whose call was answered just as it was abandoned."""
        record, prepared = self._record_replies(), self._prepared
        if record is None or prepared is None or not isinstance(record.decisive.verdict, Answer):
            return Release()
        return self._stages.judge.decide(self._item, prepared, record.decisive)

    def _has_answer(self) -> bool:
        return bool(self._attempts) and self._attempts[0].response is not None

    def _record_somehow(self) -> None:
        """As the judge records them or, where it fails at that, plainly; if that fails too, the
        outcome of the calls is unknown."""
        with suppress(Exception):
            self._record_replies()
            return
        with suppress(Exception):
            if (sent := Sent.of(self._calls)) is not None:
                self._attempts = tuple(map(plain_attempt, (sent.decisive, *sent.others)))
                self._calls = []

    def _record_replies(self) -> Record | None:
        sent = Sent.of(self._calls)
        if sent is None or self._prepared is None:
            return None
        return self._record(self._prepared, sent)

    def _record(self, prepared: Prepared, sent: Sent) -> Record:
        record = self._stages.judge.record(self._item, prepared, sent)
        self._attempts, self._calls = record.attempts, []
        if self._stages.budget is not None:
            for attempt in record.attempts:
                self._stages.budget.observe(prepared, attempt.usage)
        return record

    async def _ask(self, prepared: Prepared, request: Request) -> Outcome:
        stages, item = self._stages, self._item
        self._prepared = prepared
        record = self._record(prepared, await stages.calls.send(item, request, self._calls))
        decision = stages.judge.decide(item, prepared, record.decisive)
        if not isinstance(decision, KeepAnswer):
            return self._outcome(decision)
        answer = self._attempts[0]
        text = answer.response or ""
        if prepared.parser.kind != "inline":
            await self._keep_answer(text)
        return await self._parse(prepared, text, answer.vector)

    async def _run_code(self) -> Outcome:
        """Of a step that is a function of the user's: there is no call, and no answer to keep."""
        prepared = await self._stages.requests.prepare_code(self._item)
        self._item = replace(self._item, parser_id=prepared.present.id)
        return self._outcome(await self._stages.parser.run(prepared))

    async def _keep_answer(self, text: str) -> None:
        """Until it is durable: what runs next may hang or kill the process."""
        stages, item, attempts = self._stages, self._item, self._attempts
        durable = stages.committer.hand_in(Outcome(item, attempts, KeepAnswer()))
        self._attempts = ()
        self._item = replace(item, answer_seq=await durable or 0, answer_text=text)
        for attempt in attempts:
            stages.log.attempt(item, attempt, KeepAnswer())

    async def _parse(self, prepared: Prepared, text: str, vector: str | None) -> Outcome:
        return self._outcome(await self._stages.parser.parse(self._item, prepared, text, vector))

    def _outcome(self, decision: Decision) -> Outcome:
        return Outcome(self._item, self._attempts, decision)
