"""What a worker claims, and when it looks again, at times that the tests choose."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from batchgen.items import Attempt, Done, Failure, Item, Outcome, Reason, Usage
from batchgen.limits import UNKNOWN_CALL, AnnouncedLimit, Limits, TokenMeter
from batchgen.store import Exchange, Orders
from batchgen.worker.demand import Demand
from batchgen.worker.pacer import Pacer
from batchgen.worker.permits import CODE_SLOTS, Permits
from batchgen.worker.spec import WorkSpec
from tests.kits.pacing import refuse_everybody, use_all_slots
from tests.kits.servers import SERVER, servers_of

NOW = 100_000
SLOTS = 20
SLOW_DOWN = Failure(Reason.RATE_LIMIT, "429", retry_after_s=7)
ITEM = Item(1, 1, 1, 1, None, "{}", server=SERVER.key)


class Worker:
    """A demand and what it goes by. The server was heard, so that all slots may be used."""

    def __init__(self, code: tuple[int, ...] = (), **spec: object) -> None:
        self.spec = WorkSpec(concurrency=SLOTS, servers=(SERVER,), **spec)  # type: ignore[arg-type]
        self.pacer = Pacer(SLOTS, 1800, 0, cuts_slots=not self.spec.adaptive)
        use_all_slots(self.pacer, 0)
        self.meter = TokenMeter(None)
        self.servers = servers_of(self.pacer, meter=self.meter)
        self.permits = Permits(self.servers)
        self.demand = Demand(self.spec, self.servers, self.permits, self.meter, code)

    def fly(self, calls: int) -> None:
        self.permits.take([ITEM] * calls)

    def server_says(self, requests_left: int) -> None:
        limit = AnnouncedLimit(limit=600, remaining=requests_left, reset_s=60)
        self.pacer.server.observe(limit, None, self.pacer.server.sent(), NOW)


def found(**what: object) -> Exchange:
    """Less than asked for."""
    return Exchange([], [], Orders(SLOTS), **what)  # type: ignore[arg-type]


def nothing_special(_: Worker) -> None:
    pass


def paused(worker: Worker) -> None:
    worker.demand.paused = True


def draining(worker: Worker) -> None:
    worker.demand.draining = True


def in_flight(worker: Worker) -> None:
    worker.fly(15)


def all_in_flight(worker: Worker) -> None:
    worker.fly(SLOTS + 2)  # slots were taken away meanwhile


def limited(worker: Worker) -> None:
    refuse_everybody(worker.pacer, SLOW_DOWN, NOW)


def server_has_room_for_three(worker: Worker) -> None:
    worker.server_says(3)


def looked_in_vain(worker: Worker) -> None:
    worker.demand.found_too_few(None, NOW)


def looked_in_vain_and_a_call_ended(worker: Worker) -> None:
    worker.demand.found_too_few(None, NOW)
    worker.demand.look_now()


def budget_is_reserved(worker: Worker) -> None:
    worker.demand.budget_was_short(NOW)


def budget_was_reserved_until_a_call_was_settled(worker: Worker) -> None:
    worker.demand.budget_was_short(NOW)
    worker.demand.call_was_settled()


@pytest.mark.parametrize(
    ("given", "free_slots", "claims"),
    [
        (nothing_special, 0, 0),
        (nothing_special, 7, 7),
        (nothing_special, SLOTS, SLOTS),
        (in_flight, SLOTS, 5),
        (all_in_flight, SLOTS, 0),
        (paused, 7, 0),
        (draining, 7, 0),
        (limited, 7, 0),
        (server_has_room_for_three, 7, 3),
        (looked_in_vain, 7, 0),
        (looked_in_vain_and_a_call_ended, 7, 7),
        (budget_is_reserved, 7, 0),
        (budget_was_reserved_until_a_call_was_settled, 7, 1),
    ],
)
def test_how_many_items_are_claimed(
    given: Callable[[Worker], None], free_slots: int, claims: int
) -> None:
    worker = Worker()
    given(worker)
    assert worker.demand.claims(free_slots, NOW) == claims


@pytest.mark.parametrize(
    ("given", "look_at"),
    [
        (nothing_special, None),
        (looked_in_vain, NOW + 1000),
        (looked_in_vain_and_a_call_ended, None),
        (budget_is_reserved, NOW + 1000),
        (budget_was_reserved_until_a_call_was_settled, None),
        (limited, NOW + 7000),
        (server_has_room_for_three, None),
        (lambda worker: worker.server_says(0), NOW + 100),
    ],
)
def test_when_it_is_time_to_look_again(
    given: Callable[[Worker], None], look_at: int | None
) -> None:
    worker = Worker()
    given(worker)
    assert worker.demand.next_look_at(NOW) == look_at
    if look_at is not None:
        assert worker.demand.claims(7, look_at - 1) == 0
        assert worker.demand.claims(7, look_at) >= 1


@pytest.mark.parametrize(
    ("due_in_ms", "wait_ms"), [(None, 1000), (300, 300), (60_000, 1000), (-5, 1)]
)
def test_an_item_that_comes_due_is_looked_for_then_and_others_after_a_second(
    due_in_ms: int | None, wait_ms: int
) -> None:
    worker = Worker()
    worker.demand.found_too_few(due_in_ms, NOW)
    assert worker.demand.next_look_at(NOW) == NOW + wait_ms


def test_no_more_are_claimed_than_the_worker_was_to_claim() -> None:
    worker = Worker(max_items=9)
    assert worker.demand.claims(7, NOW) == 7
    worker.demand.claimed(7)
    assert (worker.demand.claims(7, NOW), worker.demand.is_used_up) == (2, False)
    worker.demand.claimed(2)
    assert (worker.demand.claims(7, NOW), worker.demand.is_used_up) == (0, True)


def test_a_thousand_free_slots_are_filled_a_hundred_at_a_time() -> None:
    worker = Worker()
    worker.servers.slots = 1000
    assert worker.demand.claims(1000, NOW) == 100


@pytest.mark.parametrize(
    ("exchange", "wait_for_more", "is_met"),
    [
        (found(open=0), False, True),
        (found(open=0), True, False),
        (found(open=3), False, False),  # others have them, or they are not due
        (found(open=3, enough=True), False, True),
        (found(open=0, enough=True), True, True),
        (Exchange([], [], None, open=0), False, False),  # it was taken for dead, and joins again
    ],
)
def test_when_all_is_done(exchange: Exchange, wait_for_more: bool, is_met: bool) -> None:
    assert Worker(wait_for_more=wait_for_more).demand.is_met(exchange) == is_met


@pytest.mark.parametrize(("adaptive", "pause_ms"), [(False, 0), (True, 7000)])
def test_a_request_says_what_limits_the_claim_and_with_adaptive_that_all_are_to_pause(
    adaptive: bool, pause_ms: int
) -> None:
    worker = Worker(experiments=(3,), until=500, adaptive=adaptive)
    limited(worker)
    want = worker.demand.request(7, {SERVER.key: Limits(rpm=60)}, NOW)
    assert (want.slots, want.experiments, want.until) == (0, (3,), 500)
    (server,) = want.servers
    assert (server.limits, server.pause_ms) == (Limits(60), pause_ms)
    assert server.call_tokens == UNKNOWN_CALL


def test_what_calls_use_is_learned_where_tokens_are_limited() -> None:
    limits = {SERVER.key: Limits(tpm=10_000)}
    used = Attempt(1, usage=Usage(100, 20), response="Hello")
    outcome = Outcome(ITEM, (used,), Done())
    worker = Worker()
    worker.demand.learn_tokens([outcome], {SERVER.key: Limits()})
    assert worker.demand.request(7, limits, NOW).servers[0].call_tokens == UNKNOWN_CALL
    worker.demand.learn_tokens([outcome], limits)
    assert worker.demand.request(7, limits, NOW).servers[0].call_tokens.mean == 120


# Second calls


async def test_a_second_call_comes_before_items_that_could_be_claimed() -> None:
    worker = Worker()
    worker.fly(SLOTS - 2)
    asked = worker.permits.wait_for_second_call(ITEM)
    assert (worker.demand.second_calls(NOW), worker.demand.claims(7, NOW)) == (1, 1)
    assert worker.permits.take_for_second_calls(NOW) == [(ITEM, SERVER.key, asked)]
    assert worker.permits.in_flight == SLOTS - 1
    assert (worker.demand.second_calls(NOW), worker.demand.claims(7, NOW)) == (0, 1)


async def test_a_second_call_waits_for_a_permit() -> None:
    worker = Worker()
    worker.fly(SLOTS)
    first, second = (worker.permits.wait_for_second_call(ITEM) for _ in range(2))
    assert worker.demand.second_calls(NOW) == 0
    worker.permits.give_back(SERVER.key)
    assert worker.permits.take_for_second_calls(NOW) == [(ITEM, SERVER.key, first)]
    assert worker.permits.take_for_second_calls(NOW) == []
    assert (second.done(), worker.permits.in_flight) == (False, SLOTS)


async def test_one_whose_first_call_has_ended_waits_no_more() -> None:
    worker = Worker()
    worker.permits.wait_for_second_call(ITEM).cancel()
    assert (worker.demand.second_calls(NOW), worker.demand.claims(SLOTS, NOW)) == (0, SLOTS)


@pytest.mark.parametrize("holds", [paused, draining, limited])
async def test_no_second_call_goes_out_while_nothing_may(holds: Callable[[Worker], None]) -> None:
    worker = Worker()
    worker.permits.wait_for_second_call(ITEM)
    holds(worker)
    assert worker.demand.second_calls(NOW) == 0


def test_rows_of_functions_take_no_room_from_calls_however_many_are_under_way() -> None:
    worker = Worker(code=(2,))
    limits = {SERVER.key: Limits()}
    worker.permits.take([replace(ITEM, runs_code=True, server="")] * CODE_SLOTS)
    request = worker.demand.request(SLOTS, limits, NOW)
    assert (request.calls, request.slots) == (SLOTS, SLOTS)
    assert [(one.server, one.experiments) for one in request.servers] == [
        (SERVER.key, None), ("", (2,)),
    ]  # fmt: skip
