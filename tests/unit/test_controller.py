"""What the worker gets from servers that refuse, in virtual time, after 20 s of finding."""

from functools import partial
from itertools import pairwise
from statistics import median

import pytest

from batchgen.worker.controller import Controller
from bench.virtual_servers import (
    LIMITED,
    UNAVAILABLE,
    UNREACHABLE,
    Bucket,
    Cap,
    Crew,
    Free,
    Minutes,
    Ours,
    Outage,
    Refused,
    Server,
    run,
)

FINDING_S, SECONDS = 20, 120
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
CAPS = [UNAVAILABLE, LIMITED, Refused(429, 5.0), UNREACHABLE]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("strays", "retry_after_s", "share"),
    [(0.0, None, 0.99), (0.03, None, 0.97), (0.03, 1.0, 0.97), (0.1, None, 0.92)],
)
def test_strays_cost_nothing_but_their_own_calls(
    strays: float, retry_after_s: float | None, share: float, seed: int
) -> None:
    found = run(Free(strays, Refused(429, retry_after_s)), seconds=SECONDS, seed=seed)
    assert found.share(FINDING_S, SECONDS) >= share


@pytest.mark.slow
def test_a_short_run_waits_hardly_longer_for_its_last_strays() -> None:
    def ended_s(strays: float) -> float:
        ended = [
            run(
                Free(strays, latency_s=0.05), seconds=60, items=1500, seed=seed, turnaround_ms=10
            ).taken_at[-1]
            for seed in range(1, 12)
        ]  # fmt: skip
        return median(ended) / 1000

    assert ended_s(0.03) <= ended_s(0.0) + 0.25


@pytest.mark.quick("1-refusal3", "3-refusal1", "3-refusal2", "10-refusal0")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("refusal", CAPS)
@pytest.mark.parametrize("at_once", [1, 3, 10, 40])
def test_as_many_at_once_as_a_server_takes_are_found_whatever_it_calls_a_refusal(
    at_once: int, refusal: Refused, seed: int
) -> None:
    found = run(Cap({0: at_once}, refusal), seconds=SECONDS, seed=seed)
    assert found.share(FINDING_S, SECONDS) >= 0.9
    assert found.refused(FINDING_S, SECONDS) < 0.05


@pytest.mark.quick("0.3")
@pytest.mark.parametrize("latency_s", [0.05, 0.3, 10])
def test_so_it_is_for_answers_that_are_soon_there_and_for_those_that_take_long(
    latency_s: float,
) -> None:
    from_s, until_s = (2, 10) if latency_s < 1 else (FINDING_S * latency_s, 90 * latency_s)
    capped = run(Cap({0: 10}, latency_s=latency_s), seconds=int(until_s))
    assert capped.share(from_s, until_s) >= 0.9
    assert capped.refused(from_s, until_s) < 0.05
    strays = run(Free(0.03, latency_s=latency_s), seconds=int(until_s))
    assert strays.share(from_s, until_s) >= (0.9 if latency_s > 0.1 else 0.85)


def test_a_cap_that_changes_is_followed() -> None:
    found = run(Cap({0: 10, 60_000: 40, 150_000: 5}), seconds=240)
    assert found.per_s(20, 60) >= 9
    assert found.per_s(100, 150) >= 36
    assert found.per_s(165, 240) >= 4.5
    assert found.refused(20, 60) < 0.05
    assert found.refused(165, 240) < 0.05


def test_a_cap_is_found_among_strays() -> None:
    found = run(Cap({0: 10}, LIMITED, strays=0.05), seconds=SECONDS)
    assert found.share(FINDING_S, SECONDS) >= 0.85


@pytest.mark.quick("limit0")
@pytest.mark.parametrize(
    "limit",
    [Bucket(10, 10), Bucket(10, 10, says=True), Bucket(10, 600), Minutes(600), Minutes(600, False)],
)
def test_a_rate_limit_is_used(limit: Server) -> None:
    found = run(limit, seconds=300)
    assert found.share(60, 300) >= 0.85
    assert found.refused(60, 300) < 0.3


@pytest.mark.quick("2")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_some_refused_in_a_moment_do_not_hold_everybody_up_while_others_are_at_work(
    seed: int,
) -> None:
    used_up = Bucket(10, 10, latency_s=3)
    found = run(used_up, seconds=200, seed=seed, turnaround_ms=1)
    assert found.share(FINDING_S, 200) >= 0.87


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [UNREACHABLE, UNAVAILABLE, LIMITED])
def test_after_an_outage_the_calls_come_back_by_doubling_within_ten_seconds(
    refusal: Refused,
) -> None:
    out = Outage(Free(latency_s=0.5), 20_000, 80_000, refusal)
    found = run(out, seconds=120)
    assert len([at for at in found.refused_at if 21_000 <= at < 80_000]) < 60
    back = [found.per_s(second, second + 1) for second in range(80, 90)]
    # Twice as many with each round of answers, of which a second has two and a bit.
    assert all(later <= 6 * sooner + 8 for sooner, later in pairwise(back)), back
    assert found.per_s(90, 120) >= 0.95 * found.per_s(5, 20)


@pytest.mark.quick("4-refusal0")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("refusal", CAPS)
@pytest.mark.parametrize("workers", [4, 8])
def test_workers_that_share_a_server_get_as_much_as_one(
    workers: int, refusal: Refused, seed: int
) -> None:
    found = run(
        Cap({0: 10}, refusal), seconds=SECONDS, workers=workers, slots=50 // workers, seed=seed,
        turnaround_ms=15,
    )  # fmt: skip
    assert found.share(FINDING_S, SECONDS) >= 0.9
    assert found.refused(FINDING_S, SECONDS) < 0.05


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("refusal", CAPS[:3])
def test_a_server_that_takes_one_call_at_a_time_of_several_workers(
    refusal: Refused, seed: int
) -> None:
    found = run(
        Cap({0: 1}, refusal), seconds=SECONDS, workers=4, slots=12, seed=seed, turnaround_ms=15
    )  # fmt: skip
    assert found.share(FINDING_S, SECONDS) >= 0.8
    assert found.refused(FINDING_S, SECONDS) < 0.05


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_server_that_takes_fewer_calls_than_there_are_workers(seed: int) -> None:
    found = run(Cap({0: 3}), seconds=SECONDS, workers=8, slots=6, seed=seed, turnaround_ms=15)
    assert found.share(FINDING_S, SECONDS) >= 0.85
    assert found.refused(FINDING_S, SECONDS) < 0.06


def test_workers_come_and_go_and_what_one_had_is_the_others() -> None:
    crew = [
        Crew(12), Crew(12, leaves_at=40_000), Crew(12, leaves_at=70_000, dies=True),
        Crew(12, joins_at=100_000),
    ]  # fmt: skip
    found = run(Cap({0: 10}), seconds=160, workers=crew, turnaround_ms=15)
    assert found.per_s(45, 70) >= 9
    assert found.per_s(105, 160) >= 9
    assert found.refused(20, 160) < 0.05


def test_workers_that_share_a_rate_limit_use_it() -> None:
    found = run(Bucket(10, 10), seconds=200, workers=4, slots=12, turnaround_ms=15)
    assert found.share(FINDING_S, 200) >= 0.9
    assert found.refused(FINDING_S, 200) < 0.15


@pytest.mark.parametrize("refusal", [UNREACHABLE, UNAVAILABLE])
def test_after_an_outage_workers_that_share_a_server_come_back_without_a_stampede(
    refusal: Refused,
) -> None:
    out = Outage(Cap({0: 10}, latency_s=0.5), 20_000, 80_000, refusal)
    found = run(out, seconds=120, workers=4, slots=12, turnaround_ms=15)
    assert len([at for at in found.refused_at if 21_000 <= at < 80_000]) < 120
    assert len([at for at in found.refused_at if 80_000 <= at < 90_000]) < 20
    assert found.per_s(90, 120) >= 0.9 * found.per_s(5, 20)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_others_have_found_is_where_a_worker_begins(seed: int) -> None:
    found = run(Cap({0: 10}), seconds=60, seed=seed, holder=partial(Ours, known=10))
    assert found.share(3, 20) >= 0.9
    assert found.refused(0, 20) < 0.05
    more = run(Cap({0: 40}), seconds=60, seed=seed, holder=partial(Ours, known=10))
    assert more.share(30, 60) >= 0.9
    fewer = run(Cap({0: 3}), seconds=60, seed=seed, holder=partial(Ours, known=10))
    assert fewer.share(10, 60) >= 0.85


@pytest.mark.quick("server0")
@pytest.mark.parametrize("server", [Free(0.03), Cap({0: 1})])
def test_one_slot_is_used(server: Server) -> None:
    found = run(server, seconds=300, slots=1)
    assert found.share(FINDING_S, 300) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.4, 0.02])
def test_a_thousand_slots_are_used_in_step_or_not(
    monkeypatch: pytest.MonkeyPatch, sigma: float
) -> None:
    monkeypatch.setattr("bench.virtual_servers.SIGMA", sigma)
    found = run(Free(0.03), seconds=30, slots=1000)
    assert found.share(FINDING_S, 30) >= 0.95


def test_of_a_thousand_slots_as_many_as_the_server_takes() -> None:
    found = run(Cap({0: 10}), seconds=60, slots=1000)
    assert found.share(FINDING_S, 60) >= 0.9
    assert found.refused(FINDING_S, 60) < 0.08


def test_calls_that_are_answered_before_the_next_one_goes_out_lead_to_the_limit() -> None:
    """As long as all that are allowed are claimed together."""
    wanted, few = Controller(100), Controller(100)
    for _ in range(10):
        wanted.all_claimed(wanted.allowed(0))
        for controller in (wanted, few):
            for _ in range(controller.allowed(0)):
                controller.taken(controller.sent(0))
    assert (wanted.allowed(0), few.allowed(0)) == (100, 4)
