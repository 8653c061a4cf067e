"""How workers share the calls that a server takes at once."""

import random

import pytest

from batchgen.limits import Part, Parts, Share, SharedCap, Told

MINUTE_MS = 60_000


class Crew:
    """Workers that tell how many calls they have under way: all that they may."""

    def __init__(self, calls: int, needs: dict[int, int]) -> None:
        self.parts = Parts(SharedCap(calls), {})
        self.needs = needs
        self.has = dict.fromkeys(needs, 0)
        self.now = 0

    def tell(
        self, worker: int, found: int = 0, in_flight: int | None = None, rises: int | None = None,
        all_calls: int | None = None,
    ) -> Share:  # fmt: skip
        """`found`: by so many more than its share the server takes of it."""
        is_new = worker not in self.parts.of
        told = Told(
            None if is_new else self.has[worker] + found,
            self.has[worker] if in_flight is None else in_flight,
            self.needs[worker], failed_rises=rises, all_calls=all_calls,
        )  # fmt: skip
        self.parts, share = self.parts.tell(worker, told, self.now)
        self.has[worker] = share.calls
        assert sum(self.has.values()) <= self.parts.cap.calls
        return share

    def all_tell(self, rounds: int = 2) -> list[int]:
        for _ in range(rounds):
            for worker in self.needs:
                self.tell(worker)
        return [self.has[worker] for worker in self.needs]

    def leaves(self, worker: int) -> None:
        del self.needs[worker], self.has[worker]
        of = {number: part for number, part in self.parts.of.items() if number != worker}
        self.parts = Parts(self.parts.cap, of)


def test_a_worker_alone_has_all() -> None:
    assert Crew(10, {1: 50}).all_tell() == [10]
    assert Crew(10, {1: 3}).all_tell() == [10]


@pytest.mark.parametrize(
    ("needs", "shares"),
    [
        ([50, 50], [5, 5]),
        ([50, 50, 50], [3, 3, 4]),
        ([2, 50], [2, 8]),
        ([2, 3, 50, 50], [2, 2, 3, 3]),
        ([0, 50], [0, 10]),
    ],
)
def test_shares_are_equal_or_what_a_worker_needs(needs: list[int], shares: list[int]) -> None:
    crew = Crew(10, dict(enumerate(needs, 1)))
    assert sorted(crew.all_tell(3)) == sorted(shares)


def test_what_nobody_needs_is_anybodys_to_keep() -> None:
    crew = Crew(10, {1: 1, 2: 2})
    assert sum(crew.all_tell(3)) == 10
    crew.needs[2] = 50
    assert crew.all_tell(3)[1] >= 8


def test_what_a_share_rises_or_falls_by_the_whole_does() -> None:
    crew = Crew(10, {1: 50, 2: 50})
    crew.all_tell()
    assert crew.tell(1, found=+1).all_calls == 11
    assert crew.tell(2, found=-3).all_calls == 8
    assert crew.tell(1).all_calls == 8


def test_who_tries_one_more_keeps_it_and_two_are_shared() -> None:
    crew = Crew(10, {1: 50, 2: 50})
    assert crew.all_tell(3) == [5, 5]
    assert crew.tell(1, found=+1).calls == 6
    assert crew.tell(2).calls == 5
    assert crew.tell(1, found=+3).calls == 7
    assert crew.tell(2).calls == 7


def test_a_share_that_fell_is_held_until_its_calls_have_ended() -> None:
    crew = Crew(10, {1: 50})
    crew.all_tell()
    crew.needs[2] = 50
    crew.has[2] = 0
    assert crew.tell(2).calls == 0
    assert crew.tell(1, in_flight=10).calls == 5
    assert crew.tell(2).calls == 0
    crew.tell(1, in_flight=7)
    assert crew.tell(2).calls == 3
    crew.tell(1, in_flight=5)
    assert crew.tell(2).calls == 5


def test_who_leaves_gives_back() -> None:
    crew = Crew(10, {1: 50, 2: 50})
    crew.all_tell()
    crew.leaves(1)
    assert crew.all_tell() == [10]


def test_fewer_calls_than_workers_go_round() -> None:
    crew = Crew(3, dict.fromkeys(range(5), 50))
    had: set[int] = set()
    for _ in range(5):
        shares = crew.all_tell(3)
        assert sum(shares) == 3
        had |= {worker for worker, share in enumerate(shares) if share}
        crew.now += MINUTE_MS
    assert had == set(range(5))


def test_failed_tries_and_falls_are_told_to_the_others() -> None:
    crew = Crew(10, {1: 50, 2: 50})
    crew.all_tell()
    crew.tell(1, found=-1, rises=5)
    share = crew.tell(2, all_calls=10)
    assert share.failed_rises == 5
    assert share.has_fallen
    assert not crew.tell(2, all_calls=9).has_fallen


def test_what_the_first_one_finds_counts_the_calls_of_the_others() -> None:
    told = Told(3, 3, 50, failed_rises=1)
    parts = Parts.found_by(1, told, {1: 3, 2: 4, 3: 4}, {1: 50, 2: 50, 3: 50})
    assert parts.cap == SharedCap(11, 1)
    parts, share = parts.tell(1, told, 0)
    assert share.calls == 3
    assert parts.of[2] == Part(4, 4, 50)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_no_more_is_given_out_than_there_is(seed: int) -> None:
    rng = random.Random(seed)
    crew = Crew(rng.randint(1, 40), {worker: rng.randint(0, 50) for worker in range(6)})
    for _ in range(500):
        worker = rng.choice(list(crew.needs))
        if rng.random() < 0.05:
            crew.needs[worker] = rng.randint(0, 50)
        found = rng.choice([0, 0, 0, 1, -1]) if crew.has[worker] else 0
        crew.tell(worker, found=found, in_flight=rng.randint(0, crew.has[worker] + 2))
        crew.now += rng.randint(0, 5000)
