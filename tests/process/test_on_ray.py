"""Workers on a Ray cluster: two nodes of this machine, of which one is lost, or drained."""

import os
import signal
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from batchgen.jobs.ray_node import NodeNeeds, environment_of_nodes, this_machine
from batchgen.simulate import Simulator
from tests.kits.crashes import said, until
from tests.kits.processes import Process
from tests.kits.project import KEY, Project, ended
from tests.kits.ray_nodes import RayNodes, ray_nodes

WORKERS = 4
SLOTS = 20  # of all of them
ITEMS = 400

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (285 MB)")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    server = Simulator(latency="0.5")
    async with server.running():
        yield server


@pytest.fixture
async def nodes(project: Project) -> AsyncIterator[RayNodes]:
    async with ray_nodes() as made:
        project.env.update(made.env)
        yield made


async def start(project: Project, *options: str) -> Process:
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return await project.start(
        "work", "--on", "ray", "--workers", str(WORKERS), "-c", str(SLOTS), *options, fresh=True
    )


async def with_calls_in_flight(project: Project, simulator: Simulator) -> Process:
    """The driver, after the first answers."""
    before = simulator.calls
    process = await start(project)
    await simulator.received(before + SLOTS, timeout_s=200)
    simulator.hold()
    return process


def states(project: Project) -> dict[str, int]:
    return dict(project.query("select state, count(*) from work group by 1"))


def unknown_calls(project: Project) -> int:
    return int(project.query("select coalesce(sum(unknown_calls), 0) from totals")[0][0])


def written_by_ray(nodes: RayNodes, secret: bytes) -> list[Path]:
    """Where a secret is in what Ray writes: its logs, and all else."""
    files = (file for file in nodes.directory.rglob("*") if file.is_file())
    return [file for file in files if secret in file.read_bytes()]


@pytest.mark.on_both_engines
@pytest.mark.slow
@needs_ray
async def test_a_lost_node_costs_its_calls_in_flight_and_others_do_its_items(
    project: Project, simulator: Simulator, nodes: RayNodes
) -> None:
    process = await start(project)
    await simulator.received(ITEMS // 4, timeout_s=200)
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    await nodes.order("lose")
    work = await ended(process)
    assert work.code == 0, work.err
    assert work.err.count(" is lost, with its node or alone; ") == WORKERS // 2, work.err
    assert work.out == ""
    assert states(project) == {"done": ITEMS}
    assert 0 < unknown_calls(project) <= SLOTS // 2
    assert (await project.batchgen("verify")).code == 0
    assert not any(KEY.encode() in command for command in commands)
    assert not written_by_ray(nodes, KEY.encode())


@pytest.mark.slow
@needs_ray
async def test_a_node_that_is_about_to_go_finishes_its_calls(
    project: Project, simulator: Simulator, nodes: RayNodes
) -> None:
    process = await with_calls_in_flight(project, simulator)
    await nodes.order("drain")
    await said(process, ": the node is about to go; it finishes its calls in flight")
    simulator.release()
    work = await ended(process)
    assert work.code == 0, work.err
    assert (states(project), unknown_calls(project)) == ({"done": ITEMS}, 0)
    assert simulator.calls == ITEMS


@pytest.mark.on_both_engines
@pytest.mark.slow
@needs_ray
async def test_a_first_signal_drains_and_a_second_leaves_the_calls_in_flight(
    project: Project, simulator: Simulator, nodes: RayNodes
) -> None:
    process = await with_calls_in_flight(project, simulator)
    process.send_signal(signal.SIGINT)
    await said(process, "stopping: ")
    simulator.release()
    assert (await ended(process)).code == 130
    assert (unknown_calls(project), project.query("select * from workers")) == (0, [])
    done = states(project)["done"]
    assert simulator.calls == done < ITEMS
    process = await with_calls_in_flight(project, simulator)
    for word in ("stopping: ", "stopping now; abandoning "):
        process.send_signal(signal.SIGTERM)
        await said(process, word)
    assert (await ended(process)).code == 143
    assert 0 < unknown_calls(project) <= SLOTS
    assert project.query("select * from workers") == []


@pytest.mark.slow
@needs_ray
async def test_when_the_driver_is_killed_the_workers_drain_and_go(
    project: Project, simulator: Simulator, nodes: RayNodes
) -> None:
    process = await with_calls_in_flight(project, simulator)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    simulator.release()
    await until(project.database, "select count(*) = 0 from workers")
    assert unknown_calls(project) == 0
    assert simulator.calls == states(project)["done"] < ITEMS


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    missing = str(tmp_path / "parser.py")
    assert NodeNeeds((str(tmp_path),), this_machine()).missing_here() is None
    assert (NodeNeeds((str(tmp_path), missing)).missing_here() or "").startswith(f"{missing} is no")
    elsewhere = NodeNeeds((), "another machine").missing_here() or ""
    assert elsewhere.startswith("it is another machine, and a SQLite database is for one; ")
    assert "0.0.0" in (NodeNeeds((), version="0.0.0").missing_here() or "")


def test_nodes_have_of_the_environment_what_gets_them_in_and_nothing_else() -> None:
    told = {"PGPASSWORD": "1", "OPENAI_API_KEY": "2"}
    own = {
        "PATH": "/bin",
        "BATCHGEN_DATABASE": "3",
        "HTTPS_PROXY": "http://proxy",
        "AWS_SECRET_ACCESS_KEY": "4",
    }
    assert environment_of_nodes({**told, **own}) == told
