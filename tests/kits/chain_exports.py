"""Experiments with steps, and what is exported of them."""

import json
from typing import Any

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Ended

PARTS = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: ask, user: {text: "Ask {topic}"}, parser: json}
  - {name: answer, each: {question: ask}, user: {text: "Answer {question}"}}
  - {name: judge, user: {text: "Judge {answer}"}, parser: json}
result: [answer]
"""


def topics(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "topic": name, "metadata": {"of": name}} for name in names]


def says(simulator: Simulator, **answers: str) -> None:
    for asked, answer in answers.items():
        simulator.script(asked.replace("_", " "), Behaviour.ok(answer))


def lines(out: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.out.splitlines()]


async def exported(project: Project, *options: str) -> list[dict[str, Any]]:
    out = await project.batchgen("export", "-o", "-", *options)
    assert out.code == 0, out.err
    return lines(out)
