"""The user's functions as steps: what they may take, and what they return."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import ConfigError, ParseError
from batchgen.parsers import ParserRunner, load_step_function, step_function_from_callable

ITEM = {"id": "a", "topic": "tea"}
VALUES = {"draft": "Tea is a drink."}


async def run(function: Callable[..., Any], timeout_s: float = 10.0) -> Any:
    runner = ParserRunner()
    try:
        step = step_function_from_callable(function)
        return await runner.run_step(step, ITEM, VALUES, timeout_s)
    finally:
        runner.close()


def of_both(item: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    return f"{item['topic']}: {values['draft']}"


def of_the_item(item: Mapping[str, Any]) -> str:
    return str(item["topic"])


def with_an_option(item: Mapping[str, Any], strict: bool = True) -> str:
    return f"{item['topic']} {strict}"


def by_name(item: Mapping[str, Any], *, values: Mapping[str, Any]) -> str:
    return str(values["draft"])


async def awaited(item: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    await asyncio.sleep(0)
    return str(values["draft"])


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (of_both, "tea: Tea is a drink."),
        (of_the_item, "tea"),
        (with_an_option, "tea True"),
        (by_name, "Tea is a drink."),
        (awaited, "Tea is a drink."),
        (lambda item, values: awaited(item, values), "Tea is a drink."),
    ],
)
async def test_it_gets_the_item_and_the_values_of_the_steps_before(
    function: Callable[..., Any], returned: str
) -> None:
    assert await run(function) == returned


def fails(_item: Mapping[str, Any]) -> None:
    raise ValueError("no title")


async def test_what_it_raises_is_told_with_its_place() -> None:
    with pytest.raises(ParseError, match=r"ValueError: no title \(.*test_step_functions.py:\d+\)"):
        await run(fails)


async def test_one_that_hangs_is_given_up() -> None:
    async def hangs(_item: Mapping[str, Any]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ParseError, match=r"took longer than 0\.01 s"):
        await run(hangs, timeout_s=0.01)


def test_one_that_takes_other_arguments_is_refused() -> None:
    def takes_three(item: Any, values: Any, more: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"must take \(item\) or \(item, values\), not"):
        step_function_from_callable(takes_three)


def test_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a class; give a function"):
        step_function_from_callable(dict)


def test_it_is_loaded_by_its_name_and_is_another_one_once_it_is_edited(tmp_path: Path) -> None:
    file = tmp_path / "steps.py"
    file.write_text("def score(item):\n    return 1\n")
    before = load_step_function(f"{file}:score")
    file.write_text("def score(item):\n    return 2\n")
    after = load_step_function(f"{file}:score")
    assert (before.call({}, {}), after.call({}, {})) == (1, 2)
    assert before.version != after.version


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("missing.py:score", "function 'missing.py:score': missing.py: no such file"),
        ("score", "function 'score': 'score' names no function"),
        ("python:script.score", "only the Python script that enqueued these items has it"),
    ],
)
def test_one_that_cannot_be_loaded_is_named(spec: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_step_function(spec)
