"""Workers on a Ray cluster: `batchgen work --on ray`.

The driver, which is this command, starts an actor for each worker, on whichever node has a CPU, and
follows them as a `Crew`. An actor does nothing but to have a child, an ordinary worker process (see
`ray_node`). A worker whose actor is lost, with its node or alone, is started anew, wherever there
is room; so is one whose node is about to go, once it has drained.

The task goes to an actor as the argument of a call. Ray's own way, the environment of a runtime
environment, is shown in its dashboard and written to its logs, with every key in it.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from logging import CRITICAL
from pathlib import Path
from typing import Any

from batchgen.config import Config
from batchgen.errors import UsageError
from batchgen.installed import load_ray
from batchgen.jobs.crew import ENDED_BY_SIGTERM, STOPPED_AS_IT_BEGAN, Crew, Member, Say
from batchgen.jobs.ray_node import (
    Assignment,
    Begun,
    NodeNeeds,
    NodeWorker,
    environment_of_nodes,
    missing_here,
    needed_paths,
    this_machine,
)
from batchgen.jobs.work import WorkResult
from batchgen.jobs.worker_process import TaskResult, WorkerTask
from batchgen.shutdown import Stop, unless
from batchgen.store import Store, WorkerRow
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import Stats

_CONNECT_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 2.0
_LOOKS_UNTIL_TOLD = 15  # a node takes its time to start a process
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# Ray kills the children of an actor that ends, by SIGKILL; ours are to drain.
_CHILDREN_STAY = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "0"}}

Ended = tuple[TaskResult | None, int]


@contextmanager
def connected() -> Iterator["RayCluster"]:
    """The cluster that this machine belongs to, or that RAY_ADDRESS names. Raises UsageError when
    Ray is not installed, or no cluster runs."""
    ray = load_ray()
    if os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        raise UsageError(
            "RAY_ADDRESS: this must run on a machine of the cluster, and not as a client of it. "
            "Submit the same command there as a job (ray job submit)."
        )
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(os.environ.get("RAY_ADDRESS", ""))
        ray.init(address="auto", log_to_driver=False, logging_level=CRITICAL)
    except OSError as exc:
        raise UsageError(
            "no Ray cluster is running here, or where RAY_ADDRESS says. Start one with ray start, "
            "its head first, and then the other machines with the head's address."
        ) from exc
    except (RuntimeError, ValueError) as exc:  # such as another version of Ray, or of Python
        raise UsageError(f"the Ray cluster cannot be used: {' '.join(str(exc).split())}") from exc
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set its own
    # When a node is lost it prints the end of that node's log on stdout; we say it in a line.
    vars(import_module("ray._private.worker"))["print_to_stdstream"] = lambda *_, **__: None
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises OSError if nobody listens there: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()


class RayCluster:
    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._actor = ray.remote(
            num_cpus=1, scheduling_strategy="SPREAD", runtime_env=_CHILDREN_STAY
        )(NodeWorker)
        self.error: type[Exception] = ray.exceptions.RayError

    def nodes(self) -> dict[str, str]:
        """The addresses of those that can have workers, by their numbers."""
        return {
            node["NodeID"]: node["NodeManagerAddress"]
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        }

    async def check(self, config: Config) -> None:
        """Raises UsageError when one of the nodes lacks something that the work needs."""
        nodes, needs = self.nodes(), _needs_of(config)
        found = await asyncio.gather(*(self._missing_on(node, needs) for node in nodes))
        for node, missing in zip(nodes.values(), found, strict=True):
            if missing:
                raise UsageError(f"node {node} of the Ray cluster cannot work: {missing}.")

    async def _missing_on(self, node: str, needs: NodeNeeds) -> str | None:
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node, soft=False
        )
        look = self._ray.remote(num_cpus=0, scheduling_strategy=there)(missing_here)
        try:
            missing: str | None = await look.remote(needs)
        except self._ray.exceptions.RayTaskError as exc:
            return why_not(exc)
        except self._ray.exceptions.RayError:  # it has gone meanwhile
            return None
        return missing

    def new_actor(self) -> Any:
        return self._actor.remote()

    def is_loss(self, exc: Exception) -> bool:
        """Whether an actor, or its node, is lost: no call of it would fail anywhere else."""
        errors = self._ray.exceptions
        lost = (errors.RayActorError, errors.ObjectLostError, errors.WorkerCrashedError)
        return isinstance(exc, lost) and not getattr(exc, "actor_init_failed", False)

    def kill(self, actor: Any) -> None:
        with suppress(self.error, ValueError):
            self._ray.kill(actor)

    async def draining_nodes(self) -> set[str]:
        """The hosts' numbers of those that are about to go: preempted, or taken away."""
        state = import_module("ray._private.state").state  # Ray's libraries ask it, too
        with suppress(self.error, OSError, RuntimeError):  # then the next look tells
            return set(await asyncio.to_thread(state.get_draining_nodes))
        return set()


async def work_on_ray(
    cluster: RayCluster, store: Store, config: Config, specs: Sequence[WorkSpec], module: str, *,
    stop: Stop, stats: Stats, say: Say, verbose: bool = False,
) -> WorkResult:  # fmt: skip
    """Run a worker on the cluster for each spec, as `Crew.work` does. `module` is the one that
    calls `work_for_parent`."""
    needs = _needs_of(config)
    tasks = [WorkerTask.of(spec, config, verbose=verbose).to_json() for spec in specs]
    environment, here = environment_of_nodes(os.environ), str(Path.cwd())
    # Without items of its own a worker's work is anybody's: it may begin anew.
    begins_anew = specs[0].max_items is None
    all_is_done = asyncio.Event()
    workers = [
        RayWorker(
            cluster, Assignment(task, module, here, environment, needs), number, say, all_is_done,
            begins_anew=begins_anew,
        )
        for number, task in enumerate(tasks, 1)
    ]  # fmt: skip
    watch = asyncio.create_task(_watch(cluster, workers, say), name="watch nodes")
    try:
        crew = Crew(store, stop, stats, say, "workers")
        return await crew.work(specs[0], [worker.start for worker in workers])
    finally:
        watch.cancel()


def _needs_of(config: Config) -> NodeNeeds:
    """What each node must have to work on it."""
    files, machine = config.parser_files, None
    if isinstance(config.database, Path):
        files, machine = (*files, config.database), this_machine()
    return NodeNeeds(needed_paths(config.directory, files), machine)


async def _watch(cluster: RayCluster, workers: Sequence["RayWorker"], say: Say) -> None:
    """While they work: those whose node is about to go are moved; and it is said if some wait."""
    looks = 0
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        going = await cluster.draining_nodes()
        for worker in workers:
            worker.move_from(going)
        looks += 1
        waiting = sum(worker.waits for worker in workers)
        if waiting and looks == _LOOKS_UNTIL_TOLD:
            say(
                f"{waiting} of the {len(workers)} workers wait{'s' if waiting == 1 else ''} for a "
                "free CPU of the Ray cluster."
            )


class RayWorker:
    """One of the workers, on one node after the other. Once `all_is_done` it waits for none."""

    def __init__(
        self, cluster: RayCluster, given: Assignment, number: int, say: Say,
        all_is_done: asyncio.Event, *, begins_anew: bool,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._given = given
        self._number = number
        self._say = say
        self._all_is_done = all_is_done
        self._begins_anew = begins_anew
        self._actor: Any = None
        self._begun: Begun | None = None
        self._is_stopping = False
        self._moves = False
        self._words: asyncio.Queue[bytes] = asyncio.Queue()
        self._work: asyncio.Task[Ended] | None = None

    async def start(self) -> Member:
        self._work = asyncio.create_task(self._until_ended(), name=self.name)
        return self

    @property
    def name(self) -> str:
        at = f" on {self._begun.host}" if self._begun else ""
        return f"worker {self._number}{at}"

    @property
    def is_over(self) -> bool:
        return self._work is not None and self._work.done()

    @property
    def waits(self) -> bool:
        """For a node that has a CPU."""
        return self._begun is None and not self.is_over

    def has_row(self, row: WorkerRow) -> bool:
        return self._begun is not None and (row.host, row.pid) == (
            self._begun.host,
            self._begun.pid,
        )

    def drain(self) -> None:
        self._is_stopping = True
        if self._begun is not None:
            self._actor.drain.remote()
        elif self._work is not None and not self.is_over:
            self._all_is_done.set()  # for the others, too: all are drained, or none

    def leave(self) -> None:
        if self._begun is not None:
            self._actor.leave.remote()

    def move_from(self, nodes: set[str]) -> None:
        """If it is on one of these nodes: drain, and begin anew elsewhere."""
        if self._begun is None or self._begun.node not in nodes or self._moves:
            return
        self._moves = True
        self._say(f"{self.name}: the node is about to go; it finishes its calls in flight")
        self._actor.drain.remote()

    async def words(self) -> AsyncIterator[bytes]:
        while read := await self._words.get():
            yield read

    async def result(self) -> Ended:
        assert self._work is not None
        return await asyncio.shield(self._work)

    async def end(self) -> None:
        if self._work is not None:
            await self._work

    async def _until_ended(self) -> Ended:
        pause_s = _FIRST_PAUSE_S
        try:
            while (ended := await self._work_on_a_node()) is None:
                pause_s = _FIRST_PAUSE_S if self._begun else min(2 * pause_s, _LONGEST_PAUSE_S)
                self._begun, self._moves = None, False
                await unless(self._all_is_done, asyncio.sleep(pause_s))
        finally:
            self._words.put_nowait(b"")
        if ended[1] in (0, 3) and self._begins_anew:
            self._all_is_done.set()
        return ended

    async def _work_on_a_node(self) -> Ended | None:
        """Until it has ended, or (None) its node is lost, or gone after it has drained."""
        if self._all_is_done.is_set():
            return self._not_needed()
        self._actor = actor = self._cluster.new_actor()
        try:
            begun = await unless(self._all_is_done, _awaited(actor.begin.remote(self._given)))
            if begun is None:
                return self._not_needed()
            if begun.missing:
                self._say(f"error: {begun.host} of the Ray cluster cannot work: {begun.missing}.")
                return None, UsageError.exit_code
            self._begun = begun
            if self._is_stopping:  # it was told so just now
                actor.drain.remote()
            return await self._follow(actor)
        except self._cluster.error as exc:
            return self._lost(exc)
        finally:
            self._cluster.kill(actor)  # its child, if there still is one, drains

    async def _follow(self, actor: Any) -> Ended | None:
        while read := await actor.words.remote():
            self._words.put_nowait(read)
        line, code = await actor.result.remote()
        result = TaskResult.from_line(line)
        must_go = self._moves or (result is not None and result.was_terminated)
        if code == ENDED_BY_SIGTERM and must_go and self._begins_anew and not self._is_stopping:
            return None
        return result, code

    def _not_needed(self) -> Ended:
        """Nothing is left that it could do, or it was stopped before it began."""
        return TaskResult(0, None), 0

    def _lost(self, exc: Exception) -> Ended | None:
        if not self._cluster.is_loss(exc):
            self._say(f"error: {self.name} of the Ray cluster cannot work: {why_not(exc)}.")
            return None, 1
        if self._is_stopping:
            return None, STOPPED_AS_IT_BEGAN
        if not self._begins_anew:
            return None, -signal.SIGKILL
        if self._begun is not None:  # else it was given to a node that nobody knew to be gone
            lost = (
                "is lost, with its node or alone; another takes its place, wherever there is room"
            )
            self._say(f"warning: {self.name} {lost}")
        return None


def why_not(exc: Exception) -> str:
    """Why Ray could not run a thing of ours on a node, in one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    line = next((line for line in lines if "No module named" in line), None)
    if line is None:
        return lines[-1] if lines else type(exc).__name__
    module = line.rpartition("No module named ")[2].strip(".'")
    return f"it has no {module}; install there too: pip install 'batchgen-llm[ray]'"


async def _awaited(reference: Awaitable[Begun]) -> Begun:
    return await reference
