"""Whose fault it is that a call was not served, as it got a 5xx or was cut off: its item's or the
server's. Pure.

No status tells, but what happens to the others does:

    one item after another is not served, and nobody is meanwhile     the server is down
    somebody is served, before it comes to that                       it was their own fault
    somebody is served whose call was under way all the while         so it was after all
    an item that was in trouble before, while others were served      says nothing of the server
    all that is left is asked again and again in vain                 nobody can tell; they pay

While it is open, nobody is charged; items whose own fault it turns out to be are charged late. What
the gateways of a server say when it is down or full (502, 503, 529) proves nothing about an item,
however often; 504 may, but not for some minutes. Who only gets no answer in time is not charged for
the first time, but the others go on: it says little, and takes long.
"""

from msgspec import Struct
from msgspec.structs import replace

from batchgen.items import Failure, Item, Reason, Trouble
from batchgen.llm.decide import Blame

_ITEMS_TO_BLAME_THE_SERVER = 3
# With what a model may do at some items by itself: other 5xx, 404 or no completion, no answer.
_ITEMS_WITH_THE_SAME = 5
_NOT_COMMON = 1  # then an item at its last try pays, though it is not known yet
# So long a server is thought to be down, though few items are left that could tell.
_SHORTEST_OUTAGE_MS, _SHORTEST_OUTAGE_BY_504_MS = 60_000, 300_000
_OF_GATEWAYS = (Trouble.UNAVAILABLE, Trouble.TOO_LATE)
_MAY_BE_ITS_OWN = (None, Trouble.NOWHERE, Trouble.TOO_LATE)

# An item that is to be charged for a call handed in uncharged, and what the call brought.
LateCharge = tuple[Item, Failure]


class _Unserved(Struct, frozen=True):
    """An item since whose call nobody was served. `charge` None: it has paid for it. Unless it
    `counts`, it does not tell that the server is down."""

    charge: LateCharge | None
    at: int
    counts: bool
    enough: int  # so many that count do tell
    kind: tuple[Reason, Trouble | None]
    may_be_its_own: bool

    @property
    def has_to_be_common(self) -> bool:
        return self.enough == _ITEMS_WITH_THE_SAME

    @property
    def is_nowhere(self) -> bool:
        return self.kind[1] is Trouble.NOWHERE


class BlameForNoService:
    """Of one worker. `down`: the server answers nobody. Times are of `clock_ms`."""

    def __init__(self) -> None:
        self.down = False
        self._is_silent = False  # nobody got an answer in time
        self._down_since = 0
        self._unserved: dict[int, _Unserved] = {}  # by item
        self._others_were_served: set[int] = set()  # items in trouble before that
        self._late_charges: list[LateCharge] = []

    def not_served(
        self, failure: Failure, item: Item, now: int, *,
        is_last_try: bool = False, tells: bool = True,
    ) -> Blame:  # fmt: skip
        """The call of `item` was not, and that became known `now`. Unless it `tells`, others are
        being served."""
        is_late = failure.reason is Reason.TIMEOUT
        if self.down and is_late:
            return Blame.SERVER
        earlier = self._unserved.pop(item.id, None)
        one = self._unserved[item.id] = self._unserved_item(failure, item, now, tells=tells)
        if self.down:
            return self._not_served_while_down(one, item, now, is_asked_again=earlier is not None)
        if one.counts and self._tells(one) and not (is_late and earlier):
            if is_late:
                self._is_silent = True
            else:
                self.down, self._down_since = True, now
            return Blame.SERVER
        pays_now = is_last_try and one.has_to_be_common and self._alike(one) <= _NOT_COMMON
        if earlier is None and not pays_now:
            return Blame.UNDECIDED
        self._unserved[item.id] = replace(one, charge=None)
        if earlier and earlier.charge:
            self._late_charges.append(earlier.charge)
        return Blame.ITEM

    def served(self, sent_at: int) -> None:
        """A call was, that went out at `sent_at`: the server is not down, and the fault of those
        that were not served meanwhile is their own. Who was told that nothing is there fails for
        that, so only what went out later tells of it."""
        is_open = not (self.down or self._is_silent)
        untold = {
            item_id: one
            for item_id, one in self._unserved.items()
            if one.is_nowhere and one.at > sent_at
        }
        for item_id, one in self._unserved.items():
            if item_id in untold:
                continue
            if is_open or (one.may_be_its_own and one.at >= sent_at):
                self._late_charges += [one.charge] if one.charge else []
            else:
                self._others_were_served.add(item_id)
        self._unserved = untold
        self.down = self.down and any(map(self._tells, untold.values()))
        self._is_silent = False

    def take_late_charges(self) -> list[LateCharge]:
        """Each is returned once."""
        charges, self._late_charges = self._late_charges, []
        return charges

    def _unserved_item(self, failure: Failure, item: Item, now: int, *, tells: bool) -> _Unserved:
        may_be_its_own = failure.trouble in _MAY_BE_ITS_OWN
        was_in_trouble = item.tries > 0 or item.id in self._others_were_served
        if failure.trouble is Trouble.UNREACHABLE:
            enough = 1
        elif failure.reason is Reason.CONNECTION or failure.trouble in _OF_GATEWAYS:
            enough = _ITEMS_TO_BLAME_THE_SERVER
        else:
            enough = _ITEMS_WITH_THE_SAME
        counts = tells and not (may_be_its_own and was_in_trouble)
        kind = (failure.reason, failure.trouble)
        return _Unserved((item, failure), now, counts, enough, kind, may_be_its_own)

    def _not_served_while_down(
        self, one: _Unserved, item: Item, now: int, *, is_asked_again: bool
    ) -> Blame:
        """Items are asked again while the server is down only where few are left."""
        if not (is_asked_again and one.may_be_its_own):
            return Blame.SERVER
        by_504 = one.charge is not None and one.charge[1].trouble is Trouble.TOO_LATE
        shortest_ms = _SHORTEST_OUTAGE_BY_504_MS if by_504 else _SHORTEST_OUTAGE_MS
        is_short = now - self._down_since < shortest_ms
        if by_504 and is_short:
            return Blame.SERVER
        self._unserved[item.id] = replace(one, charge=None, counts=False)
        self.down = self._tells(one) or is_short
        return Blame.ITEM

    def _tells(self, one: _Unserved) -> bool:
        return self._alike(one) >= one.enough

    def _alike(self, one: _Unserved) -> int:
        """How many that count are in trouble; of a kind that items make by themselves, too, only
        those of the same: an outage gives the same to all."""
        return sum(
            other.counts and (other.kind == one.kind or not one.has_to_be_common)
            for other in self._unserved.values()
        )
