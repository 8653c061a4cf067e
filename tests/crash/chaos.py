"""Workers joined, killed, suspended and stopped at random, for as long as you like.

    python3 dev.py chaos --seconds 600 --workers 8 --seed 7

The model misbehaves, the pool grows, and now and then its enqueueing is killed too. In the end the
job is finished, and what must be true is proven: every item there once, in one state, with its
answer; no call made twice but those that failed or were in flight at a kill; the file sound, and
never a word of a locked database; and nobody waited for a second to write but where we suspended
the one that was writing. With --calm nobody is ended, and each worker must get its fair share.
Prints its seed and what it counted; exit 1 if anything is wrong.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.simulate import Simulator
from batchgen.store.sqlite.connection import open_database
from batchgen.store.sqlite.gate import Gate
from batchgen.store.sqlite.transaction import SqliteTransaction
from tests.crash.chain_chaos import chain_chaos
from tests.kits.crashes import contradictions, send, until
from tests.kits.database import look
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.typist import Ended

ERRORS = "429=0.02,500=0.01,reset=0.01,cut=0.01,stale=0.02,html=0.005,bad_json=0.005"
ACTS = {"kill": 6, "suspend": 2, "term": 1, "interrupt": 1, "interrupt twice": 1}
LEASE_S = 1.5
_CONFIG = f"work: {{max_attempts: 100, lease_s: {LEASE_S}, timeout_s: 30}}\n"
_FORBIDDEN = ("locked", "Traceback", "internal error", "malformed")
# A share is fair when it is at least this part of an equal one.
_FAIR = 0.4
_A_SHORT_LIFE_MS = 3000


@dataclass(frozen=True)
class Plan:
    seconds: float
    workers: int
    seed: int
    slots: int = 5
    errors: str = ERRORS
    acts: tuple[str, ...] = tuple(ACTS)
    chunk: int = 300  # items that the pool grows by when fewer than twice as many are open
    longest_wait_s: float = 1.0  # for a write transaction, on a machine with nothing else to do

    @property
    def calm(self) -> bool:
        """Nobody is ended."""
        return not self.acts


@dataclass
class Result:
    problems: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    items: int = 0
    calls: int = 0
    failed_calls: int = 0
    in_flight: int = 0  # at most, at all kills and takeovers together
    repeated: int = 0
    longest_wait_s: float = 0.0
    longest_wait_for_suspended_s: float = 0.0
    shares: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # of those that lived for a while

    def text(self) -> str:
        acts = ", ".join(f"{n} x {act}" for act, n in sorted(self.acts.items()))
        answered = sorted(self.shares, reverse=True)
        rates = ", ".join(f"{rate:.1f}" for rate in sorted(self.rates, reverse=True))
        return (
            f"{self.items} items, {self.calls} calls, {self.failed_calls} of them failed by the "
            f"model; answered again: {self.repeated}, in flight at the ends: at most "
            f"{self.in_flight}\n{acts}\nlongest wait for a write transaction: "
            f"{self.longest_wait_s:.3f} s; for a writer that was suspended: "
            f"{self.longest_wait_for_suspended_s:.3f} s (nobody is for longer than "
            f"{2 * LEASE_S:g} s)\nanswers by worker: {answered}\n"
            f"answers a second, of workers that lived for {_A_SHORT_LIFE_MS / 1000:g} s: {rates}"
        )


class _Chaos:
    def __init__(self, plan: Plan, project: Project, simulator: Simulator, log: Path) -> None:
        self.plan = plan
        self.result = Result()
        self._rng = random.Random(plan.seed)
        self._project = project
        self._simulator = simulator
        self._log = log
        self._alive: list[Process] = []
        self._suspended: list[asyncio.Task[None]] = []
        self._suspensions: list[tuple[float, float]] = []
        self._said: list[Ended] = []
        self._ends: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    async def run(self) -> Result:
        plan, result = self.plan, self.result
        await self._grow()
        probe = await self._start_probe()
        if plan.calm:
            self._simulator.hold()  # until all are there
        await self._join_those_missing()
        assert probe.stdout is not None
        await probe.stdout.readline()  # it has begun to measure
        await self._simulator.received(1, timeout_s=90)
        if plan.calm:
            await until(self._project.database, "select count(*) from workers", plan.workers)
            self._simulator.release()
        growing = asyncio.create_task(self._keep_growing())
        end_at = time.monotonic() + plan.seconds
        while time.monotonic() < end_at:
            # Some live for a moment only, and some for a while.
            at_most_s = min(0.7, self._rng.choice((2, 8)) / plan.workers)
            await asyncio.sleep(self._rng.uniform(0.02, at_most_s))
            self._act()
            await self._join_those_missing()
        self._ending.set()
        await growing
        await asyncio.gather(*self._suspended)
        for worker in [*self._alive]:
            send(worker, signal.SIGTERM)
        await asyncio.gather(*self._ends)
        assert probe.stdin is not None
        measured = await ended(probe, b"\n")
        self._said.append(measured)
        self._weigh_waits(measured.out)
        self._count_shares()
        await self._finish()
        return result

    async def _join_those_missing(self) -> None:
        while len(self._alive) + len(self._suspended) < self.plan.workers:
            await self._join()

    async def _join(self) -> None:
        worker = await self._project.start(
            "-q", "work", "--watch", "-c", str(self.plan.slots), "--grace", "5"
        )
        self._alive.append(worker)
        self.result.acts["join"] += 1
        self._ends.append(asyncio.create_task(self._hear(worker)))

    async def _hear(self, worker: Process) -> None:
        said = await ended(worker)
        self._said.append(said)
        if worker in self._alive:
            self._alive.remove(worker)
        # -15: told to stop in the end, before it had begun.
        if said.code not in (-9, 130, 143, -15):
            self.result.problems.append(f"a worker ended with {said.code}: {said.err}")

    def _act(self) -> None:
        """Do something to one that is at work; those that are still starting are left alone."""
        joined = self._pids_at_work()
        able = [worker for worker in self._alive if worker.pid in joined]
        if not able or self.plan.calm:
            return
        worker = self._rng.choice(able)
        weights = [ACTS[act] for act in self.plan.acts]
        (act,) = self._rng.choices(self.plan.acts, weights)
        self.result.acts[act] += 1
        self._alive.remove(worker)
        match act:
            case "kill":
                send(worker, signal.SIGKILL)
            case "term":
                send(worker, signal.SIGTERM)
            case "interrupt":
                send(worker, signal.SIGINT)
            case "interrupt twice":
                send(worker, signal.SIGINT)
                send(worker, signal.SIGINT)
            case "suspend":
                task = asyncio.create_task(self._suspend(worker))
                self._suspended.append(task)
                task.add_done_callback(self._suspended.remove)
        if act not in ("term", "interrupt"):
            self.result.in_flight += self.plan.slots

    async def _suspend(self, worker: Process) -> None:
        """For less than its lease, or for more."""
        suspended_at = time.monotonic()
        send(worker, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.2, 2 * LEASE_S))
        send(worker, signal.SIGCONT)
        self._suspensions.append((suspended_at, time.monotonic()))
        self._alive.append(worker)

    async def _keep_growing(self) -> None:
        while not self._ending.is_set():
            if self._open_items() < 2 * self.plan.chunk:
                await self._grow()
            await asyncio.sleep(0.1)

    async def _grow(self) -> None:
        """A pool that has grown, enqueued while the workers work; at times killed half-way."""
        items = self.result.items = self.result.items + self.plan.chunk
        self._project.pool({"word": f"w{number:06}"} for number in range(items))
        if "kill" in self.plan.acts and self._rng.random() < 0.3:
            process = await self._project.start("enqueue", "pool.jsonl")
            await asyncio.sleep(self._rng.uniform(0, 0.6))
            send(process, signal.SIGKILL)
            self._said.append(await ended(process))
            self.result.acts["kill enqueue"] += 1
        done = await self._project.process("enqueue", "pool.jsonl")
        self._said.append(done)
        if done.code != 0:
            self.result.problems.append(f"enqueue ended with {done.code}: {done.err}")

    async def _finish(self) -> None:
        """The rest of the job, and the proof."""
        result, project = self.result, self._project
        rest = await project.process("-q", "run", "pool.jsonl", "-c", "20")
        self._said.append(rest)
        if rest.code != 0:
            result.problems.append(f"the last run ended with {rest.code}: {rest.err}")
        result.problems += contradictions(project, await project.process("verify"))
        self._count()
        exported = [line["input"]["word"] for line in project.export()]
        if exported != [f"w{number:06}" for number in range(result.items)]:
            result.problems.append(f"the export has {len(exported)} lines, or others")
        for said in self._said:
            for words in _FORBIDDEN:
                if words in said.err + said.out:
                    result.problems.append(f"{words!r} in: {said.err or said.out}")

    def _count(self) -> None:
        result, project = self.result, self._project
        with self._log.open() as ledger:
            outcomes = Counter(json.loads(line)["outcome"] for line in ledger)
        good = outcomes["ok"] + outcomes["stale"]
        result.calls = self._simulator.calls
        result.failed_calls = result.calls - good
        result.repeated = good - result.items
        if not 0 <= result.repeated <= result.in_flight:
            result.problems.append(
                f"{result.repeated} items were asked again, but only {result.in_flight} calls "
                "were in flight when workers ended"
            )
        states = project.query("select state, count(*) from work group by 1")
        if states != [("done", result.items)]:
            result.problems.append(f"not all is done: {states}")
        [(on_record,)] = project.query("select count(*) from attempts")
        if on_record < result.calls:
            result.problems.append(f"{result.calls} calls, but {on_record} attempts on record")

    def _weigh_waits(self, probed: str) -> None:
        """A line a wait: from when to when, by the clock that all processes share."""
        result, longest_s = self.result, self.plan.longest_wait_s
        waits = [tuple(map(float, line.split())) for line in probed.split("\n") if line]
        if not waits:
            result.problems.append("nobody measured how long a write transaction has to wait")
        for asked_at, got_at in waits:
            wait_s = got_at - asked_at
            if any(asked_at < until and since < got_at for since, until in self._suspensions):
                result.longest_wait_for_suspended_s = max(
                    result.longest_wait_for_suspended_s, wait_s
                )
            else:
                result.longest_wait_s = max(result.longest_wait_s, wait_s)
        if result.longest_wait_s > longest_s:
            result.problems.append(
                f"a write transaction had to wait for {result.longest_wait_s:.3f} s"
            )

    def _count_shares(self) -> None:
        result, project = self.result, self._project
        shares = project.query(
            "select count(*), max(finished_at) - min(finished_at) from attempts"
            " where outcome = 'answered' group by worker_id"
        )
        result.shares = [n for n, _ in shares]
        result.rates = [1000 * n / life for n, life in shares if life >= _A_SHORT_LIFE_MS]
        if self.plan.calm:
            equal = statistics.mean(result.shares)
            if len(shares) != self.plan.workers or min(result.shares) < _FAIR * equal:
                result.problems.append(f"the shares are not fair: {result.shares}")

    def _pids_at_work(self) -> set[int]:
        return {pid for (pid,) in self._look("select pid from workers")}

    def _open_items(self) -> float:
        found = self._look(
            "select coalesce(sum(n), 0) from counters where state in ('pending', 'running')"
        )
        return float(found[0][0]) if found else math.inf

    def _look(self, sql: str) -> list[Any]:
        """Nothing when one that we suspended, or have just killed, is in the way: it is we who must
        wake it, so we do not wait for it."""
        try:
            return look(self._project.database, sql, timeout_s=0)
        except sqlite3.OperationalError:
            return []

    async def _start_probe(self) -> Process:
        probe = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.chaos", "--probe", str(self._project.database),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._project.running.append(probe)
        return probe


async def chaos(plan: Plan, directory: Path) -> Result:
    """Run the plan in an empty directory."""
    log = directory / "ledger.jsonl"
    simulator = Simulator(
        latency="uniform:0.005:0.05", errors=plan.errors, seed=plan.seed, retry_after_s=0.05,
        ledger_path=log,
    )  # fmt: skip
    async with simulator.running() as base_url:
        project = Project(directory / "project", base_url)
        project.config(_CONFIG)
        project.write("prompts/user_prompts/default.txt", "Say {word}\n")
        try:
            return await _Chaos(plan, project, simulator, log).run()
        finally:
            for process in project.running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def churn(database: Path, *, seconds: float, writers: int, seed: int) -> set[str]:
    """Processes that write through our store and reset the log all the time, now and then one is
    killed; the names that they were told are safe."""
    rng = random.Random(seed)
    running: list[asyncio.subprocess.Process] = []
    told: list[asyncio.Task[tuple[bytes, bytes]]] = []
    end_at = math.inf
    number = 0
    while time.monotonic() < end_at:
        running = [writer for writer in running if writer.returncode is None]
        while len(running) < writers:
            number += 1
            writer = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.chaos", "--churn", str(database),
                "--seed", str(number),
                cwd=Path(__file__).parents[2],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            running.append(writer)
            told.append(asyncio.create_task(writer.communicate()))
        if number == writers:  # the time counts from when they write
            await until(database, "select count(*) from experiments")
            end_at = time.monotonic() + seconds
        await asyncio.sleep(rng.uniform(0.5, 1))
        with contextlib.suppress(ProcessLookupError):
            rng.choice(running).kill()
    for writer in running:
        with contextlib.suppress(ProcessLookupError):
            writer.kill()
    outputs = await asyncio.gather(*told)
    errors = b"".join(err for _, err in outputs).decode()
    if errors:
        raise AssertionError(errors)
    return {line for out, _ in outputs for line in out.decode().split("\n")[:-1]}


async def _write_for_ever(database: Path, number: int) -> None:
    """Rows of any size, each commit acknowledged on stdout after it; often a checkpoint too,
    which resets the log."""
    rng = random.Random(number)

    def write(on: SqliteTransaction, name: str) -> None:
        db = on.connection
        db.execute("insert or ignore into parsers values (1, 'raw', '', '{}', 0)")
        db.execute(
            "insert into experiments (name, created_at, parser_id) values (?, 0, 1)", (name,)
        )
        db.execute("update experiments set overuse = overuse + 1 where id % 7 = 0")

    def checkpoint(db: sqlite3.Connection) -> None:
        db.execute(f"pragma wal_checkpoint({rng.choice(['passive', 'restart', 'truncate'])})")

    async with open_database(database, create=True) as opened:
        gate = Gate(database)
        own = sqlite3.connect(database, isolation_level=None)
        for count in itertools.count():
            name = f"{number}-{count}-{'x' * rng.choice([10, 1000, 20_000])}"
            await opened.write(write, name)
            print(name, flush=True)
            if rng.random() < 0.3:
                with gate.hold():
                    checkpoint(own)


def probe(database: Path) -> None:
    """Ask for a write transaction, again and again, as any worker does; print a line at the first
    one, and each wait in the end."""
    gate, waits = Gate(database), []
    db = sqlite3.connect(database, isolation_level=None)
    with contextlib.closing(db), contextlib.closing(gate):
        for _ in _until_a_line_comes():
            asked_at = time.monotonic()
            with gate.hold():
                db.execute("begin immediate")
                waits.append(f"{asked_at} {time.monotonic()}")
                if len(waits) == 1:
                    print(flush=True)
                db.execute("rollback")
        with gate.hold():
            db.close()
    print("\n".join(waits))


def _until_a_line_comes() -> Iterator[None]:
    import select

    while not select.select([sys.stdin], [], [], 0.02)[0]:
        yield


def _churn_and_look(plan: Plan, database: Path) -> int:
    safe = asyncio.run(churn(database, seconds=plan.seconds, writers=plan.workers, seed=plan.seed))
    with contextlib.closing(sqlite3.connect(database)) as db:
        found = db.execute("pragma integrity_check").fetchall()
        kept = {name for (name,) in db.execute("select name from experiments")}
    print(f"SQLite {sqlite3.sqlite_version}: {len(safe)} commits acknowledged, "
          f"{len(safe - kept)} of them lost, integrity_check: {found[0][0]}")  # fmt: skip
    return 0 if safe <= kept and found == [("ok",)] else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py chaos", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--calm", action="store_true", help="nobody is ended: who gets how much")
    parser.add_argument("--sqlite", action="store_true", help="only writers that reset the log")
    parser.add_argument("--steps", action="store_true", help="of chains, with rows asked again")
    parser.add_argument("--postgres", action="store_true", help="on a server, of several machines")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--churn", type=Path, help=argparse.SUPPRESS)
    given: Any = parser.parse_args(arguments)
    if given.probe:
        probe(given.probe)
        return 0
    if given.churn:
        asyncio.run(_write_for_ever(given.churn, given.seed))
        return 0
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}, {given.workers} workers, {given.seconds:g} s", flush=True)
    acts = () if given.calm else tuple(ACTS)
    chunk = 3000 if given.calm else Plan.chunk
    plan = Plan(given.seconds, given.workers, seed, acts=acts, chunk=chunk)
    with tempfile.TemporaryDirectory(prefix="batchgen-chaos-") as directory:
        if given.sqlite:
            return _churn_and_look(plan, Path(directory) / "batchgen.db")
        if given.postgres:
            from tests.crash import postgres_chaos as on_server  # here: it needs the driver

            job: Any = on_server.postgres_chaos(
                on_server.plan_of(given.seconds, given.workers, seed, steps=given.steps),
                Path(directory),
            )
        elif given.steps:
            job = chain_chaos(given.seconds, given.workers, seed, Path(directory))
        else:
            job = chaos(plan, Path(directory))
        result: Any = asyncio.run(job)
    print(result.text())
    for problem in result.problems:
        print(f"WRONG: {problem}")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
