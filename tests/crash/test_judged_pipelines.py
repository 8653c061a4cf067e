"""Four pipelines, workers killed at random, and steps edited half-way, between two halves of the
pool and among rows that are half done: what comes out is what a calm run with the same edits
exports, each call was made as often as there, and what was edited cost what the message had said.

`JUDGED_ITEMS=2000` in the environment for the whole of it; a few by default. On both engines; what
a calm run exports is SQLite's.
"""

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.simulate import Simulator
from tests.kits.crashes import contradictions, send
from tests.kits.pipelines import (
    JUDGED,
    Pipeline,
    asked_again,
    calm_run,
    exported_text,
    in_a_file,
    pool,
)
from tests.kits.processes import Process
from tests.kits.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.on_both_engines]

ITEMS = int(os.environ.get("JUDGED_ITEMS", "200"))
WORKERS, SLOTS = 3, 8
LATENCY = "uniform:0.005:0.02"

# A step of each, and what is to be done about what is done by the old one.
EDITS = {
    "fan-out": ("Answer {word}", "Reply {word}", "again"),
    "filter": ("Score {word}", "Rate {word}", "replace"),
    "five": ("Judge {word}", "Blame {word}", "again"),
    "vote": ("Draft {word}", "Sketch {word}", "again"),
}


@dataclass
class Job:
    """`phases`: what was asked in each, and how many calls a message had promised that are for
    what was there before; None: none did."""

    pipeline: Pipeline
    project: Project
    simulator: Simulator
    work: Callable[["Job"], Awaitable[None]]
    phases: list[tuple[Counter[str], int | None]] = field(default_factory=list)
    in_flight: int = 0  # at most, at all kills together

    async def whole(self) -> str:
        """Half of the pool; an edit; the other half; and what is stale by then. The export."""
        old, new, way = EDITS[self.pipeline.name]
        self.pipeline.set_up(self.project)
        await self.enqueue(ITEMS // 2)
        await self._phase(None)
        self.pipeline.edited(old, new).set_up(self.project)
        promised = await self.promise(way)
        await self.enqueue(ITEMS // 2, "--recipe", way)
        await self._phase(promised)
        await self.enqueue(ITEMS)
        await self._phase(None)
        return await self.rest()

    async def rest(self) -> str:
        """What is stale is asked again, and what then is. The export."""
        while (await self.project.batchgen("retry", "--stale", "--dry-run", "--json")).json[
            "retried"
        ]:
            retried = (await self.project.batchgen("retry", "--stale", "--json")).json
            await self._phase(retried["calls"])
        exported = await self.project.batchgen("export")
        assert exported.code == 0
        assert "left out" not in exported.err
        assert contradictions(self.project, await self.project.batchgen("verify")) == []
        return exported_text(self.project)

    async def enqueue(self, items: int, *options: str) -> None:
        self.project.pool(pool(items))
        samples = ("--samples", str(self.pipeline.samples))
        done = await self.project.batchgen("enqueue", "pool.jsonl", *samples, *options)
        assert done.code == 0, done.err

    async def promise(self, way: str) -> int:
        samples = ("--samples", str(self.pipeline.samples))
        told = await self.project.batchgen("enqueue", "pool.jsonl", *samples)
        assert told.code == 2, told.err
        found = re.search(rf"--recipe {way} .*?: (?:at least )?([\d,]+) call", told.err)
        assert found, told.err
        return int(found[1].replace(",", ""))

    async def _phase(self, promised: int | None) -> None:
        self.simulator.ledger.clear()
        await self.work(self)
        self.phases.append((self.simulator.ledger.copy(), promised))


async def calmly(job: Job) -> None:
    done = await job.project.batchgen("work", "-c", "20")
    assert done.code == 0, done.err


def with_kills(seed: int) -> Callable[[Job], Awaitable[None]]:
    rng = random.Random(seed)

    async def work(job: Job) -> None:
        alive: list[Process] = []
        while not any(worker.returncode == 0 for worker in alive):
            alive = [worker for worker in alive if worker.returncode is None]
            while len(alive) < WORKERS:
                alive.append(await a_worker(job))
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            victim = rng.choice(alive)
            if victim.returncode is None and rng.random() < 0.7:
                await kill(job, victim)
        codes = {await worker.wait() for worker in alive}
        assert codes <= {0, -9}
        await calmly(job)  # what the last kill left

    return work


async def a_worker(job: Job) -> Process:
    return await job.project.start("-q", "work", "-c", str(SLOTS))


async def kill(job: Job, victim: Process) -> None:
    send(victim, SIGKILL)
    await victim.wait()
    job.in_flight += SLOTS


async def until_killed_in_the_middle(job: Job, calls: int) -> None:
    """Half of so many have been made, and rows of all steps are done, wait and were in flight."""
    workers = [await a_worker(job) for _ in range(WORKERS)]
    await job.simulator.received(calls // 4, timeout_s=600)
    await kill(job, workers.pop())
    workers.append(await a_worker(job))
    await job.simulator.received(calls // 2, timeout_s=600)
    job.simulator.hold()
    for worker in workers:
        await kill(job, worker)
    job.simulator.release()


@pytest.mark.parametrize("pipeline", JUDGED, ids=lambda pipeline: pipeline.name)
async def test_kills_and_edits_leave_what_a_calm_run_with_the_same_edits_does(
    pipeline: Pipeline, tmp_path: Path, server: PostgresAddress | None
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}, {ITEMS} items")
    calm_server, simulator = Simulator(), Simulator(latency=LATENCY)
    async with calm_server.running(), simulator.running():
        in_peace = Project(tmp_path / "calm", calm_server.base_url, in_a_file(tmp_path / "calm"))
        calm = Job(pipeline, in_peace, calm_server, calmly)
        project = Project(tmp_path / "killed", simulator.base_url, server=server)
        killed = Job(pipeline, project, simulator, with_kills(seed))
        calm_export = await calm.whole()
        export = await killed.whole()
    promises = [(sum(calls.values()), n) for calls, n in calm.phases]
    assert [calls for calls, n in promises if n is not None] == [
        n for _, n in promises if n is not None
    ]
    again = [
        asked_again(calls, wanted)
        for (calls, _), (wanted, _) in zip(killed.phases, calm.phases, strict=True)
    ]
    assert [n for _, n in killed.phases] == [n for _, n in calm.phases]
    assert sum(again) <= killed.in_flight
    assert export == calm_export
    print(f"phases (calls, promised): {promises}; asked again after kills: {sum(again)}, in flight "
          f"at kills: at most {killed.in_flight}")  # fmt: skip


async def edited_in_the_middle(
    pipeline: Pipeline, way: str, project: Project, simulator: Simulator, calls: int
) -> tuple[Job, Counter[str]]:
    """What is asked of the edited step is what was promised. Also what was asked before."""
    old, new, _ = EDITS[pipeline.name]
    edited = pipeline.edited(old, new)
    seed = random.randrange(10**6)
    print(f"seed {seed}, {ITEMS} items")
    job = Job(edited, project, simulator, with_kills(seed))
    pipeline.set_up(job.project)
    await job.enqueue(ITEMS)
    await until_killed_in_the_middle(job, calls)
    before = simulator.ledger.copy()
    edited.set_up(job.project)
    promised = await job.promise(way)
    await job.enqueue(ITEMS, "--recipe", way)
    simulator.ledger.clear()
    step = edited.step_with(new)
    worked = await job.project.batchgen("work", "-c", "20", "--step", step)
    assert worked.code == 0, worked.err
    assert {verb(text) for text in simulator.ledger} <= {verb(new)}
    assert simulator.ledger.total() == promised
    print(f"asked of {step} as promised: {promised}")
    return job, before


def verb(text: str) -> str:
    """Each step has its own."""
    return text.split()[0]


@pytest.mark.parametrize("pipeline", JUDGED, ids=lambda pipeline: pipeline.name)
async def test_a_step_that_is_asked_again_among_half_done_rows_is_as_if_it_had_always_been_so(
    pipeline: Pipeline, tmp_path: Path, server: PostgresAddress | None
) -> None:
    old, new, _ = EDITS[pipeline.name]
    before = await calm_run(pipeline, tmp_path / "before", ITEMS)
    after = await calm_run(pipeline.edited(old, new), tmp_path / "after", ITEMS)
    kept = {verb(text) for text in pipeline.prompts_before(old)}
    simulator = Simulator(latency=LATENCY)
    async with simulator.running():
        project = Project(tmp_path / "job", simulator.base_url, server=server)
        job, asked = await edited_in_the_middle(
            pipeline, "again", project, simulator, before.ledger.total()
        )
        calls = Counter({text: n for text, n in asked.items() if verb(text) in kept})
        calls += simulator.ledger
        simulator.ledger.clear()
        await job.work(job)
        calls += simulator.ledger
        export = await job.rest()
    for made, promised in job.phases:
        assert promised is not None
        assert made.total() >= promised
        calls += made
    again = asked_again(calls, after.ledger)
    assert again <= job.in_flight
    assert export == after.export
    print(f"asked again after kills: {again}, in flight at kills: at most {job.in_flight}")


# A vote over drafts of both kinds is that of neither.
@pytest.mark.parametrize("pipeline", JUDGED[:3], ids=lambda pipeline: pipeline.name)
async def test_a_step_that_is_replaced_among_half_done_rows_is_asked_where_it_was_not_done(
    pipeline: Pipeline, tmp_path: Path, server: PostgresAddress | None
) -> None:
    old, new, _ = EDITS[pipeline.name]
    before = await calm_run(pipeline, tmp_path / "before", ITEMS)
    after = await calm_run(pipeline.edited(old, new), tmp_path / "after", ITEMS)
    simulator = Simulator(latency=LATENCY)
    async with simulator.running():
        project = Project(tmp_path / "job", simulator.base_url, server=server)
        job, asked = await edited_in_the_middle(
            pipeline, "replace", project, simulator, before.ledger.total()
        )
        await job.work(job)
        calls = asked + simulator.ledger
        export = await job.rest()
    assert job.phases == []  # nothing was stale
    lines = [text.split("\n") for text in (export, before.export, after.export)]
    assert all(line in either for line, *either in zip(*lines, strict=True))
    assert export not in (before.export, after.export)
    rows = "select count(*) from work where state = 'done' and runs_code = 0"
    [(wanted,)] = job.project.query(rows)
    assert 0 <= calls.total() - wanted <= job.in_flight
    print(f"asked again after kills: {calls.total() - wanted}, in flight: at most {job.in_flight}")
