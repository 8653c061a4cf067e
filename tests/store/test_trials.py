"""Recipes on trial, in the table: who may ask while the server answers nobody, and for what."""

from collections.abc import Sequence
from typing import Any

import msgspec

from batchgen.items import Done, Fail, Item, Outcome, Reason, Retry, Suspect
from batchgen.store import ClaimRequest, Exchange, ServerWant, Trial
from tests.kits.table import LEASE_MS, Table, answered, broken, claims

NOT_SERVED = Retry(None, charged=False)
ON_TRIAL = Trial(calls=16)


def claim(
    table: Table, worker: int, want: int, outcomes: Sequence[Outcome] = (), experiment: int = 1
) -> list[Item]:
    wanted = claims(want, (experiment,), trial=ON_TRIAL)
    return table.exchange_want(worker, wanted, outcomes).items


def not_served(items: Sequence[Item]) -> list[Outcome]:
    return [Outcome(item, (broken(),), NOT_SERVED) for item in items]


def test_the_worker_that_finds_the_server_down_asks_on_alone(table: Table) -> None:
    table.enqueue(*range(50))
    one, other = table.join(), table.join()
    failed = claim(table, one, 2)
    assert len(claim(table, one, 9, not_served(failed))) == 4
    assert claim(table, other, 9) == []


def test_when_it_has_gone_another_takes_its_place_after_a_while(table: Table) -> None:
    table.enqueue(*range(50))
    one, other, third = table.join(), table.join(), table.join()
    claim(table, one, 0, not_served(claim(table, one, 2)))
    table.leave(one)
    assert [len(claim(table, worker, 9)) for worker in (other, third, other)] == [0, 0, 0]
    table.now += 5000
    assert [len(claim(table, worker, 9)) for worker in (third, other)] == [0, 4]


def test_when_it_has_nothing_left_to_ask_it_makes_way(table: Table) -> None:
    table.enqueue(1, experiment="a")
    table.enqueue(*range(9), experiment="b")
    one, other = table.join(), table.join()
    claim(table, one, 0, not_served(claim(table, one, 1)))
    assert claim(table, other, 9, experiment=2) == []
    (item,) = claim(table, one, 1)
    claim(table, one, 1, [Outcome(item, (broken(),), Fail(Reason.SERVER, "it broke"))])
    assert len(claim(table, other, 9, experiment=2)) == 9


def test_probes_are_for_items_from_all_over_the_pool(table: Table) -> None:
    table.enqueue(*range(100))
    worker = table.join()
    claimed = table.exchange_want(worker, claims(5, probes=0)).items
    assert sorted(item.id for item in claimed) == [16, 39, 53, 76, 100]
    assert all(item.probe for item in claimed)


def test_probes_take_the_lowest_priority_and_what_waits_last(table: Table) -> None:
    table.enqueue("urgent", priority=9)
    table.enqueue("a", "b")
    worker = table.join()
    again = table.claim(worker, 1)[0]
    table.finish(worker, again, Retry(table.now, charged=True), broken())
    table.now += 1
    claimed = [table.exchange_want(worker, claims(1, probes=n)).items for n in range(3)]
    assert [item.id for items in claimed for item in items] == [3, 2, 1]


# Several servers


def at_two(
    table: Table, worker: int, slots: int, outcomes: Sequence[Outcome] = (),
    proven_by: str = "", **others: Any,
) -> Exchange:  # fmt: skip
    """An exchange of a worker that asks the servers a and b, and claims so many for each."""
    trials = {
        name: Trial(proven=frozenset({1}) if name == proven_by else frozenset(), calls=16)
        for name in ("a", "b")
    }
    wants = tuple(ServerWant(name, slots, trial=trial) for name, trial in trials.items())
    return table.exchange_want(worker, ClaimRequest(wants, **others), outcomes)


def of(items: Sequence[Item], server: str) -> list[Item]:
    return [item for item in items if item.server == server]


def suspected(items: Sequence[Item], alike: str = "404 place") -> list[Outcome]:
    fail = Fail(Reason.REJECTED, "404 nothing here")
    attempt = msgspec.structs.replace(broken(Reason.REJECTED), http_status=404)
    return [Outcome(item, (attempt,), Suspect(alike, fail.error, fail)) for item in items]


def done(items: Sequence[Item]) -> list[Outcome]:
    return [Outcome(item, (answered(),), Done()) for item in items]


def test_what_one_server_answers_holds_up_no_other_and_proves_nothing_of_it(table: Table) -> None:
    table.enqueue(*range(99))
    worker = table.join(10, LEASE_MS, "a", "b")
    first = at_two(table, worker, 16)
    assert [len(of(first.items, name)) for name in ("a", "b")] == [16, 16]
    second = at_two(table, worker, 30, done(of(first.items, "a")))
    assert second.proven == {"a": {1}}
    assert second.on_trial == {"b"}
    assert [len(of(second.items, name)) for name in ("a", "b")] == [30, 0]


def test_a_server_that_answers_nobody_is_condemned_alone_and_its_suspects_are_asked_elsewhere(
    table: Table,
) -> None:
    table.enqueue(*range(99))
    worker = table.join(10, LEASE_MS, "a", "b")
    first = at_two(table, worker, 10)
    outcomes = done(of(first.items, "a")) + suspected(of(first.items, "b"))
    probes = at_two(table, worker, 10, outcomes)
    assert not probes.condemned
    assert [item.probe for item in of(probes.items, "a")] == [False] * 10
    assert [item.probe for item in of(probes.items, "b")] == [True] * 4
    last = at_two(table, worker, 10, suspected(of(probes.items, "b")), proven_by="a")
    assert set(last.condemned) == {"b"}
    assert {item.server for item in last.items} == {"a"}
    assert {item.id for item in of(first.items, "b")} <= {
        item.id for item in at_two(table, worker, 99, proven_by="a").items + last.items
    }


def test_where_nobody_is_left_to_tell_one_that_failed_at_a_wrong_server_is_asked_at_the_other(
    table: Table,
) -> None:
    """It did not fail by itself: that server has answered nobody, and another one has."""
    table.enqueue("x", "y")
    worker = table.join(10, LEASE_MS, "a", "b")
    first = at_two(table, worker, 1)
    outcomes = done(of(first.items, "a")) + suspected(of(first.items, "b"), "400 request")
    second = at_two(table, worker, 1, outcomes)
    assert set(second.condemned) == {"b"}
    assert [item.server for item in second.items] == ["a"]


def test_where_all_servers_fail_alike_all_are_condemned(table: Table) -> None:
    table.enqueue(*range(6))
    worker = table.join(10, LEASE_MS, "a", "b")
    first = at_two(table, worker, 3)
    last = at_two(table, worker, 3, suspected(first.items))
    assert set(last.condemned) == {"a", "b"}
    assert last.items == []
    assert table.query("select state, count(*) from work group by 1") == [("pending", 6)]


def test_while_one_server_is_down_the_others_are_asked_by_everybody(table: Table) -> None:
    table.enqueue(*range(99))
    one, other = (table.join(10, LEASE_MS, "a", "b") for _ in range(2))
    first = at_two(table, one, 2)
    at_two(table, one, 0, done(of(first.items, "a")) + not_served(of(first.items, "b")))
    items = at_two(table, one, 9).items
    assert [len(of(items, name)) for name in ("a", "b")] == [9, 4]
    assert {item.server for item in at_two(table, other, 9).items} == {"a"}


def test_what_is_known_of_a_server_is_forgotten_with_the_last_that_asks_it(table: Table) -> None:
    table.enqueue(*range(9))
    both, alone = table.join(10, LEASE_MS, "a", "b"), table.join(10, LEASE_MS, "a")
    at_two(table, both, 0, done(at_two(table, both, 1).items))
    table.leave(both)
    known = "select server, proven_until is null from proven_recipes order by server"
    assert table.query(known) == [("a", 1), ("b", 0)]
    table.leave(alone)
    assert table.query(known) == [("a", 0), ("b", 0)]


def test_no_more_is_claimed_than_there_are_slots_whatever_room_servers_have(table: Table) -> None:
    table.enqueue(*range(99))
    worker = table.join(10, LEASE_MS, "a", "b")
    wants = (ServerWant("a", 200, capacity=200), ServerWant("b", 20, capacity=20))
    items = table.exchange_want(worker, ClaimRequest(wants, most=22)).items
    assert [len(of(items, name)) for name in ("a", "b")] == [20, 2]


def test_an_attempt_tells_which_server_was_asked(table: Table) -> None:
    table.enqueue("x", "y")
    worker = table.join(10, LEASE_MS, "a", "b")
    items = at_two(table, worker, 1).items
    elsewhere = msgspec.structs.replace(answered(), server="b")
    outcomes = [Outcome(of(items, "a")[0], (answered(), elsewhere), Done())]
    at_two(table, worker, 0, outcomes)
    servers = "select s.name from attempts a join servers s on s.id = a.server_id order by a.seq"
    assert table.query(servers) == [("a:8000",), ("b:8000",)]
