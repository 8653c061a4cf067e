"""What all workers of a database together may send, as the exchange keeps to it."""

from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.items import Attempt, Done, Fail, KeepAnswer, Outcome, Reason, Release, Retry, Usage
from batchgen.limits.buckets import Limits, tokens_flow
from batchgen.limits.tokens import CallTokens
from batchgen.store import ClaimRequest, ServerWant
from batchgen.store.transactions import look
from batchgen.store.transactions.shared_rates import learned_rates, read_shared_rate
from tests.kits.table import SERVER, START, Table, answered, broken, claims


def nothing(want: ClaimRequest, pause_ms: int = 0) -> ClaimRequest:
    """The same with no room for a call."""
    (server,) = want.servers
    return replace(want, servers=(replace(server, slots=0, pause_ms=pause_ms),))


@pytest.fixture
def worker(table: Table) -> int:
    return table.join()


# Requests a minute


def sent_at(
    table: Table, worker: int, seconds: float, want: int, rpm: int
) -> tuple[int, int | None]:
    """(items claimed, next_at in seconds since the start)."""
    table.now = START + int(seconds * 1000)
    done = table.exchange(worker, want=want, rpm=rpm)
    return len(done.items), None if done.next_at is None else (done.next_at - START) // 1000


def test_two_workers_share_the_requests_of_a_minute(table: Table, worker: int) -> None:
    table.enqueue(*range(20))
    other = table.join()
    assert sent_at(table, worker, 0, want=2, rpm=5) == (1, 12)
    assert sent_at(table, other, 6.1, want=9, rpm=5) == (0, 12)
    assert sent_at(table, other, 12.3, want=1, rpm=5) == (1, None)
    assert sent_at(table, worker, 18, want=9, rpm=5) == (0, 24)


def test_the_limit_that_holds_claims_back_is_told(table: Table, worker: int) -> None:
    table.enqueue(*range(20))
    done = table.exchange(worker, want=9, rpm=600)
    assert done.limited[SERVER].limited_to_rpm == 600
    table.now += 60_000
    assert table.exchange(worker, want=1, rpm=600).limited == {}


def test_claims_that_were_never_sent_are_no_requests(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    (item,) = table.exchange(worker, want=2, rpm=2).items
    never_sent = Outcome(item, (), Release())
    again = table.exchange(worker, [never_sent], want=2, rpm=2)
    assert [one.id for one in again.items] == [item.id]
    (item,) = again.items
    sent = Outcome(item, (answered(),), Done())
    assert table.exchange(worker, [sent], want=2, rpm=2).items == []


def test_an_answer_that_waits_for_its_parser_needs_no_request(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    (item,) = table.exchange(worker, want=1, rpm=2).items
    table.finish(worker, item, KeepAnswer(), answered())
    table.leave(worker)
    worker = table.join()
    table.now += 31_000
    assert len(table.exchange(worker, want=1, rpm=2).items) == 1
    assert len(table.exchange(worker, want=1, rpm=2).items) == 1


def test_while_the_limit_holds_claims_back_a_due_retry_is_no_reason_to_look_again(
    table: Table, worker: int
) -> None:
    """Otherwise a worker would ask in every millisecond until then."""
    table.enqueue("a")
    (item,) = table.exchange(worker, want=2, rpm=2).items
    table.finish(worker, item, Retry(START + 1000, charged=True), broken())
    assert sent_at(table, worker, 5, want=2, rpm=2) == (0, 30)


def test_room_is_no_reason_to_look_again_when_nothing_is_due_then(
    table: Table, worker: int
) -> None:
    table.enqueue("a")
    (item,) = table.exchange(worker, want=1, rpm=2).items
    table.finish(worker, item, Retry(START + 90_000, charged=True), broken())
    assert sent_at(table, worker, 31, want=9, rpm=2) == (0, 90)


def test_an_exchange_that_only_waits_writes_nothing(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    table.exchange(worker, want=2, rpm=2)
    before = table.query("select * from shared_rates")
    table.now += 1000
    assert table.exchange(worker, want=2, rpm=2).items == []
    assert table.query("select * from shared_rates") == before


def test_without_a_limit_nothing_is_counted(table: Table, worker: int) -> None:
    table.enqueue("a")
    table.claim(worker, 1)
    assert table.query("select * from shared_rates") == []


# Tokens a minute


def tokens(table: Table) -> float:
    return float(table.one("select tokens from shared_rates"))


def test_tokens_are_reserved_by_estimate_and_settled_by_what_was_used(
    table: Table, worker: int
) -> None:
    table.enqueue(*["x" * 98] * 9)  # 100 bytes as JSON
    limits = Limits(tpm=12_300)
    want = claims(9, limits=limits, call_tokens=CallTokens(mean=60, base=10, per_byte=0.5))
    (*_, last), full = table.exchange_want(worker, want).items, tokens_flow(limits, 60)
    assert full is not None
    assert last.reserved_tokens == 60
    left = tokens(table)
    assert -60 < left <= 0 < full.burst
    settle = nothing(want)
    table.exchange_want(worker, settle, [Outcome(last, (answered(),), Done())])  # 10 in, 20 out
    assert tokens(table) == pytest.approx(left + 60 - 30)


def broken_how(reason: Reason, **more: Any) -> Attempt:
    return replace(broken(reason), **more)


@pytest.mark.parametrize(
    ("attempt", "kept"),
    [
        (broken_how(Reason.RATE_LIMIT), 0),
        (broken_how(Reason.SERVER), 0),
        (broken_how(Reason.TIMEOUT, may_be_charged=True), 60),
        (broken_how(Reason.REFUSAL, usage=Usage(10, 5)), 15),
        (Attempt(finished_at=START), 60),
        (None, 0),
    ],
)
def test_a_call_without_an_answer_keeps_the_tokens_that_it_may_have_used(
    table: Table, worker: int, attempt: Attempt | None, kept: int
) -> None:
    table.enqueue("x" * 98)
    limits = Limits(tpm=12_300)
    want = claims(1, limits=limits, call_tokens=CallTokens(mean=60, base=10, per_byte=0.5))
    (item,) = table.exchange_want(worker, want).items
    left = tokens(table)
    attempts = () if attempt is None else (attempt,)
    table.exchange_want(worker, nothing(want), [Outcome(item, attempts, Release())])
    assert tokens(table) == pytest.approx(left + 60 - kept)


def test_a_second_call_takes_its_share_and_puts_back_what_it_did_not_use(
    table: Table, worker: int
) -> None:
    table.enqueue("x" * 98)
    limits = Limits(600, tpm=12_300)
    want = claims(1, limits=limits, call_tokens=CallTokens(mean=60, base=10, per_byte=0.5))
    (item,) = table.exchange_want(worker, want).items
    before = table.query("select requests, tokens from shared_rates")[0]
    assert table.begin_second_calls(item, limits=limits) == {item.id}
    after = table.query("select requests, tokens from shared_rates")[0]
    assert after == pytest.approx((before[0] - 1, before[1] - 60))
    left = Attempt(finished_at=START)  # nobody knows what it used
    table.exchange_want(worker, nothing(want), [Outcome(item, (answered(), left), Done())])
    assert tokens(table) == pytest.approx(before[1] - 30)


def test_a_second_call_that_was_begun_and_never_sent_puts_all_back(
    table: Table, worker: int
) -> None:
    table.enqueue("x" * 98)
    limits = Limits(600, tpm=12_300)
    want = claims(1, limits=limits, call_tokens=CallTokens(mean=60, base=10, per_byte=0.5))
    (item,) = table.exchange_want(worker, want).items
    before = table.query("select requests, tokens from shared_rates")[0]
    assert table.begin_second_calls(item, limits=limits) == {item.id}
    outcome = Outcome(item, (answered(),), Done(), second_call_unsent=True)
    table.exchange_want(worker, nothing(want), [outcome])
    after = table.query("select requests, tokens from shared_rates")[0]
    assert after == pytest.approx((before[0], before[1] + 60 - 30))


def test_a_second_call_without_limits_writes_none(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    assert table.begin_second_calls(item) == {item.id}
    assert table.query("select * from shared_rates") == []


def test_a_restarted_worker_knows_what_the_newest_calls_used(table: Table, worker: int) -> None:
    table.enqueue("ab", "好", "c")
    ab, hao, c = sorted(table.claim(worker, 3), key=lambda item: item.id)
    table.finish(worker, ab, Done(), answered())
    table.finish(worker, c, Fail(Reason.SERVER, "500"), broken())
    table.finish(worker, hao, Done(), answered())
    assert look.recent_usage(table.transaction) == [(4, 30), (5, 30)]


# What the server says


def test_a_pause_that_the_server_asked_for_is_for_all_workers(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    other = table.join()
    want = claims(1, limits=Limits(adaptive=True))
    (item,) = table.exchange_want(worker, want).items
    slow_down = broken(Reason.RATE_LIMIT)
    retry = Outcome(item, (slow_down,), Retry(START + 7000, charged=False))
    table.exchange_want(worker, nothing(want, pause_ms=7000), [retry])
    table.now += 3000
    paused = table.exchange_want(other, want)
    assert (paused.items, paused.next_at) == ([], START + 7000)
    table.now += 4000
    assert len(table.exchange_want(other, want).items) == 1


def test_without_adaptive_a_429_teaches_nothing(table: Table, worker: int) -> None:
    table.enqueue("a")
    want = claims(1, limits=Limits(600))
    (item,) = table.exchange_want(worker, want).items
    retry = Outcome(item, (broken(Reason.RATE_LIMIT),), Retry(START + 1000, charged=False))
    table.exchange_want(worker, nothing(want), [retry])
    assert learned_rates(table.transaction) == {}


def test_a_burst_of_429_cuts_the_learned_rate_once_whoever_reports_it(
    table: Table, worker: int
) -> None:
    table.enqueue(*range(50))
    other = table.join()
    want = claims(9, limits=Limits(adaptive=True))
    mine, theirs = [], []
    for _ in range(40):
        table.now += 100
        mine += table.exchange_want(worker, want).items
        theirs += table.exchange_want(other, want).items
    sent_at = table.now
    table.now += 50
    refused = replace(broken(Reason.RATE_LIMIT, at=table.now), latency_ms=table.now - sent_at)
    for seat, items in ((worker, mine[-4:]), (other, theirs[-4:])):
        outcomes = [Outcome(item, (refused,), Retry(None, charged=False)) for item in items]
        table.exchange_want(seat, nothing(want), outcomes)
        table.now += 10
    learned = read_shared_rate(table.transaction, SERVER).learned
    assert learned.ceiling_per_s is not None
    assert learned.per_s < 0.8 * learned.ceiling_per_s
    assert learned.cut_at == sent_at + 50


# Several servers


def two(table: Table, worker: int, *wants: ServerWant) -> tuple[list[str], set[str]]:
    """The servers of what a claim for several brings, and those that limits hold back."""
    done = table.exchange_want(worker, ClaimRequest(wants))
    return sorted(item.server for item in done.items), set(done.limited)


def test_each_server_has_limits_of_its_own(table: Table, worker: int) -> None:
    """Whichever workers ask it, of whatever config."""
    table.enqueue(*range(40))
    slow, fast = ServerWant("slow", 9, Limits(60)), ServerWant("fast", 9, Limits(600))
    assert two(table, worker, slow, fast) == ([*["fast"] * 4, "slow"], {"slow", "fast"})
    assert two(table, table.join(), slow) == ([], {"slow"})
    assert two(table, table.join(), ServerWant("other", 9, Limits(600)))[0] == ["other"] * 4
    table.now += 200
    assert two(table, worker, slow, fast) == (["fast"] * 2, {"slow", "fast"})


def test_a_server_without_limits_is_held_back_by_no_other(table: Table, worker: int) -> None:
    table.enqueue(*range(40))
    free, held = ServerWant("free", 5), ServerWant("held", 5, Limits(60))
    assert two(table, worker, held, free) == (["free"] * 5 + ["held"], {"held"})
    assert two(table, worker, held, free) == (["free"] * 5, {"held"})
    assert table.query("select server from shared_rates") == [("held",)]


def test_what_is_scarce_goes_where_there_is_most_room(table: Table, worker: int) -> None:
    table.enqueue(*range(4))
    assert two(table, worker, ServerWant("a", 2), ServerWant("b", 5)) == (
        ["a", "b", "b", "b"],
        set(),
    )


def test_what_a_call_did_not_use_goes_back_to_its_server(table: Table, worker: int) -> None:
    table.enqueue("x" * 98, "y" * 98)
    call = CallTokens(mean=60, base=10, per_byte=0.5)
    wants = [ServerWant(name, 1, Limits(tpm=12_300), call) for name in ("a", "b")]
    items = table.exchange_want(worker, ClaimRequest(tuple(wants))).items
    assert {item.server for item in items} == {"a", "b"}
    before = dict(table.query("select server, tokens from shared_rates"))
    (mine,) = [item for item in items if item.server == "b"]
    none = tuple(replace(want, slots=0) for want in wants)
    table.exchange_want(worker, ClaimRequest(none), [Outcome(mine, (), Release())])
    after = dict(table.query("select server, tokens from shared_rates"))
    assert after == pytest.approx({"a": before["a"], "b": before["b"] + 60})


def test_a_server_pauses_alone_and_learns_alone(table: Table, worker: int) -> None:
    table.enqueue(*range(9))
    wants = [ServerWant(name, 1, Limits(adaptive=True)) for name in ("a", "b")]
    items = table.exchange_want(worker, ClaimRequest(tuple(wants))).items
    (mine,) = [item for item in items if item.server == "b"]
    retry = Outcome(mine, (broken(Reason.RATE_LIMIT),), Retry(START + 7000, charged=False))
    none = (replace(wants[0], slots=0), replace(wants[1], slots=0, pause_ms=7000))
    table.exchange_want(worker, ClaimRequest(none), [retry])
    table.now += 3000
    assert two(table, worker, *wants)[0] == ["a"]
    taught = [
        read_shared_rate(table.transaction, name).learned.strays.recent_refused for name in "ab"
    ]
    assert taught == [0, 1]
