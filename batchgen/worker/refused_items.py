"""How often each item has been refused in a row, and whether it is its own fault. Pure.

A refusal that comes at what the server takes of others, and after it has served others since the
item's last one, is its own: strays meet an item once or twice in a row. One that had several of its
own is refused for them too when nobody else is left to be served.
"""

from collections import OrderedDict

from msgspec import Struct

# About four minutes of growing waits; of a hundred strays in a thousand no item has so many.
_ENOUGH_OF_ITS_OWN, _ENOUGH_WITHOUT_OTHERS = 10, 4
# More than are refused before one comes again; others may have been taken over by other workers.
_ITEMS_KEPT = 20_000


class _Refused(Struct):
    in_a_row: int = 0
    its_own: int = 0
    served_before: int = 0


class RefusedItems:
    """Of one worker."""

    def __init__(self) -> None:
        self._items: OrderedDict[int, _Refused] = OrderedDict()
        self._served = 0

    def served(self, item_id: int) -> None:
        """It was; its refusals count no more."""
        self._served += 1
        self._items.pop(item_id, None)

    def refused(self, item_id: int, *, may_be_its_own: bool) -> None:
        known = self._items.pop(item_id, None)
        one = self._items[item_id] = known or _Refused()
        one.in_a_row += 1
        others_were_served = self._served > one.served_before
        if may_be_its_own and (others_were_served or one.its_own >= _ENOUGH_WITHOUT_OTHERS):
            one.its_own += 1
        one.served_before = self._served
        if len(self._items) > _ITEMS_KEPT:
            self._items.popitem(last=False)

    def in_a_row(self, item_id: int) -> int:
        """How often it was refused since it was last served."""
        one = self._items.get(item_id)
        return one.in_a_row if one else 0

    def is_at_fault(self, item_id: int) -> bool:
        """Whether it would be refused for ever, though others are not."""
        one = self._items.get(item_id)
        return one is not None and one.its_own >= _ENOUGH_OF_ITS_OWN
