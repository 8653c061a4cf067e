"""How many calls may be under way, at times that the tests choose."""

import pytest

from batchgen.items import Answer, Failure, Item, Reason, Trouble, Usage
from batchgen.limits import AnnouncedLimit
from batchgen.llm.decide import Blame
from batchgen.worker.pacer import Pacer

SLOTS, CUT = 100, 80  # a burst takes a fifth of the slots out of use
ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())
SERVER_ERROR = Failure(Reason.SERVER, "500")
SLOW_DOWN = Failure(Reason.RATE_LIMIT, "429")
REFUSED = Failure(Reason.CONNECTION, "refused", trouble=Trouble.UNREACHABLE)
RESET = Failure(Reason.CONNECTION, "reset")
STALE = Failure(Reason.CONNECTION, "reset", trouble=Trouble.STALE_CONNECTION)
TIMEOUT = Failure(Reason.TIMEOUT, "late")


def item(number: int, epoch: int = 1) -> Item:
    return Item(number, epoch, 1, 1, None, "{}")


def slow_down(wait_s: float) -> Failure:
    return Failure(Reason.RATE_LIMIT, "429", retry_after_s=wait_s)


def pacer(stall_s: float = 1800.0) -> Pacer:
    """One that began at 0 and has heard an answer at once."""
    made = Pacer(SLOTS, stall_s, 0)
    made.observe(ANSWER, item(1), 0, 0)
    return made


# Start


def test_the_first_calls_go_out_few_until_something_came_back() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    assert start.allowed(10_000) == 4
    assert Pacer(2, 1800, 10_000).allowed(10_000) == 2
    assert start.next_change_at(10_000) == 11_500
    start.observe(SERVER_ERROR, item(1), 10_000, 10_020)
    assert start.allowed(10_020) == SLOTS
    assert start.next_change_at(10_020) is None


def test_calls_of_a_recipe_on_trial_are_few_until_the_server_is_surely_at_work() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    start.call_sent(10_000)
    assert [start.first_calls(now) for now in (11_499, 11_500, 17_999)] == [4, 16, 16]
    assert start.first_calls(18_000) > SLOTS
    start.observe(SERVER_ERROR, item(1), 10_000, 18_001)
    assert start.first_calls(18_001) == 4
    limited = Pacer(SLOTS, 1800, 10_000)
    limited.call_sent(10_000)
    limited.observe(slow_down(1), item(1), 10_000, 10_020)
    assert limited.first_calls(12_000) == 16


def test_a_slow_first_answer_holds_the_others_back_for_a_moment_only() -> None:
    start = Pacer(SLOTS, 1800, 10_000)
    assert [start.allowed(now) for now in (11_499, 11_500)] == [4, SLOTS]
    assert start.next_change_at(11_500) is None


# Rate limits


def test_slots_that_a_burst_took_come_back_a_twentieth_for_each_round_of_answers() -> None:
    limited = pacer()
    limited.observe(slow_down(1), item(1), 1000, 1000)
    for _ in range(CUT):
        limited.observe(ANSWER, item(2), 2001, 3000)
    assert limited.allowed(3000) == 84
    for _ in range(500):
        limited.observe(ANSWER, item(2), 2001, 3000)
    assert limited.allowed(3000) == SLOTS


def test_bursts_without_end_leave_one_slot() -> None:
    limited = pacer()
    for second in range(1, 60):
        limited.observe(slow_down(0.5), item(1), second * 1000, second * 1000)
    assert limited.allowed(60_000) == 1


def test_gateways_that_answer_for_a_server_that_is_down_cost_no_attempts() -> None:
    gateway = Failure(Reason.SERVER, "503", trouble=Trouble.UNAVAILABLE)
    outage = pacer()
    for number in (1, 2):
        outage.observe(gateway, item(number), 1000, 1000)
        assert not outage.down
    outage.observe(gateway, item(3), 1000, 1000)
    assert (outage.down, outage.allowed(1000), outage.allowed(2000)) == (True, 0, 1)
    outage.observe(ANSWER, item(4), 2000, 2100)
    assert (outage.down, outage.allowed(2100)) == (False, SLOTS)


def test_a_429_pauses_everybody_for_as_long_as_the_server_asks() -> None:
    limited = pacer()
    limited.observe(slow_down(7.5), item(1), 1000, 1100)
    assert limited.allowed(1100) == limited.allowed(8599) == 0
    assert limited.next_change_at(1100) == limited.paused_until == 8600
    assert limited.allowed(8600) == CUT
    assert limited.next_change_at(8600) is None


def test_a_pause_is_never_shorter_than_asked() -> None:
    limited = pacer()
    limited.observe(slow_down(1.0001), item(1), 1000, 1100)
    assert limited.allowed(2100) == 0
    assert limited.allowed(2101) == CUT


def test_one_burst_is_one_pause() -> None:
    limited = pacer()
    for item_id in range(50):
        limited.observe(SLOW_DOWN, item(item_id), 1000, 1100 + item_id)
    assert limited.paused_until == 2100
    assert limited.allowed(2100) == CUT


def test_a_call_sent_in_the_moment_of_the_pause_belongs_to_its_burst() -> None:
    limited = pacer()
    limited.observe(SLOW_DOWN, item(1), 1000, 1100)
    limited.observe(SLOW_DOWN, item(2), 1100, 1150)
    assert limited.paused_until == 2100


def test_a_reply_of_the_same_burst_may_ask_for_longer_but_not_for_less() -> None:
    limited = pacer()
    limited.observe(slow_down(2), item(1), 1000, 1100)
    limited.observe(slow_down(1), item(2), 1000, 1200)
    assert limited.paused_until == 3100
    limited.observe(slow_down(5), item(3), 1000, 1300)
    assert limited.paused_until == 6300


def test_the_pauses_double_while_nothing_else_comes() -> None:
    limited, now, pauses = pacer(), 1000, []
    for _ in range(9):
        limited.observe(SLOW_DOWN, item(1), now, now + 10)
        pauses.append((limited.paused_until - now - 10) / 1000)
        now = limited.paused_until
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_answer_ends_the_doubling() -> None:
    limited = pacer()
    limited.observe(SLOW_DOWN, item(1), 1000, 1100)
    limited.observe(SLOW_DOWN, item(1), 2100, 2200)
    limited.observe(ANSWER, item(1), 4200, 4300)
    limited.observe(SLOW_DOWN, item(1), 4400, 4500)
    assert limited.paused_until == 5500


def test_an_answer_that_comes_late_does_not_end_the_pause() -> None:
    limited = pacer()
    limited.observe(slow_down(5), item(1), 1000, 1100)
    limited.observe(ANSWER, item(2), 1000, 1200)
    assert limited.allowed(1200) == 0


# Outages


def test_a_server_that_refuses_is_down_and_is_asked_by_one_call_after_a_while() -> None:
    outage = pacer()
    outage.observe(REFUSED, item(1), 1000, 1001)
    assert outage.down
    assert outage.allowed(1001) == 0
    assert outage.next_change_at(1001) == 2001
    assert outage.allowed(2001) == 1


def test_the_calls_that_were_under_way_do_not_make_an_outage_longer() -> None:
    outage = pacer()
    for item_id in range(20):
        outage.observe(REFUSED, item(item_id), 1000, 1001 + item_id)
    assert outage.paused_until == 2001


def test_the_probes_of_an_outage_grow_apart_up_to_half_a_minute() -> None:
    outage, now, pauses = pacer(), 1000, []
    for _ in range(7):
        outage.observe(REFUSED, item(1), now, now + 1)
        pauses.append((outage.paused_until - now - 1) / 1000)
        now = outage.paused_until
        assert outage.allowed(now) == 1
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("sign_of_life", [ANSWER, Failure(Reason.REJECTED, "400")])
def test_any_reply_but_an_error_of_the_server_ends_an_outage(
    sign_of_life: Answer | Failure,
) -> None:
    outage = pacer()
    outage.observe(REFUSED, item(1), 1000, 1001)
    outage.observe(REFUSED, item(1), 2001, 2002)
    outage.observe(sign_of_life, item(1), 4002, 4010)
    assert not outage.down
    assert outage.allowed(4010) == SLOTS
    outage.observe(REFUSED, item(1), 5000, 5001)
    assert outage.paused_until == 6001


def test_a_probe_without_an_answer_in_time_does_not_end_an_outage() -> None:
    outage = pacer()
    outage.observe(REFUSED, item(1), 1000, 1001)
    outage.observe(TIMEOUT, item(1), 2001, 602_001)
    assert outage.down
    assert outage.allowed(602_001) == 1


def test_a_429_ends_an_outage_and_begins_a_pause() -> None:
    outage = pacer()
    outage.observe(REFUSED, item(1), 1000, 1001)
    outage.observe(slow_down(3), item(1), 2001, 2010)
    assert (outage.down, outage.paused_until) == (False, 5010)


def test_an_item_whose_calls_are_cut_off_is_to_blame_until_three_are() -> None:
    outage = pacer()
    for _ in range(10):
        outage.observe(RESET, item(1), 1000, 1001)
    outage.observe(RESET, item(2), 1000, 1001)
    assert (outage.down, outage.allowed(1001)) == (False, SLOTS)
    outage.observe(RESET, item(3), 1000, 1002)
    assert (outage.down, outage.allowed(1002)) == (True, 0)


def test_answers_between_show_that_the_server_is_not_to_blame() -> None:
    outage = pacer()
    for item_id in (1, 2, 3, 4):
        outage.observe(RESET, item(item_id), 1000, 1001)
        outage.observe(ANSWER, item(9), 1000, 1002)
    assert not outage.down


def test_the_first_calls_that_are_cut_off_cost_nothing_when_it_was_the_server() -> None:
    outage = pacer()
    blames = [outage.observe(RESET, item(number), 1000, 1001) for number in (1, 2, 3, 4)]
    assert blames == [Blame.UNDECIDED, Blame.UNDECIDED, Blame.SERVER, Blame.SERVER]
    outage.observe(ANSWER, item(5), 3000, 3100)
    assert outage.take_late_charges() == []


def test_an_item_whose_call_was_cut_off_pays_when_others_are_served() -> None:
    outage = pacer()
    assert outage.observe(RESET, item(1), 1000, 1001) is Blame.UNDECIDED
    assert outage.take_late_charges() == []
    outage.observe(ANSWER, item(2), 1000, 1002)
    assert outage.take_late_charges() == [(item(1), RESET)]
    assert outage.take_late_charges() == []


def test_an_item_that_is_cut_off_twice_in_a_row_pays_at_once() -> None:
    outage = pacer()
    assert outage.observe(RESET, item(1, epoch=1), 1000, 1001) is Blame.UNDECIDED
    assert outage.observe(RESET, item(1, epoch=2), 2000, 2001) is Blame.ITEM
    assert outage.take_late_charges() == [(item(1, epoch=1), RESET)]  # for the first time
    assert outage.observe(RESET, item(1, epoch=3), 3000, 3001) is Blame.ITEM
    outage.observe(ANSWER, item(2), 1000, 3002)
    assert outage.take_late_charges() == []


def test_a_timeout_does_not_settle_whose_fault_it_was() -> None:
    outage = pacer()
    outage.observe(RESET, item(1), 1000, 1001)
    assert outage.observe(TIMEOUT, item(2), 1000, 1002) is Blame.ITEM
    assert outage.take_late_charges() == []
    outage.observe(RESET, item(3), 1000, 1003)
    assert outage.observe(RESET, item(4), 1000, 1004) is Blame.SERVER


def test_stale_connections_say_nothing_about_the_server() -> None:
    outage = pacer()
    for item_id in range(20):
        outage.observe(STALE, item(item_id), 1000, 1001)
    assert (outage.down, outage.allowed(1001)) == (False, SLOTS)


# Stalls


def test_nothing_but_429_for_the_whole_time_is_a_stall() -> None:
    limited = pacer(stall_s=60)
    limited.observe(slow_down(30), item(1), 1000, 1000)
    limited.observe(slow_down(30), item(1), 31_000, 31_000)
    assert limited.stalled(60_999) is None
    assert limited.stalled(61_000) == "the server answered only 429 for 60 s (work.stall_s)."


def test_an_outage_for_the_whole_time_is_a_stall() -> None:
    outage = pacer(stall_s=60)
    outage.observe(REFUSED, item(1), 1000, 1000)
    outage.observe(REFUSED, item(1), 31_000, 31_000)
    assert outage.stalled(60_999) is None
    assert outage.stalled(61_000) == "the server was down for 60 s (work.stall_s)."


def test_an_answer_now_and_then_is_no_stall() -> None:
    limited = pacer(stall_s=60)
    for now in range(0, 600_000, 30_000):
        limited.observe(slow_down(1), item(1), now, now)
        limited.observe(ANSWER, item(2), now, now + 1)
        assert limited.stalled(now + 1) is None
    assert limited.stalled(10_000_000) is None


REJECTED = Failure(Reason.REJECTED, "404")
NONSENSE = Failure(Reason.BAD_RESPONSE, "200, but not JSON")


@pytest.mark.parametrize("other", [REFUSED, SERVER_ERROR, TIMEOUT, REJECTED, NONSENSE])
def test_no_success_is_a_stall_whatever_came_instead(other: Failure) -> None:
    stalled = pacer(stall_s=60)
    for now in (1000, 21_000, 41_000):
        stalled.observe(slow_down(5), item(1), now, now)
        stalled.observe(other, item(2), now, now + 10_000)
    assert stalled.stalled(60_999) is None
    stalled.observe(slow_down(5), item(1), 61_000, 61_000)
    assert stalled.stalled(61_000) == "nothing was answered for 60 s (work.stall_s)."


def test_a_pause_longer_than_that_is_a_stall_though_answers_came_as_it_began() -> None:
    limited = pacer(stall_s=60)
    limited.observe(slow_down(3600), item(1), 1000, 1010)
    limited.observe(ANSWER, item(2), 1000, 1020)
    assert limited.stalled(61_019) is None
    assert limited.stalled(61_020) == "the server answered only 429 for 60 s (work.stall_s)."


def test_a_refusal_of_the_model_is_no_stall() -> None:
    served = pacer(stall_s=60)
    served.observe(SLOW_DOWN, item(1), 1000, 1000)
    served.observe(Failure(Reason.REFUSAL, "no"), item(2), 50_000, 50_000)
    served.observe(SLOW_DOWN, item(1), 70_000, 70_000)
    assert served.stalled(70_000) is None


def test_rare_items_that_are_all_rejected_are_no_stall() -> None:
    idle = pacer(stall_s=60)
    for hour in range(1, 5):
        idle.observe(REJECTED, item(hour), hour * 3_600_000, hour * 3_600_000 + 10)
        assert idle.stalled(hour * 3_600_000 + 10) is None


# Servers that are up, and answer nobody


def test_500_for_one_item_after_another_is_the_servers_fault() -> None:
    dead = pacer()
    blames = [dead.observe(SERVER_ERROR, item(n), 1000, 1001) for n in range(1, 7)]
    assert blames == [*[Blame.UNDECIDED] * 4, Blame.SERVER, Blame.SERVER]
    assert (dead.down, dead.allowed(1001), dead.allowed(2001)) == (True, 0, 1)
    dead.observe(SERVER_ERROR, item(9), 2001, 2002)
    assert dead.down
    dead.observe(ANSWER, item(9), 4002, 4003)
    assert (dead.down, dead.take_late_charges()) == (False, [])


def test_an_item_at_its_last_try_fails_when_nobody_else_is_in_trouble() -> None:
    served = pacer()
    assert served.observe(SERVER_ERROR, item(1), 1000, 1001, is_last_try=True) is Blame.ITEM
    assert served.take_late_charges() == []
    assert served.observe(SERVER_ERROR, item(2), 1000, 1001, is_last_try=True) is Blame.UNDECIDED


def test_what_is_claimed_and_not_sent_yet_takes_from_what_a_server_has_announced() -> None:
    made = pacer()
    call = made.call_sent(0)
    made.server.observe(AnnouncedLimit(limit=5, remaining=4, reset_s=60), None, call, 0)
    made.call_ended()
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
    made.server.observe(nothing, None, call, 0)
    return made


def test_who_says_that_nothing_is_left_for_hours_is_asked_once_all_the_same() -> None:
    waiting = announced(stall_s=60)
    assert waiting.room_at_server(100, in_flight=1, now=100) < 1
    assert waiting.room_at_server(100, in_flight=0, now=100) == 1
    waiting.call_sent(100)
    assert waiting.room_at_server(100, in_flight=0, now=101) < 1


def test_an_answer_shows_that_it_is_not_true() -> None:
    waiting = announced(stall_s=60)
    waiting.call_sent(100)
    waiting.observe(ANSWER, item(1), 100, 200)
    assert waiting.room_at_server(100, in_flight=0, now=200) > SLOTS
    assert waiting.stalled(200) is None


def test_a_429_shows_that_it_is_and_halts() -> None:
    waiting = announced(stall_s=60)
    waiting.call_sent(100)
    waiting.observe(slow_down(3), item(1), 100, 200)
    assert "nothing is left for longer than work.stall_s" in (waiting.stalled(200) or "")


def test_one_that_fills_up_little_by_little_is_waited_for() -> None:
    waiting = announced(stall_s=60, limit=10_000)  # a call in nine seconds
    waiting.call_sent(100)
    waiting.observe(slow_down(3), item(1), 100, 200)
    assert waiting.stalled(200) is None
    assert waiting.room_at_server(100, in_flight=0, now=20_000) >= 1


@pytest.mark.parametrize("trouble", [SLOW_DOWN, REFUSED])
def test_a_worker_that_had_nothing_to_do_for_long_does_not_halt_at_the_first_trouble(
    trouble: Failure,
) -> None:
    idle = pacer(stall_s=60)
    idle.observe(trouble, item(1), 7_200_000, 7_200_010)
    assert idle.stalled(7_200_010) is None
    assert idle.stalled(7_260_010) is not None
