"""A chain whose steps are edited after it was enqueued: what has changed is told, with its calls,
and nothing is asked that nobody asked for."""

import json

import pytest

from batchgen.config import load
from batchgen.jobs.asked import asked_of
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import OtherRecipe, open_store
from tests.cli.test_steps import states, topics
from tests.kits.project import Project

CODE = "def score(item, values):\n    return int(item['topic'].split()[-1])\n"
POLISH = "  - {name: polish, user: {text: 'Polish {critique}'}}\n"


def steps(project: Project, when: str = "score > 1", of: str = "Mend", more: str = "") -> None:
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        "  - {name: draft, user: {text: 'Write about {topic}'}}\n"
        "  - {name: score, function: 'code.py:score'}\n"
        f"  - {{name: critique, when: {when}, user: {{text: '{of} {{topic}}'}}}}\n{more}",
        price={"input_usd_per_mtok": 1000, "output_usd_per_mtok": 0},
    )


@pytest.fixture
async def done(project: Project, simulator: Simulator) -> Project:
    """Three items that went through all steps, but the last one that the first item skips."""
    project.write("code.py", CODE)
    steps(project)
    project.pool(topics(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert states(project)["critique"] == {"done": 2}
    assert simulator.calls == 5
    return project


async def test_an_edited_step_is_told_with_what_each_way_costs(
    done: Project, simulator: Simulator
) -> None:
    steps(done, of="Repair")
    for command in (["enqueue"], ["run"], ["enqueue", "--dry-run"]):
        told = await done.batchgen(*command, "pool.jsonl")
        assert (told.code, told.err.splitlines()) == (2, [
            "error: experiment 'demo' was enqueued with other steps: step critique: the user "
            "template changed. Nothing was enqueued. Say which, or choose another --experiment:",
            "  --recipe replace   what is not done goes by the new steps, what is done stays: "
            "0 calls",
            "  --recipe again     the rows of what has changed are asked again; old answers stay "
            "stored: 2 calls, about $0.0060",
        ])  # fmt: skip
    assert states(done)["critique"] == {"done": 2}
    assert (await done.batchgen("run", "pool.jsonl", "--recipe", "replace")).code == 0
    assert simulator.calls == 5
    assert (await done.batchgen("run", "pool.jsonl", "--recipe", "again")).code == 0
    assert (simulator.calls, simulator.calls_of("Repair")) == (7, 2)
    assert (await done.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 7
    assert (await done.batchgen("verify")).code == 0


async def test_what_is_said_and_a_dry_run_reckon_by_what_the_calls_of_a_step_took(
    done: Project,
) -> None:
    steps(done, of="Repair")
    dry = await done.batchgen("enqueue", "pool.jsonl", "--recipe", "again", "--dry-run", "--json")
    critique = json.loads(dry.out)["steps"][-1]
    used = done.query(
        "select t.prompt_tokens, t.completion_tokens, t.cost_usd from totals t"
        " join experiments e on e.id = t.experiment_id where e.step = 'critique' and t.calls = 2"
    )
    assert [(critique["prompt_tokens"], critique["completion_tokens"], critique["cost_usd"])] == [
        pytest.approx(one) for one in used
    ]
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert f"2 calls, about ${critique['cost_usd']:,.4f}\n" in told.err


async def test_what_waits_keeps_what_it_was_enqueued_with(done: Project) -> None:
    done.pool(topics(4))
    await done.batchgen("enqueue", "pool.jsonl")
    steps(done, of="Repair")
    told = await done.batchgen("work")
    assert told.err.splitlines()[0] == (
        "demo: changed since it was enqueued: step critique: the user template changed. 1 row that "
        "waits keeps what it was enqueued with; to change that, enqueue the pool again with "
        "--recipe replace."
    )
    assert states(done)["critique"] == {"done": 3}


@pytest.mark.quick("names1-2")
@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (("draft", "judge", "revise"), 2, "demo': 3 of its rows wait, and the config has no step "
         "critique, so nobody knows at which server that is asked. Nothing was asked."),
        (("draft", "critique"), 2, "and the config has no step revise, so nobody knows"),
        (("draft", "revise", "critique"), 0, "3 rows that wait keep what they were enqueued with; "
         "steps in another order need another --experiment."),
    ],
)  # fmt: skip
async def test_steps_removed_renamed_or_moved_while_rows_wait(
    project: Project, simulator: Simulator, names: tuple[str, ...], code: int, said: str
) -> None:
    def config(names: tuple[str, ...]) -> None:
        lines = [f'  - {{name: {one}, user: {{text: "{one} {{topic}}"}}}}\n' for one in names]
        project.config("output_data: {experiment_name: demo}\nsteps:\n" + "".join(lines))

    config(("draft", "critique", "revise"))
    project.pool(topics(3))
    await project.batchgen("enqueue", "pool.jsonl")
    await project.batchgen("work", "--step", "draft")
    before = states(project)
    config(names)
    for mode in ([], ["--recipe", "replace"], ["--recipe", "again"], ["--dry-run"]):
        refused = await project.batchgen("enqueue", "pool.jsonl", *mode)
        assert (refused.code, "it is another experiment" in refused.err) == (2, True)
    assert (states(project), simulator.calls) == (before, 3)
    worked = await project.batchgen("work")
    assert (worked.code, said in worked.err) == (code, True)
    assert simulator.calls == (3 if code else 9)
    config(("draft", "critique", "revise"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 9
    assert (await project.batchgen("verify")).code == 0


async def test_another_condition_is_followed_by_what_is_done_already(
    done: Project, simulator: Simulator
) -> None:
    steps(done, when="score > 0")
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert told.code == 2
    assert "step critique: when score > 1 -> score > 0. Nothing" in told.err
    assert (
        "replace   what is not done goes by the new steps, what is done stays: 1 call, about "
        in (told.err)
    )
    assert "$0.0030 (new rows: 1 of critique)\n" in told.err
    dry = await done.batchgen("enqueue", "pool.jsonl", "--recipe", "replace", "--dry-run", "--json")
    assert [one["calls"] for one in json.loads(dry.out)["steps"]] == [0, 0, 1]
    assert states(done)["critique"] == {"done": 2}
    told = await done.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert "which makes these rows new: 1 of critique" in told.err
    assert states(done)["critique"] == {"done": 3}
    assert simulator.calls == 6

    steps(done, when="score > 2")
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "0 calls; 2 rows are stale then, and what follows: made no more, or of" in told.err
    await done.batchgen("enqueue", "pool.jsonl", "--recipe", "replace")
    assert states(done)["critique"] == {"done": 1, "stale": 2}
    steps(done, when="score > 0")
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "what is done stays: 0 calls\n" in told.err  # they come back by themselves
    dry = await done.batchgen("enqueue", "pool.jsonl", "--recipe", "replace", "--dry-run", "--json")
    assert [one["calls"] for one in json.loads(dry.out)["steps"]] == [0, 0, 0]
    await done.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert states(done)["critique"] == {"done": 3}
    assert simulator.calls == 6
    assert (await done.batchgen("verify")).code == 0


async def test_a_step_that_is_added_is_asked_of_what_is_done(
    done: Project, simulator: Simulator
) -> None:
    steps(done, more=POLISH)
    dry = await done.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert dry.out.splitlines()[0] == (
        "3 items read, 0 new to demo; new rows of what is done already: 2 of polish; nothing was "
        "written."
    )
    assert "  polish    2 calls" in dry.out  # the condition before it has been decided
    as_json = await done.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")
    found = json.loads(as_json.out)
    assert (found["asked_anew"], found["made"]) == (0, {"polish": 2})
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert (told.code, told.err.splitlines()[0]) == (
        0, "demo: 8 done rows followed by the new steps, which makes these rows new: 2 of polish",
    )  # fmt: skip
    assert (await done.batchgen("work")).code == 0
    assert states(done)["polish"] == {"done": 2}
    assert simulator.calls == 7


async def begin(project: Project, mode: OtherRecipe) -> None:
    """An enqueueing that is killed when the steps are there, and nothing is followed yet."""
    asked = asked_of(load(None, env={}, cwd=project.path))
    assert asked.chain is not None
    begun = "demo", asked.recipe, mode, 1, asked.version
    async with (
        open_store(project.database) as store,
        store.enqueueing(*begun, chain=asked.chain.intake),
    ):
        pass


async def test_following_what_is_done_is_ended_by_the_next_work(
    done: Project, simulator: Simulator
) -> None:
    """As after a kill between the two."""
    steps(done, more=POLISH)
    await begin(done, OtherRecipe.STOP)
    assert "polish" not in states(done)
    told = await done.batchgen("work")
    assert "which makes these rows new: 2 of polish" in told.err
    assert states(done)["polish"] == {"done": 2}
    assert "new: " not in (await done.batchgen("work")).err


@pytest.mark.quick("removed")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "steps: [{name: draft, user: {text: '{topic}'}}]",
            "experiment 'demo' has the steps draft, score, critique; now there is draft. Steps can "
            "be edited, and added at the end; with one removed, renamed or moved it is another "
            "experiment.",
        ),
        (
            "steps: [{name: draft, user: {text: '{topic}'}}, {name: score, user: {text: a}}, "
            "{name: critique, user: {text: b}}]",
            "experiment 'demo': step score was a function, and is a call now; with that it is "
            "another experiment.",
        ),
        (
            "prompts: {user_prompt: 'Say {topic}'}",
            "experiment 'demo' was enqueued with steps, and there are none now.",
        ),
    ],
    ids=["removed", "function", "none"],
)
async def test_other_steps_are_another_experiment(
    done: Project, simulator: Simulator, text: str, message: str
) -> None:
    done.config(f"output_data: {{experiment_name: demo}}\n{text}\n")
    for command in (["enqueue"], ["run", "--recipe", "again"], ["enqueue", "--dry-run"]):
        told = await done.batchgen(*command, "pool.jsonl")
        assert (told.code, told.err) == (2, f"error: {message} Choose with --experiment.\n")
    assert simulator.calls == 5
    assert states(done)["critique"] == {"done": 2}


async def test_another_result_is_no_question(done: Project) -> None:
    steps(done, more="result: [critique, draft]\n")
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert (told.code, told.err) == (0, "demo: 3 items read, 0 new\n")


async def test_other_rules_are_told_before_work_on_what_waits(done: Project) -> None:
    done.pool(topics(4))
    await done.batchgen("enqueue", "pool.jsonl")
    steps(done, when="score > 2", more=POLISH)
    told = await done.batchgen("work")
    assert told.err.startswith(
        "demo: changed since it was enqueued: step critique: when score > 1 -> score > 2; step "
        "polish was added. 1 row that waits keeps what it was enqueued with; "
    )
    assert states(done)["critique"] == {"done": 3}


async def test_other_rules_are_told_before_a_changed_function_runs_again(done: Project) -> None:
    steps(done, when="score > 2")
    done.write("code.py", CODE.replace("split()[-1])", "split()[-1]) + 1"))
    told = await done.batchgen("work")
    assert told.err.splitlines()[:2] == [
        "demo/score: the function is another one now; 3 rows are run again, without a call",
        "demo: changed since it was enqueued: step critique: when score > 1 -> score > 2. 3 rows "
        "that wait keep what they were enqueued with; to change that, enqueue the pool again with "
        "--recipe replace.",
    ]


async def test_asking_a_step_again_makes_stale_what_follows_it(
    done: Project, simulator: Simulator
) -> None:
    steps(done, of="Repair")
    config = (done.path / "config.yaml").read_text().replace("Write about", "Write on")
    done.write("config.yaml", config)
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "step draft: the user template changed. step critique: the user template" in told.err
    assert (
        "stored: at least 3 calls, about $0.0150; 5 rows after them are stale then, unless the new "
        "answers say what the old ones did; new answers may make new rows"
    ) in told.err
    dry = await done.batchgen("enqueue", "pool.jsonl", "--recipe", "again", "--dry-run")
    assert "0 new to demo, 3 to be asked with the new recipe; nothing" in dry.out
    again = await done.batchgen("run", "pool.jsonl", "--recipe", "again")
    assert "demo: 3 items read, 0 new, 3 asked with the new recipe\n" in again.err
    assert simulator.calls == 8
    assert states(done) == {
        "draft": {"done": 3}, "score": {"stale": 3}, "critique": {"stale": 2},
    }  # fmt: skip
    for _ in range(2):
        await done.batchgen("retry", "--stale")
        assert (await done.batchgen("work")).code == 0
    assert states(done)["critique"] == {"done": 2}
    assert (simulator.calls, simulator.calls_of("Repair")) == (10, 2)
    assert (await done.batchgen("verify")).code == 0


@pytest.mark.only_sqlite("it copies the file")
async def test_a_function_that_was_moved_or_renamed_is_no_question(
    done: Project, simulator: Simulator
) -> None:
    """It costs no call, so its rows are run again by itself, as when its code has changed."""
    moved = Project(done.path / "moved", done.base_url)
    moved.write("code.py", CODE)
    steps(moved)
    moved.write("pool.jsonl", (done.path / "pool.jsonl").read_bytes())
    moved.write("batchgen.db", done.file.read_bytes())
    told = await moved.batchgen("run", "pool.jsonl")
    assert told.code == 0, told.err
    assert states(moved)["critique"] == {"done": 2}
    moved.write("code.py", CODE.replace("score", "points"))
    moved.write(
        "config.yaml", (moved.path / "config.yaml").read_text().replace("py:score", "py:points")
    )
    told = await moved.batchgen("run", "pool.jsonl")
    assert "demo/score: the function is another one now; 3 rows are run again" in told.err
    shown = await moved.batchgen("show", "a-1")
    assert "code.py:points" in shown.out
    assert simulator.calls == 5
    assert (await moved.batchgen("verify")).code == 0


async def test_another_conversation_is_asked_again_of_what_is_done(
    done: Project, simulator: Simulator
) -> None:
    done.write(
        "config.yaml",
        f"model: {{base_url: {simulator.base_url}, api_key: k, model: m}}\n"
        "output_data: {experiment_name: talk}\n"
        "steps:\n"
        "  - {name: draft, user: {text: 'Write about {topic}'}}\n"
        "  - {name: mend, user: {text: 'Mend it'}}\n",
    )
    assert (await done.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 11
    config = (done.path / "config.yaml").read_text()
    done.write("config.yaml", config.replace("name: mend,", "name: mend, conversation: true,"))
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "conversation false -> true" in told.err
    assert "stays: 0 calls" in told.err
    assert "stored: 3 calls" in told.err
    dry = await done.batchgen("enqueue", "pool.jsonl", "--recipe", "again", "--dry-run")
    assert "0 new to talk, 3 to be asked with the new recipe; nothing" in dry.out
    again = await done.batchgen("run", "pool.jsonl", "--recipe", "again")
    assert again.code == 0
    assert "talk: 3 items read, 0 new, 3 asked with the new recipe\n" in again.err
    assert simulator.calls == 14
    shown = json.loads((await done.batchgen("show", "a-1", "--experiment", "talk", "--json")).out)
    assert len(shown["steps"][1]["messages"]) == 3
    assert (await done.batchgen("verify")).code == 0


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_what_follows_new_rows_is_told_to_be_more_calls(
    done: Project, simulator: Simulator
) -> None:
    steps(done, more=POLISH)
    assert (await done.batchgen("run", "pool.jsonl")).code == 0
    steps(done, when="score > 0", more=POLISH)
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "at least 1 call, about $0.0030 (new rows: 1 of critique, and what follows them)" in (
        told.err
    )
    await done.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert simulator.calls == 9


async def test_what_waits_already_is_told_with_what_each_way_costs(
    project: Project, simulator: Simulator
) -> None:
    project.write("code.py", CODE)
    steps(project)
    project.pool(topics(3))
    assert (await project.batchgen("run", "pool.jsonl", "--until", "1")).code == 0
    assert states(project)["draft"] == {"done": 1, "pending": 2}
    steps(project, of="Repair")
    told = await project.batchgen("enqueue", "pool.jsonl")
    both = [line.partition(": ")[2] for line in told.err.splitlines()[1:]]
    assert both == ["0 calls, and the 2 rows that wait already"] * 2
    steps(project, when="score > 0")
    told = await project.batchgen("enqueue", "pool.jsonl")
    assert "(new rows: 1 of critique), and the 2 rows that wait already\n" in told.err
    project.pool(topics(4))
    told = await project.batchgen("enqueue", "pool.jsonl")
    assert ", and the 2 rows that wait already, and the new item\n" in told.err


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_rows_to_be_asked_again_that_other_rules_may_not_make_are_told_as_at_most(
    done: Project, simulator: Simulator
) -> None:
    steps(done, more=POLISH)
    assert (await done.batchgen("run", "pool.jsonl")).code == 0
    asked = simulator.calls
    steps(done, when="score > 2", more=POLISH.replace("Polish", "Shine"))
    told = await done.batchgen("enqueue", "pool.jsonl")
    assert "stored: at most 2 calls, about $0.0810; 1 row is stale then, and" in told.err
    again = ["enqueue", "pool.jsonl", "--recipe", "again"]
    dry = (await done.batchgen(*again, "--dry-run")).out
    assert "0 new to demo, at most 2 to be asked with the new recipe; nothing" in dry
    assert "  polish    at most 2 calls" in dry
    begun = await done.batchgen(*again)
    assert "demo: 3 items read, 0 new, 1 asked with the new recipe\n" in begun.err
    assert (await done.batchgen("work")).code == 0
    assert simulator.calls == asked + 1
    assert (await done.batchgen("verify")).code == 0


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_dry_run_refuses_what_enqueue_would_while_rows_of_a_later_step_are_worked_on(
    done: Project, simulator: Simulator
) -> None:
    steps(done, more=POLISH)
    await done.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await done.start("work", "-c", "1")
    await simulator.received(simulator.calls + 1)
    steps(done, more=POLISH.replace("Polish", "Shine"))
    for way in ("replace", "again"):
        refused = [
            await done.batchgen("enqueue", "pool.jsonl", "--recipe", way, *dry)
            for dry in ([], ["--dry-run"])
        ]
        assert [(one.code, one.err) for one in refused] == [(
            2, "error: experiment 'demo/polish': 1 of its rows is being worked on, so it cannot "
            "get another recipe. Stop the worker first: batchgen stop --wait\n",
        )] * 2  # fmt: skip
    simulator.release()
    assert await worker.wait() == 0


async def test_a_dry_run_says_at_most_where_a_condition_is_still_to_decide(done: Project) -> None:
    steps(
        done, more=POLISH + "  - {name: shine, when: polish.ok, user: {text: 'Shine {polish}'}}\n"
    )
    dry = (await done.batchgen("enqueue", "pool.jsonl", "--dry-run")).out
    assert "  polish    2 calls" in dry
    assert "  shine     at most 2 calls" in dry
    assert "Estimated for at most 4 calls: " in dry


async def test_a_dry_run_has_the_calls_of_all_steps_that_are_added(
    done: Project, simulator: Simulator
) -> None:
    steps(done, more=POLISH + "  - {name: shine, user: {text: 'Shine {polish}'}}\n")
    dry = (await done.batchgen("enqueue", "pool.jsonl", "--dry-run")).out
    assert "new rows of what is done already: 2 of polish, and what follows them; nothing" in dry
    assert "  polish    2 calls" in dry
    assert "  shine     2 calls" in dry
    assert "Estimated for 4 calls: " in dry
    assert (await done.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 9


def asking(
    project: Project, path: str, ask: str = "user: {text: 'Ask {topic}'}, parser: json"
) -> None:
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        f"  - {{name: ask, {ask}}}\n"
        f"  - {{name: answer, each: {{question: {path}}}, user: {{text: 'Answer {{question}}'}}}}\n"
    )


@pytest.mark.quick("run")
@pytest.mark.parametrize("is_killed", [False, True], ids=["run", "work_after_a_kill"])
async def test_a_list_is_looked_for_by_the_new_path_in_what_was_answered(
    project: Project, simulator: Simulator, is_killed: bool
) -> None:
    asking(project, "ask.questons")
    simulator.script("Ask", *[Behaviour.ok('{"questions": ["a", "b"]}')] * 2)
    project.pool(topics(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    assert states(project) == {"ask": {"failed": 2}}
    failed = (await project.batchgen("failures")).out
    assert "Mend the path of that step's each, and run with --recipe replace" in failed

    asking(project, "ask.questions")
    told = await project.batchgen("enqueue", "pool.jsonl")
    said = "stays: nobody knows yet how many calls; 2 that failed for want of a list are read again"
    assert said in told.err
    if is_killed:
        await begin(project, OtherRecipe.REPLACE)
        told = await project.batchgen("work")
    else:
        told = await project.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert "new: 4 of answer; 2 rows that had failed for want of a list are read again" in told.err
    assert states(project) == {"ask": {"done": 2}, "answer": {"done": 4}}
    assert simulator.calls == 2 + 4
    assert (await project.batchgen("verify")).code == 0


async def test_a_list_is_looked_for_in_what_a_function_makes_once_more(
    project: Project, simulator: Simulator
) -> None:
    project.write("code.py", "def some(item):\n    return {'questions': ['a', 'b']}\n")
    asking(project, "ask.questons", "function: 'code.py:some'")
    project.pool(topics(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    asking(project, "ask.questions", "function: 'code.py:some'")
    assert (await project.batchgen("run", "pool.jsonl", "--recipe", "replace")).code == 0
    assert states(project) == {"ask": {"done": 2}, "answer": {"done": 4}}
    assert (await project.batchgen("verify")).code == 0
