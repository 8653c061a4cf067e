"""`batchgen retry`: which items go again, and with what."""

from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project
from tests.kits.typist import Typist


def sent(simulator: Simulator) -> list[tuple[str, Any, Any]]:
    """(prompt, model, max_tokens) of each call, in order."""
    bodies = [request.body for request in simulator.requests]
    return [
        (body["messages"][-1]["content"], body["model"], body.get("max_tokens")) for body in bodies
    ]


async def two_truncated(project: Project, simulator: Simulator) -> None:
    """ "one" and "two" are cut off, "three" is done, "four" is refused; at max_tokens 10."""
    project.config("parser: json\n", max_tokens=10)
    project.pool({"word": word} for word in ("one", "two", "three", "four"))
    for word in ("one", "two"):
        simulator.script(word, "length", Behaviour.ok("[1]"))
    simulator.script("three", Behaviour.ok("[3]"))
    simulator.script("four", "refusal")
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3


@pytest.mark.on_both_engines
async def test_truncated_items_go_again_with_more_tokens_and_stay_the_same_items(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await two_truncated(project, simulator)
    ended = await batchgen("retry", "--reason", "truncated", "--set", "max_tokens=8192")
    assert (ended.code, ended.out) == (0, "2 failed items went back to pending.\n")
    assert (await project.batchgen("work", "-c", "1")).code == 3
    assert sent(simulator)[4:] == [
        ("Say one", "simulated", 8192), ("Say two", "simulated", 8192),
    ]  # fmt: skip
    # Nothing new, as the recipe of the pool is as it was.
    assert (await batchgen("enqueue", "pool.jsonl", "--json")).json["new"] == 0
    assert project.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", 3), ("failed", 1),
    ]  # fmt: skip
    assert project.query("select outcome, finish_reason from attempts where item_id = 1") == [
        ("answered", "length"), ("answered", "stop"),
    ]  # fmt: skip
    assert (await batchgen("verify")).code == 0


async def test_items_retried_with_a_setting_keep_it_for_the_next_time(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await two_truncated(project, simulator)
    simulator.script("four", "refusal", Behaviour.ok("[4]"))
    for settings in (["--set", "max_tokens=null", "--set", "model=other"], []):
        retry = await batchgen("retry", "--reason", "refusal", *settings, "--json")
        assert retry.json == {"retried": 1, "dry_run": False}
        await project.batchgen("work")
    assert sent(simulator)[4:] == [("Say four", "other", None)] * 2


async def test_a_dry_run_with_a_setting_changes_nothing(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await two_truncated(project, simulator)
    dry = await batchgen("retry", "--set", "max_tokens=99", "--dry-run")
    assert dry.out == "3 failed items would go back to pending.\n"
    assert project.query("select count(*) from recipes") == [(1,)]
    assert project.query("select count(*) from work where state = 'failed'") == [(3,)]


async def test_by_message_in_any_case(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.pool({"word": word, "id": word} for word in ("good", "one", "two", "three"))
    simulator.script("one", Behaviour.error(400, message="Überlastet: engine overloaded"))
    simulator.script("two", Behaviour.error(400, message="100% wrong"))
    simulator.script("three", Behaviour.error(400, message="1000 wrong"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    for arguments, n in {
        ("--message", "überlastet"): 1,
        ("--message", "WRONG"): 2,
        ("--message", "100%"): 1,
        ("--message", "wrong", "--reason", "refusal"): 0,
        ("--message", "wrong", "--id", "one", "--id", "two"): 1,
        ("--message", "nowhere"): 0,
    }.items():
        dry = await batchgen("retry", *arguments, "--dry-run", "--json")
        assert dry.json["retried"] == n, arguments
    assert (await batchgen("retry", "--message", "100%", "--json")).json["retried"] == 1
    assert project.query(
        "select custom_id from items join work on item_id = id where state = 'pending'"
    ) == [("two",)]


async def test_a_done_item_goes_again_only_by_its_id_and_when_told_so(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.pool([{"word": "one"}, {"word": "two"}])
    simulator.script("one", Behaviour.ok("first"), Behaviour.ok("second"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    only_by_id = (
        "a done item is asked again only by its id: it has no reason and no message. "
        "--done goes with --id alone."
    )
    for arguments, error in {
        ("--id", "1"): "item 1 is done. Say --done to ask for it again.",
        ("--done",): only_by_id,
        ("--done", "--id", "1", "--reason", "parse"): only_by_id,
    }.items():  # fmt: skip
        refused = await batchgen("retry", *arguments)
        assert (refused.code, refused.err) == (2, f"error: {error}\n")
    dry = await batchgen("retry", "--done", "--id", "1", "--dry-run")
    assert dry.out == "1 item would go back to pending.\n"
    again = await batchgen("retry", "--done", "--id", "1", "--id", "1", "--set", "seed=3")
    assert again.out == "1 item went back to pending.\n"
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.requests[-1].body["seed"] == 3
    assert project.export()[0]["response"] == "second"
    assert project.query("select response from attempts where item_id = 1") == [
        ("first",), ("second",),
    ]  # fmt: skip
    assert project.query("select count(*) from results where item_id = 1") == [(2,)]
    assert (await batchgen("verify")).code == 0


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("max_token=1", "max_token: unknown key; did you mean max_tokens? A parameter that only "
                        "your server knows goes under extra_body"),
        ("max_tokens", "max_tokens: no value; write max_tokens=VALUE"),
        ("max_tokens=many", "max_tokens: must be an integer from 1 to 1000000000 or null, not the "
         "text 'many'"),
        ("model.temperature=hot", "temperature: must be a finite number or null, not the text"
                                  " 'hot'"),
        ("model=null", "model: must be text, not null"),
        ("stop=[a", "stop:1:3: while parsing a flow sequence: expected ',' or ']', but got "
                    "'<stream end>'; a bracket is not closed"),
        ("base_url=http://sk-secret", "base_url: does not belong to the request; set it in "
                                      "config.yaml"),
        ("parser=json", "parser: does not belong to the request; set it in config.yaml"),
        ("messages=[]", "messages: cannot be set; batchgen decides it for every request"),
    ],
)  # fmt: skip
async def test_a_setting_that_cannot_be_is_refused(
    project: Project, batchgen: Typist, setting: str, error: str
) -> None:
    refused = await batchgen("retry", "--set", setting)
    assert (refused.code, refused.err) == (2, f"error: {error}\n")
    assert is_untouched(project.database)


async def test_settings_are_read_as_in_the_config(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.pool([{"word": "one"}])
    simulator.script("one", Behaviour.error(400))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    settings = ["temperature=1", "stop=END", "reasoning_effort=low", 'extra_body={"top_k": 5}']
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert (await batchgen("retry", *arguments)).code == 0
    assert (await project.batchgen("work")).code == 0
    body = simulator.requests[-1].body
    assert {name: body[name] for name in ("temperature", "stop", "reasoning_effort", "top_k")} == {
        "temperature": 1.0, "stop": "END", "reasoning_effort": "low", "top_k": 5,
    }  # fmt: skip


async def test_items_that_a_setting_would_not_reach_are_left(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    messages = [{"role": "user", "content": "Say four"}]
    project.pool([
        {"word": "one"},
        {"word": "two", "params": {"max_tokens": 5}},
        {"word": "three", "params": {"seed": 5}},
        {"custom_id": "four", "method": "POST", "url": "/v1/chat/completions",
         "body": {"messages": messages, "max_tokens": 5}},
        {"word": "five", "body": {"max_tokens": 5}},
    ])  # fmt: skip
    for word in ("one", "two", "three", "four", "five"):
        simulator.script(word, Behaviour.error(400))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    for arguments in (["--dry-run"], []):
        retry = await batchgen("retry", "--set", "max_tokens=9", "--json", *arguments)
        assert retry.json["retried"] == 3
        assert retry.err == (
            "warning: not retried: 2 items with params of their own, which win over"
            " --set max_tokens=9\n"
        )
    assert (await project.batchgen("work", "-c", "1")).code == 3
    assert [(prompt, tokens) for prompt, _, tokens in sent(simulator)[5:]] == [
        ("Say one", 9), ("Say three", 9), ("Say five", 9),
    ]  # fmt: skip
