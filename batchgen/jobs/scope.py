"""Which experiments a worker works on, and what waits in the others."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from batchgen.errors import Remedy, UsageError
from batchgen.jobs.lookup import chosen_experiments, named
from batchgen.store import Experiment, Store

_MOST_NAMED = 5


class Scope(Struct, frozen=True):
    """`ids` are the experiments, None: all; `had_nothing`: nothing was open in them. `elsewhere`
    are the names of the other experiments that have open items, each with how many. `goes_on` is a
    step that the chains of one of them go on with, and that is not among them. `of_budget`: those
    of which the calls count against a budget, which is that of whole chains."""

    name: str
    ids: tuple[int, ...] | None
    had_nothing: bool = False
    elsewhere: tuple[tuple[str, int], ...] = ()
    goes_on: str | None = None
    of_budget: tuple[int, ...] | None = None

    def check_until(self) -> None:
        """Raises UsageError where no chain comes to its end, so that none can be counted."""
        if self.goes_on is not None:
            raise UsageError(
                "until: counts chains that have come to their end, which is not in "
                f"{self.name}: they go on with {self.goes_on}.",
                Remedy.CLAIM_SO_MANY,
            )

    @property
    def elsewhere_text(self) -> str:
        named = [f"{name} has {n:,} open" for name, n in self.elsewhere[:_MOST_NAMED]]
        more = len(self.elsewhere) - _MOST_NAMED
        return ", ".join(named) + (f" and {more} more have some" if more > 0 else "")


async def scope_of(store: Store, names: Sequence[str] | None, step: str | None = None) -> Scope:
    """The experiments with these names, with all their steps, or with this one; None: all there
    are. Deeper steps come first, so that chains end before others begin.

    Raises UsageError for one that is not there, and says what waits in the others.
    """
    found = await store.experiments()
    if names is None:
        if step is None:
            return Scope("the database", None)
        chosen = await chosen_experiments(store, None, step)
        goes_on = _step_after(found, chosen)
        return Scope(
            f"step {step!r} of all experiments", _deepest_first(chosen), goes_on=goes_on,
            of_budget=_whole(found, chosen),
        )  # fmt: skip
    counts = await store.counts_by_experiment()
    missing = [name for name in names if not named(found, name)]
    chosen = [one for name in names for one in named(found, name)]
    is_open = {one.id: counts[one.id].open for one in found if one.id in counts}
    elsewhere = _elsewhere([one for one in found if one not in chosen], is_open)
    shown = ", ".join(map(repr, names))
    title = f"experiment{'s' if len(names) > 1 else ''} {shown}"
    if missing:
        raise _no_experiment(
            store, missing[0], Scope(title, (), elsewhere=elsewhere), _firsts(found)
        )
    if step is not None:
        title = f"step {step!r} of {title}"
        chosen = [o for name in names for o in await chosen_experiments(store, name, step)]
    had_nothing = not any(is_open.get(one.id) for one in chosen)
    ids, goes_on = _deepest_first(chosen), _step_after(found, chosen)
    return Scope(title, ids, had_nothing, elsewhere, goes_on, _whole(found, chosen))


def _whole(found: Sequence[Experiment], chosen: Sequence[Experiment]) -> tuple[int, ...]:
    """With all other steps of the same chains."""
    firsts = {one.first_id or one.id for one in chosen}
    return tuple(one.id for one in found if (one.first_id or one.id) in firsts)


def _deepest_first(chosen: Sequence[Experiment]) -> tuple[int, ...]:
    in_order = sorted(chosen, key=lambda one: -one.number)
    return tuple(dict.fromkeys(one.id for one in in_order))


def _step_after(found: Sequence[Experiment], chosen: Sequence[Experiment]) -> str | None:
    """The name of a last step of one of these that is not among them."""
    last = {one.first_id or one.id: one for one in sorted(found, key=lambda one: one.number)}
    ends = (last[one.first_id or one.id] for one in chosen)
    return next((one.name for one in ends if one not in chosen), None)


def _elsewhere(
    others: Sequence[Experiment], is_open: Mapping[int, int]
) -> tuple[tuple[str, int], ...]:
    found = ((one.name, is_open.get(one.id, 0)) for one in others)
    return tuple((name, n) for name, n in found if n)


def _firsts(found: Sequence[Experiment]) -> list[str]:
    return [one.name for one in found if one.first_id is None]


def _no_experiment(store: Store, name: str, scope: Scope, known: list[str]) -> UsageError:
    problem = f"{store.name}: no experiment {name!r}; "
    if scope.elsewhere:
        return UsageError(f"{problem}{scope.elsewhere_text}.", Remedy.NAME_EXPERIMENTS)
    if known:
        return UsageError(f"{problem}there is: {', '.join(known)}.", Remedy.NAME_EXPERIMENT)
    return UsageError(f"{store.name}: nothing is enqueued yet.", Remedy.ENQUEUE_FIRST)
