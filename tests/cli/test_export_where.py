"""Choosing rows: `export --where`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.errors import UsageError
from batchgen.export.lines import matches
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import ResultRow
from batchgen.where import Where
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


def row(parsed: Any, **columns: Any) -> ResultRow:
    plain = ResultRow(
        7, None, '{"lang": "de"}', '"said"', json.dumps(parsed),
        None, None, None, None, None, None, None, None, 1, 0,
    )  # fmt: skip
    return replace(plain, **columns)


GOOD = row({"label": "positive", "score": 0.9, "ok": True, "tags": ["a", "b"], "von bis": 1})


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ('parsed.label == "positive"', True),
        ('parsed["label"] != "positive"', False),
        ('parsed["von bis"] == 1', True),
        ("0.5 < parsed.score <= 0.9", True),
        ("parsed.score >= 1 or parsed.ok", True),
        ("not parsed.ok", False),
        ("parsed.ok == 1", False),
        ("parsed.ok == true and parsed.ok == True", True),
        ('"a" in parsed.tags and parsed.tags[-1] == "b"', True),
        ('parsed.label in ["negative", "positive"]', True),
        ('parsed.label not in ("negative", "neutral")', True),
        ('"score" in parsed', True),
        ('"ai" in response', True),
        ('input.lang == "de"', True),
        ("id == 7", True),
        ("metadata == null", True),
        ("parsed.score > -1", True),
        # What is not there, or of another kind, is no error.
        ("parsed.nothing.at.all == null", True),
        ("parsed.tags[5] == None", True),
        ("parsed.label.deeper == null", True),
        ("parsed.label > 3 or parsed.label < 3", False),
        ("parsed.ok > 0", False),
        ("3 in response", False),
        ("'x' in parsed.score", False),
        ("parsed.nothing < 3", False),
    ],
)
def test_a_condition_holds_or_not(expression: str, holds: bool) -> None:
    assert matches(GOOD, Where(expression)) is holds


def test_the_users_own_id_and_metadata_are_what_they_are_in_the_export() -> None:
    mine = row(None, custom_id="a-1", metadata='{"source": "web"}')
    assert matches(mine, Where('id == "a-1" and metadata.source == "web" and parsed == null'))


def test_parser_raw_has_the_response_as_parsed() -> None:
    assert matches(replace(row(None), parsed=None), Where('parsed == "said"'))


def test_a_failed_row_has_nothing_parsed() -> None:
    assert matches(row({"a": 1}, reason="parse", error="no"), Where("parsed == null"))


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        (" ", "is empty"),
        ("id = 'a'",
         "column 4: invalid syntax, in: id = 'a' (there are ==, !=, <, <=, >, >=, in, and, or, "
         "not)"),
        ('"é" == parsed and len(parsed) > 3',
         "column 19: `len(parsed)`: nothing can be called here"),
        ("label == 'x'",
         "column 1: `label`: there is no label; there is id, input, metadata, response, parsed "
         "(a text needs quotes)"),
        ("id is None", "column 1: `id is None`: `is` is not known; use == or !="),
        ("id + 1 > 2",
         "column 1: `id + 1`: not known here; there are ==, !=, <, <=, >, >=, in, and, or, not"),
        ("parsed[1.5]", "column 8: `1.5`: what is in [ ] must be a text or a whole number"),
        ("parsed[id]",
         "column 8: `id`: not known here; there are ==, !=, <, <=, >, >=, in, and, or, not"),
        ("parsed.score == 1j",
         "column 17: `1j`: not known here; there are ==, !=, <, <=, >, >=, in, and, or, not"),
        ("[x for x in parsed] == 1",
         "column 1: `[x for x in parsed]`: not known here; "
         "there are ==, !=, <, <=, >, >=, in, and, or, not"),
        ('f"{parsed}" == "1"',
         'column 1: `f"{parsed}"`: not known here; '
         "there are ==, !=, <, <=, >, >=, in, and, or, not"),
    ],
)  # fmt: skip
def test_a_wrong_expression_is_pointed_at(expression: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Where(expression)
    assert str(caught.value).removeprefix("where: ") == problem


@pytest.mark.parametrize(
    "expression",
    ["(" * 5000, "parsed" + ".a" * 4900, "not " * 2400 + "1", "a" * 10_001, "a\0b", "9" * 5000],
)
def test_an_expression_without_end_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match="where: "):
        Where(expression)


async def test_only_the_chosen_rows_are_exported_and_as_they_are(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.config("parser: json\n")
    for number in range(4):
        simulator.script(f"Say w{number}", Behaviour.ok(f'{{"n":   {number}}}'))
    project.pool(words(4))
    assert (await project.batchgen("run", "pool.jsonl", "-o", "all.jsonl")).code == 0
    out = await project.batchgen("export", "--where", "parsed.n in [1, 3]", "--json")
    assert out.json == {"path": str(project.path / "output/default.selected.jsonl"), "rows": 2,
                        "left_out": {"failed": 0, "open": 0, "not_chosen": 2}}  # fmt: skip
    lines = (project.path / "all.jsonl").read_text().splitlines()
    chosen = (project.path / "output/default.selected.jsonl").read_text().splitlines()
    assert chosen == [lines[1], lines[3]]
    assert (await project.batchgen("verify")).code == 0


async def test_a_wrong_expression_writes_nothing(project: Project, words: Words) -> None:
    project.pool(words(1))
    await project.batchgen("run", "pool.jsonl")
    out = await project.batchgen("export", "--where", "parsed = 1", "-o", "out.jsonl")
    assert (out.code, out.err.count("\n")) == (2, 1)
    assert out.err.startswith("error: where: column ")
    assert not (project.path / "out.jsonl").exists()
