"""What a transaction of a worker will write, decided before anything is written: pure, and the same
for every engine.

The engine reads what it knows of the claims (`Known`), asks for the plan, and writes its rows
by the set: a handful of statements, however many outcomes there are. Rows are dicts by the
names of the columns.

Fencing is decided here: an outcome counts only while its claim holds, that is while the row has the
epoch of the claim and is running. Of one that came too late nothing moves; its attempts are kept
all the same, in the places of the unknown ones that others have written for them.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    ParseLater,
    Reason,
    Release,
    Retry,
    State,
    Suspect,
)
from batchgen.store.chain import Steps, made_of_item
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan_rows import Row, attempt_row, result_row
from batchgen.store.returned import may_have_cost_all, times_used, used_tokens
from batchgen.store.values import Spent

if TYPE_CHECKING:
    from batchgen.steps import Followed
    from batchgen.store.chain_records import MadeOf

# How an answer ends that the parser, or what it needs of an answer, is to blame for.
_PARSER_REASONS = frozenset({Reason.PARSE, Reason.TRUNCATED, Reason.CRASH})

_ENDS = (Done, Fail)

Claim = tuple[int, int]
"""The number of the item, and the epoch that the claim has."""


def claim_of(item: Item) -> Claim:
    return item.id, item.epoch


class Claimed(Struct, frozen=True):
    """An item of a claim. `answer_seq` is its answer that waits for its parser, `parser_id`;
    `gathering` what it is gathered with, and `made_of` the hash of what it was made of; with
    `runs_code` a function of the user's ends it, without an answer."""

    item_id: int
    experiment_id: int
    epoch: int
    answer_seq: int | None
    parser_id: int | None
    gathering: int | None = None
    made_of: bytes | None = None
    runs_code: int = 0

    @classmethod
    def of(cls, item: Item) -> "Claimed":
        claimed = item.id, item.experiment_id, item.epoch, item.answer_seq, item.parser_id
        if item.plan_id is None:
            return cls(*claimed)
        return cls(*claimed, item.gathering, made_of_item(item), item.runs_code)


class Reserved(Struct, frozen=True):
    """What a budget holds back for a claim: the most that it can use, and the tokens that were
    asked for, of which that may be several times as many."""

    most: Spent
    asked: int


NOTHING_RESERVED = Reserved(Spent(), 0)
# More is a wrong count, which must not end all reservations for good.
_MOST_OVERUSE = 100.0


class Known(Struct, frozen=True):
    """What the engine knows before it writes. `late` has the other claims, those that do not hold,
    as far as their items are still there: how many attempts of unknown outcome, which no budget has
    booked, are kept for each. `reserved` is what budgets hold back for the calls. `outdated` are
    claims of rows that end stale: what they were made of is being replaced (1), or has been (2).
    `server_ids` are the numbers of servers by their keys."""

    held: AbstractSet[Claim] = frozenset()
    late: Mapping[Claim, int] = field(default_factory=dict)
    reserved: Mapping[Claim, Reserved] = field(default_factory=dict)
    last_attempt_seq: int = 0
    last_result_seq: int = 0
    outdated: Mapping[Claim, int] = field(default_factory=dict)
    server_ids: Mapping[str, int] = field(default_factory=dict)
    steps: Steps = field(default_factory=Steps)


class Parent(NamedTuple):
    """A row that is done with this result, and what follows it. `is_new`: it never was before.
    `outcome` is that by which it was done, if just now."""

    item_id: int
    experiment_id: int
    result_seq: int
    followed: "Followed"
    is_new: bool
    outcome: Outcome | None = None


class Plan(Struct):
    """Rows to write, in the order of the lists, and what that changes in the counters.

    `attempt_seqs` and `lost` belong to the outcomes, as in `Exchange`.
    """

    attempt_seq: int  # the last one given out, as the next
    result_seq: int
    replaced: list[Row] = field(default_factory=list)  # one unknown attempt of a claim each
    attempts: list[Row] = field(default_factory=list)
    parse_errors: list[Row] = field(default_factory=list)  # of answers that were kept before
    results: list[Row] = field(default_factory=list)
    settled: list[Row] = field(default_factory=list)  # claims that end
    kept_answers: list[Row] = field(default_factory=list)
    taken_back: list[Row] = field(default_factory=list)
    parents: list[Parent] = field(default_factory=list)
    gatherings: set[int] = field(default_factory=set)  # of rows that ended
    deltas: CounterDeltas = field(default_factory=CounterDeltas)
    attempt_seqs: list[int | None] = field(default_factory=list)
    lost: list[Outcome] = field(default_factory=list)
    # Of the rows that are made of parents, by these and their experiment: as far as it is known.
    made: "dict[tuple[int, int], MadeOf]" = field(default_factory=dict)

    def keep_attempt(
        self, worker_id: int, item: Claimed, attempt: Attempt, reserved: Reserved,
        server_id: int | None = None,
    ) -> int:  # fmt: skip
        """Its sequence number; `server_id` was asked. What nobody saw the end of, or whose price
        nobody knows, is booked with what was reserved; one that used or cost more than was asked
        for tells what is to be reserved from now on."""
        unknown_tokens = 0
        if reserved.asked:
            times = times_used(attempt, reserved.asked, reserved.most)
            self.deltas.overuse(item.experiment_id, min(times, _MOST_OVERUSE))
        if may_have_cost_all(attempt) and reserved.most != Spent():
            attempt = replace(attempt, cost_usd=reserved.most.cost_usd)
            unknown_tokens = reserved.most.tokens
        elif attempt.cost_usd is None and reserved.most.cost_usd and used_tokens(attempt, 0):
            attempt = replace(attempt, cost_usd=reserved.most.cost_usd)
        self.attempt_seq += 1
        self.attempts.append(
            attempt_row(self.attempt_seq, worker_id, item.item_id, item.epoch, attempt, server_id)
        )
        self.deltas.spend(item.experiment_id, self.attempt_seq, attempt, unknown_tokens)
        return self.attempt_seq

    def replace_unknown(self, item: Claimed, calls: int) -> int:
        """So many unknown attempts of a claim give their places to what came after all."""
        self.replaced += [{"item_id": item.item_id, "epoch": item.epoch}] * calls
        self.deltas.forget_unknown(item.experiment_id, calls)
        return calls

    def move(
        self, item: Claimed, outcome: Outcome, attempt_seq: int | None, now: int, known: Known
    ) -> None:
        """What was decided of a claim that holds. `attempt_seq`: the call that counts, if any."""
        decision, attempt = outcome.decision, outcome.attempt
        if isinstance(decision, KeepAnswer):
            claim = {"item_id": item.item_id, "epoch": item.epoch}
            self.kept_answers.append(claim | {"answer_seq": attempt_seq})
            return
        outdated = known.outdated.get(claim_of(outcome.item), 0)
        followed = decision.followed if isinstance(decision, Done) else None
        if attempt is not None and attempt.response is None:
            item = replace(item, parser_id=None)
        elif isinstance(decision, ParseLater) or (
            # By one that is its chain's no more: its answer is parsed again.
            followed is not None and known.steps.plan_id(item.experiment_id) != followed.plan_id
        ):
            answer_seq = item.answer_seq if attempt_seq is None else attempt_seq
            self.end(
                replace(item, answer_seq=answer_seq), Release(), None, now, outdated=outdated
            )  # fmt: skip
            return
        answer = attempt.response if attempt else outcome.item.answer_text
        self.end(item, decision, attempt_seq, now, answer, outdated=outdated)
        if followed is not None and not outdated:
            self._follow(item, followed, outcome, known.steps)

    def _follow(self, item: Claimed, followed: "Followed", outcome: Outcome, steps: Steps) -> None:
        """Of the row that was done just now."""
        is_new = item.epoch == 1
        self.parents.append(
            Parent(item.item_id, item.experiment_id, self.result_seq, followed, is_new, outcome)
        )
        children, passed_over = len(followed.children), followed.passed_over
        steps.count(self.deltas, item.experiment_id, children, passed_over, +1)

    def end(
        self, item: Claimed, decision: Decision, attempt_seq: int | None, now: int,
        answer: str | None = None, *, outdated: int = 0,
    ) -> None:  # fmt: skip
        """The claim ends as decided, or stale if it is `outdated`. The item has no parser where
        there was no `answer` to read."""
        state = State.STALE if outdated else _state_after(decision)
        retry = decision if isinstance(decision, Retry) else None
        result_seq = None
        if isinstance(decision, _ENDS):
            result_seq = self._append_result(
                item, decision, attempt_seq, now, answer, outdated=outdated
            )
        keeps_answer = isinstance(decision, Release) and outdated < 2
        self.settled.append({
            "item_id": item.item_id, "epoch": item.epoch, "state": str(state),
            "available_at": None if retry is None or outdated else retry.available_at,
            "charged": int(retry.charged if retry else result_seq is not None),
            "parse_failed": int(retry is not None and retry.parse_failed),
            "answer_seq": item.answer_seq if keeps_answer else None,
            "result_seq": result_seq,
        })  # fmt: skip
        reason = decision.reason if isinstance(decision, Fail) and not outdated else ""
        self.deltas.move(item.experiment_id, State.RUNNING, -1)
        self.deltas.move(item.experiment_id, state, +1, reason)
        if item.gathering is not None and state != State.PENDING:
            self.gatherings.add(item.gathering)
        if isinstance(decision, Retry):
            self.deltas.retry(item.experiment_id)
            if decision.error and attempt_seq is None:
                self.parse_errors.append({"seq": item.answer_seq, "error": decision.error})

    def take_back(self, claim: "ClaimRow", *, crashed: bool) -> None:
        self.taken_back.append({"item_id": claim.item_id, "crashed": int(crashed)})
        state = State.STALE if claim.outdated else State.PENDING
        self.deltas.move(claim.experiment_id, State.RUNNING, -1)
        self.deltas.move(claim.experiment_id, state, +1)
        if claim.outdated and claim.gathering is not None:
            self.gatherings.add(claim.gathering)

    def _append_result(
        self, item: Claimed, decision: Done | Fail, attempt_seq: int | None, now: int,
        answer: str | None, *, outdated: int,
    ) -> int:  # fmt: skip
        """Of an outdated one nothing is made."""
        self.result_seq += 1
        seq = attempt_seq if attempt_seq is not None else item.answer_seq
        was_read = seq is not None or item.runs_code
        parser_id = parser_of(decision, item.parser_id) if was_read else None
        followed = decision.followed if isinstance(decision, Done) and not outdated else None
        self.results.append(
            result_row(
                self.result_seq,
                item.item_id,
                seq,
                decision,
                now,
                parser_id=parser_id,
                answer=answer,
                made_of=item.made_of,
                followed=followed,
            )
        )
        self.deltas.end(item.experiment_id, now, failed=isinstance(decision, Fail))
        if not outdated:
            self.deltas.parse(item.experiment_id, parser_id, +1)
        return self.result_seq


def most_rows(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many attempts and results `plan_finish` makes of these at most."""
    results = sum([isinstance(outcome.decision, _ENDS) for outcome in outcomes])
    return sum([len(outcome.attempts) for outcome in outcomes]), results


def plan_finish(outcomes: Sequence[Outcome], known: Known, worker_id: int, now: int) -> Plan:
    """What the slots finished."""
    plan = Plan(known.last_attempt_seq, known.last_result_seq)
    held, late = set(known.held), dict(known.late)
    for outcome in outcomes:
        item, claim = Claimed.of(outcome.item), claim_of(outcome.item)
        attempts = _with_parse_error(outcome)
        if claim not in held:
            plan.lost.append(outcome)
            unknown = late.get(claim, 0 if claim in known.held else None)
            if unknown is None:  # its experiment was deleted meanwhile
                plan.attempt_seqs.append(None)
                continue
            late[claim] = unknown - plan.replace_unknown(item, min(unknown, len(attempts)))
        reserved = known.reserved.get(claim, NOTHING_RESERVED)
        asked = [known.server_ids.get(one.server or outcome.item.server) for one in attempts]
        seqs = [
            plan.keep_attempt(worker_id, item, one, reserved, server_id)
            for one, server_id in zip(attempts, asked, strict=True)
        ]
        plan.attempt_seqs.append(seqs[0] if seqs else None)
        if claim in held:
            plan.move(item, outcome, plan.attempt_seqs[-1], now, known)
            if not isinstance(outcome.decision, KeepAnswer):
                held.discard(claim)
    return plan


class ClaimRow(Claimed, frozen=True):
    """A claim of a worker that is gone."""

    crashes: int = 0
    second_call: int = 0
    outdated: int = 0

    @property
    def is_parsed(self) -> bool:
        """Whether the user's code has it."""
        return self.answer_seq is not None or bool(self.runs_code)

    @property
    def calls(self) -> int:
        """How many of its calls may be in flight."""
        return int(not self.is_parsed) + self.second_call


def parser_of(end: Done | Fail, parser_id: int | None) -> int | None:
    """The parser by which an item with an answer has ended so; None: another could change nothing,
    as it was not read."""
    return parser_id if isinstance(end, Done) or end.reason in _PARSER_REASONS else None


def _with_parse_error(outcome: Outcome) -> tuple[Attempt, ...]:
    """The attempts as they are kept: an answer that its parser could not use says so, where another
    one is asked for."""
    attempts, decision = outcome.attempts, outcome.decision
    if not attempts or not isinstance(decision, Retry) or not decision.error:
        return attempts
    return (replace(attempts[0], error=decision.error), *attempts[1:])


def _state_after(decision: Decision) -> State:
    match decision:
        case Done():
            return State.DONE
        case Fail():
            return State.FAILED
        case Retry() | Suspect() | Release() | ParseLater():
            return State.PENDING
        case KeepAnswer():
            return State.RUNNING
