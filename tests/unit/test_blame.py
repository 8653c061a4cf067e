"""Whose fault it is that calls are not served, at times that the tests choose."""

import pytest
from msgspec.structs import replace

from batchgen.items import Failure, Item, Reason, Trouble
from batchgen.llm.decide import Blame
from batchgen.worker.blame import BlameForNoService

S500 = Failure(Reason.SERVER, "500")
S503 = Failure(Reason.SERVER, "503", trouble=Trouble.UNAVAILABLE)
RESET = Failure(Reason.CONNECTION, "reset")
S504 = Failure(Reason.SERVER, "504", trouble=Trouble.TOO_LATE)
MINUTE = 60_000


def item(number: int, tries: int = 0) -> Item:
    return Item(number, 1, 1, 1, None, "{}", tries=tries)


def down(failure: Failure = S500, at: int = 1000) -> BlameForNoService:
    """After items 1 to 5 were not served."""
    blame = BlameForNoService()
    for number in range(1, 6):
        blame.not_served(failure, item(number), at)
    assert blame.down
    return blame


@pytest.mark.parametrize("failure", [S500, RESET])
def test_an_answer_to_a_call_that_was_under_way_shows_that_the_server_was_up(
    failure: Failure,
) -> None:
    blame = down(failure)
    blame.served(sent_at=900)
    assert not blame.down
    assert blame.take_late_charges() == [(item(number), failure) for number in range(1, 6)]


def test_a_full_server_that_serves_others_charges_nobody() -> None:
    blame = down(S503)
    blame.served(sent_at=900)
    assert (blame.down, blame.take_late_charges()) == (False, [])


def test_items_that_were_in_trouble_while_others_were_served_do_not_tell_that_it_is_down() -> None:
    blame = down()
    blame.served(sent_at=2000)  # an outage that is over
    assert blame.take_late_charges() == []
    again = [blame.not_served(S500, item(number), 3000) for number in range(1, 6)]
    tried = [blame.not_served(S500, item(number, tries=1), 3000) for number in range(6, 12)]
    assert {*again, *tried} == {Blame.UNDECIDED}
    assert not blame.down
    blame.served(sent_at=3000)
    assert len(blame.take_late_charges()) == 11


def test_a_real_outage_costs_those_nothing_that_were_in_trouble_before() -> None:
    blame = BlameForNoService()
    assert blame.not_served(S500, item(9, tries=1), 900) is Blame.UNDECIDED
    for number in range(1, 6):
        blame.not_served(S500, item(number), 1000)
    blame.served(sent_at=2000)
    assert blame.take_late_charges() == []


def test_where_few_are_left_they_pay_and_the_outage_ends_after_a_minute() -> None:
    blame = down(at=0)
    assert blame.not_served(S500, item(6), 1000) is Blame.SERVER
    for at, number in ((2000, 1), (4000, 2), (8000, 3)):
        assert blame.not_served(S500, item(number), at) is Blame.ITEM
        assert blame.down
    assert blame.not_served(S500, item(1, tries=1), MINUTE) is Blame.ITEM
    assert not blame.down
    assert blame.not_served(S500, item(4), MINUTE) is Blame.ITEM  # for both times
    assert blame.take_late_charges() == [(item(4), S500)]


def test_many_that_are_left_are_not_taken_for_few() -> None:
    blame = down(at=0)
    for number in range(6, 60):
        blame.not_served(S500, item(number), number * 1000)
    for number in range(1, 50):
        blame.not_served(S500, item(number), 2 * MINUTE)
    assert blame.down


def test_gateways_prove_nothing_about_an_item_however_often() -> None:
    blame = down(S503, at=0)
    for number in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5):
        assert blame.not_served(S503, item(number, tries=2), 2 * MINUTE) is Blame.SERVER
    unreachable = replace(RESET, trouble=Trouble.UNREACHABLE)
    assert blame.not_served(unreachable, item(1, tries=2), 3 * MINUTE) is Blame.SERVER
    assert blame.down


def test_items_that_are_left_over_and_make_504_pay_after_some_minutes() -> None:
    blame = down(S504, at=0)
    for number in range(1, 6):
        assert blame.not_served(S504, item(number), 4 * MINUTE) is Blame.SERVER
    again = [blame.not_served(S504, item(number), 5 * MINUTE) for number in range(1, 6)]
    assert again == [Blame.ITEM] * 5
    assert not blame.down


def test_what_was_under_way_before_says_nothing_of_who_is_told_that_nothing_is_there() -> None:
    nowhere = Failure(Reason.REJECTED, "404", trouble=Trouble.NOWHERE)
    blame = BlameForNoService()
    for number in range(1, 5):
        blame.not_served(nowhere, item(number), 1000)
        blame.served(sent_at=900)
    assert blame.not_served(nowhere, item(5), 1000) is Blame.SERVER
    blame.served(sent_at=900)
    assert (blame.down, blame.take_late_charges()) == (True, [])
    blame.served(sent_at=2000)
    assert (blame.down, blame.take_late_charges()) == (False, [])
