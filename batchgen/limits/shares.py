"""How the workers that ask a server share the calls that it takes at once. Pure: time is passed in.

What one has found is everybody's: so many calls at once the server takes of `all` of them. Each
finds that on its own share (worker/controller.py), and by what its share rises or falls the whole
does. Besides, shares only move:

    by need        to equal ones; to less where a worker needs less, and what nobody needs is the
                   others' to keep
    never twice    a worker gets no more than the others do not hold, and one whose share has fallen
                   holds it until its calls have ended
    by two or more what is tried beyond the whole is tried by the worker that began it
    in turn        where the server takes fewer calls than there are workers

Who leaves, or is found dead, holds nothing.
"""

from collections.abc import Mapping

from msgspec import Struct

_TURN_MS = 60_000
_RISES_OF_OTHERS = 3


class SharedCap(Struct, frozen=True):
    """A server takes so many `calls` at once. Of the newest tries to send more, `failed_rises`
    failed (as a controller counts them)."""

    calls: int
    failed_rises: int = _RISES_OF_OTHERS


class Part(Struct, frozen=True):
    """What a worker has of it: its `share`. So many calls it may still have under way, its share or
    more: `held`. It could use `needs`. The server served it at `served_at`, about."""

    share: int
    held: int
    needs: int
    served_at: int = 0


class Told(Struct, frozen=True):
    """What a worker tells of a server: that it `takes` so many calls at once of it (None: it has
    refused none), that so many are `in_flight` and so many would be used, how old its newest answer
    is, and how many tries to send more have failed, if that has changed since it was last told
    itself. Then the server took `all_calls`, of all workers."""

    takes: int | None
    in_flight: int
    needs: int
    served_ms: int | None = None
    failed_rises: int | None = None
    all_calls: int | None = None


class Share(Struct, frozen=True):
    """What a worker is told: it may have `calls` under way, where it said that the server takes
    `takes` of it. All together have `all_calls`, which has fallen by what others found since it was
    told that before (`has_fallen`). `is_shared`: there are others; the newest answer to one of them
    is `served_ms` old."""

    takes: int | None
    calls: int
    all_calls: int
    failed_rises: int
    has_fallen: bool = False
    is_shared: bool = False
    served_ms: int | None = None


class Parts(Struct, frozen=True):
    """A server's calls as its workers share them, by their numbers."""

    cap: SharedCap
    of: Mapping[int, Part]

    @classmethod
    def found_by(
        cls, worker: int, told: Told, in_flight: Mapping[int, int], needs: Mapping[int, int]
    ) -> "Parts":
        """When the first one of those that have so many calls `in_flight` has found something."""
        calls = {**in_flight, worker: told.takes or 0}
        parts = {number: Part(n, n, needs[number]) for number, n in calls.items()}
        rises = _RISES_OF_OTHERS if told.failed_rises is None else told.failed_rises
        return cls(SharedCap(max(1, sum(calls.values())), rises), parts)

    def begun_anew(self) -> "Parts":
        """By a later run: it may be otherwise by now, so more is tried sooner."""
        cap = SharedCap(self.cap.calls, min(self.cap.failed_rises, _RISES_OF_OTHERS))
        return Parts(cap, self.of)

    def tell(self, worker: int, told: Told, now: int) -> tuple["Parts", Share]:
        """What becomes of it when a worker tells how it goes, and what that is told."""
        cap, before = self.cap, self.of.get(worker)
        if told.failed_rises is not None:
            cap = SharedCap(cap.calls, told.failed_rises)
        has_fallen = told.all_calls is not None and cap.calls < told.all_calls
        if before is not None and told.takes is not None:
            cap = SharedCap(max(1, cap.calls + told.takes - before.share), cap.failed_rises)
        present = told.takes if told.takes is not None else before.share if before else 0
        others = {number: part for number, part in self.of.items() if number != worker}
        calls = _share(cap.calls, worker, present, told.needs, others, now)
        served_at = 0 if told.served_ms is None else now - told.served_ms
        part = Part(calls, max(calls, told.in_flight), told.needs, served_at)
        newest = max((one.served_at for one in others.values()), default=0)
        share = Share(
            told.takes, calls, cap.calls, cap.failed_rises, has_fallen,
            is_shared=bool(others), served_ms=now - newest if newest else None,
        )  # fmt: skip
        return Parts(cap, {**others, worker: part}), share


def _share(
    calls: int, worker: int, present: int, needs: int, others: Mapping[int, Part], now: int
) -> int:
    """Of so many `calls`, where the worker has `present` ones now."""
    free = max(0, calls - sum(one.held for one in others.values()))
    all_needs = {number: one.needs for number, one in others.items()} | {worker: needs}
    fair = _fair(calls, all_needs, now // _TURN_MS)
    wanted = sum(max(one.held, fair[number]) for number, one in others.items())
    due = max(fair[worker], calls - wanted)
    is_short = any(one.share < min(1, one.needs) for one in others.values())
    if due < present <= min(due + 1, needs) and not is_short:
        due = present
    return min(due, free)


def _fair(calls: int, needs: Mapping[int, int], turn: int) -> dict[int, int]:
    """Equal shares, or as many as a worker needs; the first ones get less by one, in turn."""
    in_turn = sorted(needs)
    turn %= len(in_turn)
    in_turn = sorted(in_turn[turn:] + in_turn[:turn], key=needs.__getitem__)
    fair, left = {}, calls
    for place, worker in enumerate(in_turn):
        fair[worker] = min(needs[worker], left // (len(in_turn) - place))
        left -= fair[worker]
    return fair
