"""Four pipelines, workers killed at random, and steps edited half-way: what comes out is what a
calm run with the same edits exports, each call was made as often as there, and what was edited cost
what the message had said.

`JUDGED_ITEMS=2000` in the environment for the whole of it (`--slow`); a few by default.
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

from batchgen.simulate import Simulator
from tests.kits.crashes import contradictions, send
from tests.kits.pipelines import JUDGED, Pipeline, asked_again, exported_text, pool
from tests.kits.processes import Process
from tests.kits.project import Project

pytestmark = pytest.mark.only_sqlite("stopped where SQLite waits; PostgreSQL has its own")

ITEMS = int(os.environ.get("JUDGED_ITEMS", "200"))
WORKERS, SLOTS = 3, 8

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
        await self._enqueue(ITEMS // 2)
        await self._phase(None)
        self.pipeline.edited(old, new).set_up(self.project)
        promised = await self._promise(way)
        await self._enqueue(ITEMS // 2, "--recipe", way)
        await self._phase(promised)
        await self._enqueue(ITEMS)
        await self._phase(None)
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

    async def _enqueue(self, items: int, *options: str) -> None:
        self.project.pool(pool(items))
        samples = ("--samples", str(self.pipeline.samples))
        done = await self.project.batchgen("enqueue", "pool.jsonl", *samples, *options)
        assert done.code == 0, done.err

    async def _promise(self, way: str) -> int:
        samples = ("--samples", str(self.pipeline.samples))
        told = await self.project.batchgen("enqueue", "pool.jsonl", *samples)
        assert told.code == 2, told.err
        found = re.search(rf"--recipe {way} .*?: ([\d,]+) call", told.err)
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
                alive.append(await job.project.start("-q", "work", "-c", str(SLOTS)))
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            victim = rng.choice(alive)
            if victim.returncode is None and rng.random() < 0.7:
                send(victim, SIGKILL)
                await victim.wait()
                job.in_flight += SLOTS
        codes = {await worker.wait() for worker in alive}
        assert codes <= {0, -9}
        await calmly(job)  # what the last kill left

    return work


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", JUDGED, ids=lambda pipeline: pipeline.name)
async def test_kills_and_edits_leave_what_a_calm_run_with_the_same_edits_does(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}, {ITEMS} items")
    calm_server, simulator = Simulator(), Simulator(latency="uniform:0.005:0.02")
    async with calm_server.running(), simulator.running():
        calm = Job(pipeline, Project(tmp_path / "calm", calm_server.base_url), calm_server, calmly)
        project = Project(tmp_path / "killed", simulator.base_url)
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
