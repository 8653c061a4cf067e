"""Several servers for one run: each at its own pace, and one that does not work costs its share."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import KEY, Project, ended

ITEMS = 60
NOT_HERE = Behaviour.response(404, "<html>nginx</html>", content_type="text/html")
NO_MODEL = Behaviour.error(404, message="The model `m` does not exist", code="model_not_found")
NO_CREDIT = Behaviour.error(402, message="Insufficient Balance")


@pytest.fixture
async def other() -> AsyncIterator[Simulator]:
    """A second server, beside `simulator`, with a key of its own."""
    server = Simulator(api_key="other-key-0123456789")
    async with server.running():
        yield server


def ask(
    project: Project, *servers: Simulator, items: int = ITEMS, text: str = "", **more: Any
) -> None:
    """A config with these servers, and a pool."""
    keys = [getattr(server, "_api_key") or KEY for server in servers]  # noqa: B009
    named = [
        {"base_url": server.base_url, "api_key": key, **more}
        for server, key in zip(servers, keys, strict=True)
    ]
    configure(project, named, text)
    project.pool({"word": f"w{number}."} for number in range(items))


def configure(project: Project, servers: list[dict[str, Any]], text: str = "") -> None:
    project.write("config.yaml", f"model: {{model: m, servers: {json.dumps(servers)}}}\n{text}")


def name_of(server: Simulator) -> str:
    return f"{server.host}:{server.port}"


def asked(*servers: Simulator) -> Counter[str]:
    """How often each prompt was, whoever was asked."""
    return sum((server.ledger for server in servers), Counter())


def states(project: Project) -> list[Any]:
    return project.query("select state, count(*) from work group by 1 order by 1")


async def test_each_has_its_key_and_its_slots_and_each_item_is_answered_once(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    ask(project, simulator, other, concurrency=5)
    for server in (simulator, other):
        server.hold()
    run = await project.start("run", "pool.jsonl")
    for server in (simulator, other):  # few at first, until something was answered
        await server.received(4)
        server.release()
    done = await ended(run)
    assert done.code == 0, done.err
    assert set(asked(simulator, other).values()) == {1}
    assert min(simulator.calls, other.calls) >= 4
    assert max(simulator.max_in_flight, other.max_in_flight) <= 5
    assert (await project.batchgen("verify")).code == 0
    shown = (await project.batchgen("show", "1")).out
    assert f"server {name_of(simulator)}" in shown or f"server {name_of(other)}" in shown


@pytest.mark.quick("key-1", "URL-1")
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (None, "the server does not accept the API key. Check model.servers[1].api_key "),
        (NOT_HERE, "nothing has been answered by this server in this run, and "),
        (
            NO_MODEL,
            "the server does not know the model. Check model.model and model.servers[1].base_url. "
            "The server said: 404 The model `m` does not exist. 127",
        ),
        (NO_CREDIT, "quota or credit is used up."),
    ],
    ids=["key", "URL", "model", "credit"],
)
async def test_one_at_which_no_request_would_work_is_left_out_and_named(
    project: Project,
    simulator: Simulator,
    other: Simulator,
    behaviour: Behaviour | None,
    words: str,
    processes: str,
) -> None:
    ask(project, simulator, other, concurrency=10, items=200)
    if behaviour is None:
        ask_with_wrong_key(project, simulator, other)
    else:
        other.script("Say", *[behaviour] * 200)
    run = await project.process("run", "pool.jsonl", "--processes", processes)
    assert run.code == 0, run.err
    place = f"warning: {name_of(other)} (model.servers[1]) is left out: {words}"
    assert run.err.count(place) == 1, run.err
    assert other.calls <= 20
    assert states(project) == [("done", 200)]
    assert project.query("select max(tries) from work") == [(1,)]
    assert set(simulator.ledger.values()) == {1}


def ask_with_wrong_key(project: Project, simulator: Simulator, other: Simulator) -> None:
    servers = [{"base_url": one.base_url, "api_key": KEY} for one in (simulator, other)]
    configure(project, servers)


async def test_when_none_is_left_the_run_halts_and_says_why_of_each(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    ask(project, simulator, other)
    simulator.script("Say", *[NO_MODEL] * ITEMS)
    other.script("Say", *[NO_CREDIT] * ITEMS)
    halted = await project.batchgen("run", "pool.jsonl")
    assert halted.code == 4
    said = " ".join(halted.err.split())
    assert "halted: no server is left that could answer. " in said
    assert f"{name_of(simulator)} (model.servers[0]): the server does not know the model." in said
    assert f"{name_of(other)} (model.servers[1]): quota or credit is used up." in said
    assert states(project) == [("pending", ITEMS)]
    assert simulator.calls + other.calls <= 20


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_one_that_is_killed_loses_nothing_and_takes_part_again_when_it_is_back(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    ask(project, simulator, other, items=2000, concurrency=4, text="work: {retry_wait_s: 0.1}\n")
    run = await project.start("run", "pool.jsonl")
    await other.received(20)
    await other.stop()
    before = other.calls
    await simulator.received(simulator.calls + 50)
    await other.start()
    await other.received(before + 20)
    done = await ended(run)
    assert done.code == 0, done.err
    assert states(project) == [("done", 2000)]
    assert project.query("select count(*) from attempts where outcome = 'answered'") == [(2000,)]
    assert (await project.batchgen("verify")).code == 0


async def test_one_that_hangs_costs_no_item_its_tries(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    other.hold()
    ask(project, simulator, other, concurrency=4, text="work: {timeout_s: 1, max_attempts: 2}\n")
    run = await project.process("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert states(project) == [("done", ITEMS)]
    assert other.calls <= 8


async def test_fewer_slots_than_servers_are_enough(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    third = Simulator()
    async with third.running():
        ask(project, simulator, other, third)
        run = await project.batchgen("run", "pool.jsonl", "-c", "1")
    assert run.code == 0, run.err
    assert set(asked(simulator, other, third).values()) == {1}
    assert min(simulator.calls, other.calls, third.calls) >= ITEMS // 4


async def test_status_shows_each(project: Project, simulator: Simulator, other: Simulator) -> None:
    ask(project, simulator, other, concurrency=4)
    servers = (simulator, other)
    for server in servers:
        server.hold()
    run = await project.start("run", "pool.jsonl")
    for server in servers:
        await server.received(4)
    found: list[dict[str, Any]] = []
    while not found or found[0]["in_flight"] < 4:
        found = json.loads((await project.batchgen("status", "--json")).out)["servers"]
    assert [(one["name"], one["left_out"]) for one in found] == [
        (name_of(server), None) for server in servers
    ]
    text = (await project.batchgen("status")).out
    assert f"server {name_of(other)}: 0 calls, 4 in flight, " in text
    for server in servers:
        server.release()
    assert (await ended(run)).code == 0


async def test_a_killed_worker_leaves_as_many_unknown_calls_as_it_had_at_all_of_them(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    ask(project, simulator, other, concurrency=3)
    for server in (simulator, other):
        server.hold()
    run = await project.start("run", "pool.jsonl")
    for server in (simulator, other):
        await server.received(3)
    run.send_signal(signal.SIGKILL)
    await run.wait()
    for server in (simulator, other):
        server.release()
    again = await project.batchgen("work")
    assert again.code == 0, again.err
    assert project.query("select count(*) from attempts where outcome = 'unknown'") == [(6,)]
    assert sum(n - 1 for n in asked(simulator, other).values()) == 6
    assert states(project) == [("done", ITEMS)]


async def test_a_second_call_goes_to_another_server(
    project: Project, simulator: Simulator, other: Simulator
) -> None:
    servers = (simulator, other)
    ask(project, *servers, items=100, concurrency=4)
    project.pool([{"word": f"w{n}."} for n in range(100)] + [{"word": "late"}])
    for server in servers:
        server.script("Say late", "hang")
    run = await project.start("run", "pool.jsonl", "--hedge", "--grace", "0")
    await asyncio.gather(*(server.received(1, "Say late") for server in servers))
    run.send_signal(signal.SIGINT)
    await ended(run)
    assert [server.calls_of("Say late") for server in servers] == [1, 1]


async def test_fewer_processes_than_asked_for_are_told(
    project: Project, simulator: Simulator
) -> None:
    ask(project, simulator, items=3, concurrency=1)
    run = await project.batchgen("run", "pool.jsonl", "--processes", "2", "-c", "4")
    assert run.code == 0, run.err
    told = "working with 1 of the 2 processes: each takes a slot of every server, and model.servers"
    assert told in run.err


async def test_slots_that_are_too_few_for_all_go_to_the_server_that_answers_sooner(
    project: Project, simulator: Simulator
) -> None:
    async with Simulator(latency="0.5").running() as slow:
        servers = [{"base_url": url, "concurrency": 4} for url in (slow, simulator.base_url)]
        configure(project, servers)
        project.pool({"word": f"w{number}."} for number in range(200))
        assert (await project.batchgen("run", "pool.jsonl", "-c", "5")).code == 0
    assert simulator.calls > 150
