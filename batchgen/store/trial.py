"""Recipes on trial: how many calls they may have, and whose fault it is that all fail. Pure.

A wrong URL, a model that the server takes only by another endpoint, a value that it refuses: all
items would fail alike, and the pool with them. So until a server has answered a recipe once, its
calls are few, whoever sends them, and an item whose call failed is a suspect: it ends only when
another one is answered. Once a suspect is there, the next calls are probes: for items from all over
the pool, as the first ones may be alike by themselves (the longest first, say).

    answered   the recipe is proven: all calls may go out, and suspects failed by their own fault
    condemned  enough different items failed alike, probes among them
    down       a call was not served at all: its worker asks on alone, and the others wait. One
               whose answer broke off is a suspect, too
    nobody left to ask   three or more that are all alike are condemned, fewer failed by themselves.
               One that would fail is enough if the server has nothing at that URL; none is if it
               answered the recipe in earlier runs, and what it says can well be about an item

An item that failed in the same way in an earlier run, when others were answered, is no suspect.

Where a run has several servers, each has its trials. What one has answered is asked rightly: when
nobody is left who could tell, another one at which it fails is condemned, and its suspects are
asked elsewhere.

Later, too, a reply may say that no request works any more: the key was withdrawn, or the credit has
come to an end. Or it is about its item: a check of its content that is called 403. So that is a
suspect as well, and the run goes on. Any other refusal of a request (400, 412, 422 ...) may mean
the same, a model that was withdrawn or a gateway's new rule, in words that nobody knows: it is one,
too, but as that is mostly the item's own fault, it holds nobody up before there is a row of them.

    answered   a call that went out later: it was the item's own fault
    a row      several different items were refused alike; without words that say so, more than
               calls are under way, and than their share of all calls explains. From then on calls
               are few, and for items from all over the pool. They are all the others again while
               none is refused for some time, though they are under way: they are being answered
    withdrawn  of a row enough went out in it, and hardly a call is under way that may yet be
               answered. Where many items were refused for themselves, it takes more
    too long   of a row without such words hardly any of those answered was as long as half of it:
               the end of a pool that is sorted by length. It was their own fault, in a trial of a
               recipe that was answered in earlier runs, too
    as many as may fail   the user has said how many: without such words none is a suspect
    nobody left to ask    it was their own fault, unless what they were told can be about no item

What an item is told of a model of its own, with which nobody was answered, makes no row.
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
# So many times the share that was refused before is no row yet.
_AS_BEFORE = 2
# Refusals come sooner: calls that have been under way for so long are being answered.
_QUIET_MS, _QUIET = 1000, 3
# Items that are counted in their own text grow by so many characters.
_MORE_DIGITS, _HARDLY = 4, 0.02
# So rarely may that many in a row be refused for themselves.
_BY_CHANCE = 1e-4


class Accusation(StrEnum):
    """What a failure before the first answer says is wrong.

    place     nothing is at that URL that answers: 404, 405, a page of HTML
    request   the server refuses what it was asked: 400, 413, 422 and the like
    nonsense  what came is no completion
    empty     what came is a completion, and empty
    cut       what came breaks off
    truncated the answer ends at max_tokens, and is no use so
    account   the key, the credit or the model is to blame, and no item
    forbidden the key may not do this, or not for this item
    model     the same of a model that the item itself asks for, and that nobody was answered with
    """

    PLACE = "place"
    REQUEST = "request"
    NONSENSE = "nonsense"
    EMPTY = "empty"
    CUT = "cut"
    TRUNCATED = "truncated"
    ACCOUNT = "account"
    FORBIDDEN = "forbidden"
    MODEL = "model"


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


class Seen(NamedTuple):
    """Beside the refused: calls that are under way, and, of all calls ever, how many there were and
    how many were refused alike, these included."""

    in_flight: int = 0
    calls: int = 0
    refused: int = 0

    @property
    def share(self) -> float:
        return self.refused / self.calls if self.calls else 0.0

    def share_before(self, n: int) -> float:
        """Without the last `n`."""
        return max(0, self.refused - n) / max(1, self.calls - n)


def enough_probes(kind: str, share: float) -> int:
    """How many in a row are not refused by chance, where such a share of all calls was."""
    least = _least_probes(kind)
    if accusation_of(kind) is Accusation.ACCOUNT or share <= 0:
        return least
    by_chance = ceil(log(_BY_CHANCE) / log(min(share, 0.99)))
    return min(max(least, by_chance), MOST_CALLS)


def row(refused: Sequence[SuspectRow], seen: Seen) -> list[SuspectRow]:
    """Those of `refused` that tell that the server may answer nobody any more; none, if they are
    too few for that."""
    for kind, n in Counter(one.alike for one in refused).most_common():
        if n >= _enough_for_row(kind, n, seen) and accusation_of(kind) is not Accusation.MODEL:
            return [one for one in refused if one.alike == kind]
    return []


def withdrawn(
    refused: Sequence[SuspectRow], seen: Seen, *, nobody_left: bool = False
) -> Condemned | None:
    """Whether those of `refused` tell that a server which has answered their recipes answers nobody
    any more. None: they may have been refused for themselves."""
    if nobody_left:
        group = [one for one in refused if accusation_of(one.alike) is Accusation.ACCOUNT]
        is_enough = bool(group)
    else:
        group = row(refused, seen)
        is_enough = bool(group) and _missing_probes(group, seen) <= 0
    if is_enough and len(group) > seen.in_flight * _REFUSED_FOR_ONE_IN_FLIGHT:
        return Condemned(len(group), group[-1].alike, group[-1].error, halt=group[-1].halt)
    return None


def room_after_refusals(
    row: Sequence[SuspectRow], calls: int, seen: Seen, now: int, *, probes_in_flight: int = 0
) -> int:
    """How many more calls may go out, of `calls`: in a row only what tells whether others are
    refused, too, a few at a time."""
    if not row or (probes_in_flight and _is_quiet(row, now)):
        return calls
    at_once = min(_missing_probes(row, seen), _least_probes(row[0].alike)) - probes_in_flight
    return min(calls, max(0, at_once))


def left_to_themselves(suspects: Sequence[SuspectRow]) -> list[SuspectRow]:
    """Of the suspects that are left when nobody asks any more, those that were refused without
    words that say why, after answers, and are no row."""
    groups: dict[str, list[SuspectRow]] = {}
    for one in suspects:
        if one.halt is not None and not _says_why(one.alike):
            groups.setdefault(one.alike, []).append(one)
    return [one for group in groups.values() if len(group) < _ENOUGH_ALIKE for one in group]


def may_be_too_long(refused: Sequence[int], answered: Sequence[int]) -> bool:
    """By the lengths of what was refused and of what was answered."""
    if not answered or not refused:
        return False
    half = sorted(refused)[len(refused) // 2]
    as_long = sum(length >= half - _MORE_DIGITS for length in answered)
    return as_long <= _HARDLY * len(answered)


def _says_why(kind: str) -> bool:
    return accusation_of(kind) in (Accusation.ACCOUNT, Accusation.FORBIDDEN)


def _least_probes(kind: str) -> int:
    return _ENOUGH_PROBES_REFUSED if _says_why(kind) else _ENOUGH_PROBES


def _enough_for_row(kind: str, n: int, seen: Seen) -> float:
    if _says_why(kind):
        return _ENOUGH_REFUSED
    share = min(seen.share_before(n), 0.99)
    as_many = max(1.0, _AS_BEFORE * share / (1 - share))
    return max(_ENOUGH_ALIKE, 1 + seen.in_flight * as_many)


def _missing_probes(row: Sequence[SuspectRow], seen: Seen) -> int:
    """Of those that went out in it, a few at a time then, for items from all over the pool: the
    others may have gone out at once with what was answered."""
    kind = row[0].alike
    first = _ENOUGH_REFUSED if _says_why(kind) else _ENOUGH_ALIKE
    were_several_at = sorted(one.ended_at for one in row)[first - 1]
    in_it = [one for one in row if one.sent_at > were_several_at]
    told = len(in_it) if _says_why(kind) else sum(one.probe for one in in_it)
    return enough_probes(kind, seen.share) - told


def _is_quiet(row: Sequence[SuspectRow], now: int) -> bool:
    newest = max(row, key=lambda one: one.ended_at)
    took_ms = newest.ended_at - newest.sent_at
    return now - newest.ended_at > max(_QUIET_MS, _QUIET * took_ms)


def _all_tell(
    suspects: Sequence[SuspectRow], accusation: Accusation, answered_before: bool
) -> bool:
    """Whether they are enough where there is nobody else, and all are alike."""
    if accusation in (Accusation.CUT, Accusation.TRUNCATED):
        return False  # a server that goes down breaks off what is under way; or they are long
    if answered_before:
        is_about_items = accusation in _MAY_BE_ABOUT_ITEMS
        return len(suspects) >= _ENOUGH_OF_ALL and not is_about_items
    would_fail = all(one.reason is not None for one in suspects)
    one_tells = accusation in _ABOUT_NO_ITEM and would_fail
    return len(suspects) >= (1 if one_tells else _ENOUGH_OF_ALL)


_MAY_BE_ABOUT_ITEMS = (Accusation.REQUEST, Accusation.EMPTY, Accusation.FORBIDDEN)
# Where nothing was ever answered.
_ABOUT_NO_ITEM = (Accusation.PLACE, Accusation.ACCOUNT, Accusation.FORBIDDEN)
