"""Stored answers parsed again: without a call, without losing anything, as the same items."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from batchgen.items import Fail, Outcome, Reason
from batchgen.jobs.reparse import ReparseRequest, answer_pages
from batchgen.jobs.reparsing import Difference, Reparsing
from batchgen.parsers import load_parser
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import EndedAnswer, Store, open_store
from batchgen.worker.requests import PresentParser
from tests.kits.project import Project, ended
from tests.kits.table import answered, open_table
from tests.kits.typist import Typist


async def answer(
    project: Project, simulator: Simulator, answers: Mapping[str, str | Behaviour], parser: str
) -> None:
    """Enqueue an item a word and let the model say this of it; the items have their words' ids."""
    project.config(f"parser: {parser}\n")
    project.pool({"id": word, "word": word} for word in answers)
    for word, said in answers.items():
        simulator.script(word, Behaviour.ok(said) if isinstance(said, str) else said)
    assert (await project.batchgen("run", "pool.jsonl")).code in (0, 3)


def results(project: Project) -> dict[str, tuple[str, Any]]:
    """By id: reason or state, and the error or the parsed value as it is stored."""
    rows = project.query(
        "select custom_id, coalesce(r.reason, w.state), coalesce(r.error, parsed, response)"
        "  from work w join items i on i.id = w.item_id"
        "  join result_values r on r.seq = w.result_seq"
        "  left join attempts a on a.seq = r.attempt_seq order by i.id"
    )
    return {word: (state, value) for word, state, value in rows}


TAGGED = {"one": "<a>1</a>", "two": '{"n": 2}', "three": "nothing"}


@pytest.mark.on_both_engines
async def test_what_another_parser_can_use_is_done_without_a_call(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, TAGGED, "tag:a")
    done = await batchgen("reparse", "--parser", "json")
    assert (done.code, done.out, done.err) == (
        3,
        "2 answers parsed with json: 1 done that had failed, 1 failed as before.\n"
        "See why they failed, and what to do about each: batchgen failures\n",
        "The parser of default is tag:a: work and run will parse these answers with that again, "
        "unless you write json into the config.\n",
    )
    assert results(project) == {
        "one": ("done", '["1"]'),
        "two": ("done", '{"n": 2}'),
        "three": ("parse", "no JSON in the answer"),
    }
    assert simulator.calls == 3
    assert (await batchgen("export")).code == 0
    assert [line["parsed"] for line in project.export()] == [["1"], {"n": 2}]
    assert (await batchgen("verify")).code == 0


async def test_the_pool_again_with_the_new_parser_adds_nothing(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, {}, "tag:a")
    words = ["one", "two", "two"]  # known by their content; and one is there twice
    project.pool({"word": word} for word in words)
    simulator.script("one", "ok")
    for _ in range(2):
        simulator.script("two", Behaviour.ok("[2]"))
    await project.batchgen("run", "pool.jsonl")
    assert (await batchgen("reparse", "--parser", "json", "--json")).json["done"] == 2
    project.config("parser: json\n")
    assert (await batchgen("enqueue", "pool.jsonl", "--json")).json["new"] == 0
    project.pool({"word": word} for word in [*words, "new"])
    assert (await batchgen("enqueue", "pool.jsonl", "--json")).json["new"] == 1
    simulator.script("new", Behaviour.ok("[3]"))
    assert (await project.batchgen("run", "pool.jsonl")).code in (0, 3)
    assert project.export()[-1]["parsed"] == [3]
    project.config("parser: tag:a\n")
    assert (await batchgen("enqueue", "pool.jsonl", "--json")).json["new"] == 0


async def test_items_that_still_fail_can_be_retried_with_the_new_parser(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, {"one": "nothing"}, "tag:a")
    project.config("parser: json\n")
    assert (await batchgen("reparse")).code == 3
    assert (await batchgen("retry", "--reason", "parse", "--json")).json["retried"] == 1
    simulator.script("one", Behaviour.ok("[1]"))
    assert (await project.batchgen("work")).code == 0
    assert results(project) == {"one": ("done", "[1]")}


async def test_done_items_are_parsed_again_only_when_asked(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    said = {"one": '{"n": 1}', "two": "two", "three": "<a>3</a>", "four": "[4]"}
    await answer(project, simulator, said, "raw")
    project.config("parser: json\n")
    assert (await batchgen("reparse")).out == "0 answers parsed with json.\n"
    assert (await batchgen("reparse", "--id", "one", "--json")).json["changed"] == 1
    done = await batchgen("reparse", "--all")
    assert (done.code, done.out) == (
        3,
        "4 answers parsed with json: 1 changed, 1 unchanged, 2 failed that were done.\n"
        "See why they failed, and what to do about each: batchgen failures\n",
    )
    no_json = ("parse", "no JSON in the answer")
    assert results(project) == {
        "one": ("done", '{"n": 1}'), "two": no_json, "three": no_json, "four": ("done", "[4]"),
    }  # fmt: skip
    # The earlier results are there still.
    history = project.query(
        "select state, parsed from result_values where item_id = 2 order by seq"
    )
    assert history == [("done", None), ("failed", None)]
    assert (await batchgen("reparse", "--parser", "raw")).code == 0
    assert results(project)["two"] == ("done", "two")
    assert (await batchgen("verify")).code == 0


async def test_a_dry_run_shows_differences_and_writes_nothing(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    long = "x" * 100
    said = {"one": "[1]", "two": "<a>2</a>", "three": "nothing", "four": f'["{long}"]'}
    await answer(project, simulator, said, "tag:a")
    before = project.query("select * from results"), project.query("select * from items")
    dry = await batchgen("reparse", "--parser", "json", "--all", "--dry-run")
    assert (dry.code, dry.err) == (3, "")
    assert dry.out == (
        "4 answers parsed with json: 2 done that had failed, 1 failed as before, "
        "1 failed that were done.\n"
        "  one: parse: no <a>...</a> in the answer -> [1]\n"
        '  two: ["2"] -> parse: no JSON in the answer\n'
        f'  four: parse: no <a>...</a> in the answer -> ["{"x" * 55}...\n'
        "Nothing was written.\n"
    )
    dry = await batchgen("reparse", "--parser", "json", "--dry-run", "--json")
    assert dry.json == {
        "answers": 3, "done": 2, "changed": 0, "unchanged": 0, "failing": 1, "broken": 0,
        "skipped": 0,
        "differences": [
            {"id": "one", "before": "parse: no <a>...</a> in the answer", "after": "[1]"},
            {"id": "four", "before": "parse: no <a>...</a> in the answer",
             "after": f'["{"x" * 55}...'},
        ],
        "dry_run": True,
    }  # fmt: skip
    assert (project.query("select * from results"), project.query("select * from items")) == before
    assert project.query("select count(*) from recipes") == [(1,)]


async def test_a_parser_that_kills_the_process_costs_nothing(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, TAGGED, "tag:a")
    project.write(
        "mine.py",
        "import os\ndef parse_response(text):\n    os.abort() if 'n' in text else None\n",
    )
    before = results(project)
    assert (await project.process("reparse", "--all", "--parser", "mine.py")).code == -6
    assert results(project) == before
    assert (await batchgen("verify")).code == 0
    project.write("mine.py", "def parse_response(text, item):\n    return item['word']\n")
    assert (await batchgen("reparse", "--all", "--parser", "mine.py")).code == 0
    assert results(project) == {word: ("done", f'"{word}"') for word in TAGGED}


async def test_a_parser_that_hangs_fails_its_item_and_holds_up_no_other(
    project: Project, simulator: Simulator
) -> None:
    await answer(project, simulator, TAGGED, "tag:a")
    project.config("parser: mine.py\nwork: {parse_timeout_s: 1}\n")
    project.write(
        "mine.py",
        "import threading\n"
        "def parse_response(text):\n"
        "    return threading.Event().wait() if text == 'nothing' else 1\n",
    )
    assert (await project.process("reparse")).code == 3
    assert results(project) == {
        "one": ("done", '["1"]'),
        "two": ("done", "1"),
        "three": ("parse", "took longer than 1 s"),
    }


async def test_a_parser_that_always_hangs_stops_the_job(project: Project) -> None:
    fill(project, ["x"] * 50)
    project.config("parser: mine.py\nwork: {parse_timeout_s: 0.02}\n")
    project.write("mine.py", "import threading\ndef parse_response(_):\n"
                             "    threading.Event().wait()\n")  # fmt: skip
    done = await project.process("reparse")
    assert done.code == 1
    errors = [error for (error,) in project.query("select error from results where reparsed = 1")]
    assert set(errors) == {"took longer than 0.02 s"}
    assert 20 <= len(errors) < 40  # those that waited for a thread then
    assert done.err.endswith(
        f"did not end for {len(errors)} answers. What was parsed so far is kept; mend the parser. "
        "Then run the same command again.\n"
    )


async def test_async_parsers_run_at_the_same_time(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, dict.fromkeys("abc", "x"), "json")
    project.write(
        "mine.py",
        "import asyncio\n"
        "here, all_here = [], asyncio.Event()\n"
        "async def parse_response(text):\n"
        "    here.append(text)\n"
        "    if len(here) == 3:\n"
        "        all_here.set()\n"
        "    await all_here.wait()\n"
        "    return len(here)\n",
    )
    assert (await batchgen("reparse", "--parser", "mine.py")).code == 0
    assert results(project) == dict.fromkeys("abc", ("done", "3"))


async def test_an_answer_that_was_cut_off_is_not_for_a_parser_that_needs_all_of_it(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    cut_off = Behaviour("length", body="<a>1</a><a>2</a>")
    await answer(project, simulator, {"one": cut_off, "two": "<a>2</a>"}, "raw")
    assert results(project)["one"] == ("done", "<a>1</a>")
    assert (await batchgen("reparse", "--all", "--parser", "tag:a")).code == 3
    assert results(project) == {
        "one": (
            "truncated", "the answer was cut off at max_tokens, and the parser needs all of it",
        ),
        "two": ("done", '["2"]'),
    }  # fmt: skip
    assert (await batchgen("reparse", "--parser", "json", "--json")).json["answers"] == 0
    assert (await batchgen("reparse", "--parser", "raw", "--json")).json["done"] == 1


async def test_only_what_has_ended_is_touched_while_a_worker_works(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, {"one": "[1]"}, "tag:a")
    project.pool([{"id": word, "word": word} for word in ("one", "two", "three")])
    assert (await batchgen("enqueue", "pool.jsonl")).code == 0
    for word in ("two", "three"):
        simulator.script(word, Behaviour.ok(f"<a>{word}</a>"))
    simulator.hold()
    worker = await project.start("work", "-c", "1")
    await simulator.received(2)
    found = (await batchgen("reparse", "--all", "--parser", "json", "--json")).json
    assert (found["answers"], found["done"]) == (1, 1)
    refused = await batchgen("reparse", "--id", "two", "--parser", "json")
    assert (refused.code, refused.err) == (
        2,
        "error: item two is neither done nor failed at its parser, so there is no answer to parse "
        "again. See: batchgen show two\n",
    )
    simulator.release()
    await worker.communicate()
    assert worker.returncode == 0
    assert results(project) == {
        "one": ("done", "[1]"), "two": ("done", '["two"]'), "three": ("done", '["three"]'),
    }  # fmt: skip
    assert (await batchgen("verify")).code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--failed", "--all"], "--failed, --all and --id exclude each other."
                                " See: batchgen reparse --help"),
        (["--all", "--id", "1"], "--failed, --all and --id exclude each other."
                                 " See: batchgen reparse --help"),
        (["--id", "7"], "no item has the id or number '7'."),
        (["--parser", "jsn"], "unknown parser 'jsn'; there are"),
        (["--experiment", "x"], "no experiment 'x'; there is: default."),
    ],
)  # fmt: skip
async def test_wrong_arguments_are_refused(
    project: Project, batchgen: Typist, arguments: list[str], error: str
) -> None:
    fill(project, ["x"])
    refused = await batchgen("reparse", *arguments)
    assert refused.code == 2
    assert error in refused.err
    assert len(refused.err.splitlines()) == 1


async def test_one_experiment_or_all(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    await answer(project, simulator, {"one": "[1]"}, "tag:a")
    simulator.script("one", Behaviour.ok("[2]"))
    assert (await project.batchgen("run", "pool.jsonl", "--experiment", "other")).code == 3
    found = await batchgen("reparse", "--parser", "json", "--experiment", "other", "--json")
    assert found.json["done"] == 1
    assert (await batchgen("reparse", "--parser", "json", "--json")).json["done"] == 1
    parsed = project.query("select e.name, parsed from item_overview join experiments e"
                           " on e.name = experiment order by 1")  # fmt: skip
    assert parsed == [("default", "[1]"), ("other", "[2]")]


# --- many answers -----------------------------------------------------------------------------


def fill(project: Project, said: Sequence[str]) -> None:
    """Items of the experiment "default" that failed to parse, each with its answer."""
    with open_table(project.database) as table:
        table.enqueue(*[{"word": f"w{n}"} for n in range(len(said))], experiment="default")
        worker = table.join()
        claimed = {item.id: item for item in table.claim(worker, len(said))}
        failed = Fail(Reason.PARSE, "no tag")
        table.exchange(
            worker,
            [
                Outcome(claimed[number], (answered(text),), failed)
                for number, text in enumerate(said, start=1)
            ],
        )
        table.leave(worker)


async def unparsed(store: Store) -> AsyncIterator[Sequence[EndedAnswer]]:
    """Those of the only experiment."""
    (experiment,) = await store.experiments()
    async for page in answer_pages(store, ReparseRequest(), experiment, load_parser("json")):
        yield page


async def reparsing(store: Store) -> Reparsing:
    """By the parser json."""
    parser = load_parser("json")
    return Reparsing(store, PresentParser(await store.parsers.number(parser.version), parser), 1.0)


def parsed_of(project: Project) -> list[str | None]:
    rows = project.query(
        "select parsed from work join result_values on seq = result_seq order by work.item_id"
    )
    return [value for (value,) in rows]


async def test_more_than_a_page_is_parsed_uninterrupted(project: Project, batchgen: Typist) -> None:
    fill(project, [f"[{n}]" for n in range(1201)])
    assert (await batchgen("reparse", "--parser", "json", "--json")).json["done"] == 1201
    assert parsed_of(project) == [f"[{n}]" for n in range(1201)]
    assert (await batchgen("verify")).code == 0


async def test_pages_that_were_written_stay_when_a_later_one_dies(
    project: Project, batchgen: Typist
) -> None:
    fill(project, [f"[{n}]" for n in range(700)])
    project.write(
        "mine.py",
        "import json, os\n"
        "def parse_response(text):\n"
        "    os.abort() if text == '[650]' and not os.path.exists('mended') else None\n"
        "    return json.loads(text)\n",
    )
    assert (await project.process("reparse", "--parser", "mine.py")).code == -6
    assert parsed_of(project) == [*[f"[{n}]" for n in range(500)], *[None] * 200]
    project.write("mended", "")
    again = await batchgen("reparse", "--parser", "mine.py", "--json")
    assert (again.json["answers"], again.json["done"]) == (200, 200)
    assert parsed_of(project) == [f"[{n}]" for n in range(700)]


@pytest.mark.quick("9")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_it_with_what_was_written(
    project: Project, batchgen: Typist, end: signal.Signals
) -> None:
    fill(project, [f"[{n}]" for n in range(501)])
    project.write(
        "mine.py",
        "import threading\n"
        "def parse_response(text):\n"
        "    if text == '[500]':\n"
        "        print('there', flush=True)\n"
        "        threading.Event().wait()\n"
        "    return 1\n",
    )
    process = await project.start("reparse", "--parser", "mine.py")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    process.send_signal(end)
    done = await ended(process)
    assert (done.code, done.err) == (130 if end is signal.SIGINT else -end, "")
    assert parsed_of(project) == [*["1"] * 500, None]
    assert (await batchgen("verify")).code == 0


async def test_answers_of_megabytes_come_a_few_at_a_time(project: Project) -> None:
    fill(project, [f'"{"x" * 3_000_000}"'] * 5)
    async with open_store(project.database) as store:
        pages = [len(page) async for page in unparsed(store)]
        assert pages == [2, 2, 1]


async def test_an_item_that_moved_on_while_it_was_parsed_is_left(project: Project) -> None:
    fill(project, ["[1]", "[2]"])
    async with open_store(project.database) as store:

        async def pages() -> AsyncIterator[Sequence[EndedAnswer]]:
            async for page in unparsed(store):
                item = await store.ended_item(1)
                assert item is not None
                assert await store.reopen([item]) == 1
                yield page

        result = await (await reparsing(store)).run(pages())
        assert (result.done, result.skipped, result.answers, result.exit_code) == (1, 1, 2, 0)
        assert result.differences == (Difference(2, "parse: no tag", "[2]"),)
        assert (await store.counts()).pending == 1


async def test_a_reparse_that_is_cancelled_keeps_its_pages(project: Project) -> None:
    fill(project, ["[1]", "[2]"])
    started = asyncio.Event()

    async with open_store(project.database) as store:

        async def pages() -> AsyncIterator[Sequence[EndedAnswer]]:
            async for page in unparsed(store):
                yield page[:1]
                started.set()
                await asyncio.Event().wait()

        job = asyncio.create_task((await reparsing(store)).run(pages()))
        await started.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert (await store.counts()).done == 1
    assert parsed_of(project) == ["[1]", None]


async def test_parsing_again_what_is_parsed_already_changes_nothing(
    project: Project, batchgen: Typist
) -> None:
    fill(project, ['{"b":1,  "a": "é"}', "no JSON"])
    assert (await batchgen("reparse", "--parser", "json")).code == 3
    assert parsed_of(project) == ['{"b": 1, "a": "é"}', None]
    before = project.query("select * from results")
    again = (await batchgen("reparse", "--parser", "json", "--all", "--json")).json
    assert (again["unchanged"], again["failing"], again["answers"]) == (1, 1, 2)
    assert project.query("select * from results") == before
