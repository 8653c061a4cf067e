"""Recipes on trial, as a worker sees them (store/trial.py has the rules): until one has been
answered, an item whose call failed is a suspect, as the fault may be the recipe's or the server's.

What a server says for the time being (429, 5xx, no connection, no answer in time) accuses nobody;
that is the pacer's matter; an answer that breaks off is both. An answer that is of no use, as it
was cut off at max_tokens, accuses as well. An item that asks otherwise than its recipe, and is
told that it asks wrongly, accuses nobody either.

A reply that says that no request would work (a wrong key, no credit) is believed at once where
nobody was answered yet, if it can be about no item. Else it makes a suspect, too; and so does any
refusal of a request (400, 412, 422 ...) after answers, as what all get then is not in every list.
"""

import re

from batchgen.items import Answer, Decision, Fail, Failure, Reason, Reply, Retry, Suspect
from batchgen.llm.error_replies import REFUSES_NOW
from batchgen.store import Exchange, Trial
from batchgen.store.trial import Accusation, alike
from batchgen.worker.requests import Prepared

_ACCUSING = frozenset({Reason.REJECTED, Reason.BAD_RESPONSE})
_ASKED_WRONGLY = frozenset({400, 413, 422})
_NOT_THE_SERVER = (Accusation.PLACE, Accusation.NONSENSE)
_NOTHING_THERE = frozenset({404, 405, 410})
_PAGE = re.compile(r"<html|<!doctype", re.IGNORECASE)


class Trials:
    """What one worker knows of them at one server."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._proven: frozenset[int] = frozenset()
        self._answered: set[int] = set()  # recipes, though it may not be written yet
        self._models: set[str] = set()  # that some call was answered with
        self._watches = True
        self._probes_in_flight = 0
        self.on_trial = True

    @property
    def has_answered(self) -> bool:
        """Whether any recipe has been answered."""
        return bool(self._proven)

    def request(self, first_calls: int, in_flight: int) -> Trial:
        """For an exchange. Of a recipe on trial no more than `first_calls` are in flight; of all,
        so many of this worker are."""
        return Trial(self._proven, first_calls, self._watches, self._probes_in_flight, in_flight)

    def probes(self, more: int) -> None:
        """So many more of its claims, or fewer, are probes."""
        self._probes_in_flight += more

    def observe(self, done: Exchange) -> None:
        self._proven |= done.proven.get(self.server, frozenset())
        self.on_trial = self.server in done.on_trial
        # All that is left may be suspects of workers that are gone.
        self._watches = self.on_trial or self.server in done.suspects or bool(done.open)

    def believes(self, failure: Failure, recipe_id: int, prepared: Prepared) -> bool:
        """Whether no request would work, as it says. What an item gets for a model of its own may
        be about that model: a key that a gateway lets have some of them."""
        is_answered = recipe_id in self._proven or recipe_id in self._answered
        may_be_its_own = is_answered or "model" in prepared.input.params
        return failure.halt is not None and failure.is_sure and not may_be_its_own

    def is_about_its_model(self, recipe_id: int, prepared: Prepared) -> bool:
        """Whether what the server says of the key may be about a model that the item itself asks
        for: others were answered, and nobody with that one."""
        if "model" not in prepared.input.params or recipe_id not in self._proven:
            return False
        return str(prepared.body["model"]) not in self._models

    def is_nowhere(
        self, recipe_id: int, prepared: Prepared, verdict: Answer | Failure, reply: Reply
    ) -> bool:
        """Whether what answered a recipe before does not now, by what came instead: nothing is at
        that URL, or what is there gives no completions. It may be the item's own fault all the
        same."""
        if isinstance(verdict, Answer) or recipe_id not in self._proven:
            return False
        if verdict.reason not in _ACCUSING or verdict.halt or verdict.trouble:
            return False
        is_own_model = "model" in prepared.input.params
        return accusation(verdict, reply) in _NOT_THE_SERVER and not is_own_model

    def suspect(
        self, recipe_id: int, prepared: Prepared, verdict: Answer | Failure, reply: Reply,
        decision: Decision,
    ) -> Decision:  # fmt: skip
        """The decision, unless it is too early to say that the failure is the item's own."""
        if isinstance(verdict, Answer):
            if isinstance(decision, Fail) and recipe_id not in self._proven | self._answered:
                return Suspect(alike(reply.status, Accusation.TRUNCATED), decision.error, decision)
            self._answered.add(recipe_id)
            self._models.add(str(prepared.body["model"]))
            return decision
        if not isinstance(decision, Fail | Retry):
            return decision
        if verdict.halt is not None:
            accuses = Accusation.ACCOUNT if verdict.is_sure else Accusation.FORBIDDEN
            if self.is_about_its_model(recipe_id, prepared):
                accuses = Accusation.MODEL
            kind = alike(reply.status, accuses)
            return Suspect(kind, verdict.message, decision, verdict.halt)
        breaks_off = verdict.reason is Reason.CONNECTION and reply.status is not None
        if not (verdict.reason in _ACCUSING or breaks_off) or verdict.trouble is not None:
            return decision
        asks_otherwise = bool(prepared.input.params) or not prepared.shared_recipe
        if asks_otherwise and reply.status in _ASKED_WRONGLY:
            return decision
        accuses = accusation(verdict, reply)
        kind = alike(reply.status, accuses)
        if recipe_id not in self._proven:
            return Suspect(kind, verdict.message, decision)
        if accuses is not Accusation.REQUEST or not isinstance(decision, Fail):
            return decision
        return Suspect(kind, verdict.message, decision, REFUSES_NOW)


def accusation(failure: Failure, reply: Reply) -> Accusation:
    if reply.status in _NOTHING_THERE or _PAGE.search(failure.message):
        return Accusation.PLACE
    if failure.reason is Reason.CONNECTION:
        return Accusation.CUT
    if failure.reason is Reason.REJECTED:
        return Accusation.REQUEST
    return Accusation.EMPTY if failure.finish_reason else Accusation.NONSENSE
