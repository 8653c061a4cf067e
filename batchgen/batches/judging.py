"""What a line of a batch means for its row. There is no pacer and no trial here: a batch is one
answer of the provider's to thousands of requests, so what most of them got is there to be seen.

| came back                                 | becomes                                              |
|-------------------------------------------|------------------------------------------------------|
| an answer                                 | as online: done, or parse, refusal, truncated        |
| a status of 400, 404 or 422               | rejected; a halt where no request of the batch was   |
|                                           | answered, nor one of its experiment before           |
| 429                                       | pending, no try used                                 |
| 5xx                                       | a try used, pending while there are more: the next   |
|                                           | batch; none where no request of the batch was        |
|                                           | answered, and its row was not in trouble before      |
| what says that no request would work      | pending as before, and a halt; where others of the   |
|                                           | batch were answered, rejected                        |
| batch_expired                             | a try used, as a timeout                             |
| batch_cancelled                           | pending, no try used                                 |
| no line, in a batch that ran to its end   | an unknown call, a try used                          |
| no line, in one that was cancelled        | pending; an unknown call, if the provider has        |
|                                           | answered more than its files have                    |
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from batchgen.batches.place import Place
from batchgen.clock import now_ms
from batchgen.items import (
    Answer,
    Attempt,
    Decision,
    Fail,
    Failure,
    Item,
    Outcome,
    Reason,
    Release,
    Retry,
)
from batchgen.llm.batches import BatchLine
from batchgen.llm.decide import Blame, RetryPolicy, decide_on_answer, decide_on_failure
from batchgen.store import Condemned, ProviderBatch
from batchgen.store.trial import Accusation
from batchgen.worker.attempts import attempt_of
from batchgen.worker.fallback import unknown_attempt
from batchgen.worker.halts import nobody_answered, refused
from batchgen.worker.rejected_parameters import RejectedParameters
from batchgen.worker.requests import Prepared
from batchgen.worker.stats import Halt

_OF_SERVERS = (Reason.SERVER, Reason.CONNECTION, Reason.TIMEOUT)
_CANCELLED = "batch_cancelled"


class Others(NamedTuple):
    """What is known of the requests of a batch together: some were `answered`, so key and model are
    right; `nobody` was, by the provider's own count, and that of many; and `is_first`: no other
    request of the experiment was answered before."""

    answered: bool = False
    nobody: bool = False
    is_first: bool = False


class Judged(NamedTuple):
    """The call as it is kept, None if none was made; what is decided (`KeepAnswer`: its answer is
    to be parsed), and why to halt, if the line says that no request would work."""

    attempt: Attempt | None
    decision: Decision
    halt: Halt | None = None


class LineJudge:
    """For the batches of one run."""

    def __init__(self, policy: RetryPolicy, leave_out: Callable[[str, int, str], bool],
                 warn: Callable[[str], None]) -> None:  # fmt: skip
        self._policy = policy
        self._rejected_parameters = RejectedParameters(leave_out, warn)
        self._rng = Random()

    def judge(
        self, item: Item, prepared: Prepared, line: BatchLine, verdict: Answer | Failure | None,
        batch: ProviderBatch, place: Place, others: Others,
    ) -> Judged:  # fmt: skip
        """`verdict` is what the reply of the line is, None if there is none."""
        reply = line.reply
        if reply is None or verdict is None:
            return self._not_asked(item, line, others)
        if prepared.body:
            verdict = self._rejected_parameters.interpret(item, prepared, verdict, reply, place.key)
        # Nobody knows how long a call in a batch took.
        cost_usd = place.prices.cost_usd({"model": batch.model}, verdict.usage)
        attempt = replace(attempt_of(reply, verdict, cost_usd, place.key), latency_ms=None)
        if isinstance(verdict, Answer):
            needs_whole = prepared.parser.needs_whole
            decision = decide_on_answer(verdict, item, self._policy, needs_whole=needs_whole)
            return Judged(attempt, decision)
        if verdict.halt is not None and not (others.answered or "model" in prepared.input.params):
            return Judged(attempt, Release(), refused(verdict, place.spec))
        is_refused = verdict.reason is Reason.REJECTED and verdict.trouble is None
        if is_refused and others.nobody and others.is_first:
            alike = f"{reply.status} {Accusation.REQUEST}"
            why = Condemned(batch.requests, alike, verdict.message, batch.experiment)
            return Judged(attempt, Release(), nobody_answered(why, place.spec))
        return Judged(attempt, self._after(item, replace(verdict, halt=None), others))

    def unheard(self, item: Item) -> Outcome:
        """A batch ran to its end, and nothing in its files is of this row."""
        said = "the batch has ended, and its files have no line for this row"
        return Outcome(item, (unknown_attempt(),), self._tried(item, Reason.BAD_RESPONSE, said))

    def lost(self, item: Item) -> Outcome:
        """A batch was cancelled, and the answer to this row, which was counted, is in no file."""
        return Outcome(item, (unknown_attempt(),), Release())

    def _not_asked(self, item: Item, line: BatchLine, others: Others) -> Judged:
        if line.error_code == _CANCELLED:
            return Judged(None, Release())
        said = line.error_message or line.error_code or "the provider says no more"
        is_late = "expired" in (line.error_code or "")
        reason = Reason.TIMEOUT if is_late else Reason.SERVER
        message = f"not answered in its batch: {line.error_code or 'error'}: {said}"
        attempt = Attempt(finished_at=now_ms(), reason=reason, error=message)
        is_free = not is_late and _is_free(item, others)
        decision = Retry(None, charged=False) if is_free else self._tried(item, reason, message)
        return Judged(attempt, decision)

    def _after(self, item: Item, failure: Failure, others: Others) -> Decision:
        blame = Blame.LIMIT if failure.reason is Reason.RATE_LIMIT else Blame.ITEM
        if failure.reason in _OF_SERVERS and _is_free(item, others):
            blame = Blame.SERVER
        decision = decide_on_failure(
            failure, item, self._policy, blame=blame, refusals=1, now=now_ms(), rng=self._rng
        )
        if isinstance(decision, Retry):  # the next batch is wait enough
            return replace(decision, available_at=None)
        return decision

    def _tried(self, item: Item, reason: Reason, message: str) -> Decision:
        """A try is used up, if it was not the last."""
        if item.tries + 1 < self._policy.max_attempts:
            return Retry(None, charged=True)
        return Fail(reason, message)


def _is_free(item: Item, others: Others) -> bool:
    """Whether that it was not served says nothing of the row: nobody was. One that was in trouble
    before, when others were answered, pays all the same, or the last few would never end."""
    return others.nobody and not item.tries
