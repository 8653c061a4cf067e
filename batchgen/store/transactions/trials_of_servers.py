"""Recipes on trial, in the exchange of a worker that asks one server or several."""

from collections.abc import Callable, Sequence

from batchgen.items import Item, Outcome
from batchgen.store.plan import Plan
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.trials import TrialsAtServer
from batchgen.store.values import Acquitted, ClaimRequest, Condemned


class Trials:
    """The trials during one exchange, by server; `count_open` says how many items that the worker
    wants are pending or running."""

    def __init__(
        self, db: Transaction, worker_id: int, want: ClaimRequest, now: int,
        count_open: Callable[[], int],
    ) -> None:  # fmt: skip
        self._count_open = count_open
        self._at = {
            one.server: TrialsAtServer(db, worker_id, want, one, now, count_open)
            for one in want.servers
        }

    def learn(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Whose recipe has been answered is no suspect any more; the outcomes as they count."""
        learned = list(outcomes)
        for server, trials in sorted(self._at.items()):  # each may lock what is on trial there
            places = [n for n, one in enumerate(outcomes) if one.item.server == server]
            as_they_count = trials.learn([outcomes[n] for n in places])
            for place, outcome in zip(places, as_they_count, strict=True):
                learned[place] = outcome
        return learned

    @property
    def watches(self) -> bool:
        """Whether anything is on trial, or may be."""
        return any(trials.watches for trials in self._at.values())

    def judge(self, outcomes: Sequence[Outcome], finished: Plan) -> None:
        """After the outcomes are written: keep the suspects among them, and say whose fault it is
        as far as that can be told."""
        watching = {server: trials for server, trials in self._at.items() if trials.watches}
        if not watching:
            return
        written = [
            (outcome, seq)
            for outcome, seq in zip(outcomes, finished.attempt_seqs, strict=True)
            if outcome not in finished.lost
        ]
        for server, trials in watching.items():
            trials.observe([one for one in written if one[0].item.server == server])
        suspects = sum(trials.suspects_wanted for trials in watching.values())
        self.conclude(nobody_left=suspects > 0 and suspects >= self._count_open())

    def conclude(self, *, nobody_left: bool) -> None:
        """Of each server say whether it, or what it is asked, is to blame; or, when nobody is left
        who could tell, let the suspects have failed by themselves."""
        known = {server: trials.known for server, trials in self._at.items()}
        for server, trials in self._at.items():
            others = (recipes for other, recipes in known.items() if other != server)
            trials.conclude(nobody_left=nobody_left, right=frozenset().union(*others))

    def may_begin(self) -> dict[str, int]:
        """By server, how many calls, of recipes that are on trial there or not known to be."""
        return {
            server: 0 if trials.condemned else trials.may_begin()
            for server, trials in self._at.items()
        }

    def probes(self, server: str) -> int | None:
        """How many of its suspects were asked to tell whether the others are alike by themselves;
        None: there is no suspect."""
        return self._at[server].probes

    def keep(self, items: Sequence[Item]) -> list[Item]:
        """The claimed ones, without those for which there is no room; these go back."""
        kept = []
        for server, trials in self._at.items():
            kept += trials.keep([item for item in items if item.server == server])
        return kept

    @property
    def condemned(self) -> dict[str, Condemned]:
        """Why nobody will be answered."""
        found = {server: trials.condemned for server, trials in self._at.items()}
        return {server: why for server, why in found.items() if why is not None}

    @property
    def proven(self) -> dict[str, frozenset[int]]:
        """Recipes that were answered, and that the worker did not know to be."""
        return {server: trials.proven for server, trials in self._at.items() if trials.proven}

    @property
    def on_trial(self) -> frozenset[str]:
        return frozenset(server for server, trials in self._at.items() if trials.on_trial)

    @property
    def suspects(self) -> frozenset[str]:
        """The servers that have some."""
        return frozenset(server for server, trials in self._at.items() if trials.has_suspects)

    @property
    def acquitted(self) -> tuple[Acquitted, ...]:
        return tuple(one for trials in self._at.values() for one in trials.acquitted)

    @property
    def look_again_at(self) -> int | None:
        """When what is on trial may be known."""
        unclear = (one for one in self._at.values() if one.on_trial or one.has_suspects)
        return min((trials.look_again_at for trials in unclear), default=None)
