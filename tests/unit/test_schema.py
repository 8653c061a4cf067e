"""Answers that fit a JSON Schema or a pydantic model, and requests that ask for them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from batchgen import DataGenerationPipeline, config
from batchgen.errors import ConfigError, ParseError
from batchgen.items import Recipe
from batchgen.jobs.recipe import recipe_of
from batchgen.parsers import Parser, ParserRunner, load_parser, parser_from_callable
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.simulate.answers import Chat, completion
from batchgen.simulate.fitting import fitting_value
from batchgen.userfunctions import load_function
from tests.kits.project import Project

LIMIT_S = 30.0  # far from what any call here takes

PAGE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A page!",
    "type": "object",
    "properties": {
        "why": {"type": "string", "maxLength": 200},
        "kind": {"enum": ["essay", "poem"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
    },
    "required": ["why", "kind", "lines"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {
                "number": {"type": "integer", "minimum": 1},
                "at": {"type": ["string", "null"], "format": "date"},
            },
            "required": ["number"],
        }
    },
}
GOOD_PAGE = {"why": "w", "kind": "poem", "lines": [{"number": 1, "at": "2026-01-02"}]}

MODELS = '''
from __future__ import annotations

import datetime
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Line(BaseModel):
    number: int = Field(ge=1)
    at: datetime.date | None = None


class Page(BaseModel):
    why: str
    lines: list[Line]

    @field_validator("why")
    @classmethod
    def has_reason(cls, why: str) -> str:
        if not why:
            raise ValueError("give a reason")
        return why


class Strict(BaseModel):
    """Said to the model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at: datetime.date


class Unfinished(BaseModel):
    other: Nowhere


class Odd(BaseModel):
    call: Callable[[int], int]


class Plain:
    pass
'''


def inline(schema: Any) -> str:
    return f"json_schema:{json.dumps(schema)}"


def parsed(spec: str, value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return load_parser(spec).parse(text, {}, None)


def problem(spec: str, value: Any) -> str:
    with pytest.raises(ParseError) as caught:
        parsed(spec, value)
    return str(caught.value)


def refusal(spec: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_parser(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[ParserRunner]:
    runner = ParserRunner(threads=2)
    yield runner
    runner.close()


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return str(path)


# --- json_schema -----------------------------------------------------------------------------


def test_an_answer_that_fits_is_parsed_as_json_is() -> None:
    assert parsed(inline(PAGE), GOOD_PAGE) == GOOD_PAGE
    assert parsed(inline(PAGE), f"Sure:\n```json\n{json.dumps(GOOD_PAGE)}\n```\n") == GOOD_PAGE


def test_the_spec_is_the_schema_s_content_in_its_order_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "page.json"
    file.write_text("\ufeff" + json.dumps(PAGE, indent=4), encoding="utf-8")
    parser = load_parser(f"json_schema:{file}")
    assert parser.spec == inline(PAGE)
    assert load_parser(parser.spec).spec == parser.spec
    file.write_text("{}")
    assert "required" in problem(parser.spec, {})
    assert load_parser(f"json_schema:{file}").spec == "json_schema:{}"
    assert (parser.kind, parser.needs_whole) == ("function", True)


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        (PAGE, "no", "no JSON in the answer"),
        (PAGE, [1], "[1] is not of type 'object'"),
        (PAGE, {"kind": "poem", "lines": [{"number": 1}]}, "'why' is a required property"),
        (
            PAGE,
            {**GOOD_PAGE, "kind": "ode", "lines": [{"number": 1}, {"number": 0}]},
            "kind: 'ode' is not one of ['essay', 'poem']; "
            "lines[1].number: 0 is less than the minimum of 1",
        ),
        (PAGE, {**GOOD_PAGE, "x\ny": 1}, "'x\\ny' is not a property that it may have"),
        (PAGE, {**GOOD_PAGE, "lines": [{"number": 1, "at": "May"}]}, "lines[0].at: 'May' is not"),
        # no more than three, and none of the answer's length
        ({"items": {"type": "null"}}, [1, 2, 3, 4], "[2]: 3 is not of type 'null'; and more"),
        ({"type": "null"}, ["x" * 1000], "the list is not of type 'null'"),
        ({"maxLength": 9}, '"' + "x" * 1000 + '"', "the text is too long"),
        ({"additionalProperties": False}, {"k" * 1000: 1}, f"'{'k' * 60}' is not a property"),
        ({"additionalProperties": {"type": "null"}}, {"a b": 1}, '["a b"]: 1 is not of type'),
        # of what fits nowhere, the part that fits best; or each
        (
            {"anyOf": [{"type": "null"}, {"properties": {"a": {"type": "null"}}}]},
            {"a": 1},
            "a: 1 is not of type 'null'",
        ),
        (
            {"anyOf": [{"type": "null"}, {"type": "string"}]},
            5,
            "5 is not valid under any of the given schemas "
            "(5 is not of type 'null'; 5 is not of type 'string')",
        ),
        # patterns and formats
        ({"pattern": r"^\p{Lu}"}, '"a"', r"'a' does not match '^\\p{Lu}'"),
        ({"patternProperties": {"^n_": {"type": "null"}}}, {"n_a": 1, "b": 1}, "n_a: 1 is not of"),
        (
            {"patternProperties": {"^n_": {}}, "additionalProperties": False},
            {"n_a": 1, "b": 1},
            "'b' is not a property",
        ),
        ({"format": "date-time"}, '"2026-13-01T00:00:00Z"', "is not a 'date-time'"),
        ({"format": "email"}, '"me"', "'me' is not a 'email'"),
    ],
)
def test_an_answer_that_does_not_fit_says_where_and_what(
    schema: Any, value: Any, said: str
) -> None:
    message = problem(inline(schema), value)
    assert said in message
    assert len(message) < 600
    assert "\n" not in message


def test_a_key_that_cannot_be_stored_does_not_get_into_the_error() -> None:
    message = problem(inline({"additionalProperties": {"type": "null"}}), '{"\\ud800": "\\ud800"}')
    message.encode()


@pytest.mark.parametrize("value", ["2026-11-20T23:59:59Z", "2026-11-20t23:59:59.25+01:00"])
def test_a_date_time_is_one(value: str) -> None:
    assert parsed(inline({"format": "date-time"}), f'"{value}"') == value


@pytest.mark.parametrize(
    "dialect", ["draft-03", "draft-04", "draft-06", "draft-07", "2019-09", "2020-12"]
)
def test_every_draft_is_known_and_the_deadline_holds_in_all(dialect: str) -> None:
    name = f"draft/{dialect}/schema" if dialect[0] == "2" else f"{dialect}/schema#"
    scheme = "https" if dialect[0] == "2" else "http"
    schema = {
        "$schema": f"{scheme}://json-schema.org/{name}",
        "properties": {"in": {"$ref": "#"}},
        "patternProperties": {"^(a|a)*$": {"type": "string"}},
        "additionalProperties": False,
    }
    parser = load_parser(inline(schema))
    assert parser.parse('{"in": {"a": "b"}}', {}, LIMIT_S) == {"in": {"a": "b"}}
    with pytest.raises(ParseError, match=r"^took longer than 0\.05 s$"):
        parser.parse(f'{{"in": {{"{"a" * 200}b": 1}}}}', {}, 0.05)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strng"}, "not a valid JSON Schema: type: 'strng' is not valid under any"),
        ({"required": "a"}, "not a valid JSON Schema: required: 'a' is not of type 'array'"),
        ({"pattern": "("}, "not a valid JSON Schema: pattern: '(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "'[' is not a 'regex'"),
        ({"$schema": "mine"}, '$schema: unknown: "mine"'),
        ({"$schema": 7}, "$schema: unknown: 7"),
        ({"$ref": "#"}, "its $refs go round in a circle"),
        ({"$ref": "#/$defs/nope"}, "$ref: there is no #/$defs/nope in it"),
        (
            {"$ref": "other.json"},
            "$ref: other.json is outside of the schema; put it under $defs, nothing is fetched",
        ),
        ({"items": {"$ref": "http://[x"}}, "$ref: http://[x is outside of the schema"),
        (
            {"$defs": {"a": {"$dynamicRef": "file:///etc/passwd"}}},
            "$dynamicRef: file:///etc/passwd",
        ),
        ({"$ref": "#/mine", "mine": {"$ref": "https://example.org/x"}}, "https://example.org/x is"),
        ({"$ref": "#/title/x", "title": "t"}, "$ref: there is no #/title/x in it"),
        ({"$ref": "#/title", "title": "t"}, "not a valid JSON Schema: 't' is not of type"),
        ({"$ref": "#/mine", "mine": {"type": "strng"}}, "not a valid JSON Schema: type: 'strng'"),
        ({"$id": "https://example.org/a", "items": {"$ref": "b"}}, "$ref: b is outside"),
        (
            {"items": {"$schema": "http://json-schema.org/draft-07/schema#"}},
            "only the whole schema",
        ),
        (
            {"unevaluatedProperties": False, "patternProperties": {"a": {}}},
            "unevaluatedProperties together with patternProperties: not supported",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(schema: Any, said: str) -> None:
    assert said in refusal(inline(schema))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "parser 'json_schema:{path}': no such file"),
        (b"[]", "a JSON Schema is an object"),
        (b"{", "not JSON: Expecting property name"),
        (b'{"const": NaN}', "NaN is not JSON"),
        (b'"\xff"', "not UTF-8: byte 0xff at column 2"),
        (b'{"const": ' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_schema_s_file_that_cannot_be_used_says_why(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "s.json"
    if content is not None:
        path.write_bytes(content)
    assert said.format(path=path) in refusal(f"json_schema:{path}")
    assert refusal(f"json_schema:{tmp_path}").endswith(f"{tmp_path}': is a directory")
    assert refusal("json_schema:no/such.json").endswith(f": no such file (in {Path.cwd()})")


def test_references_within_the_schema_hold() -> None:
    schema = {
        "$id": "https://example.org/whole.json",
        "properties": {"a": {"$ref": "#small"}, "b": {"$ref": "whole.json#/$defs/c"}},
        "$defs": {"b": {"$anchor": "small", "maximum": 3}, "c": {"type": "null"}},
    }
    assert parsed(inline(schema), {"a": 3, "b": None}) == {"a": 3, "b": None}
    assert problem(inline(schema), {"a": 4}).endswith("a: 4 is greater than the maximum of 3")


async def test_a_pattern_that_backtracks_is_given_up_while_others_go_on(
    runner: ParserRunner,
) -> None:
    parser = load_parser(inline({"pattern": "^(a|aa|a?)+(?<!a)$"}))
    started = time.monotonic()
    task = asyncio.create_task(runner.run(parser, f'"{"a" * 200}"', {}, 0.3))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    with pytest.raises(ParseError, match=r"took longer than 0\.3 s$"):
        await task
    assert turns > 100  # the loop was not held
    assert time.monotonic() - started < LIMIT_S


async def test_an_answer_nested_deeper_than_the_stack_costs_its_item_only(
    runner: ParserRunner,
) -> None:
    parser = load_parser(inline({"items": {"$ref": "#"}}))
    with pytest.raises(ParseError, match="nested too deep"):
        await runner.run(parser, "[" * 900 + "]" * 900, {}, LIMIT_S)
    assert await runner.run(parser, "[[]]", {}, LIMIT_S) == [[]]


# --- pydantic --------------------------------------------------------------------------------


def test_a_model_s_answer_is_what_the_model_makes_of_it(models: str) -> None:
    answer = 'Here: {"why": "w", "more": 1, "lines": [{"number": "2", "at": "2026-01-02"}]}'
    value = {"why": "w", "lines": [{"number": 2, "at": "2026-01-02"}]}
    assert parsed(f"{models}:Page", answer) == value
    assert parsed(f"{models}:Strict", {"at": "2026-01-02"}) == {"at": "2026-01-02"}
    parser = load_parser(f"{models}:Page")
    assert (parser.spec, parser.kind) == (f"{models}:Page", "function")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no", "no JSON in the answer"),
        ({"why": "w"}, "the JSON in the answer does not fit Page: lines: Field required"),
        (
            {"why": "", "lines": [{"number": 0}, {"number": 1, "at": "May"}]},
            "the JSON in the answer does not fit Page: why: Value error, give a reason; "
            "lines[0].number: Input should be greater than or equal to 1; "
            "lines[1].at: Input should be a valid date",
        ),
        ({"why": 1, "lines": [1, 2, 3]}, "; and more"),
        ([], "the JSON in the answer does not fit Page: Input should be an object"),
        ({"why": "\ud800", "lines": []}, "the JSON in the answer does not fit Page: Invalid JSON"),
    ],
)
def test_an_answer_that_is_no_such_model_says_where_and_what(
    models: str, value: Any, said: str
) -> None:
    message = problem(f"{models}:Page", value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Unfinished", "Nowhere"),
        ("Plain", "a class must be a pydantic model; or give a function"),
        ("Pages", "has no Pages; did you mean Page?"),
    ],
)
def test_a_class_that_cannot_be_used_says_why(models: str, name: str, said: str) -> None:
    assert said in refusal(f"{models}:{name}")


async def test_a_model_runs_off_the_event_loop(runner: ParserRunner, models: str) -> None:
    parser = load_parser(f"{models}:Page")
    value = {"why": "w", "lines": []}
    assert await runner.run(parser, json.dumps(value), {}, LIMIT_S) == value
    with pytest.raises(ParseError, match="lines: Field required"):
        await runner.run(parser, '{"why": "w"}', {}, LIMIT_S)


# --- response_format -------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Recipe]:
    """The recipe of a config that asks for structured output."""

    def make(parser: str, given: Parser | None = None, **model: Any) -> Recipe:
        overrides = {"parser": parser, "structured_output": True, **model}
        loaded = config.load(None, env={}, overrides=overrides, cwd=tmp_path)
        return recipe_of(loaded, given or load_parser(loaded.parser))

    return make


def test_the_request_asks_for_the_schema_in_its_own_order(
    tmp_path: Path, made: Callable[..., Recipe]
) -> None:
    (tmp_path / "page.json").write_text(json.dumps(PAGE))
    recipe = Recipe.from_json(made("json_schema:page.json").to_json())
    ready = read_item({"messages": [{"role": "user", "content": "hi"}]}, "here")
    wanted = Renderer(recipe).request_body(ready)["response_format"]
    schema = {name: part for name, part in PAGE.items() if name != "$schema"}
    assert wanted == {
        "type": "json_schema",
        "json_schema": {"name": "A_page", "schema": schema, "strict": False},
    }
    assert json.dumps(wanted["json_schema"]["schema"]) == json.dumps(schema)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "additionalProperties": False}, True),
        ({"type": "object"}, False),
        ({"type": "array", "items": {"type": "string"}}, False),
        ({"properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, False),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}},
                "required": ["a"],
                "additionalProperties": False,
                "$defs": {"b": {"anyOf": [{"type": "null"}, {"type": "string"}]}},
            },
            True,
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            False,
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": ["object", "null"]}]}},
                "required": ["a"],
                "additionalProperties": False,
            },
            False,
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"allOf": [{"type": "string"}]}},
                "required": ["a"],
                "additionalProperties": False,
            },
            False,
        ),
    ],
)
def test_strict_is_said_where_the_schema_allows_it(
    made: Callable[..., Recipe], schema: Any, strict: bool
) -> None:
    described = made(inline(schema)).params["response_format"]["json_schema"]
    assert (described["name"], described["strict"]) == ("answer", strict)


def test_a_model_s_schema_is_sent_too(models: str, made: Callable[..., Recipe]) -> None:
    wanted = made(f"{models}:Strict", temperature=0).params
    described = wanted["response_format"]["json_schema"]
    assert (described["name"], described["strict"], wanted["temperature"]) == ("Strict", True, 0)
    assert json.loads(described["schema"])["properties"]["at"]["format"] == "date"
    given = parser_from_callable(load_function(f"{models}:Page"))
    recipe = made("raw", given)
    assert given.spec.startswith("python:")
    assert recipe.params["response_format"]["json_schema"]["name"] == "Page"


@pytest.mark.parametrize(
    ("parser", "model", "said"),
    [
        ("raw", {}, "structured_output: parser 'raw' has no schema; it takes json_schema:FILE"),
        ("json", {}, "structured_output: parser 'json' has no schema"),
        (
            "json_schema:{}",
            {"response_format": {"type": "json_object"}},
            "structured_output: model sets a response_format of its own; keep one",
        ),
        (
            "json_schema:{}",
            {"extra_body": {"response_format": {}}},
            "structured_output: model sets a response_format of its own; keep one",
        ),
    ],
)
def test_structured_output_that_cannot_be_says_why(
    made: Callable[..., Recipe], parser: str, model: Any, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(parser, **model)
    assert said in str(caught.value)


def test_a_model_without_a_schema_says_so(models: str, made: Callable[..., Recipe]) -> None:
    with pytest.raises(ConfigError, match="has no JSON Schema"):
        made(f"{models}:Odd")


# --- the simulated model, and the whole job --------------------------------------------------


def says(schema: Any, text: str = "hi") -> str:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"messages": [{"role": "user", "content": text}], "response_format": wanted}
    chat = Chat.of(body)
    assert chat is not None
    answer = json.loads(completion(chat))["choices"][0]["message"]["content"]
    assert isinstance(answer, str)
    return answer


TREE = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                "v": {"oneOf": [{"const": 1}, {"const": []}]},
            },
            "required": ["kids", "v"],
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        PAGE,
        TREE,
        {"$ref": "#/$defs/u", "$defs": {"u": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]},
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
        {"type": "integer", "multipleOf": 5, "minimum": 3},
        {"type": "integer", "maximum": -5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "minimum": 2, "maximum": 2},
        {"type": "string", "minLength": 300, "maxLength": 301},
        {"type": ["null", "string"], "format": "uuid"},
        {"type": "array", "items": {"enum": ["a", None]}, "minItems": 2, "maxItems": 2},
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}},
    ],
)
def test_the_simulated_model_answers_with_what_fits(schema: Any) -> None:
    assert says(schema) == says(schema)
    for number in range(30):
        jsonschema.validate(json.loads(says(schema, f"item {number}")), schema)


def test_the_simulated_model_s_values_differ_from_item_to_item() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}}
    assert len({says(schema, f"item {number}") for number in range(20)}) > 10


keywords = st.sampled_from(
    [
        *("type", "properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf"),
        *("$ref", "enum", "const", "minimum", "maximum", "multipleOf", "minItems", "maxItems"),
        *("minLength", "maxLength", "format", "exclusiveMinimum", "additionalProperties"),
    ]
)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["object", "array", "integer", "number", "#", "#/properties/a", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(keywords, odd), st.binary(min_size=1, max_size=4))
def test_no_schema_makes_the_simulated_model_fail(schema: Any, seed: bytes) -> None:
    json.dumps(fitting_value(schema, sha256(seed).digest(), bytes.hex))


@given(st.dictionaries(keywords | st.sampled_from(["$id", "$schema", "$anchor", "pattern"]), odd))
def test_a_schema_is_usable_or_refused_in_one_line(schema: Any) -> None:
    try:
        parser = load_parser(inline(schema))
        parser.parse('{"type": 1, "items": [[], {}, "a", 1.5, null]}', {}, LIMIT_S)
    except (ConfigError, ParseError) as exc:
        said = str(exc)
    else:
        said = ""
    assert "\n" not in said


async def test_the_whole_job_with_a_schema(
    project: Project, words: Callable[[int], Iterator[dict[str, str]]]
) -> None:
    file = project.write("page.json", json.dumps(PAGE))
    project.config("parser: json_schema:page.json\nstructured_output: true\n")
    project.pool(words(3))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    file.write_text('{"type": "null"}')
    again = await project.batchgen("enqueue", "pool.jsonl")
    assert again.code == 2
    assert "another recipe: response_format changed" in again.err  # it is sent, too
    file.write_text(json.dumps(PAGE))
    worked = await project.batchgen("work")
    assert worked.code == 0, worked.err
    assert (await project.batchgen("export")).code == 0
    values = [line["parsed"] for line in project.export()]
    for value in values:
        jsonschema.validate(value, PAGE)
    assert len(values) == 3


async def test_the_whole_job_with_a_model(
    project: Project, words: Callable[[int], Iterator[dict[str, str]]]
) -> None:
    project.write("models.py", MODELS)
    project.config("parser: models:Page\nstructured_output: true\n")
    project.pool(words(2))
    done = await project.batchgen("run", "pool.jsonl")
    assert done.code == 0, done.err
    assert [sorted(line["parsed"]) for line in project.export()] == [["lines", "why"]] * 2


@pytest.mark.parametrize("by_config", [True, False])
async def test_the_python_pipeline_takes_a_schema_too(
    project: Project, monkeypatch: pytest.MonkeyPatch, by_config: bool
) -> None:
    monkeypatch.chdir(project.path)
    file = project.write("page.json", json.dumps(PAGE))
    spec = f"json_schema:{file}"
    pipeline = DataGenerationPipeline(parser=spec if by_config else "raw", structured_output=True)
    results = await pipeline.run([{"word": "a"}], extract_function=None if by_config else spec)
    jsonschema.validate(results[0]["parsed"], PAGE)


async def test_an_answer_that_does_not_fit_fails_its_item(
    project: Project, words: Callable[[int], Iterator[dict[str, str]]]
) -> None:
    project.write("page.json", json.dumps(PAGE))
    project.config("parser: json_schema:page.json\n")  # the model is not told of the schema
    project.pool(words(1))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    ((reason, error, response),) = project.query(
        "select reason, error, response from item_overview"
    )
    assert (reason, error) == ("parse", "no JSON in the answer")
    assert response
