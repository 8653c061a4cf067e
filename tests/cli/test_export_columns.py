"""A CSV of chosen columns, and one whose cells are left as they are."""

import csv
import io
import json

import pytest

from batchgen import DataGenerationPipeline
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

TEA = {"label": "good", "scores": [1, {"why": "hot"}], "a.b": {"c d": 2}, "f": "=1+1"}


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Two done items and one that failed, by parser json."""
    project.config("parser: json\n")
    simulator.script("Say tea", Behaviour.ok(json.dumps(TEA)))
    simulator.script("Say sum", Behaviour.ok('{"label": null, "f": -1}'))
    simulator.script("Say nothing", Behaviour.ok("no JSON"))
    project.pool(
        [
            {"word": "tea", "id": "a-1", "metadata": {"source": "web"}, "price, EUR": "-5"},
            {"word": "sum"},
            {"word": "nothing"},
        ]
    )
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


async def rows_of(project: Project, *arguments: str) -> list[list[str]]:
    done = await project.batchgen("export", "-o", "-", *arguments)
    assert done.code == 0, done.err
    return list(csv.reader(io.StringIO(done.out.removeprefix("\ufeff"), newline="")))


async def test_the_columns_are_those_named_in_their_order(labelled: Project) -> None:
    assert await rows_of(labelled, "--columns", "parsed.label, id,attempts, input.word") == [
        ["parsed.label", "id", "attempts", "input.word"],
        ["good", "a-1", "1", "tea"],
        ["", "2", "1", "sum"],
    ]


async def test_a_path_leads_into_objects_and_lists_whatever_their_names(labelled: Project) -> None:
    columns = 'parsed.scores[1].why,parsed.scores[-2],parsed.a.b.c d,"input.price, EUR",parsed.a.b'
    assert await rows_of(labelled, "--columns", columns) == [
        ["parsed.scores[1].why", "parsed.scores[-2]", "parsed.a.b.c d", "input.price, EUR",
         "parsed.a.b"],
        ["hot", "1", "2", "'-5", '{"c d": 2}'],
        ["", "", "", "", ""],
    ]  # fmt: skip


async def test_a_whole_value_is_json_and_failed_rows_have_their_reason(labelled: Project) -> None:
    assert await rows_of(labelled, "--all", "--columns", "metadata,parsed,reason") == [
        ["metadata", "parsed", "reason"],
        ['{"source": "web"}', json.dumps(TEA), ""],
        ["", '{"label": null, "f": -1}', ""],
        ["", "", "parse"],
    ]


async def test_the_columns_of_all_are_names_that_can_be_chosen(labelled: Project) -> None:
    header, *rows = await rows_of(labelled, "--format", "csv")
    names = ",".join(f'"{name}"' for name in header)
    assert await rows_of(labelled, "--columns", names) == [header, *rows]


async def test_without_the_guard_a_text_stays_as_it_is(labelled: Project) -> None:
    columns = ("--columns", 'parsed.f,"input.price, EUR"')
    assert (await rows_of(labelled, *columns))[1:] == [["'=1+1", "'-5"], ["-1", ""]]
    unguarded = await rows_of(labelled, "--no-guard", *columns)
    assert unguarded[1:] == [["=1+1", "-5"], ["-1", ""]]
    whole = await rows_of(labelled, "--no-guard")
    assert [row[whole[0].index("parsed.f")] for row in whole[1:]] == ["=1+1", "-1"]


async def test_a_column_that_no_row_has_is_empty_and_told(labelled: Project) -> None:
    done = await labelled.batchgen(
        "export", "--columns", "id,parsed.lable,input.x", "-o", "x.csv", "--shards", "2"
    )
    warning = "warning: columns: no row has parsed.lable, input.x; what stands there is empty"
    assert (done.code, done.err.splitlines()[0]) == (0, warning)
    in_json = await labelled.batchgen("export", "--columns", "input.x", "-o", "y.csv", "--json")
    assert json.loads(in_json.out)["absent_columns"] == ["input.x"]
    none = await labelled.batchgen(
        "export", "--columns", "input.x", "--where", "false", "-o", "z.csv"
    )
    assert "warning" not in none.err


@pytest.mark.quick("arguments0", "arguments9")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--columns", "id", "-o", "x.jsonl"],
         "format jsonl: columns cannot be chosen; choose csv."),
        (["--no-guard", "-o", "x.parquet"],
         "format parquet: it has no guarded cells; choose csv."),
        (["-o", "x.csv", "--columns", "id,parse.label"],
         "columns: there is no 'parse.label'; did you mean parsed?"),
        (["-o", "x.csv", "--columns", "usage.prompt_tokens"],
         "columns: there is no 'usage.prompt_tokens'; did you mean prompt_tokens?"),
        (["-o", "x.csv", "--columns", "ID"], "columns: there is no 'ID'; did you mean id?"),
        (["-o", "x.csv", "--columns", "id,,parsed"],
         "columns: there is no ''; there are id, sample, input, response, parsed, metadata, model, "
         "finish_reason, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, "
         "cost_usd, attempts, timestamp, reason, error"),
        (["-o", "x.csv", "--columns", "model.name"], "columns: 'model.name': model has no parts"),
        (["-o", "x.csv", "--columns", "parsed label"],
         "columns: 'parsed label': parsed has no parts"),
        (["-o", "x.csv", "--columns", "id,parsed,id"], "columns: 'id' is there twice"),
        (["-o", "x.csv", "--columns", "id", "--no-guard", "--follow"],
         "--follow writes all that is done as JSON lines, so it does not go with --columns, "
         "--no-guard; export that when the work is done."),
    ],
)  # fmt: skip
async def test_columns_that_cannot_be_are_refused(
    labelled: Project, arguments: list[str], problem: str
) -> None:
    done = await labelled.batchgen("export", *arguments)
    assert (done.code, done.err) == (2, f"error: {problem}\n")
    assert not (labelled.path / "x.csv").exists()


async def test_python_chooses_columns_too(labelled: Project) -> None:
    pipeline = DataGenerationPipeline(config_path=labelled.path / "config.yaml")
    out, two = labelled.path / "out.csv", labelled.path / "two.csv"
    exported = pipeline.export(out, columns=["id", "parsed.f", "input.x"], guard=False)
    assert (exported.rows, exported.absent_columns) == (2, ("input.x",))
    text = exported.path.read_text(encoding="utf-8-sig")
    assert text.splitlines() == ["id,parsed.f,input.x", "a-1,=1+1,", "2,-1,"]
    assert pipeline.export(two, columns="parsed.f,id").rows == 2
    assert pipeline.export(columns="id").path.name == "default.columns.csv"
