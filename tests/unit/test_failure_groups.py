"""Failures of one kind are one group, whatever ids, times and counts are in their messages."""

import pytest

from batchgen.store.failure_groups import grouped, kind_of_message, literal_parts
from batchgen.store.records import FailureGroup

LIMIT = "429 Rate limit reached in org-{} on tokens per min: Limit {}, Used {}. Try in {}s. id {}"


def test_ids_and_digits_make_no_kind_of_their_own() -> None:
    one = LIMIT.format("a1b2", "30,000", 29_999, 1.25, "550e8400-e29b-41d4-a716-446655440000")
    other = LIMIT.format("c3", "40,000", 3, 12, "req_9f8e7d")
    assert kind_of_message(one) == kind_of_message(other)
    assert kind_of_message(one).startswith("429 Rate limit reached in # on tokens per min: ")
    assert kind_of_message("500 no (request id: abcdef)") == "500 no (request id: #)"
    assert kind_of_message("第12345行错误") == "第#行错误"


def test_another_status_or_another_text_is_another_kind() -> None:
    kinds = {kind_of_message(text) for text in ("500 no", "503 no", "500 yes", "no", "5000 no")}
    assert len(kinds) == 5


def test_a_long_word_takes_no_time() -> None:
    assert kind_of_message("x" * 100_000 + " 1") == "x" * 100_000 + " #"


def test_a_group_has_the_message_of_its_first_item() -> None:
    rows = [
        FailureGroup("server", "500 in 3 s", 5, 20),
        FailureGroup("server", "500 in 4 s", 2, 10),
        FailureGroup("timeout", "500 in 5 s", 6, 30),
    ]
    assert grouped(rows, 50) == [
        FailureGroup("server", "500 in 4 s", 7, 10),
        FailureGroup("timeout", "500 in 5 s", 6, 30),
    ]
    assert grouped(rows, 1) == [FailureGroup("server", "500 in 4 s", 7, 10)]


@pytest.mark.slow
def test_too_many_kinds_are_not_kept() -> None:
    letters = "abcdefghij"
    words = (a + b + c + d + e for a in letters for b in letters for c in letters
             for d in letters for e in letters)  # fmt: skip
    rows = (FailureGroup("parse", word, 1, n) for n, word in enumerate(words))
    assert len(grouped(rows, 1_000_000)) == 10_000


def test_the_parts_that_all_have() -> None:
    assert literal_parts("400 too long: 12 of 10 tokens") == ["400 too long: ", " of ", " tokens"]
