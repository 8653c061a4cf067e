"""What the displays say of refusals."""

import pytest

from batchgen.items import Failure, Reason
from batchgen.worker.refusals_seen import RefusalsSeen

STRAY = Failure(Reason.RATE_LIMIT, "429 slow down")


def test_the_share_is_that_of_the_newest_calls() -> None:
    seen = RefusalsSeen()
    for number in range(900):
        if number % 33:
            seen.served()
        else:
            seen.refused(STRAY, by_limit=False)
    assert seen.share == pytest.approx(0.03, abs=0.005)
    for _ in range(2000):
        seen.served()
    assert seen.share < 0.001


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("503 engine is busy", "503"),
        ("the connection was refused", "connection"),
        ("", "connection"),
    ],
)
def test_what_a_limit_refused_with_is_told_apart_from_strays(message: str, shown: str) -> None:
    seen = RefusalsSeen()
    seen.refused(Failure(Reason.SERVER, message), by_limit=True)
    seen.refused(STRAY, by_limit=False)
    assert (seen.limited_with, seen.newest) == (shown, "429")
