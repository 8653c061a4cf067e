"""Workers of several machines on one PostgreSQL, and whatever may happen to them, at random.

    python3 dev.py chaos --postgres --seconds 600 --workers 8 --seed 7
    python3 dev.py chaos --postgres --steps

Workers are killed, suspended and stopped; connections are ended by the server; commits land and
nobody hears of them; the server starts anew and crashes; and, where machines can be made (root on
Linux), a machine's network is cut for longer than a lease, and one loses its power. In the end the
export is that of a calm run on SQLite, each call was made once but for those that failed or were in
flight at an end, and what is counted is what is there.
"""

import asyncio
import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from batchgen.simulate import Simulator
from tests.crash.chain_chaos import ALL_KINDS
from tests.kits.crashes import send
from tests.kits.machines import Machine, Network, NoMachinesError, network, signal_to
from tests.kits.pipelines import Pipeline, calm_run, pool
from tests.kits.postgres import Server, running
from tests.kits.processes import Process
from tests.kits.project import Project, ended, without_times
from tests.kits.server_facts import contradictions_of
from tests.kits.typist import Ended
from tests.kits.wire import LossyWire

ERRORS = "429=0.02,500=0.01,reset=0.01,cut=0.01,html=0.005,bad_json=0.005"
ONE_STEP = Pipeline("one step", ('name: say, user: {text: "Say {word}"}',))
LEASE_S = 3.0
PASSWORD = "s3cret-of-chaos"
_WORK = f"{{max_attempts: 100, timeout_s: 30, retry_wait_s: 0.05, lease_s: {LEASE_S}}}"
# What happens, and how often.
ACTS = {
    "kill": 8, "suspend": 3, "term": 1, "interrupt": 1, "end connections": 8,
    "swallow commits": 4, "restart": 0.7, "crash": 0.7, "cut a network": 1.5, "lose power": 0.7,
}  # fmt: skip
_FORBIDDEN = ("locked", "Traceback", "internal error", PASSWORD)
_GOOD_ENDS = (-9, 130, 143, -15)
_END_S = 60.0  # for a worker that is told to: its grace, and a server that starts anew
_SWALLOWED = 0.3  # of the commits, while they are
_LIVING = (
    "select count(*) from workers"
    " where lease_until >= (extract(epoch from clock_timestamp()) * 1000)::bigint"
)
_OPEN = "select coalesce(sum(n), 0) from counters where state in ('pending', 'running')"
_USED = """
select 'Say ' || (i.input::json ->> 'word'), a.prompt_tokens + a.completion_tokens
  from attempts a join items i on i.id = a.item_id where a.outcome = 'answered'
"""
_END_THEM = """
select count(pg_terminate_backend(pid)) from (
  select pid from pg_stat_activity where application_name like 'batchgen%%' and datname = 'work'
   order by random() limit %s) victims
"""


@dataclass(frozen=True)
class Plan:
    """`items`: so many, all enqueued at once, and the chaos goes on until they are done, at most
    for `seconds`; 0: the pool grows for as long."""

    seconds: float
    workers: int
    seed: int
    pipeline: Pipeline = ONE_STEP
    items: int = 0
    slots: int = 5
    chunk: int = 200
    errors: str = ERRORS
    latency: str = "uniform:0.005:0.05"
    acts: tuple[str, ...] = tuple(ACTS)
    options: tuple[str, ...] = ()  # of each worker
    budget_tokens: int = 0  # the chaos ends when a worker halts at it; the rest is done without


@dataclass
class Result:
    problems: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    machines: int = 1
    items: int = 0
    calls: int = 0
    failed_calls: int = 0
    in_flight: int = 0  # at most, at all ends, suspensions and cuts together
    repeated: int = 0
    unknown: int = 0  # attempts of which nobody knows how they ended
    tokens: int = 0  # of one step, that the model took before the budget was gone
    commits_carried: int = 0
    commits_unheard: int = 0
    connections_ended: int = 0
    seconds: float = 0.0

    def text(self) -> str:
        acts = ", ".join(f"{n} x {act}" for act, n in sorted(self.acts.items()))
        return (
            f"{self.items} items on {self.machines} machines in {self.seconds:.0f} s, {self.calls} "
            f"calls, {self.failed_calls} of them failed by the model; asked again: "
            f"{self.repeated}, unknown: {self.unknown}, in flight at the ends: at most "
            f"{self.in_flight}\n{acts}\nconnections ended by the server: "
            f"{self.connections_ended}; commits that nobody heard of: {self.commits_unheard} of "
            f"{self.commits_carried} by that wire"
        )


@dataclass(eq=False)
class _Worker:
    process: Process
    machine: Machine | None  # None: ours
    said: asyncio.Task[Ended]


class _PostgresChaos:
    def __init__(
        self, plan: Plan, project: Project, simulator: Simulator, server: Server, wire: LossyWire,
        machines: list[Machine], net: Network | None,
    ) -> None:  # fmt: skip
        self.result = Result(machines=1 + len(machines))
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._project = project
        self._simulator = simulator
        self._server = server
        self._wire = wire
        self._machines = machines
        self._network = net
        self._workers: list[_Worker] = []
        self._kept_alone: set[_Worker] = set()  # suspended, or told to end
        self._under_way: list[asyncio.Task[None]] = []
        self._said: list[Ended] = []
        self._server_is_up = asyncio.Event()
        self._server_is_up.set()
        self._away_until_s = 0.0

    async def run(self, directory: Path) -> Result:
        plan, result = self._plan, self.result
        plan.pipeline.set_up(self._project, _WORK)
        await self._grow(plan.items or plan.chunk)
        await self._join_those_missing()
        await self._simulator.received(1, timeout_s=120)
        began = time.monotonic()
        while time.monotonic() < began + plan.seconds and not await self._is_over():
            await asyncio.sleep(self._rng.uniform(0.05, 0.8))
            if await self._half_are_at_work():  # on a busy machine it takes them a while
                await self._act()
            await self._join_those_missing()
            await self._grow_beside()
        await asyncio.gather(*self._under_way)
        await self._end_workers()
        asked = Counter(self._simulator.ledger)
        await self._finish(directory)
        result.tokens = self._tokens_of(asked)
        result.seconds = time.monotonic() - began
        return result

    # Workers

    async def _join_those_missing(self) -> None:
        self._workers = [one for one in self._workers if not one.said.done()]
        while len(self._workers) < self._plan.workers:
            self._workers.append(await self._started())

    async def _started(self) -> _Worker:
        """On any machine, and by the way that swallows commits or by the one that does not."""
        machine = self._rng.choice(self._machines) if self._machines else None
        command = ("--db", self._rng.choice(self._addresses(machine)), "-q", "work", "--watch",
                   "-c", str(self._plan.slots), "--grace", "5", *self._plan.options)  # fmt: skip
        if self._plan.budget_tokens:
            command += ("--max-tokens-total", str(self._plan.budget_tokens))
        if machine:
            process: Process = await machine.start(self._project, *command)
        else:
            process = await self._project.start(*command)
        self.result.acts["join"] += 1
        return _Worker(process, machine, asyncio.create_task(self._hear(process)))

    async def _half_are_at_work(self) -> bool:
        """Or a server is away, and who knows."""
        if not self._server_is_up.is_set():
            return True
        living = await asyncio.to_thread(self._counted, _LIVING)
        return living >= self._plan.workers / 2

    def _addresses(self, machine: Machine | None) -> list[str]:
        host = "127.0.0.1" if self._network is None else self._network.database
        lossy = f"postgresql://batchgen@{host}:{self._wire.port}/work?sslmode=disable"
        own = f"postgresql://batchgen@{host}:{self._server.port}/work"
        return [lossy, own if machine else self._server.url("work")]

    async def _hear(self, process: Process) -> Ended:
        began_s = time.monotonic()
        said = await ended(process)
        self._said.append(said)
        if said.code == 1 and began_s < self._away_until_s and said.err.count("\n") == 1:
            self.result.acts["found no server"] += 1  # as it began, which is not waited for
        elif said.code not in _GOOD_ENDS and not (self._plan.budget_tokens and said.code == 4):
            self.result.problems.append(f"a worker ended with {said.code}: {said.err}")
        return said

    async def _end_workers(self) -> None:
        for worker in self._workers:
            _signal(worker, signal.SIGTERM)
        told = [worker.said for worker in self._workers]
        _, alive = await asyncio.wait(told, timeout=_END_S) if told else (set(), set())
        if alive:
            self.result.problems.append(f"{len(alive)} workers did not end: {self._activity()}")
        for worker in self._workers:
            _signal(worker, signal.SIGKILL)
        await asyncio.gather(*told)

    def _activity(self) -> object:
        return self._server.execute(
            "select application_name, state, wait_event, left(query, 60) from pg_stat_activity"
            " where datname = 'work'"
        )

    # What happens

    async def _act(self) -> None:
        able: dict[str, Callable[[], Coroutine[None, None, None] | None]] = {
            "kill": self._kill, "suspend": self._suspend,
            "term": lambda: self._tell(signal.SIGTERM),
            "interrupt": lambda: self._tell(signal.SIGINT),
            "end connections": self._end_connections, "swallow commits": self._swallow,
            "restart": lambda: self._restart(self._server.stop),
            "crash": lambda: self._restart(self._server.crash),
        }  # fmt: skip
        if self._machines:
            able |= {"cut a network": self._cut, "lose power": self._lose_power}
        acts = [act for act in self._plan.acts if act in able]
        (act,) = self._rng.choices(acts, [ACTS[act] for act in acts])
        self.result.acts[act] += 1
        done = able[act]()
        if done is not None:
            self._keep(asyncio.create_task(done))

    def _victim(self) -> _Worker | None:
        alive = [
            one for one in self._workers if one not in self._kept_alone and not one.said.done()
        ]
        return self._rng.choice(alive) if alive else None

    def _kill(self) -> None:
        if worker := self._victim():
            self._kept_alone.add(worker)
            self.result.in_flight += self._plan.slots
            _signal(worker, signal.SIGKILL)

    def _tell(self, signum: signal.Signals) -> None:
        if worker := self._victim():
            self._kept_alone.add(worker)
            self.result.in_flight += self._plan.slots  # the grace may be too short
            _signal(worker, signum)

    async def _suspend(self) -> None:
        """For less than its lease, or for more."""
        if worker := self._victim():
            self._kept_alone.add(worker)
            self.result.in_flight += self._plan.slots
            _signal(worker, signal.SIGSTOP)
            await asyncio.sleep(self._rng.uniform(0.2, 2 * LEASE_S))
            _signal(worker, signal.SIGCONT)
            self._kept_alone.discard(worker)

    async def _end_connections(self) -> None:
        n = self._rng.randint(1, 4)
        self.result.connections_ended += await asyncio.to_thread(self._ended_by_the_server, n)

    def _ended_by_the_server(self, n: int) -> int:
        try:
            with psycopg.connect(self._server.url(), autocommit=True) as db:
                row = db.execute(_END_THEM, [n]).fetchone()
        except psycopg.OperationalError:  # it is away itself
            return 0
        return int(row[0]) if row else 0

    async def _swallow(self) -> None:
        self._wire.chance = _SWALLOWED
        await asyncio.sleep(self._rng.uniform(0.5, 2))
        self._wire.chance = 0.0

    async def _restart(self, stop: Callable[[], None]) -> None:
        if not self._server_is_up.is_set():
            return
        self._server_is_up.clear()
        self._away_until_s = math.inf
        await asyncio.to_thread(stop)
        await asyncio.sleep(self._rng.uniform(0, 1.5 * LEASE_S))
        await asyncio.to_thread(self._server.start)
        self._away_until_s = time.monotonic()
        self._server_is_up.set()

    async def _cut(self) -> None:
        """For less than a lease, or for more."""
        machine = self._rng.choice(self._machines)
        self.result.in_flight += self._plan.slots * self._workers_on(machine)
        machine.cut()
        await asyncio.sleep(self._rng.uniform(0.2, 3 * LEASE_S))
        if machine in self._machines:
            machine.mend()

    def _lose_power(self) -> None:
        assert self._network is not None
        machine = self._machines.pop(self._rng.randrange(len(self._machines)))
        self.result.in_flight += self._plan.slots * self._workers_on(machine)
        machine.lose_power()
        place, machines = machine.name.partition("-")[0], self._network.machines
        self._machines.append(self._network.machine(f"{place}-{len(machines)}"))

    def _workers_on(self, machine: Machine) -> int:
        return sum(worker.machine is machine for worker in self._workers)

    # The job

    async def _grow(self, more: int) -> None:
        self.result.items += more
        self._project.pool(pool(self.result.items))
        await self._command("enqueue", "pool.jsonl")

    async def _grow_beside(self) -> None:
        is_growing = any(task.get_name() == "grow" for task in self._under_way)
        if self._plan.items or is_growing or await asyncio.to_thread(self._open) > self._plan.chunk:
            return
        self._keep(asyncio.create_task(self._grow(self._plan.chunk), name="grow"))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._under_way.append(task)
        task.add_done_callback(self._under_way.remove)

    async def _command(self, *command: str) -> Ended:
        began_s = time.monotonic()
        said = await self._project.process(*command)
        while said.code == 1 and began_s < self._away_until_s:  # it found none as it began
            self.result.acts["found no server"] += 1
            await self._server_is_up.wait()
            began_s = time.monotonic()
            said = await self._project.process(*command)
        self._said.append(said)
        if said.code != 0:
            self.result.problems.append(f"{command} ended with {said.code}: {said.err}")
        return said

    async def _is_over(self) -> bool:
        if self._plan.budget_tokens:
            return any(said.code == 4 for said in self._said)
        if not self._plan.items or self._simulator.in_flight:
            return False
        return await asyncio.to_thread(self._open) == 0

    def _open(self) -> int:
        return self._counted(_OPEN)

    def _counted(self, sql: str) -> int:
        """Something, while it cannot be asked."""
        try:
            [(n,)] = self._server.execute(sql, "work")
        except psycopg.OperationalError:
            return self._plan.workers
        return int(n)

    async def _finish(self, directory: Path) -> None:
        """The rest of the job, and the proof."""
        result, project = self.result, self._project
        result.commits_carried, result.commits_unheard = self._wire.commits, self._wire.swallowed
        await self._leases_are_over()
        await self._command("-q", "run", "pool.jsonl", "-c", "20", *self._plan.options)
        await self._command("export", "-o", "final.jsonl")
        verified = await project.process("verify")
        result.problems += contradictions_of(self._server.url("work"), verified)
        calm = await calm_run(self._plan.pipeline, directory / "calm", result.items)
        lines = (project.path / "final.jsonl").read_text().splitlines()
        ours = [_made(json.loads(line)) for line in lines]
        wanted = [_made(json.loads(line)) for line in calm.export.split("\n")]
        if ours != wanted:
            different = sum(one != other for one, other in zip(ours, wanted, strict=False))
            result.problems.append(
                f"the export has {len(ours)} lines, a calm run's {len(wanted)}; {different} differ"
            )
        self._count(calm.simulator.calls)
        for said in self._said:
            result.problems += [f"{words!r} in: {said.err or said.out}" for words in _FORBIDDEN
                                if words in said.err + said.out]  # fmt: skip

    def _tokens_of(self, asked: Counter[str]) -> int:
        """Of calls by their prompts, all of which the model has answered, whoever heard of it."""
        if not self._plan.budget_tokens:
            return 0
        used = dict(self._server.execute(_USED, "work"))
        return sum(calls * used[prompt] for prompt, calls in asked.items())

    async def _leases_are_over(self) -> None:
        """Of those that died elsewhere, where nobody sees it."""
        async with asyncio.timeout(60):
            while await asyncio.to_thread(self._counted, _LIVING):
                await asyncio.sleep(0.1)

    def _count(self, wanted: int) -> None:
        result, log = self.result, self._project.path.parent / "ledger.jsonl"
        with log.open() as lines:
            outcomes = Counter(json.loads(line)["outcome"] for line in lines)
        result.calls = self._simulator.calls
        result.failed_calls = result.calls - outcomes["ok"]
        result.repeated = outcomes["ok"] - wanted
        if not 0 <= result.repeated <= result.in_flight:
            result.problems.append(
                f"{result.repeated} calls were made again, but only {result.in_flight} were in "
                "flight at the ends"
            )
        [(attempts, unknown)] = self._server.execute(
            "select count(*), count(*) filter (where outcome = 'unknown') from attempts", "work"
        )
        result.unknown = unknown
        if not attempts - unknown <= result.calls <= attempts:
            result.problems.append(
                f"{result.calls} calls, but {attempts} attempts, {unknown} of them unknown"
            )


def _signal(worker: _Worker, signum: signal.Signals) -> None:
    signal_to(worker.process, signum) if worker.machine else send(worker.process, signum)


def _made(line: dict[str, Any]) -> dict[str, Any]:
    """Of an export: tries that failed are no part of what was made."""
    line = without_times(line)
    steps = line.get("steps", {}).values()
    for one in (line, *(row for step in steps for row in (step if type(step) is list else [step]))):
        for name in ("attempts", "usage", "cost_usd"):
            one.pop(name, None)
    return line


@asynccontextmanager
async def _place(plan: Plan, directory: Path) -> AsyncIterator[_PostgresChaos]:
    """A server, a model, a wire that swallows commits, and the machines, where they can be made."""
    with ExitStack() as stack:
        try:
            net: Network | None = stack.enter_context(network())
            machines = [net.machine("one"), net.machine("two")] if net else []
        except NoMachinesError:
            net, machines = None, []
        hosts = "127.0.0.1" + (f",{net.database}" if net else "")
        server = stack.enter_context(running({"listen_addresses": hosts}))
        server.execute(f"alter user batchgen password '{PASSWORD}'")
        server.execute("create database work encoding 'UTF8' template template0")
        wire = LossyWire(
            server.folder / f".s.PGSQL.{server.port}", net.database if net else "127.0.0.1",
            seed=plan.seed,
        )  # fmt: skip
        stack.callback(wire.close)
        simulator = Simulator(
            latency=plan.latency, errors=plan.errors, seed=plan.seed, retry_after_s=0.05,
            ledger_path=directory / "ledger.jsonl", host=net.model if net else "127.0.0.1",
        )  # fmt: skip
        async with simulator.running() as base_url:
            env = {"BATCHGEN_DATABASE": server.url("work"), "PGPASSWORD": PASSWORD}
            project = Project(directory / "project", base_url, env)
            try:
                yield _PostgresChaos(plan, project, simulator, server, wire, machines, net)
            finally:
                for process in project.running:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()


async def postgres_chaos(plan: Plan, directory: Path) -> Result:
    """In an empty directory. Raises NoPostgresError."""
    async with _place(plan, directory) as made:
        return await made.run(directory)


def plan_of(seconds: float, workers: int, seed: int, *, steps: bool) -> Plan:
    pipeline = ALL_KINDS if steps else ONE_STEP
    return Plan(seconds, workers, seed, pipeline=pipeline, chunk=40 if steps else 200)
