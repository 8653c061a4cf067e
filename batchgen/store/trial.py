"""Recipes on trial: how many calls they may have, and whose fault it is that all fail. Pure.

A wrong URL, a model that the server takes only by another endpoint, a value that it refuses: all
items would fail alike, and the pool with them. So until a server has answered a recipe once, its
calls are few, whoever sends them, and an item whose call failed is a suspect: it ends only when
another one is answered. Once a suspect is there, the next calls are probes: for items from all over
the pool, as the first ones may be alike by themselves (the longest first, say).

    answered   the recipe is proven: all calls may go out, and suspects failed by their own fault
    condemned  enough different items failed alike, probes among them
    down       a call was not served at all: its worker asks on alone, and the others wait
    nobody left to ask   three or more that are all alike are condemned, fewer failed by themselves.
               One that would fail is enough if the server has nothing at that URL; none is if it
               answered the recipe in earlier runs, and what it says can well be about an item

An item that failed in the same way in an earlier run, when others were answered, is no suspect.

Where a run has several servers, each has its trials. What one has answered is asked rightly: when
nobody is left who could tell, another one at which it fails is condemned, and its suspects are
asked elsewhere.

Later, too, a reply may say that no request works any more: the key was withdrawn, or the credit has
come to an end. Or it is about its item: a check of its content that is called 403. So that is a
suspect as well, and the run goes on.

    answered   a call that went out later: it was the item's own fault
    withdrawn  several different items were refused alike, some of them from elsewhere in the pool,
               and hardly a call is under way that may yet be answered; few others begin meanwhile.
               Where many items were refused for themselves, it takes more
    nobody left to ask   it was their own fault, unless what they were told can be about no item
"""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from math import ceil, log
from typing import NamedTuple

from batchgen.store.values import Condemned

# A wrong key, model or URL costs no more calls than this, however many workers there are.
MOST_CALLS = 20
MOST_FIRST_CALLS = 16  # which leaves some for probes
_CALLS_IN_TROUBLE = 4
# A pool of which every other item is bad by itself meets so many in a row once in a thousand times.
_ENOUGH_ALIKE, _ENOUGH_PROBES, _ENOUGH_OF_ALL = 10, 4, 3
# Fewer tell that a server which has answered does so no more: it says why. A call under way that
# hangs stands against so many.
_ENOUGH_REFUSED, _ENOUGH_PROBES_REFUSED, _REFUSED_FOR_ONE_IN_FLIGHT = 5, 2, 9
# So rarely may that many in a row be refused for themselves.
_BY_CHANCE = 1e-4


class Accusation(StrEnum):
    """What a failure before the first answer says is wrong.

    place     nothing is at that URL that answers: 404, 405, a page of HTML
    request   the server refuses what it was asked: 400, 413, 422 and the like
    nonsense  what came is no completion
    empty     what came is a completion, and empty
    account   the key, the credit or the model is to blame, and no item
    forbidden the key may not do this, or not for this item
    """

    PLACE = "place"
    REQUEST = "request"
    NONSENSE = "nonsense"
    EMPTY = "empty"
    ACCOUNT = "account"
    FORBIDDEN = "forbidden"


class SuspectRow(NamedTuple):
    """A suspect. It fails for `reason` or, without one, is asked again from `available_at` on, if
    the fault was its own."""

    item_id: int
    experiment_id: int
    recipe_id: int
    alike: str
    probe: int
    attempt_seq: int | None
    reason: str | None
    error: str
    available_at: int | None
    sent_at: int = 0
    ended_at: int = 0
    halt: str | None = None


def room(suspects: int, in_flight: int, calls: int, *, is_down: bool = False) -> int:
    """How many more calls may go out for recipes on trial, of which `in_flight` are under way;
    `calls` are allowed, if there is no suspect, and the server was not found to be down."""
    if suspects or is_down:
        calls = min(calls, _CALLS_IN_TROUBLE, MOST_CALLS - suspects)
    return max(0, calls - in_flight)


def alike(status: int | None, accusation: Accusation) -> str:
    """By what suspects are compared."""
    return f"{status} {accusation}"


def accusation_of(alike: str) -> Accusation:
    return Accusation(alike.rpartition(" ")[2])


def verdict(
    suspects: Sequence[SuspectRow], *, nobody_left: bool, answered_before: bool = False,
    asked_rightly: bool = False,
) -> Condemned | None:  # fmt: skip
    """None: they may have failed by themselves. `nobody_left`: all that could be asked are among
    them; `answered_before`: the server has answered their recipes in earlier runs;
    `asked_rightly`: another server answers them, and may be asked for these too."""
    if not suspects:
        return None
    ((kind, n),) = Counter(one.alike for one in suspects).most_common(1)
    group = [one for one in suspects if one.alike == kind]
    probes = sum(one.probe for one in group)
    is_enough = n >= _ENOUGH_ALIKE and probes >= _ENOUGH_PROBES
    if nobody_left and n == len(suspects):
        is_enough = _all_tell(group, accusation_of(kind), answered_before)
    elif nobody_left:
        is_enough = n >= _ENOUGH_ALIKE
    is_enough = is_enough or (nobody_left and asked_rightly)
    if is_enough or len(suspects) >= MOST_CALLS:
        return Condemned(n, kind, group[-1].error, halt=group[-1].halt)
    return None


def enough_probes(kind: str, share: float) -> int:
    """How many in a row are not refused by chance, where such a share of all calls was."""
    if accusation_of(kind) is Accusation.ACCOUNT or share <= 0:
        return _ENOUGH_PROBES_REFUSED
    by_chance = ceil(log(_BY_CHANCE) / log(min(share, 0.99)))
    return min(max(_ENOUGH_PROBES_REFUSED, by_chance), MOST_CALLS)


def withdrawn(
    refused: Sequence[SuspectRow], *, in_flight: int, nobody_left: bool, share: float = 0.0
) -> Condemned | None:
    """Whether those of `refused` tell that a server which has answered their recipes answers nobody
    any more, with so many calls `in_flight` that may; such a share of all calls was refused alike.
    None: they may have been refused for themselves."""
    if not refused:
        return None
    ((kind, n),) = Counter(one.alike for one in refused).most_common(1)
    group = [one for one in refused if one.alike == kind]
    is_enough = n >= _ENOUGH_REFUSED and _in_a_row(group) >= enough_probes(kind, share)
    if nobody_left:
        is_enough = accusation_of(kind) is Accusation.ACCOUNT
    if is_enough and n > in_flight * _REFUSED_FOR_ONE_IN_FLIGHT:
        return Condemned(n, kind, group[-1].error, halt=group[-1].halt)
    return None


def _in_a_row(refused: Sequence[SuspectRow]) -> int:
    """How many went out when several had been refused, one or two at a time then, for items from
    all over the pool: the others may have gone out at once with what was answered."""
    if len(refused) < _ENOUGH_REFUSED:
        return 0
    were_several_at = sorted(one.ended_at for one in refused)[_ENOUGH_REFUSED - 1]
    return sum(one.sent_at > were_several_at for one in refused)


def room_after_refusals(
    refused: Sequence[SuspectRow], calls: int, *, probes_in_flight: int = 0, share: float = 0.0
) -> int:
    """How many more calls may go out, of `calls`: once many were refused only what tells whether
    others are, too, a few at a time."""
    if len(refused) < _ENOUGH_REFUSED:
        return calls
    missing = enough_probes(refused[-1].alike, share) - _in_a_row(refused)
    at_once = min(missing, _ENOUGH_PROBES_REFUSED) - probes_in_flight
    return min(calls, max(0, at_once))


def _all_tell(
    suspects: Sequence[SuspectRow], accusation: Accusation, answered_before: bool
) -> bool:
    """Whether they are enough where there is nobody else, and all are alike."""
    if answered_before:
        is_about_items = accusation in _MAY_BE_ABOUT_ITEMS
        return len(suspects) >= _ENOUGH_OF_ALL and not is_about_items
    would_fail = all(one.reason is not None for one in suspects)
    one_tells = accusation in _ABOUT_NO_ITEM and would_fail
    return len(suspects) >= (1 if one_tells else _ENOUGH_OF_ALL)


_MAY_BE_ABOUT_ITEMS = (Accusation.REQUEST, Accusation.EMPTY, Accusation.FORBIDDEN)
# Where nothing was ever answered.
_ABOUT_NO_ITEM = (Accusation.PLACE, Accusation.ACCOUNT, Accusation.FORBIDDEN)
