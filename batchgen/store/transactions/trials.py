"""Recipes on trial at one server, in the exchange of a worker: the rules are in store/trial.py."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from batchgen.items import Fail, Item, Outcome, Reason, State, Suspect
from batchgen.store.deltas import CounterDeltas
from batchgen.store.server_wants import ServerWant, Trial
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.rows import rows_of
from batchgen.store.transactions.suspects import acquit, condemned_run
from batchgen.store.trial import (
    Accusation,
    Seen,
    SuspectRow,
    accusation_of,
    may_be_too_long,
    room,
    room_after_refusals,
    row,
    verdict,
    withdrawn,
)
from batchgen.store.values import Acquitted, ClaimRequest, Condemned

# Longer than any trial; a suspect that was forgotten is claimed again some day.
_HELD_MS = 24 * 3600 * 1000
_LOOK_AGAIN_MS = 100
_LOOK_WHETHER_IT_IS_UP_MS = 1000
_TAKES_PLACE_AFTER_MS = 5000


class TrialsAtServer:
    """The trials during one exchange; `want` says what the worker knows of them, and `count_open`
    how many items it wants are pending or running."""

    def __init__(
        self, db: Transaction, worker_id: int, request: ClaimRequest, want: ServerWant,
        now: int, count_open: Callable[[], int],
    ) -> None:  # fmt: skip
        self._db = db
        self._worker_id = worker_id
        self._request = request
        self._want = want
        self._now = now
        self._count_open = count_open
        self._trial = want.trial or Trial(watches=False)
        self._proven: set[int] = set()  # those that the worker did not know
        self._suspects: list[SuspectRow] = []
        self._in_flight: int | None = None  # asked for once
        self._room = 0
        self._waits_for_another = False
        self.watches = False
        self.on_trial = False
        self.condemned: Condemned | None = None
        self.acquitted: list[Acquitted] = []

    @property
    def proven(self) -> frozenset[int]:
        """Recipes that the server has answered, and that the worker did not know to be."""
        return frozenset(self._proven)

    @property
    def known(self) -> frozenset[int]:
        """All recipes that are known to be answered."""
        return self._trial.proven | self._proven

    def learn(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Whose recipe has been answered is no suspect any more, unless no request may work by now;
        the outcomes as they count."""
        self.watches = self._want.trial is not None and (
            self._trial.watches
            or self._unproven(outcome.item for outcome in outcomes)
            or any(map(_says_halt, outcomes))
        )
        if not self.watches:  # all are proven, which the slot that judged did not know yet
            return [_as_it_counts(outcome, self._trial.proven) for outcome in outcomes]
        self._db.lock("server", [self._want.server])  # before anything is read of what is on trial
        answered = {outcome.item.recipe_id for outcome in outcomes if _proves(outcome)}
        for recipe_id in answered - self._trial.proven:
            self._db.execute("prove_recipe", self._of_server(recipe_id=recipe_id))
            self._db.execute("forget_sole_asker", self._of_server())
        self._read_proven()
        return [
            _as_it_counts(outcome, self.known, by_itself=self._fails_by_itself(outcome))
            for outcome in outcomes
        ]

    def observe(self, outcomes: Sequence[tuple[Outcome, int | None]]) -> None:
        """After these are written, with the number of the attempt of each: keep the suspects among
        them."""
        for outcome, seq in outcomes:
            if isinstance(outcome.decision, Suspect):
                self._add(outcome, outcome.decision, seq)
        if any(_finds_it_down(o) and o.item.recipe_id not in self.known for o, _ in outcomes):
            self._ask_alone()
        self._suspects = list(rows_of(self._db, "suspects", SuspectRow, self._of_server()))
        served_at = max((_sent_at(one) for one, _ in outcomes if _is_served(one)), default=0)
        self._acquit([
            one for one in self._suspects
            if one.recipe_id in self.known and (one.halt is None or one.ended_at < served_at)
        ])  # fmt: skip

    def conclude(self, *, nobody_left: bool, right: AbstractSet[int] = frozenset()) -> None:
        """Condemn the recipe or, when nobody is left who could tell, let the suspects have failed
        by themselves. What is `right` was answered by another server: then it is this one that
        fails."""
        nobody_left = nobody_left and not self._is_condemned
        on_trial, refused = self._on_trial_and_refused()
        before = nobody_left and all(map(self._was_answered_before, on_trial))
        self.condemned = verdict(
            on_trial,
            nobody_left=nobody_left,
            answered_before=before,
            asked_rightly=bool(right) and all(one.recipe_id in right for one in on_trial),
        ) or withdrawn(refused, self._seen(refused), nobody_left=nobody_left)
        if self.condemned is not None and self._may_be_its_items(self.condemned.alike):
            self._acquit_alike(self.condemned.alike)
            self.condemned = None
        if nobody_left and self.condemned is None:
            self._acquit(self._suspects)
        says_nothing = self.condemned is not None and self.condemned.halt is None
        if self.condemned is not None and says_nothing and self.known:
            self.condemned = self.condemned._replace(experiment=self._experiment_of_suspects())
        if self.condemned is not None:  # workers that ask another server may have them
            self._db.execute("release_suspects", self._of_server())
            self._db.execute("condemn_run", self._of_server(run=self._request.run))

    def may_begin(self) -> int:
        """How many calls, of recipes that are on trial or not known to be."""
        if not self.watches:
            return self._want.slots
        (in_flight,) = self._db.execute("calls_on_trial", self._of_server()).fetchone()
        asker = self._db.execute("sole_asker", self._of_server()).fetchone()
        on_trial, refused = self._on_trial_and_refused()
        is_another = asker is not None and asker[0] != self._worker_id
        self._waits_for_another = is_another or (asker is not None and self._now < asker[1])
        if is_another:
            self._ask_alone()  # if the other is gone
        elif asker is not None and not self._count_open():
            asker = None  # this one has nothing left to ask
            self._db.execute("forget_sole_asker", self._of_server())
        self.on_trial = bool(in_flight or on_trial or asker)
        calls = 0 if self._waits_for_another else self._trial.calls
        self._room = room(len(on_trial), in_flight, calls, is_down=asker is not None)
        if self.known:  # what is claimed may be of these; `keep` gives back the others
            seen = self._seen(refused)
            return room_after_refusals(
                row(refused, seen), self._want.slots, seen, self._now,
                probes_in_flight=self._trial.probes,
            )  # fmt: skip
        return self._room

    @property
    def probes(self) -> int | None:
        """How many of the suspects were asked to tell whether the others are alike by themselves;
        None: there is no suspect, or there are just some that were refused as others were
        answered."""
        on_trial, refused = self._on_trial_and_refused()
        hold_nobody_up = (Accusation.REQUEST, Accusation.MODEL)
        say_why = sum(accusation_of(one.alike) not in hold_nobody_up for one in refused)
        are_strays = not on_trial and say_why <= 1 and not row(refused, self._seen(refused))
        return None if are_strays else sum(one.probe for one in self._suspects)

    @property
    def has_suspects(self) -> bool:
        return bool(self._suspects)

    def keep(self, items: list[Item]) -> list[Item]:
        """The claimed ones, without those for which there is no room; these go back."""
        if self._want.trial is None or not self._unproven(items):
            return items
        if not self.watches:  # the worker meets a recipe that it does not know
            self._db.alone()  # it is too late for the lock: who has it may wait for this one
            self.watches = True
            self._read_proven()
            self.may_begin()
        kept, left = [], self._room
        for item in items:
            is_on_trial = item.answer_seq is None and self._unproven([item])
            self.on_trial = self.on_trial or is_on_trial
            if is_on_trial and left <= 0:
                self._give_back(item)
                continue
            left -= is_on_trial
            kept.append(item)
            if is_on_trial:
                row = self._of_server(item_id=item.id, epoch=item.epoch)
                self._db.execute("add_call_on_trial", row)
        return kept

    @property
    def look_again_at(self) -> int:
        wait_ms = _LOOK_WHETHER_IT_IS_UP_MS if self._waits_for_another else _LOOK_AGAIN_MS
        return self._now + wait_ms

    def _unproven(self, items: Iterable[Item]) -> bool:
        known, found = self._trial.proven, self._proven
        return any(i.recipe_id not in known and i.recipe_id not in found for i in items)

    def _on_trial_and_refused(self) -> tuple[list[SuspectRow], list[SuspectRow]]:
        """The suspects: those whose recipe nobody has been answered to, and the others, whose reply
        says that no request works any more."""
        refused = [one for one in self._suspects if one.recipe_id in self.known]
        return [one for one in self._suspects if one.recipe_id not in self.known], refused

    def _seen(self, refused: Sequence[SuspectRow]) -> Seen:
        """What there is beside them; nobody asks it of none."""
        if not refused:
            return Seen()
        if self._in_flight is None:
            row = self._db.execute("calls_in_flight", self._of_server()).fetchone()
            self._in_flight = max(row[0], self._trial.in_flight)
        ((kind, _),) = Counter(one.alike for one in refused).most_common(1)
        status = {"http_status": kind.partition(" ")[0]}
        failed, calls = self._db.execute("share_refused", status).fetchone()
        return Seen(self._in_flight, calls, failed)

    def _may_be_its_items(self, kind: str) -> bool:
        """Whether what was answered before fails now for what its items are."""
        group = [one for one in self._suspects if one.alike == kind]
        accuses = accusation_of(kind)
        was_answered = all(o.recipe_id in self.known or self._was_answered_before(o) for o in group)
        if accuses is Accusation.TRUNCATED:
            return was_answered or self._request.max_failures is not None
        if accuses is not Accusation.REQUEST or not was_answered:
            return False
        if self._request.max_failures is not None:
            return True
        told = [one.item_id for one in group if one.probe] or [one.item_id for one in group]
        refused = self._lengths("lengths_of_items", items=json.dumps(told))
        recipe_id = group[-1].recipe_id
        return may_be_too_long(refused, self._lengths("lengths_answered", recipe_id=recipe_id))

    def _lengths(self, query: str, **values: object) -> list[int]:
        return [length for (length,) in self._db.execute(query, values)]

    def _acquit_alike(self, kind: str) -> None:
        """What is left is asked as usual, of a recipe on trial too."""
        group = [one for one in self._suspects if one.alike == kind]
        for recipe_id in {one.recipe_id for one in group} - self.known:
            self._db.execute("prove_recipe", self._of_server(recipe_id=recipe_id))
        self._read_proven()
        self._acquit(group)

    def _read_proven(self) -> None:
        rows = self._db.execute("proven_recipes", self._of_server())
        self._proven = {recipe_id for (recipe_id,) in rows} - self._trial.proven

    def _add(self, outcome: Outcome, suspect: Suspect, attempt_seq: int | None) -> None:
        item, own = outcome.item, suspect.own
        row = {
            "item_id": item.id, "experiment_id": item.experiment_id, "recipe_id": item.recipe_id,
            "alike": suspect.alike, "probe": int(item.probe), "attempt_seq": attempt_seq,
            "reason": own.reason if isinstance(own, Fail) else None,
            "error": own.error if isinstance(own, Fail) else suspect.message,
            "available_at": None if isinstance(own, Fail) else own.available_at or self._now,
            "sent_at": _sent_at(outcome),
            "ended_at": outcome.attempt.finished_at if outcome.attempt else self._now,
            "halt": suspect.halt,
        }  # fmt: skip
        self._db.execute("add_suspect", self._of_server(**row))
        held = {"item_id": item.id, "until": self._now + _HELD_MS}
        self._db.execute("hold_suspect", held)

    def _acquit(self, suspects: Sequence[SuspectRow]) -> None:
        """The fault was their own."""
        self.acquitted += [Acquitted(one.item_id, one.reason, one.error) for one in suspects]
        acquit(self._db, suspects, self._now)
        acquitted = {one.item_id for one in suspects}
        self._suspects = [one for one in self._suspects if one.item_id not in acquitted]

    @property
    def _is_condemned(self) -> bool:
        """Whether it was by an earlier exchange of this run; nobody asks it where there is no
        suspect."""
        is_asked = bool(self._suspects)
        return is_asked and condemned_run(self._db, self._want.server) == self._request.run

    @property
    def suspects_wanted(self) -> int:
        """How many of the suspects are of what the worker wants. Those of a condemned server are
        asked elsewhere."""
        if self._is_condemned:
            return 0
        chosen = self._request.experiments
        return sum(chosen is None or one.experiment_id in chosen for one in self._suspects)

    def _experiment_of_suspects(self) -> str:
        row = {"experiment_id": self._suspects[-1].experiment_id}
        (name,) = self._db.execute("experiment_name", row).fetchone()
        return str(name)

    def _was_answered_before(self, one: SuspectRow) -> bool:
        row = self._of_server(recipe_id=one.recipe_id)
        return self._db.execute("was_answered_before", row).fetchone() is not None

    def _fails_by_itself(self, outcome: Outcome) -> bool:
        """Whether a suspect is none: the user has said how many may be refused after answers, or it
        failed alike before."""
        attempt, decision = outcome.attempt, outcome.decision
        if attempt is None or not isinstance(decision, Suspect):
            return False
        is_request = accusation_of(decision.alike) is Accusation.REQUEST
        if is_request and decision.halt is not None and self._request.max_failures is not None:
            return True
        row = self._of_server(
            item_id=outcome.item.id, recipe_id=outcome.item.recipe_id,
            reason=attempt.reason, http_status=attempt.http_status,
        )  # fmt: skip
        return self._db.execute("failed_alike_before", row).fetchone() is not None

    def _give_back(self, item: Item) -> None:
        row = {"item_id": item.id, "worker_id": self._worker_id}
        self._db.execute("give_back_unasked", row)
        deltas = CounterDeltas()
        deltas.move(item.experiment_id, State.RUNNING, -1)
        deltas.move(item.experiment_id, State.PENDING, +1)
        write_deltas(self._db, deltas)

    def _ask_alone(self) -> None:
        row = self._of_server(
            worker_id=self._worker_id, asks_from=self._now + _TAKES_PLACE_AFTER_MS
        )
        self._db.execute("ask_alone", row)

    def _of_server(self, **columns: object) -> dict[str, object]:
        return {"server": self._want.server, **columns}


def _proves(outcome: Outcome) -> bool:
    """Whether what was asked can be done."""
    return _is_served(outcome) and not isinstance(outcome.decision, Suspect)


def _is_served(outcome: Outcome) -> bool:
    """Whether the server, and its model, have done what was asked: a refusal is the model's too."""
    attempt = outcome.attempt
    if attempt is None:
        return False
    refused = attempt.reason is Reason.REFUSAL and attempt.http_status == 200
    return attempt.outcome == "answered" or refused


def _says_halt(outcome: Outcome) -> bool:
    return isinstance(outcome.decision, Suspect) and outcome.decision.halt is not None


def _sent_at(outcome: Outcome) -> int:
    """When its call went out."""
    attempt = outcome.attempt
    return 0 if attempt is None else attempt.finished_at - (attempt.latency_ms or 0)


def _finds_it_down(outcome: Outcome) -> bool:
    """Whether its call was not served at all; it is the pacer's to say what that means."""
    attempt = outcome.attempt
    return attempt is not None and attempt.reason in (Reason.SERVER, Reason.CONNECTION)


def _as_it_counts(
    outcome: Outcome, proven: frozenset[int] | set[int], *, by_itself: bool = False
) -> Outcome:
    decision = outcome.decision
    if not isinstance(decision, Suspect):
        return outcome
    is_open = outcome.item.recipe_id not in proven or decision.halt is not None
    if is_open and not by_itself:
        return outcome
    return Outcome(
        outcome.item, outcome.attempts, decision.own, second_call_unsent=outcome.second_call_unsent
    )
