"""When the next batch goes to a server that answers nobody."""

from batchgen.batches.outages import Outages


def test_the_wait_grows_to_ten_minutes_and_ends_with_the_first_answer() -> None:
    outages, now = Outages(60.0), 1_000_000
    for rest_s in (60, 120, 240, 480, 600, 600):
        assert outages.not_answered("a", now) == rest_s
        assert outages.resting(now + rest_s * 1000 - 1) == {"a"}
        assert outages.resting(now + rest_s * 1000) == frozenset()
        now += 1_000_000
    assert outages.lasts_s("a", now) == 6000
    outages.answered("a")
    assert outages.not_answered("a", now) == 60
    assert outages.lasts_s("a", now) == 0


def test_each_server_has_outages_of_its_own() -> None:
    outages = Outages(60.0)
    outages.not_answered("a", 0)
    outages.answered("b")
    outages.not_answered("b", 30_000)
    assert outages.resting(60_000) == {"b"}
