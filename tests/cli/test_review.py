"""`review`, and what `export --reviewed` makes of it."""

import csv
import io
import json
from functools import reduce
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen import DataGenerationPipeline
from batchgen.errors import UsageError
from batchgen.jobs.review import Share
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project
from tests.kits.typist import Ended

LABELS = {"tea": "good", "rum": "bad", "ale": "good", "mud": "odd"}


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Four done items, 1 to 4, of which the first has an id, and 5 that failed; by parser json."""
    project.config("parser: json\n")
    for word, label in LABELS.items():
        simulator.script(f"Say {word}", Behaviour.ok(json.dumps({"label": label})))
    simulator.script("Say no", Behaviour.ok("no JSON"))
    ids = {"tea": {"id": "t"}}
    project.pool([{**ids.get(word, {}), "word": word} for word in (*LABELS, "no")])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


@pytest.fixture
async def reviewed(labelled: Project) -> Project:
    """Tea is accepted, rum accepted as edited, ale rejected, mud has a note."""
    await said(labelled, "t", "--accept")
    await said(labelled, "2", "--accept", "--edit", '{"label":\n"good"}')
    await said(labelled, "3", "--reject", "--note", "no place")
    await said(labelled, "4", "--note", "odd")
    return labelled


async def said(project: Project, *arguments: str) -> str:
    out = await project.batchgen("review", *arguments)
    assert out.code == 0, out.err
    return out.out.strip()


async def refused(project: Project, *arguments: str) -> str:
    out = await project.batchgen(*arguments)
    assert (out.code, out.out) == (2, ""), out
    return out.err.strip()


async def lines(project: Project, *arguments: str) -> list[dict[str, Any]]:
    out = await exported(project, *arguments)
    return [json.loads(line) for line in out.out.splitlines()]


async def exported(project: Project, *arguments: str) -> Ended:
    out = await project.batchgen("export", "-o", "-", *arguments)
    assert out.code == 0, out.err
    return out


def short(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["id"], line["parsed"]["label"], line.get("edited")


async def test_what_is_said_is_told_and_listed(reviewed: Project) -> None:
    assert await said(reviewed, "t") == "t: accepted"
    assert await said(reviewed, "#3") == "3: rejected; note: no place"
    assert (await said(reviewed)).splitlines() == [
        "default: 2 accepted, 1 rejected, 1 without a verdict, 1 edited",
        "  t   accepted",
        '  #2  accepted; edited: {"label": "good"}',
        "  #3  rejected; note: no place",
        "  #4  no verdict; note: odd",
    ]
    assert (await said(reviewed, "--state", "rejected")).splitlines()[1:] == [
        "  #3  rejected; note: no place"
    ]
    assert (await reviewed.batchgen("verify")).code == 0


async def test_scripts_get_it_as_json(reviewed: Project) -> None:
    found = json.loads(await said(reviewed, "--json"))
    assert {name: found[name] for name in list(found)[:-1]} == {
        "experiment": "default", "accepted": 2, "rejected": 1, "undecided": 1, "edited": 1,
        "earlier": 0,
    }  # fmt: skip
    tea, rum, *_ = found["reviews"]
    assert tea.pop("reviewed_at")
    assert tea == {
        "id": "t", "number": 1, "verdict": "accepted", "note": None, "edited": None, "current": True
    }  # fmt: skip
    assert (rum["id"], rum["edited"]) == (2, {"label": "good"})
    one = json.loads(await said(reviewed, "3", "--json"))
    assert (one["number"], one["experiment"], one["verdict"]) == (3, "default", "rejected")
    none = json.loads(await said(reviewed, "5", "--json"))
    assert (none["id"], none["verdict"], none["note"], none["edited"]) == (5, None, None, None)


async def test_the_last_that_was_said_is_taken_back(reviewed: Project) -> None:
    await said(reviewed, "3", "--accept", "--note", "")
    assert await said(reviewed, "3", "--undo") == "3: rejected; note: no place"
    assert await said(reviewed, "3", "--undo") == "3: not reviewed."
    assert await refused(reviewed, "review", "3", "--undo") == (
        "error: item 3: nothing was said of it that could be taken back."
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--accept"], "say of which item: its id, or its number"),
        (["t", "--accept", "--undo"], "--undo goes with nothing else that is said"),
        (["t", "--state", "earlier"], "--state is for the list, without an ID"),
        (["t", "--edit", "{"], "edit: is not JSON"),
        (["t", "--edit", "NaN"], "edit: is not JSON (NaN is not JSON); a text stands in quotes"),
        (["5", "--accept"], "item 5 is failed: it has no answer that can be reviewed."),
        (["nobody", "--accept"], "no item has the id or number 'nobody'."),
    ],
)
async def test_what_cannot_be_said_is_refused(
    labelled: Project, arguments: list[str], words: str
) -> None:
    assert words in await refused(labelled, "review", *arguments)


async def test_of_samples_one_is_named(project: Project) -> None:
    project.pool([{"id": "a", "word": "tea"}])
    await project.batchgen("enqueue", "pool.jsonl", "--samples", "3")
    await project.batchgen("work")
    assert await refused(project, "review", "a", "--accept") == (
        "error: 3 rows are called 'a': give the number of one of them, which are #1, #2, #3."
    )
    await said(project, "#2", "--accept", "--edit", '"another"')
    (line,) = await lines(project, "--group", "--reviewed", "accepted")
    (sample,) = line["samples"]
    assert (sample["sample"], sample["response"], sample["parsed"], sample["edited"]) == (
        2, "another", "another", True,
    )  # fmt: skip
    (whole,) = await lines(project, "--group", "--reviewed", "not-rejected")
    assert [one.get("edited") for one in whole["samples"]] == [None, True, None]
    (plain,) = await lines(project, "--group")
    assert [one["parsed"] == "another" for one in plain["samples"]] == [False] * 3


async def test_accepted_rows_with_their_edits_and_all_that_are_not_rejected(
    reviewed: Project,
) -> None:
    accepted = await lines(reviewed, "--reviewed", "accepted")
    assert [*map(short, accepted)] == [("t", "good", None), (2, "good", True)]
    assert accepted[1]["response"] == '{"label": "bad"}'  # the raw answer stays
    others = await exported(reviewed, "--reviewed", "not-rejected")
    assert [short(json.loads(line)) for line in others.out.splitlines()] == [
        ("t", "good", None), (2, "good", True), (4, "odd", None),
    ]  # fmt: skip
    assert others.err.strip() == (
        "3 rows; left out: 1 failed (batchgen export --failed), 1 done, but not as --reviewed says"
    )


async def test_an_export_that_does_not_ask_is_as_ever(reviewed: Project, labelled: Project) -> None:
    plain = await exported(reviewed)
    assert [short(json.loads(line)) for line in plain.out.splitlines()] == [
        ("t", "good", None), (2, "bad", None), (3, "good", None), (4, "odd", None),
    ]  # fmt: skip
    assert reviewed.export() == [json.loads(line) for line in plain.out.splitlines()]


async def test_where_nothing_is_reviewed_none_is_rejected(labelled: Project) -> None:
    assert (await exported(labelled, "--reviewed", "not-rejected")).out == (
        await exported(labelled)
    ).out
    assert await lines(labelled, "--reviewed", "accepted") == []


@pytest.mark.quick("ids0", "ids2", "ids5")
@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ('review == "accepted"', ["t", 2]),
        ("review == null", [4]),
        ('note != null and "odd" in note', [4]),
        ("edited != null", [2]),
        ('edited.label == "good" and parsed.label == "good"', [2]),
        ('review != "rejected" and parsed.label == "good"', ["t", 2]),
    ],
)
async def test_conditions_name_what_was_said(reviewed: Project, where: str, ids: list[Any]) -> None:
    assert [one["id"] for one in await lines(reviewed, "--where", where)] == ids


async def test_both_ways_to_choose_go_together(reviewed: Project) -> None:
    out = await exported(reviewed, "--reviewed", "accepted", "--where", "edited == null")
    assert [json.loads(line)["id"] for line in out.out.splitlines()] == ["t"]
    assert "3 done, but not as --where and --reviewed say" in out.err


async def test_another_answer_has_no_verdict(reviewed: Project, simulator: Simulator) -> None:
    simulator.script("Say rum", Behaviour.ok('{"label": "fine"}'))
    await reviewed.batchgen("retry", "--id", "2", "--done")
    await reviewed.batchgen("work")
    assert [one["id"] for one in await lines(reviewed, "--reviewed", "accepted")] == ["t"]
    assert await said(reviewed, "2") == (
        '2: accepted; edited: {"label": "good"} (of an earlier answer: it does not count)'
    )
    text = await said(reviewed)
    assert "1 accepted, 1 rejected, 1 without a verdict; 1 of earlier answers, which do not" in text
    assert [*map(short, await lines(reviewed, "--reviewed", "not-rejected"))] == [
        ("t", "good", None), (2, "fine", None), (4, "odd", None),
    ]  # fmt: skip
    assert (await reviewed.batchgen("verify")).code == 0


async def test_parsed_again_to_another_value_there_is_no_verdict(reviewed: Project) -> None:
    reviewed.write("upper.py", "def read(text):\n    return text.upper()\n")
    await reviewed.batchgen("reparse", "--all", "--parser", "upper.py:read")
    assert await lines(reviewed, "--reviewed", "accepted") == []
    assert len(await lines(reviewed)) == 5


async def test_every_format_has_the_edits(reviewed: Project) -> None:
    accepted = ("--reviewed", "accepted")
    sheet = await exported(reviewed, *accepted, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(sheet.out.removeprefix("\ufeff"), newline="")))
    assert [(row["id"], row["parsed.label"], row["edited"]) for row in rows] == [
        ("t", "good", ""), ("2", "good", "true"),
    ]  # fmt: skip
    chosen = await exported(reviewed, *accepted, "--columns", "id,edited,parsed.label")
    assert chosen.out.splitlines()[1:] == ["t,,good", "2,true,good"]
    await reviewed.batchgen("export", *accepted, "-o", "out.parquet")
    table = pq.read_table(reviewed.path / "out.parquet").to_pylist()
    assert [(row["id"], row["parsed"], row["edited"]) for row in table] == [
        ("t", {"label": "good"}, False), ("2", {"label": "good"}, True),
    ]  # fmt: skip
    formats: list[list[Any]] = [
        ["messages", "messages", -1, "content"],
        ["alpaca", "output"],
        ["sharegpt", "conversations", -1, "value"],
        ["openai-batch", "response", "body", "choices", 0, "message", "content"],
    ]
    for name, *path in formats:
        for line in await lines(reviewed, *accepted, "--format", str(name)):
            answer: Any = reduce(lambda value, key: value[key], path, line)
            assert json.loads(answer) == {"label": "good"}, name
    (_, body) = await lines(reviewed, *accepted, "--with", "body")
    sent = body["body"]["choices"][0]["message"]["content"]
    assert (sent, body["edited"]) == ('{"label": "bad"}', True)  # what the server sent


async def test_no_conversation_has_a_place_for_an_edit_that_is_not_the_answer(
    project: Project, simulator: Simulator
) -> None:
    project.config("parser: tag:x\n")
    simulator.script("Say tea", Behaviour.ok("Well, <x>hot</x>"))
    project.pool([{"word": "tea"}, {"word": "rum"}])
    simulator.script("Say rum", Behaviour.ok("<x>cold</x>"))
    await project.batchgen("run", "pool.jsonl")
    await said(project, "1", "--accept", "--edit", '["warm"]')
    await said(project, "2", "--accept")
    problem = await project.batchgen("export", "-o", "-", "--reviewed", "accepted", "--format",
                                     "messages")  # fmt: skip
    assert problem.code == 2
    assert "item 1: messages has no place for an edited value" in problem.err
    (rum,) = await lines(project, "--format", "messages", "--where",
                         'review == "accepted" and edited == null')  # fmt: skip
    assert rum["messages"][-1]["content"] == "<x>cold</x>"
    (tea, _) = await lines(project, "--reviewed", "accepted")
    assert (tea["parsed"], tea["response"]) == (["warm"], "Well, <x>hot</x>")


async def test_an_export_by_verdict_has_a_file_of_its_own(reviewed: Project) -> None:
    await reviewed.batchgen("export", "--reviewed", "accepted")
    assert [short(one) for one in reviewed.export("default.accepted")] == [
        ("t", "good", None), (2, "good", True),
    ]  # fmt: skip
    await reviewed.batchgen(
        "export", "--reviewed", "not-rejected", "--shards", "2", "-o", "o.jsonl", "--summary", "s"
    )
    halves = [(reviewed.path / f"o-0000{n}-of-00002.jsonl").read_text() for n in (1, 2)]
    assert [len(half.splitlines()) for half in halves] == [1, 2]
    assert json.loads((reviewed.path / "s").read_text())["reviewed"] == "not-rejected"
    assert (await reviewed.batchgen("verify")).code == 0


@pytest.mark.quick("options1")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--failed"], "failed items have no answer that could be reviewed"),
        (["--all"], "failed items have no answer that could be reviewed"),
        (["--follow"], "does not go with --reviewed"),
    ],
)
async def test_what_does_not_go_with_it_is_told(
    reviewed: Project, options: list[str], words: str
) -> None:
    assert words in await refused(reviewed, "export", "--reviewed", "accepted", *options)


async def test_failed_rows_have_no_review_in_conditions(reviewed: Project) -> None:
    found = await lines(reviewed, "--all", "--where", 'review != "rejected"')
    assert [one["id"] for one in found] == ["t", 2, 4, 5]


def test_python_exports_them_too(reviewed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reviewed.path)
    pipeline = DataGenerationPipeline()
    assert pipeline.export("mine.jsonl", reviewed="accepted").rows == 2
    found = [json.loads(line) for line in (reviewed.path / "mine.jsonl").read_text().splitlines()]
    assert [*map(short, found)] == [("t", "good", None), (2, "good", True)]
    with pytest.raises(UsageError, match="reviewed: 'good' is not one of accepted, not-rejected"):
        pipeline.export(reviewed="good")


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
        (3, 100, 0.0103, 0.0845),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_true_share_lies_between_these(part: int, whole: int, low: float, high: float) -> None:
    assert Share(part, whole).bounds == pytest.approx((low, high), abs=5e-5)
