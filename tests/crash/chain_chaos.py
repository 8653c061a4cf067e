"""Chains of all kinds in one, with workers killed, and rows asked again and parsed again meanwhile.

    python3 dev.py chaos --steps --seconds 600 --workers 4 --seed 7

In the end the chains are those of a calm run, the tables are without contradiction, and each call
is one that a calm run makes: once, but for those that failed, that were in flight at a kill, and
that an operator had asked for, who was told so.
"""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

from batchgen.simulate import Simulator
from tests.kits.crashes import contradictions, send
from tests.kits.database import look
from tests.kits.pipelines import NAME, Pipeline, calm_run, pool
from tests.kits.processes import Process
from tests.kits.project import Project, ended, without_times
from tests.kits.typist import Ended

ERRORS = "429=0.02,500=0.01,reset=0.01,cut=0.01,html=0.005,bad_json=0.005"
_WORK = "{max_attempts: 100, timeout_s: 30, retry_wait_s: 0.05}"
_CHUNK = 40
ALL_KINDS = Pipeline(
    "all kinds",
    (
        'name: ask, user: {text: "Ask {word}"}, parser: "code.py:several"',
        'name: answer, each: {question: ask}, user: {text: "Answer {word}: {question}"},'
        ' parser: "code.py:score"',
        'name: check, conversation: true, user: {text: "Check {word}: {question}"}',
        'name: sum, gather: answers, user: {text: "Sum {word}: {answers}"}',
        'name: weight, function: "code.py:weight_of_sum"',
        'name: hint, when: weight > 120, otherwise: skip, user: {text: "Hint {word}: {sum}"}',
        'name: end, when: weight > 60, user: {text: "End {word}: {weight} {hint}"}',
    ),
    result="end, weight",
)  # fmt: skip


@dataclass
class ChainResult:
    problems: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    items: int = 0
    calls: int = 0
    failed_calls: int = 0
    in_flight: int = 0  # at most, at all kills together
    asked_for: int = 0  # by the operator, once more
    repeated: int = 0

    def text(self) -> str:
        acts = ", ".join(f"{n} x {act}" for act, n in sorted(self.acts.items()))
        return (
            f"{self.items} items, {self.calls} calls, {self.failed_calls} of them failed by the "
            f"model; asked again: {self.repeated}, in flight at kills: at most {self.in_flight}, "
            f"asked for again by commands: {self.asked_for}\n{acts}"
        )


class _ChainChaos:
    def __init__(
        self, seed: int, workers: int, project: Project, simulator: Simulator, log: Path
    ) -> None:
        self.result = ChainResult()
        self._rng = random.Random(seed)
        self._workers = workers
        self._slots = 5
        self._project = project
        self._simulator = simulator
        self._log = log
        self._alive: list[Process] = []
        self._said: list[Ended] = []

    async def run(self, seconds: float, directory: Path) -> ChainResult:
        ALL_KINDS.set_up(self._project, _WORK)
        await self._grow()
        end_at = time.monotonic() + seconds
        while time.monotonic() < end_at:
            while len(self._alive) < self._workers:
                await self._join()
            await asyncio.sleep(self._rng.uniform(0.02, 0.5))
            await self._act()
        for worker in self._alive:
            send(worker, SIGKILL)
            self.result.in_flight += self._slots
            self._said.append(await ended(worker))
        await self._finish(directory)
        return self.result

    async def _join(self) -> None:
        command = ("-q", "work", "--watch", "-c", str(self._slots))
        self._alive.append(await self._project.start(*command))

    async def _act(self) -> None:
        acts = {
            self._kill: 6, self._retry: 3, self._retry_stale: 3, self._grow: 2, self._reparse: 1,
        }  # fmt: skip
        (act,) = self._rng.choices(list(acts), list(acts.values()))
        self.result.acts[act.__name__.removeprefix("_")] += 1
        await act()

    async def _kill(self) -> None:
        victim = self._alive.pop(self._rng.randrange(len(self._alive)))
        send(victim, SIGKILL)
        said = await ended(victim)
        self._said.append(said)
        if said.code != -9:
            self.result.problems.append(f"a worker ended with {said.code}: {said.err}")
        self.result.in_flight += self._slots

    async def _retry(self) -> None:
        """A done row of any step that calls; the simulated model says the same once more."""
        step = self._rng.choice(["ask", "answer", "check", "sum", "end"])
        done = look(
            self._project.database,
            "select w.item_id from work w join experiments e on e.id = w.experiment_id"
            f" where e.step = '{step}' and w.state = 'done'",
        )
        if not done:
            return
        (row,) = self._rng.choice(done)
        said = await self._command(
            "retry", "--step", step, "--id", str(row), "--done", "--json", codes=(0, 2)
        )
        if said.code == 0:  # 2: it is stale, or running, by now
            self.result.asked_for += said.json["retried"]

    async def _retry_stale(self) -> None:
        said = await self._command("retry", "--stale", "--json")
        self.result.asked_for += said.json["calls"]

    async def _reparse(self) -> None:
        """Nothing has another value."""
        step = self._rng.choice(["ask", "answer"])
        await self._command("reparse", "--step", step, "--all")

    async def _grow(self) -> None:
        self.result.items += _CHUNK
        self._project.pool(pool(self.result.items))
        await self._command("enqueue", "pool.jsonl")

    async def _command(self, *command: str, codes: tuple[int, ...] = (0,)) -> Ended:
        said = await self._project.process(*command)
        self._said.append(said)
        if said.code not in codes:
            self.result.problems.append(f"{command} ended with {said.code}: {said.err}")
        return said

    async def _finish(self, directory: Path) -> None:
        """The rest of the job, and the proof."""
        result, project = self.result, self._project
        await self._command("-q", "run", "pool.jsonl", "-c", "20")
        while (stale := await self._command("retry", "--stale", "--json")).json["retried"]:
            result.asked_for += stale.json["calls"]
            await self._command("-q", "work", "-c", "20")
        await self._command("export")
        result.problems += contradictions(project, await project.process("verify"))
        calm = await calm_run(ALL_KINDS, directory / "calm", result.items)
        lines = [_without_tries(line) for line in project.export(NAME)]
        if lines != [_without_tries(json.loads(line)) for line in calm.export.split("\n")]:
            result.problems.append("the export is not that of a calm run")
        self._count(calm.ledger.total())
        for said in self._said:
            for words in ("locked", "Traceback", "internal error", "malformed"):
                if words in said.err + said.out:
                    result.problems.append(f"{words!r} in: {said.err or said.out}")

    def _count(self, wanted: int) -> None:
        result = self.result
        with self._log.open() as log:
            outcomes = Counter(json.loads(line)["outcome"] for line in log)
        result.calls = self._simulator.calls
        result.failed_calls = result.calls - outcomes["ok"]
        result.repeated = outcomes["ok"] - wanted
        if not 0 <= result.repeated <= result.in_flight + result.asked_for:
            result.problems.append(
                f"{result.repeated} calls were made again, but only {result.in_flight} were in "
                f"flight at kills, and {result.asked_for} asked for"
            )
        [(on_record,)] = self._project.query("select count(*) from attempts")
        if on_record < result.calls:
            result.problems.append(f"{result.calls} calls, but {on_record} attempts on record")


def _without_tries(line: dict[str, Any]) -> dict[str, Any]:
    """Of an export: tries that failed, or were asked for once more, are no part of what was
    made."""
    line = without_times(line)
    steps = line["steps"].values()
    for one in (line, *(row for step in steps for row in (step if type(step) is list else [step]))):
        for name in ("attempts", "usage", "cost_usd"):
            one.pop(name, None)
    return line


async def chain_chaos(seconds: float, workers: int, seed: int, directory: Path) -> ChainResult:
    """In an empty directory."""
    log = directory / "ledger.jsonl"
    simulator = Simulator(
        latency="uniform:0.005:0.05", errors=ERRORS, seed=seed, retry_after_s=0.05, ledger_path=log
    )
    async with simulator.running() as base_url:
        project = Project(directory / "project", base_url)
        try:
            chaos = _ChainChaos(seed, workers, project, simulator, log)
            return await chaos.run(seconds, directory)
        finally:
            for process in project.running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
