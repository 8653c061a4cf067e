"""What the reply to an item's call means, and what follows: by the reply itself, and by what the
worker has seen of the server, of the recipe and of the item before.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from batchgen.clock import clock_ms, now_ms
from batchgen.endpoints import Finish, finish_of
from batchgen.items import (
    Answer,
    Attempt,
    Decision,
    Fail,
    Failure,
    Item,
    ItemInput,
    Reason,
    Reply,
    Trouble,
)
from batchgen.llm.decide import Blame, decide_on_answer, decide_on_failure
from batchgen.llm.error_replies import UNKNOWN_MODEL, WRONG_ENDPOINT
from batchgen.text.foreign_json import shorten
from batchgen.text.sentences import as_sentence
from batchgen.worker.attempts import attempt_of
from batchgen.worker.controller import Call
from batchgen.worker.fallback import unknown_attempt
from batchgen.worker.halts import NOT_TRUE, outage, refused
from batchgen.worker.pacer import Pacer
from batchgen.worker.rejected_parameters import RejectedParameters
from batchgen.worker.requests import Prepared
from batchgen.worker.servers import LeftOut, Server, Servers
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Halt, HaltKind, Stats

_TELL_AGAIN_MS = 60_000
# Calls to see that an outage lasts: a server that is full says the same, and may serve the other
# workers.
_OF_GATEWAYS, _CALLS_OF_GATEWAYS = (Trouble.UNAVAILABLE, Trouble.TOO_LATE), 3
_ELSEWHERE_S = 2.0


class CallResult(Struct, frozen=True):
    """What a call to a server brought: a reply, and what it is by itself."""

    reply: Reply
    verdict: Answer | Failure
    call: Call
    server: str = ""


class Sent(Struct, frozen=True):
    """What came of an item's calls: of the one that decides about the item, and of a second one if
    there was one; None stands for a call that was abandoned, whose answer nobody knows."""

    decisive: CallResult
    others: tuple[CallResult | None, ...] = ()

    @classmethod
    def of(cls, calls: Sequence[CallResult | None]) -> "Sent | None":
        """Of two calls the first answer is decisive or, if there is none, the first reply. None:
        there was no reply."""
        if len(calls) == 1:  # as nearly always
            return None if calls[0] is None else cls(calls[0])
        ended = [call for call in calls if call is not None]
        if not ended:
            return None
        decisive = next((call for call in ended if isinstance(call.verdict, Answer)), ended[0])
        return cls(decisive, tuple(call for call in calls if call is not decisive))


class Record(Struct, frozen=True):
    """An item's calls as they are kept, and the one that decides about the item."""

    attempts: tuple[Attempt, ...]
    decisive: CallResult


@dataclass(slots=True)
class _Outage:
    """Of a server: whether it was told, and when it may be told again."""

    is_told: bool = False
    again_at: int = 0


class Judge:
    """The judge of one worker. It gives a server up when no request would work there, calls `warn`
    when one answers nobody, and `charge_late` for an item whose last call was handed in without
    using up a try and was its own fault after all."""

    def __init__(
        self,
        servers: Servers,
        stats: Stats,
        rejected_parameters: RejectedParameters,
        spec: WorkSpec,
        *,
        charge_late: Callable[[Item], None],
        warn: Callable[[str], None],
    ) -> None:
        self._policy = spec.retry_policy
        self._stall_s = spec.stall_s
        self._warn = warn
        self._servers = servers
        self._outages = defaultdict[str, _Outage](_Outage)
        self._told_finish_reasons: set[str | None] = set()
        self._told_tiers: set[str] = set()
        self._rejected_parameters = rejected_parameters
        self._stats = stats
        self._charge_item_late = charge_late
        self._tried_on_fresh_connection: set[int] = set()
        self._out_of_tries: dict[tuple[int, int], Fail] = {}
        self._charged_late: dict[int, int] = {}  # tries of the item before that
        self._rng = random.Random()

    def record(self, item: Item, prepared: Prepared, sent: Sent) -> Record:
        """The calls as they are kept, whatever is decided then."""
        decisive = sent.decisive
        verdict = self._rejected_parameters.interpret(
            item, prepared, decisive.verdict, decisive.reply, decisive.server
        )
        if verdict is not decisive.verdict:
            decisive = replace(decisive, verdict=verdict)
        others = [self._other_attempt(call, prepared) for call in sent.others]
        attempts = (self._attempt(decisive, prepared), *others)
        return Record(attempts, decisive)

    def decide(self, item: Item, prepared: Prepared, called: CallResult) -> Decision:
        """What the decisive call means for its item; `KeepAnswer`: its answer is to be parsed."""
        server = self._servers[called.server or item.server]
        if isinstance(called.verdict, Answer):
            return self._decide_on_answer(item, prepared, called.verdict, called, server)
        return self._decide_on_failure(item, prepared, called.verdict, called, server)

    def _decide_on_answer(
        self, item: Item, prepared: Prepared, answer: Answer, called: CallResult, server: Server
    ) -> Decision:
        self._tried_on_fresh_connection.discard(item.id)
        self._tell_of_unknown_finish(answer)
        _, owing = self._observe(item, answer, called, server, clock_ms())
        needs_whole = prepared.parser.needs_whole
        decision = decide_on_answer(answer, owing, self._policy, needs_whole=needs_whole)
        return server.trials.suspect(item.recipe_id, prepared, answer, called.reply, decision)

    def _decide_on_failure(
        self, item: Item, prepared: Prepared, failure: Failure, called: CallResult, server: Server
    ) -> Decision:
        verdict = self._stale_but_once(failure, item)
        self._tell_of_unknown_finish(verdict)
        if _is_about_its_own_model(verdict, prepared.input):
            return self._decide(item, replace(verdict, halt=None), called, server)
        own, trials = verdict, server.trials
        if not trials.believes(verdict, item.recipe_id, prepared):
            may_pass = verdict.halt is not None and verdict.is_sure
            may_pass = may_pass and not trials.is_about_its_model(item.recipe_id, prepared)
            trouble = Trouble.ACCOUNT if may_pass else verdict.trouble
            own = replace(verdict, halt=None, trouble=trouble)
        if trials.is_nowhere(item.recipe_id, prepared, verdict, called.reply):
            own = replace(own, trouble=Trouble.NOWHERE)
        decision = self._decide(item, own, called, server)
        return trials.suspect(item.recipe_id, prepared, verdict, called.reply, decision)

    def take_failure(self, item: Item) -> Fail | None:
        """How the item ends without another call: it had gone back for one when its last try was
        charged late."""
        return self._out_of_tries.pop((item.id, item.tries), None)

    def give_up_if_stalled(self, server: Server, now: int) -> None:
        if stalled := server.pacer.stalled(now):
            # An answer may have come since, to a call that was under way.
            said = server.trouble or server.pacer.refusals.said or "nothing"
            place = f"{server.spec.place}.base_url ({server.spec.shown_url})"
            why = f"{stalled} The server said: {as_sentence(said)} Check {place}."
            holds_for_all = server.trials.on_trial or server.pacer.wants_long_wait(now)
            halt = Halt(why, kind=HaltKind.STALLED if holds_for_all else HaltKind.SHUT_OUT)
            self._servers.give_up(server, halt, now, LeftOut.STALLED)
        elif waits := self._all_wait():
            self._servers.halt(Halt(waits, kind=HaltKind.STALLED))

    def _all_wait(self) -> str | None:
        """What is left was told to wait for longer than this worker may."""
        if self._stats.in_flight:
            return None
        wait_s = ((self._stats.next_item_at or 0) - now_ms()) / 1000
        if wait_s <= self._stall_s:
            return None
        said = self._stats.trouble
        return (
            f"all that is left waits for its next try, for {wait_s / 60:.0f} min, longer than "
            "work.stall_s: run the same command again then, or raise it."
            f"{f' The server said: {as_sentence(said)}' if said else ''}"
        )

    def _tell_of_outage(self, verdict: Answer | Failure, server: Server, now: int) -> None:
        """As it begins, and again when it happens again, but not every few seconds. Whether it is
        one, and not the items, a call that was sent to see tells where the failure does not."""
        pacer, told = server.pacer, self._outages[server.key]
        if not pacer.down:
            told.is_told = False
            return
        if told.is_told or isinstance(verdict, Answer):
            return
        is_sure = verdict.trouble is Trouble.UNREACHABLE or (pacer.probes or 0) > (
            _CALLS_OF_GATEWAYS if verdict.trouble in _OF_GATEWAYS else 1
        )
        if is_sure and now >= told.again_at:
            told.is_told = True
            told.again_at = now + _TELL_AGAIN_MS
            is_alone = pacer.server.workers == 1
            self._warn(outage(verdict, server.spec, self._stall_s, is_alone=is_alone))

    def _tell_of_unknown_finish(self, verdict: Answer | Failure) -> None:
        """Once of each."""
        reason = verdict.finish_reason
        if reason in self._told_finish_reasons or finish_of(reason) is not Finish.UNKNOWN:
            return
        self._told_finish_reasons.add(reason)
        if isinstance(verdict, Answer):
            self._warn(
                f"answers end with finish_reason {shorten(reason)!r}, which batchgen does not "
                "know: they are taken for whole."
            )

    def _other_attempt(self, called: CallResult | None, prepared: Prepared) -> Attempt:
        if called is None:
            return unknown_attempt()
        return self._attempt(called, prepared)

    def _attempt(self, called: CallResult, prepared: Prepared) -> Attempt:
        prices, usage = self._servers[called.server].prices, called.verdict.usage
        note = prices.tier_note(prepared.body, usage)
        if note is not None and note not in self._told_tiers:
            self._told_tiers.add(note)
            self._warn(f"{note}.")
        answered_at = called.reply.started_at + called.reply.latency_ms
        return _attempt(called, prices.cost_usd(prepared.body, usage, answered_at))

    def _stale_but_once(self, verdict: Failure, item: Item) -> Failure:
        """An item is tried at once on another connection, but once: it may be the item itself that
        makes the server drop them."""
        if verdict.reason is not Reason.CONNECTION:
            self._tried_on_fresh_connection.discard(item.id)
        elif verdict.trouble is Trouble.STALE_CONNECTION:
            if item.id in self._tried_on_fresh_connection:
                return replace(verdict, trouble=None)
            self._tried_on_fresh_connection.add(item.id)
        return verdict

    def _observe(
        self, item: Item, verdict: Answer | Failure, called: CallResult, server: Server, now: int
    ) -> tuple[Blame, Item]:
        """What the call tells of the server; whose fault it was, and the item with the tries that
        it owes."""
        pacer = server.pacer
        # It may have been charged late when it had been claimed again already.
        owed = int(self._charged_late.pop(item.id, None) == item.tries)
        is_last_try = item.tries + owed + 1 >= self._policy.max_attempts
        was_believed = pacer.server.believed
        blame = pacer.observe(verdict, item, called.call, now, is_last_try=is_last_try)
        self._tell_of_outage(verdict, server, now)
        if was_believed and not pacer.server.believed:
            self._warn(NOT_TRUE)
        owed += self._charge_late(item, pacer)
        self._stats.count_call(verdict, called.reply, paused=now < pacer.paused_until)
        server.count_call(verdict, called.reply, now)
        self._servers.observe(server, verdict, now)
        if isinstance(verdict, Failure) and verdict.halt:
            is_credit = verdict.reason is Reason.RATE_LIMIT
            how = LeftOut.CREDIT if is_credit else LeftOut.REFUSED
            self._servers.give_up(server, refused(verdict, server.spec), now, how)
        else:
            self.give_up_if_stalled(server, now)
        return blame, replace(item, tries=item.tries + owed) if owed else item

    def _decide(self, item: Item, verdict: Failure, called: CallResult, server: Server) -> Decision:
        blame, owing = self._observe(item, verdict, called, server, clock_ms())
        if server.left_out is LeftOut.SILENT:
            blame = Blame.SERVER
        if self._servers.may_ask_elsewhere(server):
            verdict = _asked_elsewhere_soon(verdict)
        decision = decide_on_failure(
            verdict, owing, self._policy, blame=blame,
            refusals=server.pacer.refusals_in_a_row(item, called.call),
            now=now_ms(), rng=self._rng,
        )  # fmt: skip
        if isinstance(decision, Fail):
            self._tried_on_fresh_connection.discard(item.id)
        return decision

    def _charge_late(self, item: Item, pacer: Pacer) -> int:
        """How many tries `item` itself owes."""
        owed = 0
        for late, failure in pacer.take_late_charges():
            owed += late.id == item.id
            is_tried_again = failure.reason is not Reason.REJECTED
            if is_tried_again and late.tries + 1 < self._policy.max_attempts:
                self._charge_item_late(late)
                if late.id != item.id:
                    self._charged_late[late.id] = late.tries
            elif late.id != item.id:  # its next claim ends it, without a call
                fail = Fail(failure.reason, failure.message)
                self._out_of_tries[late.id, late.tries] = fail
        return owed


def _asked_elsewhere_soon(failure: Failure) -> Failure:
    """What a server asks to wait for is for itself."""
    wait_s = failure.retry_after_s
    return failure if wait_s is None else replace(failure, retry_after_s=min(wait_s, _ELSEWHERE_S))


def _is_about_its_own_model(verdict: Failure, item_input: ItemInput) -> bool:
    """A model or an endpoint that the item itself asked for, and the server does not know, is no
    reason to halt."""
    if verdict.halt is None:
        return False
    own_model = "model" in item_input.params
    if verdict.halt.startswith(WRONG_ENDPOINT):
        return own_model or item_input.endpoint is not None
    return own_model and verdict.halt == UNKNOWN_MODEL


def plain_attempt(called: CallResult | None) -> Attempt:
    """A call as it is kept when the judge fails at it: all that came back, but no cost."""
    return unknown_attempt() if called is None else _attempt(called, None)


def _attempt(called: CallResult, cost_usd: float | None) -> Attempt:
    return attempt_of(called.reply, called.verdict, cost_usd, called.server)
