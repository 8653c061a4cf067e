"""Which experiments a worker works on, and what waits in the others."""

from collections.abc import Sequence

from msgspec import Struct

from batchgen.errors import Remedy, UsageError
from batchgen.store import Store

_MOST_NAMED = 5


class Scope(Struct, frozen=True):
    """`ids` are the experiments, None: all; `had_nothing`: nothing was open in them. `elsewhere`
    are the names of the other experiments that have open items, each with how many."""

    name: str
    ids: tuple[int, ...] | None
    had_nothing: bool = False
    elsewhere: tuple[tuple[str, int], ...] = ()

    @property
    def elsewhere_text(self) -> str:
        named = [f"{name} has {n:,} open" for name, n in self.elsewhere[:_MOST_NAMED]]
        more = len(self.elsewhere) - _MOST_NAMED
        return ", ".join(named) + (f" and {more} more have some" if more > 0 else "")


async def scope_of(store: Store, names: Sequence[str] | None) -> Scope:
    """The experiments with these names; None: all there are.

    Raises UsageError for one that is not there, and says what waits in the others.
    """
    if names is None:
        return Scope("the database", None)
    numbers = {one.name: one.id for one in await store.experiments()}
    counts = await store.counts_by_experiment()
    is_open = {name: counts[id_].open for name, id_ in numbers.items() if id_ in counts}
    elsewhere = tuple((n, open_) for n, open_ in is_open.items() if open_ and n not in names)
    missing = [name for name in names if name not in numbers]
    shown = ", ".join(map(repr, names))
    scope = Scope(
        f"experiment{'s' if len(names) > 1 else ''} {shown}",
        tuple(numbers[name] for name in dict.fromkeys(names) if name in numbers),
        not any(is_open.get(name) for name in names),
        elsewhere,
    )
    if missing:
        raise _no_experiment(store, missing[0], scope, list(numbers))
    return scope


def _no_experiment(store: Store, name: str, scope: Scope, known: list[str]) -> UsageError:
    problem = f"{store.name}: no experiment {name!r}; "
    if scope.elsewhere:
        return UsageError(f"{problem}{scope.elsewhere_text}.", Remedy.NAME_EXPERIMENTS)
    if known:
        return UsageError(f"{problem}there is: {', '.join(known)}.", Remedy.NAME_EXPERIMENT)
    return UsageError(f"{store.name}: nothing is enqueued yet.", Remedy.ENQUEUE_FIRST)
