"""What a server said ends in one full stop among our sentences."""

import pytest

from batchgen.text.sentences import as_sentence


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("no more", "no more."),
        ("no more.", "no more."),
        ("no more...", "no more."),
        ("余额不足。", "余额不足。"),
        ("余额不足。.", "余额不足。"),
        ("slow down!", "slow down!"),
    ],
)
def test_it_ends_in_one_full_stop(said: str, sentence: str) -> None:
    assert as_sentence(said) == sentence
