"""Parsers on the answers that models give, hostile ones included."""

import asyncio
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import ConfigError, ParseError
from batchgen.parsers import (
    Parser,
    ParserRunner,
    load_parser,
    parser_from_callable,
    to_json,
)

LIMIT_S = 30.0  # far from what any call here takes


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[ParserRunner]:
    runner = ParserRunner(threads=2)
    yield runner
    runner.close()


def parsed(spec: str, text: str) -> Any:
    return load_parser(spec).parse(text, {}, None)


@pytest.mark.parametrize(
    ("spec", "text", "value"),
    [
        ("raw", " a\n", " a\n"),
        # tags
        ("tag:draft", "<draft>a</draft> x <DRAFT n='1'>\n b\n c </Draft >", ["a", "b\n c"]),
        ("tag:draft", "<draft></draft><draft/><drafts>no</drafts>", [""]),
        ("tag:draft", "</draft><draft>a <draft>b</draft> c</draft>", ["a <draft>b"]),
        ("tag:草稿", "<草稿>猫</草稿>", ["猫"]),
        ("tag:a.b", "<axb>no</axb><a.b>yes</a.b>", ["yes"]),
        # regex
        ("regex:[0-9]+", "a 12 b 34", "12"),
        ("regex:(\\w)=(\\d)|(x)", "a=1", ["a", "1", None]),
        ("regex:(?P<k>\\w)=(\\d)", "a=1", {"k": "a"}),
        ("regex:(?s)a.b", "a\nb", "a\nb"),
        # json: the whole text, a fenced block, or the first value
        ("json", ' {"a": [1, null]}\n', {"a": [1, None]}),
        ("json", '"[1]"', "[1]"),
        ("json", "42", 42),
        ("json", 'Sure {really}: {"a": "}{"} and {"b": 2}', {"a": "}{"}),
        ("json", "The list [see below] is [1, 2].", [1, 2]),
        ("json", '[1]\n```json\n{"a": "```"}\n```\nok', {"a": "```"}),
        ("json", "```JSON\n{,}\n```\n```json\n[2]```", [2]),
        ("json", "```json\n[3]", [3]),
        ("json", '```\n{"a": 1}\n```', {"a": 1}),
        ("json", 'As {"name": string}: {"name": "x"}', {"name": "x"}),
        # of several values the first object
        ("json", 'Scores [1, 2]: {"a": 1} {"b": 2}', {"a": 1}),
        ("json", '```json\n[1]\n```\n```json\n{"a": 1}\n```', {"a": 1}),
        ("json", "[1] [2]", [1]),
        # or the first that the schema allows
        ('json_schema:{"required": ["b"]}', 'Not {"a": 1} but {"b": 2}.', {"b": 2}),
        ('json_schema:{"required": ["b"]}', '```json\n{"a": 1}\n```\n{"b": 2}', {"b": 2}),
        ('json_schema:{"type": "array"}', 'Of {"a": 1}: [3]', [3]),
    ],
)
def test_what_a_built_in_parser_makes_of_an_answer(spec: str, text: str, value: Any) -> None:
    assert parsed(spec, text) == value


@pytest.mark.parametrize(
    ("spec", "text", "problem"),
    [
        ("tag:draft", "none", "no <draft>...</draft> in the answer"),
        (
            "tag:draft",
            "<draft>cut",
            "no <draft>...</draft> in the answer (<draft> is opened, but not closed)",
        ),
        ("regex:a.b", "a\nb", "no match for a.b in the answer"),
        ("json", "nothing", "no JSON in the answer"),
        ("json", "", "no JSON in the answer"),
        (
            "json",
            '[{"a": 1}, {"a": 2,, }, {"a": 3}]',
            "no JSON in the answer; what begins like it is broken: Expecting property name "
            "enclosed in double quotes: line 1 column 20 (char 19)",
        ),
        (
            "json",
            '{"a": {"b": 1}, "c": [',
            "no JSON in the answer; what begins like it is broken: Expecting value: "
            "line 1 column 23 (char 22)",
        ),
        (
            "json",
            '{"x": 1}\n```json\n{"a" 1}\n```',
            "the ```json block in the answer is not JSON: Expecting ':' delimiter: "
            "line 3 column 6 (char 22)",
        ),
        (
            "json",
            "```json\n[1]\n[2]\n```",
            "the ```json block in the answer is not JSON: there is more after its first value",
        ),
        ("json", '{"a": NaN}', "the JSON in the answer is unusable: NaN is not JSON"),
        ("json", 'x {"a": -Infinity}', "the JSON in the answer is unusable: -Infinity is not JSON"),
        (
            "json",
            "[1e999]",
            "the JSON in the answer is unusable: the number 1e999 is too large",
        ),
        ("json", "[" * 200_000, "the JSON in the answer is unusable: nested too deep"),
    ],
)
def test_an_answer_that_cannot_be_parsed_says_why(spec: str, text: str, problem: str) -> None:
    with pytest.raises(ParseError) as caught:
        parsed(spec, text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("spec", "unit"),
    [
        ("tag:draft", "<draft>"),
        ("tag:draft", "<draft "),
        ("tag:draft", "<"),
        ("json", "{"),
        ("json", '{"'),
        ("json", '{"a" '),
        ("json", '["a\\" '),
        ("json", '"\\'),
        ("json", '[x ["'),
        ("json", "```json ["),
        ("json", '```json ["'),
        ("json", "`"),
    ],
)
def test_hostile_answers_take_linear_time(spec: str, unit: str) -> None:
    started = time.process_time()
    with pytest.raises(ParseError):
        parsed(spec, unit * 100_000)
    assert time.process_time() - started < 3  # quadratic would be minutes


@given(st.text('<>/draftDRAFT "=\n', max_size=60) | st.text())
def test_the_tag_parser_raises_nothing_but_parse_errors(text: str) -> None:
    try:
        found = parsed("tag:draft", text)
    except ParseError:
        return
    assert all(isinstance(part, str) for part in found)


@given(st.text('{}[]",:\\`json 12-.e\nutf', max_size=60) | st.text())
def test_the_json_parser_raises_nothing_but_parse_errors(text: str) -> None:
    try:
        value = parsed("json", text)
    except ParseError:
        return
    assert json.loads(json.dumps(value, allow_nan=False)) == value


# --- specs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "needs_whole"),
    [
        ("raw", "inline", False),
        ("json", "inline", True),
        ("tag:a", "inline", True),
        ("regex:a:b", "regex", True),
        ("json:loads", "function", True),
    ],
)
def test_a_parser_knows_its_kind(spec: str, kind: str, needs_whole: bool) -> None:
    parser = load_parser(spec)
    assert (parser.spec, parser.kind, parser.needs_whole) == (spec, kind, needs_whole)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            "",
            "unknown parser ''; there are raw, tag:NAME, regex:PATTERN, json, json_schema:FILE,"
            " module:function and path/to/file.py:function",
        ),
        ("rwa", "unknown parser 'rwa'"),
        ("tag:", "'' is not the name of a tag"),
        ("tag:a b", "parser 'tag:a b': 'a b' is not the name of a tag; write tag:draft"),
        ("regex:(a", "parser 'regex:(a': missing ) at position 2"),
        (
            "python:mine.parse",
            "only the Python script that enqueued these items has its mine.parse",
        ),
        ("json:JSONDecoder", "a class must be a pydantic model; or give a function"),
        ("json:lods", "json has no lods; did you mean loads?"),
        ("no_such_module_here:f", "no module named 'no_such_module_here'"),
        ("nothere.py:parse", "parser 'nothere.py:parse': nothere.py: no such file"),
        (
            "platform:node",
            "parser 'platform:node' must take (response) or (response, item), not ():"
            " too many positional arguments",
        ),
    ],
)
def test_a_parser_that_does_not_exist_is_one_line(spec: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_parser(spec)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_alone_means_its_parse_response(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def parse_response(response): return response.upper()")
    assert parsed(str(path), "a") == "A"


def with_option(response: str, strict: bool = False) -> Any:
    return [response, strict]


class Callables:
    def __call__(self, response: str, item: Mapping[str, Any]) -> Any:
        return [response, item]

    def method(self, response: str) -> Any:
        return [response]


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda response: [response], ["r"]),
        (lambda response, row: [response, row], ["r", {"a": 1}]),
        (lambda response, item=None: [response, item], ["r", {"a": 1}]),
        (lambda response, *, item: [response, item], ["r", {"a": 1}]),
        (lambda *responses: list(responses), ["r"]),
        (with_option, ["r", False]),
        (functools.partial(with_option, strict=True), ["r", True]),
        (Callables(), ["r", {"a": 1}]),
        (Callables().method, ["r"]),
    ],
)
async def test_a_function_gets_the_item_if_it_asks_for_it(
    runner: ParserRunner, function: Callable[..., Any], value: Any
) -> None:
    parser = parser_from_callable(function)
    assert await runner.run(parser, "r", {"a": 1}, LIMIT_S) == value


def test_a_callable_has_a_spec_for_the_record() -> None:
    assert parser_from_callable(with_option).spec == f"python:{__name__}.with_option"
    assert parser_from_callable(Callables()).spec == f"python:{__name__}.Callables"


# --- running ---------------------------------------------------------------------------------


def raising(exc: BaseException) -> Callable[[str], Any]:
    def parse(response: str) -> Any:
        raise exc

    return parse


def raising_async(exc: BaseException) -> Callable[[str], Any]:
    async def parse(response: str) -> Any:
        raise exc

    return parse


@pytest.mark.parametrize("make", [raising, raising_async])
@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (ValueError("no title\nat all"), "ValueError: no title at all"),
        (KeyError("k"), "KeyError: 'k'"),
        (StopIteration(), "StopIteration"),
        (SystemExit(3), "SystemExit: 3"),
        (TimeoutError("mine"), "TimeoutError: mine"),
    ],
)
async def test_what_a_function_raises_is_a_parse_error_with_its_place(
    runner: ParserRunner,
    make: Callable[[BaseException], Callable[[str], Any]],
    exc: BaseException,
    said: str,
) -> None:
    if make is raising_async and isinstance(exc, StopIteration):
        said = "RuntimeError: coroutine raised StopIteration"
    with pytest.raises(ParseError) as caught:
        await runner.run(parser_from_callable(make(exc)), "r", {}, LIMIT_S)
    message = str(caught.value)
    assert message.startswith(f"{said} ({__file__}:")
    assert runner.stuck == 0


async def test_an_interrupt_raised_in_a_thread_is_a_parse_error(runner: ParserRunner) -> None:
    with pytest.raises(ParseError, match=r"^KeyboardInterrupt"):
        await runner.run(parser_from_callable(raising(KeyboardInterrupt())), "r", {}, LIMIT_S)


async def test_the_place_is_the_users_line_not_that_of_a_library(runner: ParserRunner) -> None:
    def parse(response: str) -> Any:
        return json.loads(response)

    line = parse.__code__.co_firstlineno + 1
    with pytest.raises(ParseError, match=rf"^JSONDecodeError: .* \({__file__}:{line}\)$"):
        await runner.run(parser_from_callable(parse), "x", {}, LIMIT_S)


async def test_a_parse_error_of_the_user_keeps_its_words(runner: ParserRunner) -> None:
    with pytest.raises(ParseError, match=r"^too short$"):
        await runner.run(parser_from_callable(raising(ParseError("too short"))), "r", {}, LIMIT_S)


async def test_async_functions_run_on_the_loop(runner: ParserRunner) -> None:
    async def parse(response: str) -> Any:
        await asyncio.sleep(0)
        return [response, threading.current_thread() is threading.main_thread()]

    def plain(response: str) -> Any:
        return parse(response)

    for function in (parse, plain):
        parser = parser_from_callable(function)
        assert await runner.run(parser, "r", {}, LIMIT_S) == ["r", True]


async def test_a_function_that_hangs_is_left_behind_and_replaced(runner: ParserRunner) -> None:
    let_go = threading.Event()

    def parse(response: str) -> Any:
        return let_go.wait() if response == "hang" else response

    parser = parser_from_callable(parse)
    for _ in range(3):  # more than there are threads
        with pytest.raises(ParseError, match=r"^took longer than 0\.01 s$"):
            await runner.run(parser, "hang", {}, 0.01)
    assert runner.stuck == 3
    assert await runner.run(parser, "r", {}, LIMIT_S) == "r"
    let_go.set()
    for thread in runner._abandoned:
        thread._thread.join(LIMIT_S)
    assert runner.stuck == 0


async def test_an_async_function_that_hangs_is_given_up(runner: ParserRunner) -> None:
    async def parse(response: str) -> Any:
        await asyncio.Event().wait()

    with pytest.raises(ParseError, match=r"^took longer than 0\.01 s$"):
        await runner.run(parser_from_callable(parse), "r", {}, 0.01)


async def test_threads_are_used_again_and_limited(runner: ParserRunner) -> None:
    names, both = set(), threading.Barrier(2)

    def parse(response: str) -> Any:
        both.wait(LIMIT_S)
        names.add(threading.get_ident())
        return response

    parser = parser_from_callable(parse)
    calls = [runner.run(parser, str(n), {}, LIMIT_S) for n in range(20)]
    assert await asyncio.gather(*calls) == [str(n) for n in range(20)]
    assert len(names) == 2


async def test_a_cancelled_call_is_cancelled_and_its_thread_left(runner: ParserRunner) -> None:
    loop, entered, let_go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def parse(response: str) -> Any:
        loop.call_soon_threadsafe(entered.set)
        let_go.wait(LIMIT_S)

    task = asyncio.create_task(runner.run(parser_from_callable(parse), "r", {}, LIMIT_S))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runner.stuck == 1
    let_go.set()


async def test_a_cancellation_of_the_functions_own_is_a_parse_error(runner: ParserRunner) -> None:
    async def parse(response: str) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(ParseError, match=r"^CancelledError"):
        await runner.run(parser_from_callable(parse), "r", {}, LIMIT_S)


async def test_a_pattern_that_backtracks_is_given_up_while_others_go_on(
    runner: ParserRunner,
) -> None:
    parser = load_parser(r"regex:^(a|aa|a?)+(?<!a)$")
    task = asyncio.create_task(runner.run(parser, "a" * 200, {}, 0.3))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    with pytest.raises(ParseError, match=r"took longer than 0\.3 s$"):
        await task
    assert turns > 100  # the loop was not held


async def test_built_in_parsers_run_too(runner: ParserRunner) -> None:
    assert await runner.run(load_parser("regex:b+"), "abb", {}, LIMIT_S) == "bb"
    assert await runner.run(load_parser("tag:a"), "<a>b</a>", {}, LIMIT_S) == ["b"]


def test_a_hanging_function_does_not_keep_the_process_alive() -> None:
    program = """
import asyncio, threading
from batchgen.parsers import ParserRunner, parser_from_callable

def hang(response): threading.Event().wait()

async def main():
    runner = ParserRunner()
    try:
        await runner.run(parser_from_callable(hang), "r", {}, 0.01)
    except Exception as exc:
        print(exc)
    runner.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (done.stdout, done.stderr, done.returncode) == ("took longer than 0.01 s\n", "", 0)


# --- results ---------------------------------------------------------------------------------


def test_results_become_json() -> None:
    assert to_json({1: ["猫", None, 1.5, (2,)]}) == '{"1": ["猫", null, 1.5, [2]]}'


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1}, "a set JSON cannot hold: Object of type set is not JSON serializable"),
        ([b"x"], "a list JSON cannot hold: Object of type bytes is not JSON serializable"),
        (float("nan"), "a float JSON cannot hold: Out of range float values are not"),
        ("\ud800", "a str JSON cannot hold: a lone surrogate in a text"),
        (circular(), "a list JSON cannot hold: Circular reference detected"),
        ({(1,): 1}, "a dict JSON cannot hold: keys must be str, int, float, bool or None"),
        (iter([]), "a list_iterator JSON cannot hold"),
    ],
)
def test_a_result_that_json_cannot_hold_names_its_type(value: Any, problem: str) -> None:
    with pytest.raises(ParseError) as caught:
        to_json(value)
    assert str(caught.value).startswith(f"the parser returned {problem}")


def test_a_parser_is_a_frozen_value() -> None:
    assert isinstance(load_parser("raw"), Parser)
    with pytest.raises(AttributeError):
        load_parser("raw").spec = "json"  # type: ignore[misc]
