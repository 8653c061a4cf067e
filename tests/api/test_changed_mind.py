"""A parser that has changed is noticed by its source, and costs no call; a prompt costs those that
are announced."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline
from batchgen.errors import UsageError
from batchgen.simulate import Simulator
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]

CELLS = [
    "def extract(text): return int(text)",
    "def extract(text):\n    return len(text)",
    "def extract(text): return helper(text)\ndef helper(text): return text[:3]",
    "def extract(text): return helper(text)\ndef helper(text): return text[:4]",
    "extract = lambda text: text.upper()",
    "class Extractor:\n  def parse(self, text): return [text]\nextract = Extractor().parse",
]


async def test_a_function_that_is_defined_anew_parses_what_is_stored(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    parsed: list[Any] = []
    for cell in CELLS:
        exec(compile(cell, "<cell>", "exec"), notebook)
        results = await DataGenerationPipeline().run(words(3), extract_function=notebook["extract"])
        parsed.append(results[0]["parsed"])
    text = results[0]["response"]
    assert parsed == [None, len(text), text[:3], text[:4], text.upper(), [text]]
    assert [line["parsed"] for line in here.export()] == [one["parsed"] for one in results]
    assert simulator.calls == 3
    said = [line.rpartition(": ")[2] for line in capfd.readouterr().err.splitlines()]
    assert said == ["3 done that had failed", *["3 changed"] * (len(CELLS) - 2)]


async def test_the_same_function_parses_nothing_again(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        notebook: dict[str, Any] = {}
        exec(compile("\n\n" + CELLS[1], "<cell>", "exec"), notebook)
        await DataGenerationPipeline().run(words(3), extract_function=notebook["extract"])
    assert capfd.readouterr().err == ""


async def test_reparse_without_a_parser_keeps_the_rows_own(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def first_word(text: str) -> str:
        return text.split()[0]

    await DataGenerationPipeline().run(words(3), extract_function=first_word)
    assert (await here.batchgen("reparse", "--all")).code == 2  # only this script has it
    results = await DataGenerationPipeline().run(words(3), extract_function=first_word)
    assert [one["parsed"] for one in results] == ["You"] * 3


async def test_another_prompt_says_what_each_way_costs_and_asks_for_no_more(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    await DataGenerationPipeline().run(words(6))
    changed = DataGenerationPipeline(user_prompt="Shout {word}")
    with pytest.raises(UsageError) as raised:
        await changed.run(words(8))
    said = str(raised.value)
    assert 'recipe="replace"' in said
    assert "--" not in said
    announced = {
        way: int(found[1])
        for way in ("replace", "again", "add")
        if (found := re.search(rf'recipe="{way}" \([^)]*?(\d+) calls?', said))
    }
    assert announced == {"replace": 2, "again": 8, "add": 8}
    assert simulator.calls == 6
    await changed.run(words(8), recipe="replace")
    assert simulator.calls == 8
    assert capfd.readouterr().err == ""
    await changed.run(list(words(8))[:2])
    assert simulator.calls == 8
    assert len(here.export()) == 8


async def test_rows_that_were_not_passed_are_told(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    await DataGenerationPipeline().run(words(6), until=4)
    await DataGenerationPipeline().run(list(words(6))[:4])
    assert "rows of default that wait, as their items were not passed" in capfd.readouterr().err


async def test_again_is_about_the_items_that_are_passed_and_the_others_keep_what_they_have(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    await DataGenerationPipeline().run(words(6), samples=2)
    changed = DataGenerationPipeline(user_prompt="Shout {word}")
    some = list(words(8))[5:]
    with pytest.raises(UsageError, match=r"the new ones: 6 calls\)"):
        await changed.run(some, samples=2)
    for _ in range(2):
        results = await changed.run(some, samples=2, recipe="again")
        assert ["Shout" in one["response"] for one in results] == [True] * 6
        assert "keep answers to an earlier recipe" in capfd.readouterr().err
        assert simulator.calls == 12 + 6
    lines = here.export()
    assert ["Shout" in one["response"] for one in lines] == [False] * 10 + [True] * 6
    await changed.run(words(8), samples=2)
    assert "an earlier recipe: 10 of 16" in capfd.readouterr().err
    await changed.run(words(8), samples=2, recipe="replace")
    assert capfd.readouterr().err == ""
    await changed.run(words(8), samples=2, recipe="again")
    assert simulator.calls == 12 + 6 + 10
    changed.retry(ids=[1], done=True, params={"temperature": 1})
    await changed.run(words(8), samples=2)
    assert capfd.readouterr().err == ""
    assert (await here.batchgen("verify")).code == 0


async def test_of_two_runs_with_parsers_of_their_own_the_later_one_has_its_values_alone(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    def mine(text: str) -> str:
        return f"mine {text}"

    def yours(text: str) -> str:
        return f"yours {text}"

    simulator.hold()
    pool = list(words(20))
    runs = []
    for calls, parser in ((2, mine), (4, yours)):
        run = DataGenerationPipeline().run(pool, 2, parser)
        runs.append(asyncio.create_task(run, name=parser.__name__))
        await simulator.received(calls)
    simulator.release()
    _, results = await asyncio.gather(*runs)
    assert {one["parsed"].split()[0] for one in results} == {"yours"}
    assert [one["parsed"] for one in here.export()] == [one["parsed"] for one in results]
    assert capfd.readouterr().err.count("another run has given default another parser") == 1
