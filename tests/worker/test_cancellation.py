"""A run that is cancelled at any await: whichever it is, nothing is lost and nothing is left over.

Python cancels where it will: Ctrl-C in a notebook, a caller's `asyncio.timeout`, a task group in
which another task failed. Here each step that any task of a run takes is one place to cancel it
at; `--slow` tries them all, and without it every STRIDEth is tried.
"""

import asyncio
import contextvars
import fcntl
import shutil
import sqlite3
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from batchgen.config import load
from batchgen.items import RAW, Recipe, Template
from batchgen.jobs.enqueue import enqueue
from batchgen.jobs.work import spec_of, work
from batchgen.parsers import parser_from_callable
from batchgen.pool import read_objects
from batchgen.shutdown import Stop
from batchgen.simulate import Simulator
from batchgen.store import open_store
from batchgen.worker.requests import PresentParser
from batchgen.worker.stats import RunContext
from tests.kits.job import Log
from tests.kits.project import KEY

ITEMS = 5
SLOTS = 2
STRIDE = 37

Cancels = Literal["once", "again and again"]


class Steps:
    """Counts the steps of one task and of all that it starts. At the step `cancel_at` the task is
    cancelled: once, or again at each step that another one takes."""

    def __init__(self, cancel_at: int | None = None, cancels: Cancels = "once") -> None:
        self.taken = 0
        self.task: asyncio.Task[None] | None = None
        self._cancel_at = cancel_at
        self._cancels = cancels

    def step(self) -> None:
        self.taken += 1
        if self._cancel_at is None or self.task is None or self.task.done():
            return
        again = self._cancels == "again and again" and asyncio.current_task() is not self.task
        if self.taken == self._cancel_at or (again and self.taken > self._cancel_at):
            self.task.cancel()


_counting: contextvars.ContextVar[Steps | None] = contextvars.ContextVar("steps", default=None)


async def _stepping(coro: Coroutine[Any, Any, Any], steps: Steps) -> Any:
    return await _resumed(coro, steps)


@types.coroutine
def _resumed(coro: Coroutine[Any, Any, Any], steps: Steps) -> Generator[Any, Any, Any]:
    """`coro`, and a word to `steps` before each time it goes on."""
    value, error = None, None
    while True:
        steps.step()
        try:
            waits_for = coro.send(value) if error is None else coro.throw(error)
        except StopIteration as exc:
            return exc.value
        value, error = None, None
        try:
            value = yield waits_for
        except BaseException as exc:
            error = exc


def _task_factory(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    context = kwargs.get("context") or contextvars.copy_context()
    steps = context.get(_counting)
    if steps is not None:  # the simulator's tasks are not in the tree
        coro = _stepping(coro, steps)
    return asyncio.Task(coro, loop=loop, **kwargs)


@contextmanager
def counted_tasks() -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_task_factory)  # type: ignore[arg-type]
    try:
        yield
    finally:
        loop.set_task_factory(None)


class Sweep:
    """Runs of the same pool, each on a database of its own."""

    def __init__(self, path: Path, parse: Callable[[str], Any] | None) -> None:
        self.path = path
        self.parser = None if parse is None else parser_from_callable(parse)
        self.fresh = path / "fresh.db"
        self.database = path / "batchgen.db"

    async def enqueue(self) -> None:
        recipe = Recipe(None, Template("Say {word}"), "simulated", {})
        pool = read_objects([{"word": f"w{n}"} for n in range(ITEMS)])
        async with open_store(self.fresh, create=True) as store:
            await enqueue(
                store, pool, recipe, "default", parser=self.parser.version if self.parser else RAW
            )

    def begin(self) -> None:
        for file in self.path.glob("batchgen.db*"):
            file.unlink()
        shutil.copy(self.fresh, self.database)

    async def run(self, base_url: str) -> None:
        overrides = {"base_url": base_url, "api_key": KEY, "model": "simulated", "timeout_s": 60}
        config = load(None, env={}, overrides=overrides, cwd=self.path)
        spec = spec_of(config, concurrency=SLOTS, retry_wait_s=0.01)
        parsers = {1: PresentParser(1, self.parser)} if self.parser else {}
        async with open_store(self.database) as store:
            await work(store, config, spec, RunContext(Stop(), Log()), parsers)

    def query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()

    def assert_nothing_is_left_over(self) -> None:
        """No transaction, no lock, no thread, no worker, no claim."""
        threads = [t for t in threading.enumerate() if "_connection_worker_thread" in t.name]
        for thread in threads:
            thread.join(timeout=30)  # it was told to end, and may be about to
        assert [thread for thread in threads if thread.is_alive()] == []
        with closing(sqlite3.connect(self.database, timeout=0)) as connection:
            connection.execute("begin exclusive")
        gate = self.path / "batchgen.db-gate"
        if gate.exists():  # not where it was cancelled before there was a database
            with gate.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert list(self.path.glob("batchgen.db-worker-*")) == []
        assert self.query("select * from workers") == []
        assert self.query("select item_id from work where state = 'running'") == []

    def attempts(self, outcome: str) -> int:
        ((n,),) = self.query(f"select count(*) from attempts where outcome = '{outcome}'")
        return int(n)


def script(simulator: Simulator) -> None:
    """Trouble that the worker gets over at once."""
    simulator.script("w1", "500")
    simulator.script("w2", "429")
    simulator.script("w3", "stale")


async def cancelled_run(
    sweep: Sweep, cancel_at: int | None, cancels: Cancels = "once"
) -> tuple[Steps, Simulator]:
    """One run, cancelled at that step, and what must be true after it and after the next run."""
    sweep.begin()
    simulator = Simulator(retry_after_s=0)
    steps = Steps(cancel_at, cancels)
    async with simulator.running() as url:
        script(simulator)
        before = asyncio.all_tasks()
        context = contextvars.copy_context()
        context.run(_counting.set, steps)
        steps.task = asyncio.create_task(sweep.run(url), context=context)
        async with asyncio.timeout(60):  # far more than any of it takes
            await asyncio.wait([steps.task])
        assert steps.task.cancelled() or steps.task.exception() is None
        left = {task for task in asyncio.all_tasks() - before if "simulate" not in repr(task)}
        left = {task for task in left if "aiohttp/web" not in repr(task)}
        assert left == set()
        sweep.assert_nothing_is_left_over()
        await sweep.run(url)
    sweep.assert_nothing_is_left_over()
    async with open_store(sweep.database) as store:
        assert await store.verify() == []
    assert sweep.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", ITEMS)
    ]
    # No answer that came was asked for again, and no call that the server saw is off the record.
    assert sweep.attempts("answered") == ITEMS
    assert sweep.attempts("unknown") <= SLOTS
    return steps, simulator


def assert_all_calls_are_known(sweep: Sweep, simulator: Simulator) -> None:
    ((attempts,),) = sweep.query("select count(*) from attempts")
    assert simulator.calls + simulator.dropped <= attempts
    ((calls, unknown),) = sweep.query("select calls, unknown_calls from totals")
    assert (calls, unknown) == (attempts, sweep.attempts("unknown"))


def upper(response: str) -> str:
    """A function of the user's, which runs in a thread once the answer is durable."""
    return response.upper()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("parse", [None, upper], ids=["raw", "function"])
@pytest.mark.parametrize("cancels", ["once", "again and again"])
async def test_a_run_cancelled_at_any_await_loses_nothing_and_leaves_nothing_behind(
    tmp_path: Path, slow: bool, parse: Any, cancels: Cancels
) -> None:
    stride = 1 if slow else STRIDE
    sweep = Sweep(tmp_path, parse)
    await sweep.enqueue()
    with counted_tasks():
        whole, _ = await cancelled_run(sweep, None)
        # The order of steps varies a little with the threads; so does how many there are.
        # The first ones, as a worker joins, are few, and each is another place.
        joining = range(1, STRIDE) if (parse, cancels) == (None, "once") else ()
        for cancel_at in (*joining, *range(1, whole.taken + stride, stride)):
            try:
                _, simulator = await cancelled_run(sweep, cancel_at, cancels)
                assert_all_calls_are_known(sweep, simulator)
            except BaseException:
                print(f"cancelled at step {cancel_at} of {whole.taken}")
                raise


async def test_enqueue_ends_after_its_last_chunk_however_often_it_is_cancelled(
    tmp_path: Path,
) -> None:
    at_its_end: set[str] = set()
    recipe = Recipe(None, Template("Say {word}"), "simulated", {})
    taken = asyncio.Event()

    def items() -> Iterator[dict[str, str]]:
        yield {"word": "tea"}
        taken.set()

    async with open_store(tmp_path / "batchgen.db", create=True) as store:

        async def enqueueing() -> None:
            try:
                await enqueue(store, read_objects(items()), recipe, "default")
            finally:
                at_its_end.update(task.get_name() for task in asyncio.all_tasks())

        running = asyncio.create_task(enqueueing())
        await taken.wait()
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([running])
        assert running.cancelled()
        assert "enqueue chunk" not in at_its_end
        assert await store.verify() == []
