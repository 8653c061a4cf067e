"""The day's loop: parser, prompt and parameters change, and nothing is asked that was not said."""

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project, ended
from tests.kits.typist import Typist

Words = Callable[[int], Iterator[dict[str, str]]]

OLD_PARSER = "def f(text):\n    return {'old': len(text)}\n"
NEW_PARSER = "def f(text):\n    return {'new': len(text)}\n"
PRICE = (
    "  price: {input_usd_per_mtok: 1000, output_usd_per_mtok: 1000, cached_input_usd_per_mtok: 0}\n"
)
TEMPLATE = "prompts/user_prompts/default.txt"


async def run(project: Project, *options: str, code: int = 0) -> str:
    """`run` with what is said."""
    done = await project.batchgen("run", "pool.jsonl", *options)
    assert (done.code, done.out) == (code, "")
    return done.err


def parsed(project: Project) -> list[Any]:
    return [line["parsed"] for line in project.export()]


def outdated(status: Any) -> Any:
    return status.json["experiments"][0]["outdated"]


@pytest.fixture
async def parsed_by_function(project: Project, simulator: Simulator, words: Words) -> Project:
    """Four items, read by a function in p.py."""
    project.config("parser: p.py:f\n")
    project.write("p.py", OLD_PARSER)
    project.pool(words(4))
    await run(project)
    assert simulator.calls == 4
    return project


# --- the parser ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("work",), ("run", "pool.jsonl")])
async def test_an_edited_parser_is_told_and_then_free(
    parsed_by_function: Project, batchgen: Typist, simulator: Simulator, command: tuple[str, ...]
) -> None:
    project = parsed_by_function
    project.write("p.py", NEW_PARSER)
    line = (
        "default: 4 items have the value of another parser than p.py:f; parsed again, without a "
        "call, by batchgen work or batchgen reparse --all"
    )
    assert line in (await batchgen("status")).out.splitlines()
    assert outdated(await batchgen("status", "--json")) == {
        "items": 4, "parser": f"{project.path}/p.py:f", "problem": None,
    }  # fmt: skip
    assert (await batchgen("export")).err.splitlines()[0] == f"warning: {line}"
    proved = await batchgen("verify")
    assert (proved.code, proved.out.splitlines()[1:]) == (0, [line])

    done = await project.batchgen(*command)
    assert done.code == 0
    assert done.err.splitlines()[:2] == [
        "default: the parser is another one now; 4 stored answers are parsed again, without a call",
        "default: 4 answers parsed with p.py:f: 4 changed.",
    ]
    assert simulator.calls == 4
    assert (await batchgen("export")).err.startswith("4 rows")
    assert [list(one) for one in parsed(project)] == [["new"]] * 4
    assert project.query("select count(*) from results") == [(8,)]
    assert outdated(await batchgen("status", "--json")) is None
    assert (await batchgen("verify")).code == 0


async def test_a_comment_or_a_moved_function_is_no_other_parser(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    parsed_by_function.write("p.py", f"# mine\n\n\n{OLD_PARSER}")
    assert outdated(await batchgen("status", "--json")) is None
    assert "parsed" not in (await parsed_by_function.batchgen("work")).err
    assert parsed_by_function.query("select count(*) from results") == [(4,)]


async def test_status_runs_no_code_of_a_parser_that_has_not_changed(
    project: Project, batchgen: Typist, words: Words
) -> None:
    project.config("parser: p.py:f\n")
    project.write("p.py", f"with open('loaded', 'a') as file:\n    file.write('x')\n{OLD_PARSER}")
    project.pool(words(2))
    await run(project)
    loaded = (project.path / "loaded").read_text()
    for command in ("status", "export", "verify"):
        assert (await batchgen(command)).code == 0
    assert (project.path / "loaded").read_text() == loaded


async def test_a_parser_that_cannot_be_loaded_stops_no_status(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    parsed_by_function.write("p.py", "def f(text:\n")
    told = await batchgen("status")
    assert told.code == 0
    assert (
        "4 items have the value of another parser than p.py:f, which cannot be loaded" in told.out
    )
    assert (await batchgen("export")).code == 0


async def test_a_lost_parser_of_a_finished_experiment_holds_up_no_other(
    parsed_by_function: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project = parsed_by_function
    project.config("output_data: {experiment_name: other}\n")
    await batchgen("enqueue", "pool.jsonl")
    (project.path / "p.py").unlink()
    for command in (["retry"], ["work", "--all"]):
        done = await project.batchgen(*command)
        assert (done.code, "warning: default: 4 items have the value" in done.err) == (0, True)
    assert simulator.calls == 8


async def test_another_parser_in_the_config_asks_and_calls_nothing(
    parsed_by_function: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project = parsed_by_function
    project.config("parser: 'regex:^(.)'\n")
    added = await batchgen("enqueue", "pool.jsonl", "--json")
    assert (added.code, added.json["new"]) == (0, 0)
    assert outdated(await batchgen("status", "--json"))["items"] == 4
    await run(project)
    assert simulator.calls == 4
    assert all(len(value) == 1 for (value,) in parsed(project))


async def test_the_parser_of_one_experiment_is_none_of_another_s(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    parsed_by_function.config("parser: json\noutput_data: {experiment_name: judged}\n")
    exported = await batchgen("export", "--experiment", "default")
    assert (exported.code, "warning" in exported.err) == (0, False)
    assert "another parser" not in (await batchgen("status")).out


async def test_the_first_parser_again_is_the_first_parser(
    parsed_by_function: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project = parsed_by_function
    for code in (NEW_PARSER, OLD_PARSER):
        project.write("p.py", code)
        await run(project)
    assert [list(one) for one in parsed(project)] == [["old"]] * 4
    assert project.query("select count(*) from parsers") == [(2,)]
    assert simulator.calls == 4


async def test_failures_that_the_new_parser_can_read_are_done(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("parser: p.py:f\n")
    project.write("p.py", "def f(text):\n    return {'one': 1}[text]\n")
    project.pool({"word": word} for word in ("one", "two"))
    simulator.script("one", Behaviour.ok("one"))
    simulator.script("two", Behaviour.ok("two"))
    await run(project, code=3)
    project.write("p.py", "def f(text):\n    return {'one': 1, 'two': 2}[text]\n")
    said = await run(project)
    assert "2 answers parsed with p.py:f: 1 done that had failed, 1 unchanged." in said
    assert parsed(project) == [1, 2]
    assert simulator.calls == 2


async def test_a_failure_that_parses_now_is_not_asked_by_replace(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    """Parser and prompt are changed at once: the parser comes first, as it is free."""
    project.config("parser: tag:a\n")
    project.pool({"word": word} for word in ("one", "two"))
    simulator.script("one", Behaviour.ok("[1]"))
    simulator.script("two", Behaviour.ok("nothing"))
    await run(project, code=3)
    project.config("parser: json\n")
    project.write(TEMPLATE, "Shout {word}")
    assert (
        "--recipe replace   rows not done are asked with the new one, done ones stay: 1 call\n"
        in (await run(project, code=2))
    )
    simulator.script("two", Behaviour.ok("[2]"))
    assert "1 asked with the new recipe" in await run(project, "--recipe", "replace")
    assert parsed(project) == [[1], [2]]
    assert simulator.calls == 3


async def test_a_failure_that_parses_now_is_not_asked_by_retry(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.config("parser: tag:x\n")
    project.pool(words(3))
    simulator.script("w1", Behaviour("refusal"))
    await run(project, code=3)
    project.config("parser: raw\n")
    dry = await batchgen("retry", "--dry-run")
    assert "3 items have the value" not in dry.err  # the refusal has none
    assert (dry.out, "2 items have the value of another parser than raw" in dry.err) == (
        "3 failed items would go back to pending.\n", True,
    )  # fmt: skip
    done = await batchgen("retry", "--reason", "parse")
    assert done.out == "0 failed items went back to pending.\n"
    assert "2 answers parsed with raw: 2 done that had failed." in done.err
    assert (await project.batchgen("work")).code == 3
    assert simulator.calls == 3


async def test_what_the_parser_cannot_read_any_more_is_counted_before_replace_asks_it(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(3))
    await run(project)
    project.config("parser: tag:x\n", temperature=1)
    warned = await batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert "3 items have the value of another parser than tag:x" in warned.err
    assert "reparse --all. What follows is as it is before that." in warned.err
    said = await batchgen("enqueue", "pool.jsonl")
    assert (said.code, "done ones stay: 3 calls" in said.err) == (2, True)
    await batchgen("enqueue", "pool.jsonl", "--recipe", "replace")
    await project.batchgen("work")
    assert simulator.calls == 3 + 3


async def test_what_a_worker_with_the_old_file_read_meanwhile_is_parsed_at_the_end(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    """A worker that began with the old version goes on with it while the new one is at work."""
    project.config("parser: p.py:f\n")
    project.write("p.py", OLD_PARSER)
    project.pool(words(4))
    await batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    old = await project.start("work", "-c", "2")
    await simulator.received(2)
    project.write("p.py", NEW_PARSER)
    new = await project.start("work", "-c", "2")
    await simulator.received(4)
    simulator.release()
    done = [await ended(old), await ended(new)]
    assert [one.code for one in done] == [0, 0]
    assert (await project.batchgen("work")).code == 0
    await batchgen("export")
    assert [list(one) for one in parsed(project)] == [["new"]] * 4
    assert simulator.calls == 4


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_parsing_again_goes_on_where_it_was_killed(
    parsed_by_function: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project = parsed_by_function
    project.pool(words(700))
    await run(project)
    assert simulator.calls == 700
    project.write("p.py", "import threading\ndef f(text):\n    if 'w600' in text:\n"
                          "        print('there', flush=True)\n"
                          "        threading.Event().wait()\n    return 'new'\n")  # fmt: skip
    process = await project.start("work")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    process.kill()
    await ended(process)
    before = project.query("select max(seq) from results")
    project.write("p.py", "def f(text):\n    return 'new'\n")
    assert (await project.batchgen("work")).code == 0
    await batchgen("export")
    assert parsed(project) == ["new"] * 700
    assert simulator.calls == 700
    # The first page had the value already, by a version that is no more: it is no new result.
    assert project.query("select max(seq) from results") == [(before[0][0] + 200,)]
    assert (await batchgen("verify")).code == 0


async def test_status_does_not_take_what_is_parsed_again_for_speed(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    before = (await batchgen("status", "--json")).json["items_per_s"]
    parsed_by_function.write("p.py", NEW_PARSER)
    assert (await batchgen("reparse", "--all")).code == 0
    assert (await batchgen("status", "--json")).json["items_per_s"] <= before + 0.001


@pytest.mark.quick("options0-pack.my_parsers:f")
@pytest.mark.parametrize("spec", ["my_parsers:f", "pack.my_parsers:f", "p.py:f"])
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_parser_is_found_beside_the_config_from_wherever_it_is_called(
    project: Project, simulator: Simulator, words: Words, spec: str, options: tuple[str, ...]
) -> None:
    project.config(f"parser: {spec}\n")
    for name in ("my_parsers.py", "pack/my_parsers.py", "p.py"):
        project.write(name, OLD_PARSER)
    project.pool(words(2))
    elsewhere = Project(project.path / "elsewhere", project.base_url)
    elsewhere.path.mkdir()
    config = ("--config", "../config.yaml")
    done = await elsewhere.process("run", "../pool.jsonl", *config, *options)
    assert (done.code, done.out) == (0, ""), done.err
    assert [list(one) for one in parsed(project)] == [["old"]] * 2
    for command in (["status"], ["reparse", "--all"], ["verify"]):
        assert (await elsewhere.process(*command, *config)).code == 0


async def test_reparse_without_a_parser_takes_the_one_that_the_rows_have(
    parsed_by_function: Project, simulator: Simulator
) -> None:
    project = parsed_by_function
    project.write("p.py", NEW_PARSER)
    project.write("config.yaml", "")
    assert (await project.batchgen("reparse", "--all", "--json")).json["changed"] == 4
    assert (await project.batchgen("export")).code == 0
    assert [list(one) for one in parsed(project)] == [["new"]] * 4


async def test_reparse_says_to_which_parser_work_goes_back(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    done = await batchgen("reparse", "--all", "--parser", "regex:^.")
    assert done.err == (
        "The parser of default is p.py:f: work and run will parse these answers with that again, "
        "unless you write regex:^. into the config.\n"
    )
    assert "4 answers parsed with p.py:f: 4 changed" in (await batchgen("work")).err


async def test_an_edited_file_of_labels_is_an_edited_parser(
    project: Project, batchgen: Typist, words: Words
) -> None:
    project.config("parser: p.py:f\n")
    labels = project.write("labels.json", "[1]")
    project.write("p.py", f"import json, pathlib\nLABELS = json.loads(pathlib.Path({str(labels)!r})"
                          ".read_text())\ndef f(text):\n    return LABELS\n")  # fmt: skip
    project.pool(words(2))
    await run(project)
    project.write("labels.json", "[2]")
    assert "2 items have the value of another parser" in (await batchgen("status")).out
    assert (await project.process("work")).code == 0
    await batchgen("export")
    assert parsed(project) == [[2]] * 2


async def test_a_change_that_cannot_be_seen_is_said(project: Project, words: Words) -> None:
    project.config("parser: p.py:f\n")
    project.write("p.py", f"OPENED = iter(())\n{OLD_PARSER}    {{OPENED}}\n")
    project.pool(words(1))
    assert (
        "warning: parser 'p.py:f' depends on OPENED (tuple_iterator): a change there is not "
        "noticed, so parse again by hand after one: batchgen reparse --all\n"
    ) in await run(project)


async def test_a_parser_that_calls_os_exit_does_not_choose_the_exit_code(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.config("parser: p.py:f\nwork: {max_attempts: 2}\n")
    project.write("p.py", "import os\ndef f(text):\n    os._exit(0)\n")
    project.pool([{"word": "a"}])
    simulator.script("a", Behaviour.ok("yes"))
    done = await project.process("run", "pool.jsonl")
    assert done.code == 1
    assert "error: a parser ended the process, by os._exit(0). All answers are kept" in done.err
    codes = [(await project.process("work")).code for _ in range(2)]
    assert codes == [1, 3]
    assert project.query("select reason, parser_id from results") == [("crash", 1)]
    project.write("p.py", "def f(text):\n    return text\n")
    assert (await batchgen("reparse", "--json")).json["done"] == 1
    assert simulator.calls == 1


async def test_an_answer_that_is_deadly_still_holds_up_no_other(
    project: Project, simulator: Simulator
) -> None:
    deadly = "import os\ndef f(text):\n    os._exit(0) if text == 'bad' else None\n    return {}\n"
    project.config("parser: p.py:f\nwork: {max_attempts: 1}\n")
    project.write("p.py", deadly.format("'old'"))
    project.pool({"word": word} for word in ("good", "bad"))
    for word in ("good", "bad"):
        simulator.script(word, Behaviour.ok(word))
    codes = [(await project.process("run", "pool.jsonl", "-c", "1")).code for _ in range(2)]
    assert codes == [1, 3]
    project.write("p.py", deadly.format("'new'"))
    assert (await project.process("work")).code == 1
    rows = project.query("select reason, parsed from work join results on seq = result_seq")
    assert sorted(rows, key=str) == [("crash", None), (None, '"new"')]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_after_a_crash_at_the_parser_only_the_guilty_item_fails(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.config("parser: p.py:f\nwork: {max_attempts: 3}\n")
    project.write("p.py", "import os, signal\ndef f(text):\n"
                          "    if 'w5' in text:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
                          "    return text[:1]\n")  # fmt: skip
    project.pool(words(20))
    codes = [(await project.process("run", "pool.jsonl", "-c", "20")).code for _ in range(4)]
    assert codes == [-9, -9, -9, 3]
    assert project.query("select i.input from work w join items i on id = item_id"
                         " where state = 'failed'") == [('{"word": "w5"}',)]  # fmt: skip
    assert project.query("select count(*) from work where state = 'done'") == [(19,)]
    calls = simulator.calls
    project.write("p.py", "def f(text):\n    return text[:1]\n")
    assert (await project.batchgen("work")).code == 0
    assert simulator.calls == calls
    assert (await batchgen("verify")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_new_parser_that_kills_the_process_costs_the_guilty_items_only(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.config("parser: p.py:f\n")
    project.write("p.py", OLD_PARSER)
    project.pool(words(12))
    await run(project)
    project.write("p.py", "import os, signal\ndef f(text, item):\n"
                          "    if item['word'] in ('w3', 'w7'):\n"
                          "        os.kill(os.getpid(), signal.SIGKILL)\n"
                          "    return {'new': len(text)}\n")  # fmt: skip
    done = [await project.process("run", "pool.jsonl") for _ in range(4)]
    assert [one.code for one in done] == [-9, -9, -9, 3]
    said = "warning: an earlier process died as it parsed {} of the answers with p.py:f"
    assert [said.format(n) in one.err for n, one in zip((12, 9), done[1:], strict=False)] == [
        True
    ] * 2
    assert "failed because of: crash 2." in done[3].err
    said = (await batchgen("failures")).out
    assert "2  crash         its process died twice while the parser read this answer" in said
    assert "Mend the parser" in said
    assert [list(one) for one in parsed(project)] == [["new"]] * 10
    assert project.query("select count(*) from reparsing") == [(0,)]
    project.write("p.py", NEW_PARSER)
    await run(project)
    assert len(project.export()) == simulator.calls == 12
    assert (await batchgen("verify")).code == 0


async def test_a_reparse_that_ends_otherwise_leaves_no_suspects(
    parsed_by_function: Project, batchgen: Typist
) -> None:
    project = parsed_by_function
    project.write("slow.py", "import threading\ndef f(text):\n    print('there', flush=True)\n"
                             "    threading.Event().wait()\n")  # fmt: skip
    process = await project.start("reparse", "--all", "--parser", "slow.py:f")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    assert project.query("select count(*), sum(alone) from reparsing") == [(4, 0)]
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert project.query("select count(*) from reparsing") == [(0,)]


# --- the recipe ------------------------------------------------------------------------------


async def test_each_way_is_announced_with_its_calls_and_does_no_more(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.config(PRICE + "parser: raw\n", max_tokens=100)
    project.pool(words(10))
    await run(project, "--until", "4")
    assert simulator.calls == 4
    project.config(PRICE + "parser: raw\n", max_tokens=50)
    project.pool(words(12))  # and it grew by two
    said = await run(project, code=2)
    assert "max_tokens 100 -> 50" in said
    assert re.findall(r"--recipe (\w+) .*: (\d+) calls, (\S+) \$[\d.]+(, \d+ rows)?", said) == [
        ("replace", "8", "about", ""),
        ("again", "12", "about", ""),
        ("add", "12", "about", ", 22 rows"),
    ]  # fmt: skip
    assert simulator.calls == 4
    said = await run(project, "--recipe", "replace")
    assert "12 items read, 2 new, 6 asked with the new recipe" in said
    assert simulator.calls == 4 + 8
    assert [request.body["max_tokens"] for request in simulator.requests] == [100] * 4 + [50] * 8
    assert len(project.export()) == 12
    assert "0 new" in await run(project, "--recipe", "replace")
    assert simulator.calls == 12


async def test_again_asks_all_and_exports_the_new_answers(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(5))
    await run(project)
    project.write(TEMPLATE, "Shout {word}")
    for _ in range(2):  # the same command once more, as after a crash
        await run(project, "--recipe", "again")
        assert simulator.calls == 10
        assert ["Shout" in line["response"] for line in project.export()] == [True] * 5
    assert project.query("select count(*) from attempts") == [(10,)]
    assert (await batchgen("verify")).code == 0


async def test_again_is_there_after_a_replace_that_left_the_done_ones(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(5))
    await run(project)
    project.write(TEMPLATE, "Shout {word}")
    await run(project, "--recipe", "replace")
    assert simulator.calls == 5
    for _ in range(2):
        await run(project, "--recipe", "again")
        assert simulator.calls == 10
    assert ["Shout" in line["response"] for line in project.export()] == [True] * 5
    assert (await batchgen("verify")).code == 0


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_again_leaves_alone_what_a_retry_asked_with_other_parameters(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    """The command is the same before and after a repair, and costs what the repair does."""
    simulator.script("Shout w3", "length", "length")
    project.config("parser: p.py:f\n", max_tokens=50)
    project.write("p.py", OLD_PARSER)
    project.pool(words(5))
    await run(project)
    project.write(TEMPLATE, "Shout {word}")
    await run(project, "--recipe", "again", code=3)
    for max_tokens in (100, 200):
        await batchgen("retry", "--reason", "truncated", "--set", f"max_tokens={max_tokens}")
        await run(project, "--recipe", "again", code=3 if max_tokens == 100 else 0)
        assert simulator.requests[-1].body["max_tokens"] == max_tokens
    calls = simulator.calls
    assert calls == 5 + 5 + 2
    await run(project, "--recipe", "again")
    assert simulator.calls == calls
    project.write(TEMPLATE, "Whisper {word}")
    assert "takes the new ones: 5 calls" in await run(project, code=2)
    await run(project, "--recipe", "again")
    assert [request.body["max_tokens"] for request in simulator.requests][calls:] == [50] * 5


async def test_a_killed_worker_s_rows_get_the_new_recipe_too(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(4))
    await batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    process = await project.start("work", "-c", "2")
    await simulator.received(2)
    process.send_signal(signal.SIGKILL)
    await ended(process)
    simulator.release()
    project.write(TEMPLATE, "Shout {word}")
    assert "done ones stay: 4 calls" in await run(project, code=2)
    await run(project, "--recipe", "replace")
    assert ["Shout" in line["response"] for line in project.export()] == [True] * 4
    assert simulator.calls == 2 + 4


async def test_rows_that_are_worked_on_are_not_replaced(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    await batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    process = await project.start("work", "-c", "1")
    await simulator.received(1)
    project.write(TEMPLATE, "Shout {word}")
    for dry in ([], ["--dry-run"]):
        refused = await batchgen("enqueue", "pool.jsonl", "--recipe", "replace", *dry)
        assert (refused.code, refused.err) == (
            2,
            "error: experiment 'default': 1 of its rows is being worked on, so it cannot get "
            "another recipe. Stop the worker first: batchgen stop --wait\n",
        )
    process.send_signal(signal.SIGKILL)
    await ended(process)
    dry_run = await batchgen("enqueue", "pool.jsonl", "--recipe", "replace", "--dry-run")
    assert "0 new to default, 2 to be asked with the new recipe" in dry_run.out


async def test_the_rows_of_all_variants_are_counted_when_another_is_offered(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(3))
    for template in ("Say {word}", "Shout {word}"):
        project.write(TEMPLATE, template)
        await run(project, "--recipe", "add")
    project.write(TEMPLATE, "Sing {word}")
    assert "beside the old: 3 calls, 9 rows" in await run(project, code=2)
    assert simulator.calls == 6


@pytest.mark.quick("first1")
@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ([], ["id"], "already, as item 1, without an id; with one, it would be another one"),
        (["id"], [], "already, as item 1, with the id 'w0'; without it, it would be another"),
    ],
)
async def test_items_that_have_got_or_lost_their_ids_are_not_asked_once_more(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words,
    first: list[str], then: list[str], said: str,
) -> None:  # fmt: skip
    def pool(*names: str, ids: list[str]) -> None:
        project.pool({"word": word, **dict.fromkeys(ids, word)} for word in names)

    pool("w0", "w1", ids=first)
    await run(project)
    pool("w0", "w1", "w2", ids=then)
    for command in (("run",), ("enqueue", "--dry-run")):
        refused = await project.batchgen(*command, "pool.jsonl")
        assert (refused.code, refused.out) == (2, "")
        assert f"pool.jsonl:1: experiment 'default' has this very item {said}" in refused.err
    assert simulator.calls == 2
    pool("w2", "w3", ids=then)  # others may have ids, or none
    said = await run(project)
    assert "2 items read, 2 new; the experiment had 2 rows before, of other items\n" in said
    assert simulator.calls == 4


async def test_work_says_that_rows_keep_the_old_text(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    await batchgen("enqueue", "pool.jsonl")
    project.write(TEMPLATE, "Shout {word}")
    said = await project.batchgen("work")
    assert said.err.splitlines()[0] == (
        "default: changed since it was enqueued: the user template changed. 2 rows that wait keep "
        "what they were enqueued with; to change that, enqueue the pool again with --recipe "
        "replace."
    )
    assert all("Say" in str(request.body) for request in simulator.requests)
