"""Conversations of experiments with steps, as they were sent; what `verify` proves of exports."""

import pytest

from batchgen.simulate import Simulator
from tests.kits.chain_exports import PARTS, exported, says, topics
from tests.kits.project import Project

CHECKED = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: extract, user: {text: "Extract {topic}"}, system: {text: "You extract."}}
  - {name: checked, conversation: true, user: {text: "Sure of {extract} in {topic}?"}}
  - {name: short, function: "short.py:short"}
result: [checked]
"""
SHORT = "def short(item, values):\n    return values['checked'][:1]\n"


@pytest.fixture
async def checked(project: Project, simulator: Simulator) -> Project:
    says(simulator, Extract_tea="Leaves.", Sure_of_Leaves="Yes, leaves.")
    project.write("short.py", SHORT)
    project.config(CHECKED)
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    return project


async def test_messages_are_the_whole_conversation(checked: Project, simulator: Simulator) -> None:
    (chat,) = await exported(checked, "--format", "messages")
    sent = [one.body["messages"] for one in simulator.requests]
    assert [one["content"] for one in chat["messages"]] == [
        "You extract.", "Extract tea", "Leaves.", "Sure of Leaves. in tea?", "Yes, leaves.",
    ]  # fmt: skip
    assert chat["messages"][:-1] in sent
    assert chat["metadata"] == {"of": "tea"}
    (first,) = await exported(checked, "--format", "messages", "--step", "extract")
    assert first["messages"] == chat["messages"][:3]
    (alpaca,) = await exported(checked, "--format", "alpaca", "--step", "extract")
    assert alpaca == {
        "instruction": "Extract tea", "input": "", "output": "Leaves.", "system": "You extract.",
    }  # fmt: skip
    (sharegpt,) = await exported(checked, "--format", "sharegpt")
    assert [one["value"] for one in sharegpt["conversations"]] == [
        "Extract tea", "Leaves.", "Sure of Leaves. in tea?", "Yes, leaves.",
    ]  # fmt: skip


async def test_messages_of_what_was_gathered_are_as_they_were_sent(
    project: Project, simulator: Simulator
) -> None:
    says(simulator, Ask_tea='["Why?", "How?"]', Answer_Why="So.", Answer_How="Thus.")
    project.config(
        PARTS.replace(
            '{name: judge, user: {text: "Judge {answer}"}, parser: json}',
            '{name: whole, gather: answers, user: {text: "Sum up {answers} of {topic}"}}',
        ).replace("[answer]", "[whole]")
    )
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    (chat,) = await exported(project, "--format", "messages")
    asked, _ = chat["messages"]
    assert asked["content"] == 'Sum up ["So.", "Thus."] of tea'
    assert [asked] in [one.body["messages"] for one in simulator.requests]
    (answer, _) = await exported(project, "--format", "messages", "--step", "answer")
    assert answer["messages"][0]["content"] == "Answer Why?"


async def test_what_no_model_has_said_is_left_out_of_conversations(checked: Project) -> None:
    said = await checked.batchgen("export", "-o", "-", "--format", "messages", "--step", "short")
    assert (said.code, said.err) == (0, "0 rows; left out: 1 without a model's answer\n")


async def test_verify_compares_exports_of_chains_until_their_lines_are_others(
    checked: Project,
) -> None:
    assert (await checked.batchgen("verify")).code == 0
    file = checked.path / "output" / "demo.jsonl"
    right = file.read_bytes()
    file.write_bytes(right.replace(b"Leaves", b"Branch"))
    found = await checked.batchgen("verify")
    assert (found.code, "is not what export wrote" in found.out) == (1, True)
    file.write_bytes(right)
    checked.config(CHECKED.replace("result: [checked]", "result: [extract]"))
    await checked.batchgen("enqueue", "pool.jsonl")
    assert (await checked.batchgen("verify")).code == 0
    await checked.batchgen("export")
    assert [one["parsed"] for one in checked.export("demo")] == ["Leaves."]
    await checked.batchgen("retry", "--step", "checked", "--id", "tea", "--done")
    verified = await checked.batchgen("verify")
    assert verified.code == 0, verified.out
