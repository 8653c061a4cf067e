r"""Texts that UTF-8 cannot hold: an escape like \ud83d without its other half is a text in Python
and in JSON, but neither SQLite nor a file can take it. It costs its item at most."""

import json

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Typist

PARSERS = """
import json

from pydantic import BaseModel, Field, field_validator

from batchgen.errors import ParseError


def function(answer):
    raise ValueError(f"not a label: {json.loads(answer)['label']}")


def parse_error(answer):
    raise ParseError(f"not a label: {json.loads(answer)['label']}")


async def coroutine(answer):
    function(answer)


class Odd(dict):
    def items(self):
        raise ValueError("items \\ud83d")


def returns(answer):
    return Odd(json.loads(answer))


class Unspeakable(ParseError):
    def __str__(self):
        raise RuntimeError


def unspeakable(answer):
    raise Unspeakable("")


class Model(BaseModel):
    label: str

    @field_validator("*", mode="before")
    @classmethod
    def known(cls, value):
        raise ValueError("half \\ud83d")
"""
ANSWER = '{"label": "\\ud83d"}'
SCHEMA = {"properties": {"label": {"enum": ["a"]}}}
HALF = "\ufffd"


@pytest.mark.quick("parsers.py:parse_error")
@pytest.mark.parametrize(
    ("parser", "error"),
    [
        ("parsers.py:function", f"ValueError: not a label: {HALF} ("),
        ("parsers.py:parse_error", f"not a label: {HALF}"),
        ("parsers.py:coroutine", f"ValueError: not a label: {HALF} ("),
        ("parsers.py:returns", "the parser returned a Odd JSON cannot hold: items "),
        ("parsers.py:unspeakable", "(its message cannot be shown)"),
        ("parsers.py:Model", "UnicodeEncodeError: "),
        ("json_schema:schema.json", "the JSON in the answer does not fit the schema: label: "),
        ("json", "the parser returned a dict JSON cannot hold: a lone surrogate in a text"),
        ("tag:label", "no <label>...</label> in the answer"),
        ("regex:nothing", "no match for nothing in the answer"),
    ],
)  # fmt: skip
async def test_half_a_character_in_what_a_parser_says_costs_its_item_only(
    project: Project, batchgen: Typist, simulator: Simulator, parser: str, error: str
) -> None:
    project.write("parsers.py", PARSERS)
    project.write("schema.json", json.dumps(SCHEMA))
    project.pool([{"word": "a"}, {"word": "b"}])
    # Pydantic lets half a character neither in nor out.
    answer = '{"label": "a"}' if parser.endswith("Model") else ANSWER
    simulator.script("Say", *(Behaviour.ok(answer) for _ in range(4)))
    project.config(f"parser: {json.dumps(parser)}\nwork:\n  parse_attempts: 2\n")
    assert (await batchgen("run", "pool.jsonl")).code == 3
    errors = project.query("select error from attempts order by seq")
    assert [bool(text) for (text,) in errors] == [True, True, False, False]
    errors += project.query("select error from results")
    assert (await batchgen("reparse", "--parser", "raw")).code == 0
    assert (await batchgen("reparse", "--parser", parser, "--all")).code == 3
    errors += project.query("select error from results order by seq desc limit 2")
    assert [text for (text,) in errors if text and not text.startswith(error)] == []
    assert simulator.calls == 4
    assert (await batchgen("verify")).code == 0


NOT_UTF8 = "caf\udce9"  # as Python reads an argument in Latin-1
NOTHING_CALLED = (
    f"error: no item has the id or number {NOT_UTF8!r}. "
    "An item's id is what its pool has as `id`.\n"
)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["show", NOT_UTF8], NOTHING_CALLED),
        (["retry", "--id", NOT_UTF8], NOTHING_CALLED),
        (["reparse", "--id", NOT_UTF8, "--parser", "json"], NOTHING_CALLED),
        (["reparse", "--all", "--parser", f"regex:{NOT_UTF8}"],
         "error: parser: must be valid Unicode\n"),
        (["export", "-o", f"{NOT_UTF8}.jsonl"],
         f"/caf{HALF}.jsonl: not valid Unicode; name another file for the export.\n"),
        (["export", "-o", f"{NOT_UTF8}/a.csv"],
         f"/caf{HALF}/a.csv: not valid Unicode; name another file for the export.\n"),
        (["export", "--follow", "-o", f"{NOT_UTF8}.jsonl"],
         f"/caf{HALF}.jsonl: not valid Unicode; name another file for the export.\n"),
    ],
)  # fmt: skip
async def test_an_argument_that_is_not_utf8_is_refused_in_one_line(
    project: Project, batchgen: Typist, command: list[str], error: str
) -> None:
    project.pool([{"word": "a"}])
    assert (await batchgen("run", "pool.jsonl")).code == 0
    before = sorted(file.name for file in project.path.iterdir())
    refused = await batchgen(*command)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert refused.err.endswith(error)
    assert sorted(file.name for file in project.path.iterdir()) == before


async def test_half_a_character_in_a_template_is_shown_and_exported_as_it_is_sent(
    project: Project, batchgen: Typist, simulator: Simulator
) -> None:
    project.write("template.j2", '{{ "half \\ud83d" }} {{ word }}')
    project.config("prompts:\n  user_prompt_path: template.j2\nparser: raw\n")
    project.pool([{"word": "a"}])
    said = f"half {HALF} a"
    assert said in (await batchgen("enqueue", "pool.jsonl", "--dry-run")).out
    assert (await batchgen("run", "pool.jsonl")).code == 0
    assert simulator.ledger == {said: 1}
    asked = {"role": "user", "content": said}
    assert (await batchgen("show", "1", "--json")).json["messages"] == [asked]
    exported = await batchgen("export", "--format", "messages", "-o", "-")
    assert json.loads(exported.out)["messages"][0] == asked
