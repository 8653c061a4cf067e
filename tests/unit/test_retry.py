"""What follows from a reply, as values: the table "Why items fail", without server or database."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.items import (
    Answer,
    Decision,
    Fail,
    Failure,
    Item,
    KeepAnswer,
    Reason,
    Release,
    Retry,
    Trouble,
    Usage,
)
from batchgen.llm.decide import (
    Blame,
    RetryPolicy,
    decide_on_answer,
    decide_on_failure,
    decide_parse_failure,
    wait_s,
)

NOW = 1_750_000_000_000
RETRYABLE = (Reason.SERVER, Reason.CONNECTION, Reason.TIMEOUT, Reason.BAD_RESPONSE)
SLOW_DOWN = Failure(Reason.RATE_LIMIT, "slow down")
FINAL = (Reason.REFUSAL, Reason.REJECTED)


def item(tries: int = 0, parse_failures: int = 0) -> Item:
    return Item(1, 1, 1, 1, None, "{}", tries, parse_failures)


def answer(text: str = "Hello", finish_reason: str | None = "stop") -> Answer:
    return Answer(text, "{}", finish_reason, "m-1", Usage())


def decided(verdict: Answer | Failure, tries: int = 0, seed: int = 0, **more: Any) -> Decision:
    policy = more.pop("policy", RetryPolicy())
    if isinstance(verdict, Answer):
        return decide_on_answer(verdict, item(tries), policy, **{"needs_whole": False, **more})
    options = {"blame": Blame.ITEM, **more}
    return decide_on_failure(verdict, item(tries), policy, now=NOW, rng=Random(seed), **options)


def waits(verdict: Failure, tries: int = 0, **more: Any) -> Iterator[int]:
    """Milliseconds until the next try, as a hundred seeds have it."""
    for seed in range(100):
        decision = decided(verdict, tries, seed, **more)
        assert isinstance(decision, Retry)
        assert decision.available_at is not None
        yield decision.available_at - NOW


def charged(verdict: Failure, tries: int = 0, **more: Any) -> bool:
    decision = decided(verdict, tries, **more)
    assert isinstance(decision, Retry)
    return decision.charged


# Answers


def test_an_answer_is_kept() -> None:
    assert decided(answer()) == KeepAnswer()
    assert decided(answer(), needs_whole=True) == KeepAnswer()
    assert decided(answer(finish_reason=None), needs_whole=True) == KeepAnswer()
    assert decided(answer("", finish_reason="tool_calls")) == KeepAnswer()


def test_an_answer_that_was_cut_off_fails_at_once_where_the_parser_needs_the_whole() -> None:
    assert decided(answer(finish_reason="length"), needs_whole=True) == Fail(
        Reason.TRUNCATED, "the answer was cut off at max_tokens, and the parser needs all of it"
    )
    assert decided(answer(finish_reason="length")) == KeepAnswer()


def test_an_answer_that_was_cut_off_before_its_first_word_is_no_use_to_any_parser() -> None:
    assert decided(answer("", finish_reason="length")) == Fail(
        Reason.TRUNCATED, "the answer was cut off at max_tokens before its first word"
    )


# Failures


@pytest.mark.parametrize("reason", Reason)
def test_a_halt_gives_the_item_back_whatever_the_reason(reason: Reason) -> None:
    assert decided(Failure(reason, "no", halt="Mend it."), tries=4) == Release()


@pytest.mark.parametrize("reason", FINAL)
def test_what_will_never_work_fails_at_once(reason: Reason) -> None:
    assert decided(Failure(reason, "said so")) == Fail(reason, "said so")


@pytest.mark.parametrize("reason", RETRYABLE)
def test_what_may_work_is_tried_again_until_max_attempts(reason: Reason) -> None:
    failure = Failure(reason, "broken")
    assert [charged(failure, tries) for tries in range(4)] == [True] * 4
    assert decided(failure, tries=4) == Fail(reason, "broken")
    assert decided(failure, tries=99) == Fail(reason, "broken")


@pytest.mark.parametrize("reason", RETRYABLE)
def test_with_one_attempt_the_first_failure_is_the_last(reason: Reason) -> None:
    failure = Failure(reason, "broken")
    assert decided(failure, policy=RetryPolicy(max_attempts=1)) == Fail(reason, "broken")


def test_a_rate_limit_costs_no_attempt_and_never_fails_the_item() -> None:
    for failure in (SLOW_DOWN, Failure(Reason.SERVER, "503", trouble=Trouble.UNAVAILABLE)):
        assert not charged(failure, tries=99, blame=Blame.LIMIT)


def test_an_item_waits_longer_each_time_that_it_is_refused() -> None:
    found = [
        list(waits(SLOW_DOWN, blame=Blame.LIMIT, refusals=refusals)) for refusals in (1, 2, 3, 99)
    ]
    for waited_ms, wait_ms in zip(found, (1000, 2000, 4000, 60_000), strict=True):
        assert wait_ms <= min(waited_ms) < max(waited_ms) <= wait_ms + 500


def test_a_stray_waits_for_a_moment_and_soon_as_long_as_others() -> None:
    found = [
        list(waits(SLOW_DOWN, blame=Blame.STRAY, refusals=refusals)) for refusals in (1, 2, 3, 99)
    ]
    for waited_ms, wait_ms in zip(found, (100, 300, 900, 60_000), strict=True):
        assert wait_ms <= min(waited_ms) < max(waited_ms) <= 1.25 * wait_ms + 1
    decision = decided(SLOW_DOWN, tries=99, blame=Blame.STRAY)
    assert isinstance(decision, Retry)
    assert decision.charged is False


def test_a_rate_limit_that_is_the_items_own_matter_fails_it() -> None:
    assert decided(SLOW_DOWN) == Fail(Reason.RATE_LIMIT, "slow down")


def test_while_it_is_open_whose_fault_it_was_an_item_waits_but_is_not_charged() -> None:
    decision = decided(Failure(Reason.CONNECTION, "reset"), tries=99, blame=Blame.UNDECIDED)
    assert isinstance(decision, Retry)
    assert decision.charged is False
    assert decision.available_at is not None


@pytest.mark.parametrize("reason", RETRYABLE)
def test_a_server_that_is_down_costs_no_attempt(reason: Reason) -> None:
    down = decided(
        Failure(reason, "refused", trouble=Trouble.UNREACHABLE), tries=99, blame=Blame.SERVER
    )
    assert down == Retry(None, charged=False)


def test_a_stale_connection_costs_no_attempt_and_no_wait() -> None:
    stale = Failure(Reason.CONNECTION, "reset", trouble=Trouble.STALE_CONNECTION)
    assert decided(stale, tries=99) == Retry(None, charged=False)


# Waiting


def test_the_waits_double_up_to_the_longest() -> None:
    doubled = [wait_s(n, 1.0) for n in (0, 1, 2, 3, 4, 5, 6, 7, 1000)]
    assert doubled == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert wait_s(3, 0.5) == 4
    assert [wait_s(n, 1, 30) for n in (0, 4, 5, 1000)] == [1, 16, 30, 30]


def test_the_backoff_grows_with_the_attempts_used() -> None:
    failure = Failure(Reason.SERVER, "broken")
    spans = [(min(found), max(found)) for found in (list(waits(failure, n)) for n in range(4))]
    for (low, high), wait_ms in zip(spans, (1000, 2000, 4000, 8000), strict=True):
        assert wait_ms <= low < high <= wait_ms + 500


@given(
    st.floats(0.001, 21600), st.integers(0, 10),
    st.sampled_from([Blame.LIMIT, Blame.STRAY, Blame.ITEM]), st.integers(),
)  # fmt: skip
def test_jitter_never_undercuts_what_the_server_asked(
    asked_s: float, tries: int, blame: Blame, seed: int
) -> None:
    policy = RetryPolicy(max_attempts=100)
    failure = Failure(Reason.SERVER, "wait", retry_after_s=asked_s)
    decision = decided(failure, tries, seed, policy=policy, blame=blame)
    assert isinstance(decision, Retry)
    assert decision.available_at is not None
    waited_ms = decision.available_at - NOW
    assert asked_s * 1000 <= waited_ms <= asked_s * 1000 + 501


def test_jitter_spreads_the_retries_of_one_burst() -> None:
    failure = Failure(Reason.RATE_LIMIT, "slow down", retry_after_s=10.0)
    assert len(set(waits(failure, blame=Blame.LIMIT))) > 50


def test_a_wait_is_what_the_server_asks_not_the_backoff() -> None:
    failure = Failure(Reason.SERVER, "busy", retry_after_s=0.001)
    assert max(waits(failure, tries=3)) <= 2


def test_a_server_that_asks_to_wait_for_nothing_has_not_asked() -> None:
    failure = Failure(Reason.SERVER, "busy", retry_after_s=0.0)
    assert min(waits(failure, tries=3)) >= 8000


# Parse failures


AGAIN = Retry(None, charged=True, parse_failed=True, error="no tag")


@pytest.mark.parametrize(
    ("parse_failures", "tries", "policy", "decision"),
    [
        (0, 0, RetryPolicy(), Fail(Reason.PARSE, "no tag")),
        (0, 0, RetryPolicy(parse_attempts=2), AGAIN),
        (1, 1, RetryPolicy(parse_attempts=2), Fail(Reason.PARSE, "no tag")),
        (1, 1, RetryPolicy(parse_attempts=3), AGAIN),
        (0, 3, RetryPolicy(parse_attempts=2), AGAIN),
        (0, 4, RetryPolicy(parse_attempts=2), Fail(Reason.PARSE, "no tag")),
        (0, 0, RetryPolicy(max_attempts=1, parse_attempts=2), Fail(Reason.PARSE, "no tag")),
    ],
)
def test_an_answer_that_cannot_be_parsed_is_asked_for_again_as_the_policy_allows(
    parse_failures: int, tries: int, policy: RetryPolicy, decision: Decision
) -> None:
    assert decide_parse_failure(item(tries, parse_failures), "no tag", policy) == decision


def test_a_server_that_asks_for_a_short_wait_again_and_again_is_not_believed() -> None:
    failure = Failure(Reason.RATE_LIMIT, "slow down", retry_after_s=1.0)
    shortest = [
        min(waits(failure, blame=Blame.LIMIT, refusals=refusals)) for refusals in (1, 4, 7, 8, 99)
    ]
    assert [wait // 1000 for wait in shortest] == [1, 1, 4, 8, 60]
