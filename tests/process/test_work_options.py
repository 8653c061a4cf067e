"""Every option of `work` reaches the processes of --processes, each shown by what it does."""

import json
import os
from collections.abc import Awaitable, Callable
from signal import SIGTERM

import pytest

from batchgen.cli.group import GlobalOption
from batchgen.cli.work import work
from batchgen.simulate import Behaviour, Simulator
from tests.kits.crashes import until
from tests.kits.project import Project, ended
from tests.kits.typist import Ended

PRICE = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000}
OTHERS = 80  # answers, so that each of two processes knows after thirty what is late


async def enqueue(project: Project, words: list[str], experiment: str = "default") -> None:
    project.pool({"word": word} for word in words)
    done = await project.batchgen("enqueue", "pool.jsonl", "--experiment", experiment)
    assert done.code == 0, done.err


async def work_in_two(project: Project, *options: str) -> Ended:
    return await project.process("work", "--processes", "2", *options)


async def share_limits_and_items_of_one_experiment(project: Project, _: Simulator) -> None:
    await enqueue(project, ["a", "b"])
    await enqueue(project, list("cdefghij"), "other")
    done = await work_in_two(
        project, "-c", "5", "--experiment", "other", "--max-items", "6", "--rpm", "6000",
        "--tpm", "6000000", "-o", "live.jsonl",
    )  # fmt: skip
    assert done.code == 0, done.err
    live = (project.path / "live.jsonl").read_text().splitlines()
    assert {json.loads(line)["input"]["word"] for line in live} < set("cdefghij")
    assert len(live) == 6
    logs = (project.path / "logs").iterdir()
    events = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert sorted(one["slots"] for one in events if one["event"] == "run_started") == [2, 3]
    ((requests, tokens),) = project.query("select requests, tokens from shared_rates")
    assert requests > 0 < tokens


async def answer_all_experiments(project: Project, _: Simulator) -> None:
    await enqueue(project, ["a", "b"])
    await enqueue(project, ["c", "d"], "other")
    done = await work_in_two(project, "-c", "2", "--all")
    assert done.code == 0, done.err
    assert project.query("select state, count(*) from work group by 1 order by 1") == [("done", 4)]


async def answer_one_step(project: Project, _: Simulator) -> None:
    project.config(
        "steps:\n"
        "  - {name: draft, user: {text: 'Say {word}'}}\n"
        "  - {name: judge, user: {text: 'Judge {draft}'}}\n"
    )
    await enqueue(project, ["a", "b"])
    done = await work_in_two(project, "-c", "2", "--step", "draft")
    assert done.code == 0, done.err
    assert project.query(
        "select e.step, w.state from work w join experiments e on e.id = w.experiment_id"
        " group by 1, 2 order by 1, 2"
    ) == [("draft", "done"), ("judge", "pending")]  # fmt: skip


async def write_over_a_file_of_others(project: Project, _: Simulator) -> None:
    foreign = project.write("live.jsonl", "notes\n")
    await enqueue(project, ["a", "b"])
    command = ("-c", "2", "-o", "live.jsonl")
    refused = await work_in_two(project, *command)
    assert (refused.code, foreign.read_text()) == (2, "notes\n"), refused.err
    done = await work_in_two(project, *command, "--force")
    assert done.code == 0, done.err
    lines = map(json.loads, foreign.read_text().splitlines())
    assert sorted(line["input"]["word"] for line in lines) == ["a", "b"]


async def stop_at_so_many(project: Project, _: Simulator) -> None:
    await enqueue(project, list("abcdefghij"))
    done = await work_in_two(project, "--until", "7", "--adaptive")
    assert done.code == 0, done.err
    assert project.query("select count(*) from work where state = 'done'") == [(7,)]
    ((requests,),) = project.query("select requests from shared_rates")
    assert requests > 0  # there is a rate, though no limit is given


async def wait_for_more_and_leave_it_after_the_grace(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, ["a"])
    process = await project.start(
        "work", "--processes", "2", "-c", "4", "--watch", "--grace", "0.1"
    )  # fmt: skip
    await until(project.database, "select count(*) from work where state = 'done'", 1)
    simulator.hold()
    await enqueue(project, ["b", "c"])
    await simulator.received(3)
    process.send_signal(SIGTERM)
    assert (await ended(process)).code == 143
    assert project.query("select sum(unknown_calls) from totals") == [(2,)]


async def send_a_straggler_once_more(project: Project, simulator: Simulator) -> None:
    for number in range(OTHERS):
        simulator.script(f"Say w{number}", Behaviour.ok("Hello", delay_s=0.1))
    simulator.script("Say late", "hang", Behaviour.ok("at last"))
    await enqueue(project, [*(f"w{number}" for number in range(OTHERS)), "late"])
    done = await work_in_two(project, "-c", "4", "--hedge")
    assert done.code == 0, done.err
    assert simulator.calls_of("late") == 2


async def spend_no_more_dollars(project: Project, _: Simulator) -> None:
    project.config(price=PRICE, max_tokens=10)
    await enqueue(project, ["a", "b"])
    done = await work_in_two(project, "--max-cost", "0.001")
    assert (done.code, done.err.count("halted: the budget is too small for a call: $")) == (4, 1), (
        done.err
    )


async def spend_no_more_tokens(project: Project, _: Simulator) -> None:
    project.config(max_tokens=10)
    await enqueue(project, ["a", "b"])
    done = await work_in_two(project, "--max-tokens-total", "5")
    assert (
        done.code,
        done.err.count("halted: the budget is too small for a call: 0 of 5 tok"),
    ) == (4, 1)


async def halt_when_so_many_failed(project: Project, _: Simulator) -> None:
    project.config("parser: json\n")
    await enqueue(project, [f"w{number}" for number in range(40)])
    done = await work_in_two(project, "-c", "4", "--max-failures", "10%")
    assert (done.code, done.err.count(" of 40 have failed (parse ")) == (4, 1), done.err
    assert project.query("select count(*) >= 4 from work where state = 'failed'") == [(1,)]


async def go_to_no_cluster_where_none_is(project: Project, simulator: Simulator) -> None:
    """On one that is there, test_on_ray shows it."""
    await enqueue(project, ["a"])
    refused = await project.process("work", "--on", "ray", "--workers", "2")
    assert refused.code == 2
    assert refused.err.startswith(("error: Ray is not installed: ", "error: no Ray cluster is ru"))
    refused = await project.process("work", "--workers", "2")
    assert (refused.code, refused.err.split(":")[:2]) == (2, ["error", " --workers"])
    refused = await project.process("work", "--on", "ray", "--processes", "2")
    assert (refused.code, refused.err.split(":")[:2]) == (2, ["error", " --processes"])
    assert simulator.calls == 0


async def go_in_batches_of_one_process(project: Project, simulator: Simulator) -> None:
    await enqueue(project, ["a"])
    refused = await project.process("work", "--batch", "--processes", "2")
    assert (refused.code, refused.err.split(":")[:2]) == (2, ["error", " --processes"])
    refused = await project.process("work", "--no-wait", "--processes", "2")
    assert (refused.code, refused.err.split(":")[:2]) == (2, ["error", " --no-wait"])
    assert simulator.calls == 0


Run = Callable[[Project, Simulator], Awaitable[None]]

# A new option of `work` must be given its place here: what the processes do with it.
SHOWN_BY: dict[str, Run] = {
    "concurrency": share_limits_and_items_of_one_experiment,
    "processes": share_limits_and_items_of_one_experiment,
    "batch": go_in_batches_of_one_process,
    "no_wait": go_in_batches_of_one_process,
    "place": go_to_no_cluster_where_none_is,
    "workers": go_to_no_cluster_where_none_is,
    "rpm": share_limits_and_items_of_one_experiment,
    "tpm": share_limits_and_items_of_one_experiment,
    "named": share_limits_and_items_of_one_experiment,
    "max_items": share_limits_and_items_of_one_experiment,
    "step": answer_one_step,
    "all_experiments": answer_all_experiments,
    "force": write_over_a_file_of_others,
    "output": share_limits_and_items_of_one_experiment,
    "until": stop_at_so_many,
    "adaptive": stop_at_so_many,
    "wait_for_more": wait_for_more_and_leave_it_after_the_grace,
    "grace_s": wait_for_more_and_leave_it_after_the_grace,
    "hedge": send_a_straggler_once_more,
    "max_cost_usd": spend_no_more_dollars,
    "max_failures": halt_when_so_many_failed,
    "max_tokens_total": spend_no_more_tokens,
}


def test_every_option_has_its_place() -> None:
    own = (option for option in work.params if not isinstance(option, GlobalOption))
    assert set(SHOWN_BY) == {option.name for option in own}


@pytest.mark.quick("halt_when_so_many_failed")
@pytest.mark.parametrize("run", dict.fromkeys(SHOWN_BY.values()), ids=lambda run: run.__name__)
async def test_the_processes(run: Run, project: Project, simulator: Simulator) -> None:
    await run(project, simulator)
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_they_do_not_read_the_config_anew(project: Project, simulator: Simulator) -> None:
    await enqueue(project, ["a", "b", "c"])
    config = project.path / "config.yaml"
    text = config.read_bytes()
    config.unlink()
    os.mkfifo(config)  # which can be read but once
    process = await project.start("work", "--processes", "2", "-c", "4")
    with config.open("wb") as file:
        file.write(text)
    done = await ended(process)
    assert done.code == 0, done.err
    assert simulator.calls == 3
