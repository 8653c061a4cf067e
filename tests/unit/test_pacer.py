"""How many calls may be under way, at times that the tests choose."""

from typing import Any

import pytest

from batchgen.items import Answer, Failure, Reason, Trouble
from batchgen.limits import AnnouncedLimit
from batchgen.llm.decide import Blame
from batchgen.worker.pacer import Pacer
from tests.kits.pacing import ANSWER, hear, item, refuse_everybody, use_all_slots

SLOTS = 100
SERVER_ERROR = Failure(Reason.SERVER, "500")
SLOW_DOWN = Failure(Reason.RATE_LIMIT, "429")
REFUSED = Failure(Reason.CONNECTION, "refused", trouble=Trouble.UNREACHABLE)
RESET = Failure(Reason.CONNECTION, "reset")
STALE = Failure(Reason.CONNECTION, "reset", trouble=Trouble.STALE_CONNECTION)
GATEWAY = Failure(Reason.SERVER, "503", trouble=Trouble.UNAVAILABLE)
TIMEOUT = Failure(Reason.TIMEOUT, "late")


def slow_down(wait_s: float) -> Failure:
    return Failure(Reason.RATE_LIMIT, "429", retry_after_s=wait_s)


def pacer(stall_s: float = 1800.0, **options: Any) -> Pacer:
    """One that began at 0 and uses all slots, as all calls are answered at once."""
    made = Pacer(SLOTS, stall_s, 0, **options)
    use_all_slots(made, 0)
    return made


# Start


def test_the_first_calls_are_few_and_rise_fourfold_with_each_round_that_is_answered() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    assert start.allowed(10_000) == 4
    assert Pacer(2, 1800, 10_000).allowed(10_000) == 2
    rounds = []
    for now in range(10_000, 10_400, 100):
        calls = [start.call_sent(now) for _ in range(start.allowed(now))]
        rounds.append(len(calls))
        for number, call in enumerate(calls):
            start.observe(ANSWER, item(number), call, now + 50)
    assert rounds == [4, 16, 64, SLOTS]


def test_calls_that_take_long_are_taken_for_taken() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    for _ in range(4):
        start.call_sent(10_000)
    assert (start.next_change_at(10_000), start.allowed(10_999)) == (11_000, 4)
    assert start.allowed(11_000) == 16


def test_without_demand_nothing_is_learned() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    for now in range(10_000, 20_000, 100):
        hear(start, ANSWER, item(1), now, now + 50)
    assert start.allowed(20_000) == 4


def test_calls_of_a_recipe_on_trial_are_few_until_the_server_is_surely_at_work() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    start.call_sent(10_000)
    assert [start.first_calls(now) for now in (11_499, 11_500, 17_999)] == [4, 16, 16]
    assert start.first_calls(18_000) > SLOTS
    hear(start, SERVER_ERROR, item(1), 10_000, 18_001)
    assert start.first_calls(18_001) == 4
    limited = Pacer(SLOTS, 1800, 10_000)
    limited.call_sent(10_000)
    hear(limited, slow_down(1), item(1), 10_000, 10_020)
    assert limited.first_calls(12_000) == 16


# Bursts of refusals


def test_refusals_one_after_another_pause_everybody_for_as_long_as_the_server_asks() -> None:
    limited = pacer()
    assert refuse_everybody(limited, slow_down(7.5), 1100) == 3
    assert limited.allowed(1100) == limited.allowed(8599) == 0
    assert limited.next_change_at(1100) == limited.paused_until == limited.limited_until == 8600
    assert limited.allowed(8600) == 1


def test_the_calls_come_back_by_doubling() -> None:
    limited = pacer()
    refuse_everybody(limited, slow_down(1), 1000)
    rounds = []
    for now in range(2000, 2800, 100):
        calls = [limited.call_sent(now) for _ in range(limited.allowed(now))]
        rounds.append(len(calls))
        for number, call in enumerate(calls):
            limited.observe(ANSWER, item(number), call, now + 50)
    assert rounds == [1, 2, 4, 8, 16, 32, 64, SLOTS]


def test_a_stray_429_holds_nobody_up() -> None:
    served = pacer()
    for now in range(1000, 11_000, 1000):
        hear(served, slow_down(60), item(1), now, now)
        use_all_slots(served, now + 500)
    assert (served.allowed(11_000), served.paused_until) == (SLOTS, 0)


def test_a_pause_is_never_shorter_than_asked() -> None:
    limited = pacer()
    refuse_everybody(limited, slow_down(1.0001), 1100)
    assert [limited.allowed(now) for now in (2100, 2101)] == [0, 1]


def test_one_burst_is_one_pause() -> None:
    limited = pacer()
    calls = [limited.call_sent(1000) for _ in range(50)]
    refuse_everybody(limited, SLOW_DOWN, 1100, answered=calls[:2])
    for number, call in enumerate(calls[2:]):
        limited.observe(SLOW_DOWN, item(number), call, 1200 + number)
    assert limited.paused_until == 2100


def test_a_reply_of_the_same_burst_may_ask_for_longer_but_not_for_less() -> None:
    limited = pacer()
    *answered, first, second = [limited.call_sent(1000) for _ in range(4)]
    refuse_everybody(limited, slow_down(2), 1100, answered=answered)
    limited.observe(slow_down(1), item(2), first, 1200)
    assert limited.paused_until == 3100
    limited.observe(slow_down(5), item(3), second, 1300)
    assert limited.paused_until == 6300


def test_the_pauses_double_to_a_quarter_of_the_time_that_it_has_lasted() -> None:
    limited, now, pauses = pacer(), 1000, []
    for _ in range(14):
        refuse_everybody(limited, SLOW_DOWN, now)
        pauses.append(round((limited.paused_until - now) / 1000))
        now = limited.paused_until
    assert pauses == [1, 2, 4, 5, 5, 5, 6, 7, 9, 11, 13, 17, 21, 26]


def test_retry_after_0_asks_for_nothing() -> None:
    limited, now, pauses = pacer(), 1000, []
    for _ in range(3):
        refuse_everybody(limited, slow_down(0), now)
        pauses.append((limited.paused_until - now) / 1000)
        now = limited.paused_until
    assert pauses == [1, 2, 4]


def test_an_answer_ends_the_doubling() -> None:
    limited = pacer()
    refuse_everybody(limited, SLOW_DOWN, 1000)
    refuse_everybody(limited, SLOW_DOWN, 2000)
    assert limited.paused_until == 4000
    hear(limited, ANSWER, item(1), 4000, 4100)
    refuse_everybody(limited, SLOW_DOWN, 4500)
    assert limited.paused_until == 5500


def test_an_answer_that_comes_late_does_not_end_the_pause() -> None:
    limited = pacer()
    *answered, call = [limited.call_sent(1000) for _ in range(3)]
    refuse_everybody(limited, slow_down(5), 1100, answered=answered)
    limited.observe(ANSWER, item(2), call, 1200)
    assert limited.allowed(1200) == 0


def test_with_adaptive_a_429_leaves_the_slots_and_a_503_does_not() -> None:
    limited = pacer(cuts_slots=False)
    for failure, left in ((SLOW_DOWN, SLOTS), (GATEWAY, 28)):
        calls = [limited.call_sent(1000) for _ in range(SLOTS)]
        for number, call in enumerate(calls[10:]):
            limited.observe(failure, item(number), call, 1020)
        for call in calls[:10]:
            limited.observe(ANSWER, item(1), call, 2000)
        assert limited.controller.limit == left


# Items that are refused though others are served


def refused_and_others_served(made: Pacer, failure: Failure, times: int) -> list[Blame]:
    blames = []
    for now in range(1000, 1000 + 1000 * times, 1000):
        blames.append(hear(made, failure, item(7), now, now))
        use_all_slots(made, now + 500)
    return blames


def test_an_item_that_is_refused_for_ever_while_others_are_served_is_at_fault() -> None:
    blames = refused_and_others_served(pacer(), SLOW_DOWN, 10)
    assert blames == [*[Blame.STRAY] * 9, Blame.ITEM]


def test_it_is_so_too_when_all_others_are_done() -> None:
    made = pacer()
    blames = refused_and_others_served(made, SLOW_DOWN, 5)
    blames += [hear(made, SLOW_DOWN, item(7), now, now) for now in range(60_000, 900_000, 60_000)]
    assert blames.index(Blame.ITEM) > 8


def test_items_that_are_refused_alike_are_not() -> None:
    made = pacer()
    for now in range(1000, 900_000, 60_000):
        for number in range(20):
            assert hear(made, SLOW_DOWN, item(number), now, now) is not Blame.ITEM


def test_an_item_that_makes_503_while_others_are_served_pays() -> None:
    made = pacer()
    beside = [made.call_sent(900) for _ in range(5)]
    assert hear(made, GATEWAY, item(7), 1000, 1010) is Blame.UNDECIDED
    made.observe(ANSWER, item(8), beside[0], 1100)
    assert made.take_late_charges() == [(item(7), GATEWAY)]
    assert (made.allowed(1100), made.down) == (SLOTS, False)


# Models with limits of their own


def ask(made: Pacer, model: str, verdict: Answer | Failure, number: int, now: int) -> Blame:
    call = made.call_sent(now, model)
    return made.observe(verdict, item(number), call, now + 20)


def test_a_model_that_is_limited_by_itself_does_not_hold_the_others_up() -> None:
    made = pacer()
    for second in range(1, 60):
        for number in range(25):
            ask(made, "m", ANSWER, number, second * 1000)
        for number in range(25):
            ask(made, "free", slow_down(30), 100 + number, second * 1000)
    assert (made.allowed(60_000), made.paused_until) == (SLOTS, 0)


def test_its_items_wait_longer_the_longer_it_is_refused() -> None:
    made = pacer()
    for number in range(20):
        ask(made, "m", ANSWER, number, 1000)
    for number in range(100, 110):
        assert ask(made, "free", SLOW_DOWN, number, 1000) is Blame.LIMIT
    call = made.call_sent(1000, "free")
    made.observe(SLOW_DOWN, item(110), call, 1020)
    assert made.refusals_in_a_row(item(110), call) == 11


def test_an_item_fails_where_its_model_serves_nobody_and_others_are_served() -> None:
    made, blames = pacer(), []
    for second in range(1, 13):
        for number in range(10):
            ask(made, "m", ANSWER, number, second * 1000)
        blames.append(ask(made, "free", SLOW_DOWN, 100, second * 1000 + 500))
    assert blames.index(Blame.ITEM) == 9


def test_it_does_not_where_its_model_serves_some() -> None:
    made = pacer()
    for second in range(1, 100):
        for number in range(10):
            ask(made, "m", ANSWER, number, second * 1000)
        ask(made, "free", ANSWER, 200 + second, second * 1000)
        for number in range(100, 110):
            assert ask(made, "free", SLOW_DOWN, number, second * 1000) is Blame.LIMIT


# Outages


def test_a_server_that_refuses_is_down_and_is_asked_by_one_call_after_a_while() -> None:
    outage = pacer()
    hear(outage, REFUSED, item(1), 1000, 1001)
    assert outage.down
    assert outage.allowed(1001) == 0
    assert outage.next_change_at(1001) == 2001
    assert outage.allowed(2001) == 1


def test_the_calls_that_were_under_way_do_not_make_an_outage_longer() -> None:
    outage = pacer()
    for item_id in range(20):
        hear(outage, REFUSED, item(item_id), 1000, 1001 + item_id)
    assert outage.paused_until == 2001


def test_the_probes_of_an_outage_grow_apart_to_a_twentieth_of_its_time() -> None:
    outage, now, pauses = pacer(), 1000, []
    for _ in range(60):
        hear(outage, REFUSED, item(1), now, now + 1)
        pauses.append((outage.paused_until - now - 1) / 1000)
        now = outage.paused_until
        assert outage.allowed(now) == 1
    assert (pauses[:4], pauses[22], pauses[-1]) == ([1, 2, 3, 3], 3.152, 19.172)


@pytest.mark.parametrize("sign_of_life", [ANSWER, Failure(Reason.REJECTED, "400")])
def test_any_reply_but_an_error_of_the_server_ends_an_outage(
    sign_of_life: Answer | Failure,
) -> None:
    outage = pacer()
    hear(outage, REFUSED, item(1), 1000, 1001)
    hear(outage, REFUSED, item(1), 2001, 2002)
    hear(outage, sign_of_life, item(1), 4002, 4010)
    assert not outage.down
    assert outage.allowed(4010) == 2
    hear(outage, REFUSED, item(1), 5000, 5001)
    assert outage.paused_until == 6001


def test_a_probe_without_an_answer_in_time_does_not_end_an_outage() -> None:
    outage = pacer()
    hear(outage, REFUSED, item(1), 1000, 1001)
    hear(outage, TIMEOUT, item(1), 2001, 602_001)
    assert outage.down
    assert outage.allowed(outage.paused_until) == 1


def test_a_429_ends_an_outage_and_begins_a_pause() -> None:
    outage = pacer()
    hear(outage, REFUSED, item(1), 1000, 1001)
    hear(outage, slow_down(3), item(1), 2001, 2010)
    assert (outage.down, outage.paused_until) == (False, 5010)


def test_an_item_whose_calls_are_cut_off_is_to_blame_until_three_are() -> None:
    outage = pacer()
    for _ in range(10):
        hear(outage, RESET, item(1), 1000, 1001)
    hear(outage, RESET, item(2), 1000, 1001)
    assert (outage.down, outage.allowed(1001)) == (False, SLOTS)
    hear(outage, RESET, item(3), 1000, 1002)
    assert (outage.down, outage.allowed(1002)) == (True, 0)


def test_answers_between_show_that_the_server_is_not_to_blame() -> None:
    outage = pacer()
    for item_id in (1, 2, 3, 4):
        hear(outage, RESET, item(item_id), 1000, 1001)
        hear(outage, ANSWER, item(9), 1000, 1002)
    assert not outage.down


def test_the_first_calls_that_are_cut_off_cost_nothing_when_it_was_the_server() -> None:
    outage = pacer()
    blames = [hear(outage, RESET, item(number), 1000, 1001) for number in (1, 2, 3, 4)]
    assert blames == [Blame.UNDECIDED, Blame.UNDECIDED, Blame.SERVER, Blame.SERVER]
    hear(outage, ANSWER, item(5), 3000, 3100)
    assert outage.take_late_charges() == []


def test_an_item_whose_call_was_cut_off_pays_when_others_are_served() -> None:
    outage = pacer()
    assert hear(outage, RESET, item(1), 1000, 1001) is Blame.UNDECIDED
    assert outage.take_late_charges() == []
    hear(outage, ANSWER, item(2), 1000, 1002)
    assert outage.take_late_charges() == [(item(1), RESET)]
    assert outage.take_late_charges() == []


def test_an_item_that_is_cut_off_twice_in_a_row_pays_at_once() -> None:
    outage = pacer()
    assert hear(outage, RESET, item(1, epoch=1), 1000, 1001) is Blame.UNDECIDED
    assert hear(outage, RESET, item(1, epoch=2), 2000, 2001) is Blame.ITEM
    assert outage.take_late_charges() == [(item(1, epoch=1), RESET)]  # for the first time
    assert hear(outage, RESET, item(1, epoch=3), 3000, 3001) is Blame.ITEM
    hear(outage, ANSWER, item(2), 1000, 3002)
    assert outage.take_late_charges() == []


def test_a_timeout_does_not_settle_whose_fault_it_was() -> None:
    outage = pacer()
    hear(outage, RESET, item(1), 1000, 1001)
    assert hear(outage, TIMEOUT, item(2), 1000, 1002) is Blame.UNDECIDED
    assert outage.take_late_charges() == []
    assert hear(outage, RESET, item(3), 1000, 1003) is Blame.SERVER


def test_when_nobody_is_answered_in_time_that_is_no_items_fault_but_for_once() -> None:
    hanging = pacer()
    calls = [hanging.call_sent(1000) for _ in range(20)]
    blames = [
        hanging.observe(TIMEOUT, item(number), call, 11_000) for number, call in enumerate(calls)
    ]
    assert blames == [*[Blame.UNDECIDED] * 4, *[Blame.SERVER] * 16]
    assert (hanging.down, hanging.allowed(11_000)) == (False, SLOTS)
    assert hear(hanging, TIMEOUT, item(1), 11_000, 21_000) is Blame.ITEM
    hear(hanging, ANSWER, item(50), 21_000, 21_100)
    assert [late.id for late, _ in hanging.take_late_charges()] == [1]


def test_what_has_answered_and_is_nowhere_for_everybody_is_down() -> None:
    nowhere = Failure(Reason.REJECTED, "404", trouble=Trouble.NOWHERE)
    outage = pacer()
    blames = [hear(outage, nowhere, item(number), 1000, 1001) for number in range(7)]
    assert blames == [*[Blame.UNDECIDED] * 4, *[Blame.SERVER] * 3]
    assert (outage.down, outage.allowed(2001)) == (True, 1)
    hear(outage, ANSWER, item(9), 2001, 2002)
    assert (outage.down, outage.take_late_charges()) == (False, [])


def test_one_item_that_alone_is_nowhere_fails_when_another_one_is_answered() -> None:
    nowhere = Failure(Reason.REJECTED, "404", trouble=Trouble.NOWHERE)
    served = pacer()
    assert hear(served, nowhere, item(7), 1000, 1001) is Blame.UNDECIDED
    hear(served, ANSWER, item(8), 1001, 1002)
    assert served.take_late_charges() == [(item(7), nowhere)]


def test_stale_connections_say_nothing_about_the_server() -> None:
    outage = pacer()
    for item_id in range(20):
        hear(outage, STALE, item(item_id), 1000, 1001)
    assert (outage.down, outage.allowed(1001)) == (False, SLOTS)


# Stalls


def test_nothing_but_429_for_the_whole_time_is_a_stall() -> None:
    limited = pacer(stall_s=60)
    hear(limited, slow_down(30), item(1), 1000, 1000)
    hear(limited, slow_down(30), item(1), 31_000, 31_000)
    assert limited.stalled(60_999) is None
    assert limited.stalled(61_000) == "the server answered only 429 for 60 s (work.stall_s)."


def test_an_outage_for_the_whole_time_is_a_stall() -> None:
    outage = pacer(stall_s=60)
    hear(outage, REFUSED, item(1), 1000, 1000)
    hear(outage, REFUSED, item(1), 31_000, 31_000)
    assert outage.stalled(60_999) is None
    assert outage.stalled(61_000) == "the server was down for 60 s (work.stall_s)."


def test_an_answer_now_and_then_is_no_stall() -> None:
    limited = pacer(stall_s=60)
    for now in range(0, 600_000, 30_000):
        hear(limited, slow_down(1), item(1), now, now)
        hear(limited, ANSWER, item(2), now, now + 1)
        assert limited.stalled(now + 1) is None
    assert limited.stalled(10_000_000) is None


REJECTED = Failure(Reason.REJECTED, "404")
NONSENSE = Failure(Reason.BAD_RESPONSE, "200, but not JSON")


@pytest.mark.parametrize("other", [REFUSED, SERVER_ERROR, TIMEOUT, REJECTED, NONSENSE])
def test_no_success_is_a_stall_whatever_came_instead(other: Failure) -> None:
    stalled = pacer(stall_s=60)
    for now in (1000, 21_000, 41_000):
        hear(stalled, slow_down(5), item(1), now, now)
        hear(stalled, other, item(2), now, now + 10_000)
    assert stalled.stalled(60_999) is None
    hear(stalled, slow_down(5), item(1), 61_000, 61_000)
    assert stalled.stalled(61_000) == "nothing was answered for 60 s (work.stall_s)."


def test_a_pause_longer_than_that_is_a_stall_once_nothing_is_under_way() -> None:
    limited = pacer(stall_s=60)
    *answered, call = [limited.call_sent(1000) for _ in range(3)]
    refuse_everybody(limited, slow_down(3600), 1100, answered=answered)
    assert limited.stalled(1150) is None
    limited.observe(ANSWER, item(2), call, 1200)
    assert limited.stalled(1201) == (
        "the server wants no calls for 60 min, longer than work.stall_s: run the same command "
        "again then, or raise it."
    )


def test_a_refusal_of_the_model_is_no_stall() -> None:
    served = pacer(stall_s=60)
    hear(served, SLOW_DOWN, item(1), 1000, 1000)
    hear(served, Failure(Reason.REFUSAL, "no"), item(2), 50_000, 50_000)
    hear(served, SLOW_DOWN, item(1), 70_000, 70_000)
    assert served.stalled(70_000) is None


def test_rare_items_that_are_all_rejected_are_no_stall() -> None:
    idle = pacer(stall_s=60)
    for hour in range(1, 5):
        hear(idle, REJECTED, item(hour), hour * 3_600_000, hour * 3_600_000 + 10)
        assert idle.stalled(hour * 3_600_000 + 10) is None


# Servers that are up, and answer nobody


def test_500_for_one_item_after_another_is_the_servers_fault() -> None:
    dead = pacer()
    blames = [hear(dead, SERVER_ERROR, item(n), 1000, 1001) for n in range(1, 7)]
    assert blames == [*[Blame.UNDECIDED] * 4, Blame.SERVER, Blame.SERVER]
    assert (dead.down, dead.allowed(1001), dead.allowed(2001)) == (True, 0, 1)
    hear(dead, SERVER_ERROR, item(9), 2001, 2002)
    assert dead.down
    hear(dead, ANSWER, item(9), 4002, 4003)
    assert (dead.down, dead.take_late_charges()) == (False, [])


def test_an_item_at_its_last_try_fails_when_nobody_else_is_in_trouble() -> None:
    served = pacer()
    assert hear(served, SERVER_ERROR, item(1), 1000, 1001, is_last_try=True) is Blame.ITEM
    assert served.take_late_charges() == []
    assert hear(served, SERVER_ERROR, item(2), 1000, 1001, is_last_try=True) is Blame.UNDECIDED


def test_what_is_claimed_and_not_sent_yet_takes_from_what_a_server_has_announced() -> None:
    made = pacer()
    call = made.call_sent(0)
    made.server.observe(AnnouncedLimit(limit=5, remaining=4, reset_s=60), None, call.number, 0)
    made.call_ended(call)
    assert made.room_at_server(1, in_flight=0, now=0) == 4
    assert made.room_at_server(1, in_flight=3, now=0) == 1
    for _ in range(3):
        made.call_sent(0)
    assert made.room_at_server(1, in_flight=3, now=0) == 1


# Servers that announce that nothing is left for hours


def announced(stall_s: float, limit: float = 60) -> Pacer:
    made = pacer(stall_s)
    call = made.call_sent(0)
    nothing = AnnouncedLimit(limit=limit, remaining=0, reset_s=86_340)
    made.server.observe(nothing, None, call.number, 0)
    return made


def test_who_says_that_nothing_is_left_for_hours_is_asked_once_all_the_same() -> None:
    waiting = announced(stall_s=60)
    assert waiting.room_at_server(100, in_flight=1, now=100) < 1
    assert waiting.room_at_server(100, in_flight=0, now=100) == 1
    waiting.call_sent(100)
    assert waiting.room_at_server(100, in_flight=0, now=101) < 1


def test_an_answer_shows_that_it_is_not_true() -> None:
    waiting = announced(stall_s=60)
    waiting.observe(ANSWER, item(1), waiting.call_sent(100), 200)
    assert waiting.room_at_server(100, in_flight=0, now=200) > SLOTS
    assert waiting.stalled(200) is None


def test_a_429_shows_that_it_is_and_halts() -> None:
    waiting = announced(stall_s=60)
    waiting.observe(slow_down(3), item(1), waiting.call_sent(100), 200)
    assert "nothing is left for longer than work.stall_s" in (waiting.stalled(200) or "")


def test_one_that_fills_up_little_by_little_is_waited_for() -> None:
    waiting = announced(stall_s=60, limit=10_000)  # a call in nine seconds
    waiting.observe(slow_down(3), item(1), waiting.call_sent(100), 200)
    assert waiting.stalled(200) is None
    assert waiting.room_at_server(100, in_flight=0, now=20_000) >= 1


@pytest.mark.parametrize("trouble", [SLOW_DOWN, REFUSED])
def test_a_worker_that_had_nothing_to_do_for_long_does_not_halt_at_the_first_trouble(
    trouble: Failure,
) -> None:
    idle = pacer(stall_s=60)
    hear(idle, trouble, item(1), 7_200_000, 7_200_010)
    assert idle.stalled(7_200_010) is None
    assert idle.stalled(7_260_010) is not None
