"""Which of several servers is asked, and which takes no part, at times that the tests choose."""

import pytest

from batchgen.items import Answer, Failure, Reason, Reply, Usage
from batchgen.store.server_wants import in_turn, server_keys
from batchgen.worker.pacer import Pacer
from batchgen.worker.servers import LeftOut, Server, Servers
from batchgen.worker.spec import ServerSpec
from batchgen.worker.stats import Halt, HaltKind
from tests.kits.pacing import use_all_slots
from tests.kits.servers import servers_of

NOW = 1_000_000
ANSWER = Answer("Hello", "{}", "stop", "m-1", Usage())
REPLY = Reply(started_at=0, latency_ms=100, status=200)
TIMEOUT = Failure(Reason.TIMEOUT, "no whole answer within 600 s")
WRONG_KEY = Halt("the server does not accept the API key.")


class Worker:
    """One with the servers a, b and c, which were heard, so that all slots may be used."""

    def __init__(self, *own: int | None, slots: int = 100) -> None:
        self.said: list[str] = []
        self.halts: list[Halt] = []
        pacers = [Pacer(slots, 1800, 0) for _ in own]
        for pacer in pacers:
            use_all_slots(pacer, 0)
        specs = tuple(
            ServerSpec(key=key, name=f"{key}:80", place=f"model.servers[{place}]", slots=most)
            for place, (key, most) in enumerate(zip("abc", own, strict=False))
        )
        self.servers: Servers = servers_of(
            *pacers, slots=slots, specs=specs, halt=self.halts.append, warn=self.said.append
        )

    def take(self, key: str, calls: int) -> None:
        for _ in range(calls):
            self.servers.take(key)

    def brings(self, key: str, verdict: Answer | Failure, at: int = NOW) -> Server:
        server = self.servers[key]
        server.count_call(verdict, REPLY, at)
        self.servers.observe(server, verdict, at)
        return server


def test_the_room_is_that_of_all_but_never_more_than_the_slots() -> None:
    worker = Worker(30, None)
    assert [worker.servers.room_at(one, NOW) for one in worker.servers] == [30, 100]
    assert worker.servers.room(NOW) == 100
    worker.take("a", 10)
    worker.take("b", 85)
    assert [worker.servers.room_at(one, NOW) for one in worker.servers] == [5, 5]
    worker.servers.slots = 20  # taken away meanwhile
    assert worker.servers.room(NOW) == 0


def test_one_is_idle_when_nothing_was_asked_of_it_for_some_seconds() -> None:
    worker = Worker(None)
    server = worker.servers["a"]
    assert server.is_idle(NOW)
    worker.take("a", 1)
    assert not server.is_idle(NOW + 60_000)
    worker.servers.give_back("a")
    worker.brings("a", ANSWER, NOW + 60_000)
    assert not server.is_idle(NOW + 61_000)  # between two calls
    assert server.is_idle(NOW + 70_000)


@pytest.mark.parametrize(
    ("room", "capacity", "calls", "servers"),
    [
        ({"a": 5}, {}, 3, "aaa"),
        ({"a": 5}, {}, 9, "aaaaa"),
        ({"a": 200, "b": 20}, {"a": 200, "b": 20}, 11, "abaaaaaaaaa"),
        ({"a": 100, "b": 20}, {"a": 200, "b": 20}, 3, "bbb"),
        ({"a": 1, "b": 0, "c": 1}, {"a": 9, "b": 9, "c": 1}, 5, "ca"),
    ],
)
def test_all_fill_evenly_by_the_share_that_is_free(
    room: dict[str, int], capacity: dict[str, int], calls: int, servers: str
) -> None:
    assert "".join(in_turn(room, capacity, calls)) == servers


def test_a_second_call_goes_elsewhere_if_there_is_room() -> None:
    worker = Worker(2, 2)
    assert worker.servers.elsewhere("a", NOW) is worker.servers["b"]
    worker.take("b", 2)
    assert worker.servers.elsewhere("a", NOW) is worker.servers["a"]
    worker.take("a", 2)
    assert worker.servers.elsewhere("a", NOW) is None


def test_one_at_which_no_request_would_work_is_left_out_for_good_and_said_once() -> None:
    worker = Worker(10, 10, 10)
    for _ in range(3):  # calls that were under way
        worker.servers.give_up(worker.servers["b"], WRONG_KEY, NOW)
    assert worker.said == [
        f"b:80 (model.servers[1]) is left out: {WRONG_KEY.why} The 2 others go on."
    ]
    assert worker.servers["b"].is_closed(NOW)
    assert [worker.servers.room_at(one, NOW + 10**9) for one in worker.servers] == [10, 0, 10]
    assert worker.halts == []


def test_when_none_is_left_the_worker_halts_with_the_reasons_of_all() -> None:
    worker = Worker(10, 10)
    worker.servers.give_up(worker.servers["b"], WRONG_KEY, NOW)
    stalled = Halt("nothing was answered for 1800 s.", kind=HaltKind.STALLED)
    worker.servers.give_up(worker.servers["a"], stalled, NOW, LeftOut.STALLED)
    assert [halt.why for halt in worker.halts] == [
        "no server is left that could answer. a:80 (model.servers[0]): nothing was answered for "
        "1800 s. b:80 (model.servers[1]): the server does not accept the API key."
    ]
    assert worker.halts[0].kind is HaltKind.STALLED


def test_the_only_one_is_never_left_out() -> None:
    worker = Worker(None)
    worker.servers.give_up(worker.servers["a"], WRONG_KEY, NOW)
    for _ in range(9):
        worker.brings("a", TIMEOUT)
    assert worker.halts == [WRONG_KEY]
    assert (worker.servers["a"].left_out, worker.said) == (None, [])


def test_one_without_credit_is_asked_now_and_then_and_takes_part_again() -> None:
    worker = Worker(10, 10)
    no_credit = Halt("quota or credit is used up.")
    server = worker.servers["b"]
    worker.servers.give_up(server, no_credit, NOW, LeftOut.CREDIT)
    assert worker.servers.room_at(server, NOW + 599_999) == 0
    assert server.next_change_at(1.0, NOW) == NOW + 600_000
    assert worker.servers.room_at(server, NOW + 600_000) == 1
    worker.servers.give_up(server, no_credit, NOW + 600_100, LeftOut.CREDIT)
    assert worker.servers.room_at(server, NOW + 600_200) == 0
    worker.brings("b", ANSWER, NOW + 1_300_000)
    assert worker.servers.room_at(server, NOW + 1_300_000) == 10
    assert worker.said[1:] == ["b:80 (model.servers[1]) answers again."]


def test_one_that_lets_calls_time_out_while_others_answer_gets_one_at_a_time() -> None:
    worker = Worker(10, 10)
    for _ in range(5):
        assert worker.brings("b", TIMEOUT).left_out is None  # nobody answers: who knows
    worker.brings("a", ANSWER)
    assert worker.brings("b", TIMEOUT).left_out is LeftOut.SILENT
    assert worker.servers.room_at(worker.servers["b"], NOW) == 1
    assert worker.brings("b", ANSWER).left_out is None


def test_the_answers_of_the_last_minute_are_counted() -> None:
    server = Worker(10, 10).servers["a"]
    for second in range(0, 120, 2):
        server.count_call(ANSWER, REPLY, NOW + second * 1000)
    assert 25 <= server.per_minute(NOW + 120_000) <= 30
    assert server.per_minute(NOW + 300_000) == 0


def test_servers_with_one_url_are_told_apart_and_a_key_leaves_no_trace() -> None:
    keys = server_keys(["http://a/v1", "http://b/v1", "http://a/v1"])
    assert len(set(keys)) == 3
    assert keys[:2] == server_keys(["http://a/v1", "http://b/v1"])


def test_the_time_that_an_answer_takes_counts_what_brought_none() -> None:
    server = Worker(10, 10).servers["a"]
    for verdict in (ANSWER, ANSWER, ANSWER, ANSWER):
        server.count_call(verdict, REPLY, NOW)
    assert server.ms_per_answer(NOW) == 0  # hardly any calls
    server.count_call(ANSWER, Reply(started_at=0, latency_ms=900, status=200), NOW)
    assert server.ms_per_answer(NOW) == 100
    for _ in range(5):
        server.count_call(TIMEOUT, REPLY, NOW)
    assert server.ms_per_answer(NOW) == 200
    assert server.ms_per_answer(NOW + 60_000) == 0  # it is asked again
