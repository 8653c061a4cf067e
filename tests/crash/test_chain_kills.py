"""Workers on chains of every kind, killed at every moment that differs; then the command once more.

    the export is that of a calm run, byte by byte; the server was asked what a calm run asks, and
    nothing twice but what was in flight; the tables are without contradiction

`--slow` runs all of the matrix, each cell with one worker and with four.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from signal import SIGKILL

import pytest

from batchgen.simulate import Simulator
from tests.kits.crashes import at_the_write_lock, contradictions, send
from tests.kits.database import locked
from tests.kits.pipelines import KINDS, Calm, Pipeline, asked, asked_again, calm_run, exported_text
from tests.kits.pipelines import pool as pool_of
from tests.kits.processes import Process
from tests.kits.project import Project

ITEMS = 14
SLOTS = 3
_LOOK_EVERY_S = 0.005


@dataclass
class ChainsJob:
    pipeline: Pipeline
    project: Project
    simulator: Simulator
    calm: Calm

    async def enqueue(self) -> None:
        self.pipeline.set_up(self.project)
        self.project.pool(pool_of(ITEMS))
        samples = ("--samples", str(self.pipeline.samples))
        assert (await self.project.batchgen("enqueue", "pool.jsonl", *samples)).code == 0

    async def worker(self) -> Process:
        return await self.project.start("-q", "work", "-c", str(SLOTS))

    async def assert_whole(self, in_flight: int) -> None:
        """`in_flight`: so many calls at most were, when workers were killed."""
        project = self.project
        assert contradictions(project, await project.batchgen("verify")) == []
        assert exported_text(project) == self.calm.export
        assert asked_again(asked(self.simulator), self.calm.calls) <= in_flight
        [(on_record,)] = project.query("select count(*) from attempts")
        assert on_record >= self.simulator.calls


# --- the moments ----------------------------------------------------------------------------------
# What is yielded are the workers, those to be killed first.


@asynccontextmanager
async def at_the_first_calls(job: ChainsJob, n: int) -> AsyncIterator[list[Process]]:
    job.simulator.hold()
    workers = [await job.worker() for _ in range(n)]
    await job.simulator.received(min(SLOTS * n, ITEMS))
    yield workers
    job.simulator.release()


@asynccontextmanager
async def between_commits(job: ChainsJob, n: int) -> AsyncIterator[list[Process]]:
    """In full flow, with rows of all steps."""
    workers = [await job.worker() for _ in range(n)]
    await job.simulator.received(calls_of(job) // 2)
    yield workers


@asynccontextmanager
async def waiting_in_the_middle(job: ChainsJob, n: int) -> AsyncIterator[list[Process]]:
    """For the model, with rows of all steps."""
    async with between_commits(job, n) as workers:
        job.simulator.hold()
        await job.simulator.received(calls_of(job) // 2 + 1)
        yield workers
    job.simulator.release()


@asynccontextmanager
async def answered_but_not_committed(job: ChainsJob, n: int) -> AsyncIterator[list[Process]]:
    """What would be done, and what follows it, waits for the write lock."""
    async with waiting_in_the_middle(job, n) as workers:
        with locked(job.project.database):
            job.simulator.release()
            pid = await at_the_write_lock(job.project.database, [each.pid for each in workers])
            yield sorted(workers, key=lambda each: each.pid != pid)


@asynccontextmanager
async def in_the_function(job: ChainsJob, n: int) -> AsyncIterator[list[Process]]:
    hold = job.project.write("hold", "")
    workers = [await job.worker() for _ in range(n)]
    async with asyncio.timeout(30):
        while not (job.project.path / "inside").exists():
            await asyncio.sleep(_LOOK_EVERY_S)
    yield workers
    hold.unlink()


Moment = Callable[[ChainsJob, int], AbstractAsyncContextManager[list[Process]]]


def calls_of(job: ChainsJob) -> int:
    return sum(job.calm.calls.values())


# The number of workers with which the quick set runs a cell; all others `--slow` alone does.
CELLS: dict[Moment, dict[str, int]] = {
    at_the_first_calls: {},
    between_commits: {},
    waiting_in_the_middle: {},
    answered_but_not_committed: {"gather": 1},
    in_the_function: {},
}
MANY = (1, 4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        cells = [
            pytest.param(
                moment,
                kind,
                n,
                id=f"{moment.__name__}-{kind.name}-{n}",
                marks=() if n == in_fast.get(kind.name) else pytest.mark.slow,
            )
            for moment, in_fast in CELLS.items()
            for kind in KINDS
            for n in MANY
            if moment is not in_the_function or kind.name == "function"
        ]
        metafunc.parametrize(("moment", "kind", "n"), cells)


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_chains_of_killed_workers_end_as_those_of_a_calm_run(
    project: Project, simulator: Simulator, moment: Moment, kind: Pipeline, n: int
) -> None:
    """With several workers the last one is left alone, and takes over from the others."""
    calm = await calm_run(kind, project.path / "calm", ITEMS)
    job = ChainsJob(kind, project, simulator, calm)
    await job.enqueue()
    async with moment(job, n) as in_order:
        victims = in_order[: n - 1] or in_order
        others = [worker for worker in in_order if worker not in victims]
        for victim in victims:
            send(victim, SIGKILL)
        codes = [await victim.wait() for victim in victims]
        assert set(codes) <= {-9, 0}  # 0: it was done before
    assert [await other.wait() for other in others] == [0] * len(others)
    samples = ("--samples", str(kind.samples))
    rest = await project.batchgen("run", "pool.jsonl", *samples, "-c", str(SLOTS))
    assert rest.code == 0, rest.err
    await job.assert_whole(SLOTS * len(victims))
