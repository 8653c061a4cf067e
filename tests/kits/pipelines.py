"""Chains of every kind, their pools, and the ledger that a calm run of them leaves.

The simulated model's answers depend on the request alone, so what a chain asks after any number of
crashes is what it asks in a calm run: the same calls, and each of them as often.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.simulate import Simulator
from tests.kits.project import Project, without_times

NAME = "demo"

# `size` of a text varies, and depends on nothing else.
CODE = '''\
import os
import time
from hashlib import sha256
from pathlib import Path


def size(text):
    return sha256(str(text).encode()).digest()[0]


def some(text):
    """None to three, each with a text of its own."""
    return [f"{n} of {size(text)}" for n in range(size(text) % 4)]


def several(text):
    """One to five."""
    return [f"{n} of {size(text)}" for n in range(1 + size(text) % 5)]


def score(text):
    return {"score": size(text) % 10, "text": text}


def weigh(item, values):
    """Waits where a test holds it."""
    here = Path(__file__).parent
    if item["word"] == "w03" and (here / "hold").exists():
        (here / "inside").touch()
        while (here / "hold").exists():
            time.sleep(0.005)
    return size(values["draft"])


def weight_of_sum(item, values):
    return size(values["sum"])


def best(item, values):
    return max(values["scores"], key=lambda one: (one["score"], one["text"]))


def longest(item, values):
    return max(values["answers"], key=lambda one: (len(one), one))


def vote(item, values):
    counted = {}
    for one in values["drafts"]:
        counted[size(one) % 3] = counted.get(size(one) % 3, 0) + 1
    return counted
'''


@dataclass(frozen=True)
class Pipeline:
    """`steps` as in a config, an item of it having the variable {word}."""

    name: str
    steps: tuple[str, ...]
    samples: int = 1
    result: str = ""

    def set_up(self, project: Project, work: str = "") -> None:
        """Config and code; `work`: keys of that section, in braces."""
        project.write("code.py", CODE)
        lines = [f"output_data: {{experiment_name: {NAME}, need_time_stamp: false}}", "steps:"]
        lines += [f"  - {{{step}}}" for step in self.steps]
        lines += [f"result: [{self.result}]"] if self.result else []
        lines += [f"work: {work}"] if work else []
        project.config("\n".join(lines) + "\n")

    def edited(self, old: str, new: str) -> "Pipeline":
        steps = tuple(step.replace(old, new) for step in self.steps)
        assert steps != self.steps
        return Pipeline(self.name, steps, self.samples, self.result)

    def step_with(self, text: str) -> str:
        """The name of the one that has it in its prompt."""
        return self._names()[self._place_of(text)]

    def prompts_before(self, text: str) -> list[str]:
        """Those of the steps before that one."""
        return re.findall(r'text: "(.*?)"', "\n".join(self.steps[: self._place_of(text)]))

    def _place_of(self, text: str) -> int:
        (place,) = (n for n, step in enumerate(self.steps) if text in step)
        return place

    def _names(self) -> list[str]:
        return [step.removeprefix("name: ").split(",")[0] for step in self.steps]


DRAFT = 'name: draft, user: {text: "Draft {word}"}'

KINDS = (
    Pipeline(
        "plain",
        (
            DRAFT,
            'name: critique, user: {text: "Judge {word}: {draft}"}',
            'name: revise, user: {text: "Mend {word}: {critique}"}',
        ),
    ),
    Pipeline(
        "when",
        (
            DRAFT,
            'name: score, user: {text: "Score {word}: {draft}"}, parser: "code.py:score"',
            'name: hint, when: score.score > 3, otherwise: skip, user: {text: "Hint {word}"}',
            'name: revise, when: score.score < 7, user: {text: "Mend {word}: {hint}"}',
        ),
        result="revise, draft",
    ),
    Pipeline(
        "each",
        (
            'name: ask, user: {text: "Ask {word}"}, parser: "code.py:some"',
            'name: answer, each: {question: ask}, user: {text: "Answer {word}: {question}"}',
            'name: judge, user: {text: "Judge {word}: {question}: {answer}"}',
        ),
    ),
    Pipeline(
        "gather",
        (
            'name: ask, user: {text: "Ask {word}"}, parser: "code.py:several"',
            'name: answer, each: {question: ask}, user: {text: "Answer {word}: {question}"}',
            'name: sum, gather: answers, user: {text: "Sum {word}: {answers}"}',
            'name: polish, user: {text: "Polish {word}: {sum}"}',
        ),
    ),
    Pipeline(
        "function",
        (
            DRAFT,
            'name: weight, function: "code.py:weigh"',
            'name: revise, when: weight > 60, user: {text: "Mend {word}: {weight}"}',
        ),
        result="revise, weight",
    ),
    Pipeline(
        "conversation",
        (
            DRAFT,
            'name: check, conversation: true, user: {text: "Check {word}"}',
            'name: again, conversation: true, user: {text: "Once more {word}"}',
        ),
    ),
)

# Two steps with a list, three with a filter, five in a row with a function, and a vote of samples.
JUDGED = (
    Pipeline(
        "fan-out",
        (
            'name: ask, user: {text: "Ask {word}"}, parser: "code.py:several"',
            'name: answer, each: {question: ask}, user: {text: "Answer {word}: {question}"}',
        ),
    ),
    Pipeline(
        "filter",
        (
            DRAFT,
            'name: score, user: {text: "Score {word}: {draft}"}, parser: "code.py:score"',
            'name: revise, when: score.score < 6, user: {text: "Mend {word}: {score.score}"}',
        ),
        result="revise, draft",
    ),
    Pipeline(
        "five",
        (
            DRAFT,
            'name: critique, user: {text: "Judge {word}: {draft}"}',
            'name: weight, function: "code.py:weigh"',
            'name: revise, user: {text: "Mend {word}: {weight} {critique}"}',
            'name: polish, conversation: true, user: {text: "Polish {word}"}',
        ),
    ),
    Pipeline("vote", (DRAFT, 'name: vote, gather: drafts, function: "code.py:vote"'), samples=4),
)


def pool(n: int) -> list[dict[str, Any]]:
    return [{"id": f"a-{number}", "word": f"w{number:02}"} for number in range(n)]


def asked(simulator: Simulator) -> Counter[str]:
    """How often each request was made, a conversation with all that was said before."""
    assert len(simulator.requests) == simulator.calls  # it keeps the newest ten thousand
    return Counter(json.dumps(one.body, sort_keys=True) for one in simulator.requests)


def asked_again(calls: Mapping[str, int], wanted: Mapping[str, int]) -> int:
    """How many calls were made more than once is wanted. Each that is wanted was made, and no
    other."""
    assert calls.keys() == wanted.keys()
    more = {one: calls[one] - n for one, n in wanted.items()}
    assert min(more.values(), default=0) >= 0
    return sum(more.values())


def exported_text(project: Project) -> str:
    """The export, byte by byte, but for the times."""
    lines = [without_times(line) for line in project.export(NAME)]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


@dataclass(frozen=True)
class Calm:
    """What a run that nobody disturbed exports, and the model that it asked."""

    export: str
    simulator: Simulator

    @property
    def calls(self) -> Counter[str]:
        """By what was sent."""
        return asked(self.simulator)

    @property
    def ledger(self) -> Counter[str]:
        """By the last message of what was sent."""
        return self.simulator.ledger


def in_a_file(directory: Path) -> dict[str, str]:
    """For the environment: also where others keep their database on a server."""
    return {"BATCHGEN_DATABASE": str(directory / "batchgen.db")}


async def calm_run(pipeline: Pipeline, directory: Path, items: int) -> Calm:
    """On a model and in a file of its own."""
    simulator = Simulator()
    async with simulator.running() as base_url:
        project = Project(directory, base_url, in_a_file(directory))
        pipeline.set_up(project)
        project.pool(pool(items))
        samples = ("--samples", str(pipeline.samples))
        done = await project.batchgen("run", "pool.jsonl", *samples, "-c", "10")
    assert done.code == 0, done.err
    return Calm(exported_text(project), simulator)
