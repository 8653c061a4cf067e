"""Where a worker goes on to claim."""

from msgspec.structs import replace

from batchgen.store.claim_place import ClaimPlace
from tests.unit.test_plan import ITEM

FRESH, TRIED = replace(ITEM, id=7, tries=0), replace(ITEM, id=9, tries=1)


def test_it_goes_on_after_its_last_fresh_item() -> None:
    place = ClaimPlace()
    assert place.after(0) == 0
    place.go_on([replace(FRESH, id=3), FRESH, TRIED])
    assert place.after(999) == 7


def test_it_begins_anew_once_a_second_and_where_it_found_none() -> None:
    place = ClaimPlace()
    place.after(0)
    place.go_on([FRESH])
    assert place.after(1000) == 0
    place.go_on([FRESH])
    assert place.after(1001) == 7
    place.go_on([TRIED])
    assert place.after(1002) == 0
