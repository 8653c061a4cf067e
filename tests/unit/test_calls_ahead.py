"""Calls that workers take from the limits ahead of sending them: never more than allowed, whatever
becomes of them."""

import random

import pytest

from batchgen.items import Attempt, Done, Item, Outcome, Reason, Release, Retry, Usage
from batchgen.limits import CallTokens, Limits, SharedRate
from batchgen.limits.ahead import AHEAD_MS, LONGEST_MS, AskedAhead, Out, take_ahead
from batchgen.store.calls_ahead import CallsAhead, WantedAhead
from batchgen.store.server_wants import ServerWant
from tests.kits.virtual_time import run, silent, tight
from tests.unit.test_buckets import busiest

START = 1_700_000_000_000
NOBODY: list[Out] = []


class Limiter:
    """The limits of a server, and what workers have taken of them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.shared = SharedRate()
        self.out: dict[int, Out] = {}
        self.workers: dict[int, CallsAhead] = {}
        self.asked = 0

    def exchange(
        self, worker: int, calls: int, now: int, *outcomes: Outcome, claims: int = 1 << 30,
        call_tokens: CallTokens | None = None,
    ) -> list[Item]:  # fmt: skip
        """What it sends, as there are so many to claim."""
        ahead = self.workers.setdefault(worker, CallsAhead())
        want = ServerWant("s", calls, self.limits, call_tokens or CallTokens(1.0, 1.0, 0.0))
        self._ask(worker, ahead.wanted([want], calls, outcomes, now), now)
        n = min(claims, ahead.allowed([want], {"s": calls})["s"].calls)
        each = 0 if self.limits.tpm is None else want.call_tokens.of(1)
        sent = [item(number, reserved_tokens=each) for number in range(n)]
        if ahead.were_claimed(outcomes, sent):
            self._ask(worker, ahead.unused(), now)
        return sent

    def _ask(self, worker: int, wanted: dict[str, WantedAhead], now: int) -> None:
        for server, one in wanted.items():
            self.asked += 1
            self.shared, allowed, self.out[worker] = take_ahead(
                self.shared, one.limits, one.asked, one.call_tokens, worker,
                list(self.out.values()), now,
            )  # fmt: skip
            self.workers[worker].were_allowed({server: one}, {server: allowed}, now, 0)


def item(number: int = 1, reserved_tokens: int = 0) -> Item:
    return Item(
        number, 1, 1, 1, None, "{}", server="s", reserved_tokens=reserved_tokens
    )  # fmt: skip


@pytest.mark.quick("0")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rpm", [1, 7, 12, 60, 239, 241, 600, 6000])
def test_whatever_workers_do_with_them_no_sixty_seconds_see_more(rpm: int, seed: int) -> None:
    """Some take what they then find nothing for, some are killed with calls in hand, and nobody
    asks when others expect it. Each call is late by up to half a second."""
    rng, limiter, sent = random.Random(seed), Limiter(Limits(rpm=rpm)), []
    now, next_id = START, 8
    workers = list(range(next_id))
    while now < START + 180_000:
        now += rng.choice([0, 1, 3, 20, 150, 250]) if rng.random() < 0.9 else 1200
        worker = rng.choice(workers)
        claims = rng.choice([0, 1, 5, 1 << 30, 1 << 30])
        for _ in limiter.exchange(worker, rng.choice([1, 10, 100]), now, claims=claims):
            sent.append((now / 1000 + rng.choice([0.0, 0.5]) * (rng.random() < 0.5), 1.0))
        if rng.random() < 0.02:  # killed, and taken over
            workers.remove(worker)
            limiter.out.pop(worker, None)
            workers.append(next_id)
            next_id += 1
    assert busiest(sorted(sent)) <= rpm
    assert len(sent) >= 0.7 * rpm  # so that it was put to the test


@pytest.mark.quick("0")
@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_for_long_is_no_more_than_allowed_when_all_is_wanted_at_once(
    seed: int,
) -> None:
    """Workers are far from the limit, and hold calls for a second; then they send all that they
    may, and are slow again."""
    rpm, rng, sent, longest = 30_000, random.Random(seed), [], 0
    limiter, now = Limiter(Limits(rpm=rpm)), START
    while now < START + 200_000:
        is_slow = (now - START) // 1000 % 75 < 5
        now += rng.choice([1, 20, 50])
        worker = rng.randrange(4)
        calls = 1 if is_slow else rng.choice([10, 400])
        sent += [(now / 1000, 1.0)] * len(limiter.exchange(worker, calls, now))
        longest = max(longest, limiter.out[worker].until - now)
    assert longest == LONGEST_MS  # so that it was put to the test
    assert busiest(sent) <= rpm
    assert len(sent) >= 0.8 * rpm * 200 / 60 * 70 / 75


@pytest.mark.parametrize("rpm", [12, 30, 600])
def test_what_was_not_used_is_there_for_others_at_once(rpm: int) -> None:
    limiter = Limiter(Limits(rpm=rpm))
    assert limiter.exchange(1, 1, START, claims=0) == []
    assert len(limiter.exchange(2, 1, START)) == 1


def test_a_worker_that_dies_takes_along_what_it_had_in_hand_and_no_more() -> None:
    limits = Limits(rpm=60_000)
    limiter, in_hand = Limiter(limits), 0
    for at in range(0, 1000, 20):
        limiter.exchange(1, 10, START + at)
        in_hand = max(in_hand, limiter.out[1].calls)
    assert 10 < in_hand <= 1.5 * 10 * AHEAD_MS / 20 + 10
    before = limiter.shared.requests
    del limiter.out[1]
    limiter.exchange(2, 1, START + 1001, claims=1)
    assert limiter.shared.requests >= before - 1  # nothing else is missed


def test_few_ask_often_where_the_limit_is_far() -> None:
    limiter = Limiter(Limits(rpm=10**9))
    sent = sum(len(limiter.exchange(1, 10, START + at)) for at in range(0, 10_000, 10))
    assert sent == 10_000
    assert limiter.asked <= 10_000 / LONGEST_MS * 1.5


def test_the_nearer_the_limit_the_shorter_calls_are_held() -> None:
    """Of five workers with 500 calls a second in all, by how often they ask."""
    asked = []
    for times in (2, 6, 60):
        limiter = Limiter(Limits(rpm=times * 30_000))
        for at in range(0, 10_000, 10):
            limiter.exchange(at // 10 % 5, 5, START + at)
        asked.append(limiter.asked)
    near, farther, far = asked
    assert near > 1.2 * farther > 1.5 * far
    assert far <= 5 * 10_000 / LONGEST_MS * 1.5


def test_a_rate_that_is_learned_is_asked_for_soon() -> None:
    """Others may have been refused meanwhile."""
    limiter = Limiter(Limits(rpm=10**9, adaptive=True))
    for at in range(0, 3000, 20):
        limiter.exchange(1, 1, START + at)
        assert limiter.out[1].until <= START + at + AHEAD_MS


def test_what_was_taken_by_another_limit_goes_back_before_more_is_sent() -> None:
    limiter = Limiter(Limits(rpm=10**9))
    for at in (0, 20, 40):
        limiter.exchange(1, 10, START + at)
    assert limiter.out[1].until == START + 20 + LONGEST_MS
    limiter.limits = Limits(rpm=60)
    assert len(limiter.exchange(1, 10, START + 60)) == 1
    assert limiter.out[1].calls == 1


@pytest.mark.quick("2")
@pytest.mark.parametrize("workers", [2, 4, 7])
def test_a_slow_limit_is_shared_evenly(workers: int) -> None:
    seen = run(
        tight(1e9), Limits(rpm=12), seconds=1800, workers=workers, slots=5, latency_s=3.0,
        ahead=True,
    )  # fmt: skip
    assert busiest([(at_s, 1.0) for at_s, _ in seen.calls]) <= 12
    assert sum(seen.sent_by.values()) >= 0.97 * 360
    assert len(seen.sent_by) == workers
    assert min(seen.sent_by.values()) >= 0.7 * 360 / workers


def test_what_comes_back_too_late_is_lost() -> None:
    limits, asked = Limits(rpm=600), AskedAhead(calls=5)
    shared, allowed, out = take_ahead(SharedRate(), limits, asked, 1, 1, NOBODY, START)
    assert allowed.calls == 3  # in two fifths of a second
    level = shared.requests
    back = AskedAhead(unused=3)
    in_time, *_ = take_ahead(shared, limits, back, 1, 1, [out], START + AHEAD_MS - 1)
    assert in_time.requests == pytest.approx(level + 3)
    late, *_ = take_ahead(shared, limits, back, 1, 1, [out], START + AHEAD_MS)
    assert late.requests == pytest.approx(level)


def test_a_refusal_and_a_pause_are_told_at_once() -> None:
    limiter = Limiter(Limits(adaptive=True))
    (sent,) = limiter.exchange(1, 1, START)
    asked, ahead = limiter.asked, limiter.workers[1]
    refused = Outcome(sent, (Attempt(START, 0, Reason.RATE_LIMIT),), Retry(None, charged=False))
    want = ServerWant("s", 0, limiter.limits, pause_ms=3000)
    (told,) = ahead.wanted([want], 0, [refused], START + 20).values()
    assert (told.asked.sent, told.asked.returned.pause_ms) == (1, 3000)
    assert told.asked.returned.refused_at == (START,)
    limiter._ask(1, {"s": told}, START + 20)
    assert limiter.asked == asked + 1
    assert limiter.exchange(2, 1, START + 2900) == []
    same = ServerWant("s", 0, limiter.limits, pause_ms=2000)
    assert ahead.wanted([same], 0, [], START + 1020) == {}


def test_an_exchange_that_is_tried_again_tells_the_same_once() -> None:
    limiter = Limiter(Limits(tpm=60_000))
    call = CallTokens(50.0, 50.0, 0.0)
    (sent,) = limiter.exchange(1, 1, START, call_tokens=call)
    used = Attempt(START, 5, usage=Usage(10, 10), response="an answer")
    done, ahead = Outcome(sent, (used,), Done()), limiter.workers[1]
    level, want = limiter.shared.tokens, ServerWant("s", 0, limiter.limits, call)
    for at in (300, 301):
        limiter._ask(1, ahead.wanted([want], 0, [done], START + at), START + at)
    assert limiter.shared.tokens == pytest.approx(level + 30)


def test_a_claim_that_was_never_sent_is_no_request() -> None:
    limiter = Limiter(Limits(rpm=12))
    (never,) = limiter.exchange(1, 1, START)
    assert limiter.exchange(1, 1, START + 300) == []
    assert len(limiter.exchange(1, 1, START + 600, Outcome(never, (), Release()))) == 1


def test_a_second_call_is_counted_whether_or_not_there_is_room() -> None:
    limits, limiter = Limits(rpm=12), Limiter(Limits(rpm=12))
    (sent,) = limiter.exchange(1, 1, START)
    limiter.workers[1].send_second_calls([sent], {"s": limits})
    limiter.exchange(1, 1, START + 5_200)
    assert limiter.exchange(1, 1, START + 9_900) == []
    assert len(limiter.exchange(1, 1, START + 10_400)) == 1


@pytest.mark.quick("60")
@pytest.mark.parametrize("rpm", [60, 1200])
def test_what_the_server_takes_is_found_as_if_they_took_turns(rpm: int) -> None:
    found = [
        run(
            silent(rpm), Limits(adaptive=True), seconds=240, workers=4, slots=rpm // 20 + 10,
            ahead=ahead,
        )
        for ahead in (False, True)
    ]  # fmt: skip
    for seen in found:
        assert seen.share(rpm, 60, 240) >= 0.9
        assert seen.refused(60, 240) < 0.05
