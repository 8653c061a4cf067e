"""`failures`: which failures are of one kind, and what to do about them; the commands that it
proposes are typed as they stand there."""

import re
import shlex

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Typist


def commands_in(text: str) -> list[list[str]]:
    """The commands that a text proposes, without those that have something to fill in."""
    found = re.findall(r"batchgen (.*?)(?=\. [A-Z]| \(|\)|$)", text, re.MULTILINE)
    return [shlex.split(one) for one in found if not re.search(r"NAME|VALUE", one)]


async def test_each_group_has_the_remedy_that_fits(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("parser: json\nwork: {max_attempts: 1}\n", max_tokens=50)
    project.pool({"word": f"{kind} {n}"} for kind in ("server", "long", "odd") for n in range(3))
    for n in range(3):
        simulator.script(f"Say server {n}", Behaviour.error(500, message=f"busy, id req_{n}x"))
        simulator.script(f"Say long {n}", Behaviour("length"))
        message = "strange word" if n == 2 else f"odd topic, token {n}"
        simulator.script(f"Say odd {n}", Behaviour.error(400, message=message))
    await batchgen("run", "pool.jsonl", "-c", "1")
    shown = (await batchgen("failures")).out
    assert (
        "       3  server        500 busy, id req_0x   (batchgen show 1)\n"
        "          Ask again: batchgen retry --reason server\n"
    ) in shown
    lines = [line.strip() for line in shown.splitlines()]
    assert "Give it more room: batchgen retry --reason truncated --set max_tokens=100" in lines
    rejected = [line for line in lines if "The same request fails again" in line]
    assert "batchgen retry --reason rejected --message '400 odd topic, token' --set" in rejected[0]
    assert "batchgen retry --reason rejected --message '400 strange word' --set" in rejected[1]
    for command in commands_in(shown):
        if command[0] == "retry":
            assert "--reason" in command
            assert command[command.index("--reason") + 1] != "rejected"
            assert "3 failed items would go" in (await batchgen(*command, "--dry-run")).out
        else:
            assert (await batchgen(*command)).code == 0


async def test_calls_that_were_asked_again_are_told_though_no_item_failed(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    project.pool({"word": f"w{n:02}"} for n in range(40))
    for n in range(0, 40, 2):
        simulator.script(f"Say w{n:02}", Behaviour.error(503, message="engine is busy"))
    simulator.script("Say w01", Behaviour("reset"))
    ended = await batchgen("run", "pool.jsonl", "-c", "8")
    assert ended.code == 0
    shown = (await batchgen("failures")).out
    assert "default: no item failed.\n" in shown
    assert "      20  503 server        503 engine is busy\n" in shown
    status = await batchgen("status")
    assert "calls that failed: 503 server x 20, connection x " in status.out
    total = (await batchgen("status", "--json")).json["total"]
    assert total["failed_calls"]["503 server"] == 20
    assert sum(total["failed_calls"].values()) == total["retried"] == total["calls"] - 40
    assert (await batchgen("verify")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "it's 2"])
async def test_many_messages_are_few_groups(
    project: Project, batchgen: Typist, simulator: Simulator, name: str
) -> None:
    project.config("work: {max_attempts: 1}\n")
    project.pool({"word": f"w{n}"} for n in range(60))
    for n in range(1, 60):
        simulator.script(f"Say w{n}", Behaviour.error(400, message=f"no, trace id {n:x}f{n}"))
    await batchgen("run", "pool.jsonl", "--experiment", name, "-c", "1", "--max-failures", "60")
    (group,) = (await batchgen("failures", "--json")).json
    assert (group["count"], group["example"], group["reason"]) == (59, 2, "rejected")
    assert group["hint"].startswith("The same request fails again. See it: batchgen show 2. ")


async def test_of_several_experiments_the_commands_name_theirs(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("work: {max_attempts: 1}\n")
    project.pool([{"word": "a"}])
    simulator.script("Say a", *(Behaviour.error(500, message="no") for _ in range(2)))
    for name in ("one", "it's 2"):
        await batchgen("run", "pool.jsonl", "--experiment", name)
    shown = await batchgen("failures")
    for command in commands_in(shown.out):
        if command[0] == "retry":
            assert "1 failed item would go" in (await batchgen(*command, "--dry-run")).out


async def test_the_example_is_that_item_though_another_has_its_number_as_id(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say bad", Behaviour.error(400))
    project.pool([{"word": "bad", "id": 2}, {"word": "good", "id": 1}])
    await project.batchgen("run", "pool.jsonl")
    failures = await project.batchgen("failures")
    shown = re.findall(r"batchgen (show \S+?)[.)]", failures.out)
    assert shown == ["show '#1'"] * 2
    assert (await project.batchgen(*shlex.split(shown[0]))).out.startswith("item 1 (id 2)")
    project.pool([{"word": "other", "id": 2}])
    refused = await project.batchgen("enqueue", "pool.jsonl")
    assert refused.err.endswith("id '2' belongs to item 1 already, which has other content; give "
                                "this one another id. See: batchgen show '#1'\n")  # fmt: skip


async def test_what_retry_is_to_look_for_can_be_typed(project: Project) -> None:
    project.write(
        "code.py",
        "def tell(item):\n    raise ValueError('no red\\x1b[31m tea' if item['n'] else 'no cup')\n",
    )
    project.config("steps: [{name: tell, function: 'code.py:tell'}]\n")
    project.pool([{"n": 0}, {"n": 1}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    hints = (await project.batchgen("failures")).out
    for message in re.findall(r"--message '([^']+)'", hints):
        told = await project.batchgen("retry", "--message", message, "--dry-run")
        assert told.out == "1 failed row would go back to pending.\n"
    assert hints.count("--message") == 2
