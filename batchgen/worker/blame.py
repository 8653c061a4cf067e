"""Whose fault it is that a call was not served, as it got a 5xx or was cut off: its item's or the
server's. Pure.

No status tells, but what happens to the others does:

    one item after another is not served, and nobody is meanwhile     the server is down
    somebody is served, before it comes to that                       it was their own fault
    somebody is served whose call was under way all the while         so it was after all
    an item that was in trouble before, while others were served      says nothing of the server
    all that is left is asked again and again in vain                 nobody can tell; they pay

While it is open, nobody is charged; items whose own fault it turns out to be are charged late. What
the gateways of a server say when it is down or full (502, 503, 504, 529) proves nothing about an
item, however often.
"""

from msgspec import Struct
from msgspec.structs import replace

from batchgen.items import Failure, Item, Reason, Trouble
from batchgen.llm.decide import Blame

_ITEMS_TO_BLAME_THE_SERVER = 3
_ITEMS_WITH_5XX = 5  # other than 502, 503, 504, 529: a model may fail at some items by itself
# So long a server is thought to be down, though few items are left that could tell.
_SHORTEST_OUTAGE_MS = 60_000

# An item that is to be charged for a call handed in uncharged, and what the call brought.
LateCharge = tuple[Item, Failure]


class _Unserved(Struct, frozen=True):
    """An item since whose call nobody was served. `charge` None: it has paid for it. Unless it
    `counts`, it does not tell that the server is down."""

    charge: LateCharge | None
    at: int
    counts: bool
    enough: int  # so many that count do tell
    may_be_its_own: bool


class BlameForNoService:
    """Of one worker. `down`: the server answers nobody. Times are of `clock_ms`."""

    def __init__(self) -> None:
        self.down = False
        self._down_since = 0
        self._unserved: dict[int, _Unserved] = {}  # by item
        self._others_were_served: set[int] = set()  # items in trouble before that
        self._late_charges: list[LateCharge] = []

    @property
    def is_open(self) -> bool:
        """Whether it may yet turn out to be the server's fault."""
        return self.down or bool(self._unserved)

    def not_served(
        self, failure: Failure, item: Item, now: int, *,
        is_last_try: bool = False, tells: bool = True,
    ) -> Blame:  # fmt: skip
        """The call of `item` was not, and that became known `now`. Unless it `tells`, others are
        being served."""
        earlier = self._unserved.pop(item.id, None)
        is_alone = not self._unserved
        one = self._unserved[item.id] = self._unserved_item(failure, item, now, tells=tells)
        if self.down:
            return self._not_served_while_down(one, item, now, is_asked_again=earlier is not None)
        if one.counts and self._tells(one):
            self.down, self._down_since = True, now
            return Blame.SERVER
        is_5xx = failure.reason is Reason.SERVER and failure.trouble is None
        if earlier is None and not (is_5xx and is_last_try and is_alone):
            return Blame.UNDECIDED
        self._unserved[item.id] = replace(one, charge=None)
        if earlier and earlier.charge:
            self._late_charges.append(earlier.charge)
        return Blame.ITEM

    def served(self, sent_at: int) -> None:
        """A call was, that went out at `sent_at`: the server is not down, and the fault of those
        that were not served meanwhile is their own."""
        for item_id, one in self._unserved.items():
            if not self.down or (one.may_be_its_own and one.at >= sent_at):
                self._late_charges += [one.charge] if one.charge else []
            else:
                self._others_were_served.add(item_id)
        self._unserved.clear()
        self.down = False

    def take_late_charges(self) -> list[LateCharge]:
        """Each is returned once."""
        charges, self._late_charges = self._late_charges, []
        return charges

    def _unserved_item(self, failure: Failure, item: Item, now: int, *, tells: bool) -> _Unserved:
        may_be_its_own = failure.trouble is None
        was_in_trouble = item.tries > 0 or item.id in self._others_were_served
        is_5xx = may_be_its_own and failure.reason is Reason.SERVER
        enough = _ITEMS_WITH_5XX if is_5xx else _ITEMS_TO_BLAME_THE_SERVER
        return _Unserved(
            (item, failure), now, tells and not (may_be_its_own and was_in_trouble),
            1 if failure.trouble is Trouble.UNREACHABLE else enough, may_be_its_own,
        )  # fmt: skip

    def _not_served_while_down(
        self, one: _Unserved, item: Item, now: int, *, is_asked_again: bool
    ) -> Blame:
        """Items are asked again while the server is down only where few are left."""
        if not (is_asked_again and one.may_be_its_own):
            return Blame.SERVER
        self._unserved[item.id] = replace(one, charge=None, counts=False)
        self.down = self._tells(one) or now - self._down_since < _SHORTEST_OUTAGE_MS
        return Blame.ITEM

    def _tells(self, one: _Unserved) -> bool:
        return sum(other.counts for other in self._unserved.values()) >= one.enough
