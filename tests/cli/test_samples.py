"""`--samples N`: several answers per item, each a row with a seed of its own."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from batchgen.export import groups as groups_of_export
from batchgen.items import Done, ItemInput, Recipe, Template
from batchgen.jobs import enqueue as enqueueing
from batchgen.prompts import Renderer
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import OtherRecipe
from batchgen.store.transactions import rows as rows_of_store
from tests.kits.database import change
from tests.kits.project import Project
from tests.kits.table import OTHER_RECIPE, RECIPE, Table, answered, new_database, new_item
from tests.kits.typist import Typist

WORDS = [{"word": "one"}, {"word": "two"}]


@pytest.fixture
def batchgen(project: Project) -> Typist:
    """Commands typed in this process; those that work take signals, and need one of their own."""
    project.config()
    project.pool(WORDS)
    return Typist(project.path, project.env)


async def enqueued(batchgen: Typist, *arguments: str) -> tuple[int, int]:
    """How many were read, and how many are new."""
    said = await batchgen("enqueue", "pool.jsonl", *arguments, "--json")
    assert said.code == 0, said.err
    return said.json["read"], said.json["new"]


def rows(project: Project) -> list[Any]:
    """(number, sample, first sample) of each that is there."""
    return project.query("select id, sample, sample_of from items join work on item_id = id")


def seeds(simulator: Simulator, word: str) -> list[Any]:
    """In order; None of a request without one."""
    bodies = [request.body for request in simulator.requests]
    found = [body.get("seed") for body in bodies if body["messages"][-1]["content"].endswith(word)]
    return sorted(found, key=lambda seed: (seed is not None, seed))


# --- which rows ------------------------------------------------------------------------------


async def test_each_item_becomes_as_many_rows_one_after_the_other(
    project: Project, batchgen: Typist
) -> None:
    said = await batchgen("enqueue", "pool.jsonl", "--samples", "3")
    assert said.err == "default: 2 items read, 3 samples each, 6 new\n"
    assert rows(project) == [
        (1, 1, None), (2, 2, 1), (3, 3, 1),
        (4, 1, None), (5, 2, 4), (6, 3, 4),
    ]  # fmt: skip


async def test_the_same_command_adds_nothing_and_more_samples_the_rest(
    project: Project, batchgen: Typist
) -> None:
    said = await batchgen("enqueue", "pool.jsonl", "--samples", "4", "--json")
    assert said.json == {
        "experiment": "default", "read": 2, "samples": 4, "new": 8, "skipped": 0, "asked_anew": 0,
    }  # fmt: skip
    assert await enqueued(batchgen, "--samples", "4") == (2, 0)
    assert await enqueued(batchgen, "--samples", "2") == (2, 0)
    assert await enqueued(batchgen) == (2, 0)
    assert await enqueued(batchgen, "--samples", "6") == (2, 4)
    assert [row[1:] for row in rows(project)[8:]] == [(5, 1), (6, 1), (5, 5), (6, 5)]
    assert (await batchgen("verify")).code == 0


async def test_samples_join_an_item_that_was_enqueued_without(
    project: Project, batchgen: Typist
) -> None:
    assert await enqueued(batchgen) == (2, 2)
    assert await enqueued(batchgen, "--samples", "3") == (2, 4)
    assert rows(project) == [
        (1, None, None), (2, None, None), (3, 2, 1), (4, 3, 1), (5, 2, 2), (6, 3, 2),
    ]  # fmt: skip
    assert await enqueued(batchgen, "--samples", "3") == (2, 0)


async def test_copies_of_equal_content_have_samples_of_their_own(
    project: Project, batchgen: Typist
) -> None:
    project.pool([WORDS[0], WORDS[0]])
    assert await enqueued(batchgen, "--samples", "2") == (2, 4)
    assert rows(project) == [(1, 1, None), (2, 2, 1), (3, 1, None), (4, 2, 3)]
    assert await enqueued(batchgen, "--samples", "3") == (2, 2)
    assert rows(project)[4:] == [(5, 3, 1), (6, 3, 3)]


async def test_other_content_of_an_id_is_one_error_and_its_rows_are_skipped(
    project: Project, batchgen: Typist
) -> None:
    project.pool([{"id": "a", "word": "one"}, {"id": "b", "word": "two"}])
    assert await enqueued(batchgen, "--samples", "2") == (2, 4)
    project.pool([{"id": "a", "word": "else"}, {"id": "c", "word": "new"}])
    refused = await batchgen("enqueue", "pool.jsonl", "--samples", "3")
    assert refused.code == 2
    assert refused.err.count("id 'a' belongs to item 1 already") == 1
    said = await batchgen(
        "enqueue", "pool.jsonl", "--samples", "3", "--skip-invalid", "bad.jsonl", "--json"
    )
    assert (said.json["read"], said.json["new"], said.json["skipped"]) == (1, 3, 1)
    assert len((project.path / "bad.jsonl").read_text().splitlines()) == 1
    assert (await batchgen("verify")).code == 0


async def test_samples_of_an_item_stay_in_one_chunk(
    project: Project, batchgen: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueueing, "CHUNK_ITEMS", 5)
    project.pool({"word": f"w{n}"} for n in range(7))
    assert await enqueued(batchgen, "--samples", "3") == (7, 21)
    assert [row[1] for row in rows(project)] == [1, 2, 3] * 7
    assert await enqueued(batchgen, "--samples", "9") == (7, 42)  # more than a chunk has room for


@pytest.mark.parametrize("n", ["0", "1001", "two"])
async def test_a_number_of_samples_out_of_bounds_is_refused(batchgen: Typist, n: str) -> None:
    refused = await batchgen("enqueue", "pool.jsonl", "--samples", n)
    assert refused.code == 2
    assert "--samples" in refused.err


async def test_a_dry_run_counts_and_estimates_all_samples(batchgen: Typist) -> None:
    once = (await batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).json
    said = await batchgen("enqueue", "pool.jsonl", "--samples", "5", "--dry-run", "--json")
    assert (said.json["read"], said.json["samples"]) == (2, 5)
    assert said.json["prompt_tokens"] == 5 * once["prompt_tokens"] > 0
    told = await batchgen("enqueue", "pool.jsonl", "--samples", "5", "--dry-run")
    assert told.out.startswith("2 items, 5 samples each, would be enqueued into default;")


# --- --recipe replace ------------------------------------------------------------------------


def table(tmp_path: Path) -> Table:
    return Table(new_database(tmp_path / "batchgen.db"))


def finish_sample(table: Table, number: int) -> None:
    """As if it had been answered, and its siblings not yet."""
    table.db.execute("update work set available_at = 9e15 where item_id <> ?", (number,))
    worker = table.join()
    (item,) = table.claim(worker, 1)
    assert item.id == number
    table.finish(worker, item, Done(), answered())
    table.db.execute("update work set available_at = null")
    table.leave(worker)


def add(table: Table, recipe: Recipe, mode: OtherRecipe, samples: int, **item: Any) -> Any:
    into = table.begin(recipe=recipe, mode=mode, samples=samples)
    return table.add(into, [new_item({"v": 1}, into.experiment_id, into.variant, **item)])


@pytest.mark.parametrize("custom_id", ["x", None])
def test_samples_that_are_not_done_get_the_new_recipe(
    tmp_path: Path, custom_id: str | None
) -> None:
    db = table(tmp_path)
    added = add(db, RECIPE, OtherRecipe.STOP, 3, custom_id=custom_id)
    assert (added.ids, added.new) == ([1], 3)
    finish_sample(db, 2)
    again = add(db, OTHER_RECIPE, OtherRecipe.REPLACE, 4, custom_id=custom_id)
    assert (again.ids, again.new, again.conflict) == ([1], 1, None)
    query = "select id, sample, sample_of, recipe_id from items join work on item_id = id"
    assert db.db.execute(query).fetchall() == [
        (1, 1, None, 2), (2, 2, 1, 1), (3, 3, 1, 2), (4, 4, 1, 2),
    ]  # fmt: skip


async def test_deleting_an_experiment_deletes_its_samples(
    project: Project, batchgen: Typist
) -> None:
    await enqueued(batchgen, "--samples", "3")
    await enqueued(batchgen, "--samples", "2", "--experiment", "other")
    assert (await batchgen("experiments", "delete", "default", "--yes")).code == 0
    assert project.query("select count(*) from items") == [(4,)]
    assert (await batchgen("verify")).code == 0


# --- seeds -----------------------------------------------------------------------------------


def seed_of(sample: int | None, recipe_seed: Any = None, **params: Any) -> Any:
    asked = {} if recipe_seed is None else {"seed": recipe_seed}
    recipe = Recipe(None, Template("x"), "m", asked)
    return Renderer(recipe).request_body(ItemInput({}, params=params), sample).get("seed")


def test_a_sample_without_a_seed_has_its_number_but_the_first_has_none() -> None:
    assert [seed_of(k) for k in (None, 1, 2, 3)] == [None, None, 2, 3]


def test_a_seed_that_is_asked_for_is_counted_on() -> None:
    assert [seed_of(k, 40) for k in (None, 1, 2, 3)] == [40, 40, 41, 42]
    assert [seed_of(k, 40, seed=7) for k in (1, 2)] == [7, 8]
    assert [seed_of(k, extra_body={"seed": 7}) for k in (1, 2)] == [7, 8]


async def test_each_sample_is_asked_for_with_its_seed(
    project: Project, simulator: Simulator
) -> None:
    project.config(seed=100)
    project.pool([{"word": "one"}, {"word": "two", "params": {"seed": 7}}])
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "3")).code == 0
    assert seeds(simulator, "one") == [100, 101, 102]
    assert seeds(simulator, "two") == [7, 8, 9]


async def test_a_seed_that_the_server_rejects_by_name_is_left_out(
    project: Project, simulator: Simulator
) -> None:
    error = {"message": "Unknown parameter: 'seed'.", "param": "seed", "code": "unknown_parameter"}
    simulator.script(
        "one", Behaviour.ok("first"), Behaviour.response(400, json.dumps({"error": error}))
    )
    project.config()
    project.pool(WORDS[:1])
    done = await project.batchgen("run", "pool.jsonl", "--samples", "3", "-c", "1")
    assert done.code == 0, done.err
    assert "the server rejects the seed of a sample: " in done.err
    assert "It is left out from now on." in done.err
    assert seeds(simulator, "one") == [None, None, None, 2]
    assert project.query("select tries from work") == [(1,), (1,), (1,)]


# --- export ----------------------------------------------------------------------------------


async def test_the_export_has_a_line_for_each_sample_that_says_which(
    project: Project, batchgen: Typist
) -> None:
    await enqueued(batchgen)
    project.pool([*WORDS, {"word": "three"}])
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2")).code == 0
    lines = project.export()
    assert [(line["id"], line.get("sample")) for line in lines] == [
        (1, None), (2, None), (3, 2), (4, 2), (5, 1), (6, 2),
    ]  # fmt: skip
    assert list(lines[2])[:3] == ["id", "sample", "input"]
    assert (await batchgen("verify")).code == 0


async def test_a_live_file_says_which_sample_too(project: Project, batchgen: Typist) -> None:
    await enqueued(batchgen, "--samples", "2")
    assert (await project.batchgen("work", "-c", "1", "-o", "live.jsonl")).code == 0
    lines = map(json.loads, (project.path / "live.jsonl").read_text().splitlines())
    assert [(line["id"], line["sample"]) for line in lines] == [(1, 1), (2, 2), (3, 1), (4, 2)]


async def test_tables_have_a_column_for_the_sample_only_when_there_are_some(
    project: Project, batchgen: Typist
) -> None:
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2")).code == 0
    assert (await project.batchgen("run", "pool.jsonl", "--experiment", "plain")).code == 0
    for name, samples in {"default": ["1", "2", "1", "2"], "plain": None}.items():
        for file in ("t.csv", "t.parquet"):
            assert (await batchgen("export", "--experiment", name, "-o", file)).code == 0
        with (project.path / "t.csv").open(encoding="utf-8-sig", newline="") as sheet:
            found = list(csv.DictReader(sheet))
        parquet = pyarrow.parquet.read_table(project.path / "t.parquet")
        if samples is None:
            assert "sample" not in found[0]
            assert "sample" not in parquet.column_names
        else:
            assert [row["sample"] for row in found] == samples
            assert [str(n) for n in parquet["sample"].to_pylist()] == samples
            assert list(found[0])[:2] == parquet.column_names[:2] == ["id", "sample"]


async def test_ids_in_a_batch_file_are_there_once(project: Project, batchgen: Typist) -> None:
    project.pool([{"id": "a", "word": "one"}, {"word": "two"}])
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2")).code == 0
    written = await batchgen("export", "--format", "openai-batch", "-o", "batch.jsonl")
    assert written.code == 0, written.err
    lines = (project.path / "batch.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["a", "a#2", "3", "4"]


def grouped(project: Project, name: str = "default.grouped.jsonl") -> list[Any]:
    text = (project.path / "output" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def numbers(group: dict[str, Any]) -> list[int]:
    return [one["sample"] for one in group["samples"]]


async def test_a_group_has_the_done_samples_of_an_item_in_order(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.pool([{"id": "a", "word": "one", "metadata": {"n": 1}}, {"word": "two"}])
    simulator.script("two", "refusal")
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code == 3
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1", "--samples", "3")).code == 3
    project.pool([{"word": "late"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    written = await batchgen("export", "--group")
    assert written.code == 0, written.err
    groups = grouped(project)
    assert [(group["id"], numbers(group)) for group in groups] == [
        ("a", [1, 2, 3]), (2, [2, 3]), (7, [1]),
    ]  # fmt: skip
    assert list(groups[0]) == ["id", "input", "metadata", "samples"]
    assert groups[0]["metadata"] == {"n": 1}
    line = next(line for line in project.export() if line["id"] == "a" and line.get("sample") == 3)
    apart = {name: line[name] for name in line if name not in ("id", "input", "metadata")}
    assert groups[0]["samples"][2] == apart
    assert list(groups[0]["samples"][2]) == list(apart)
    assert (await batchgen("verify")).code == 0


async def test_where_chooses_samples_before_they_are_grouped(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config("parser: json\n")
    simulator.script("one", *[Behaviour.ok(f"[{n}]") for n in (5, 1, 7)])
    simulator.script("two", *[Behaviour.ok("[0]")] * 3)
    done = await project.batchgen("run", "pool.jsonl", "--samples", "3", "-c", "1")
    assert done.code == 0, done.err
    assert (await batchgen("export", "--group", "--where", "parsed[0] > 4")).code == 0
    groups = grouped(project, "default.selected.grouped.jsonl")
    assert [(group["id"], numbers(group)) for group in groups] == [(1, [1, 3])]
    none = await batchgen("export", "--group", "--where", "parsed[0] > 9", "-o", "-")
    assert (none.code, none.out) == (0, "")


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_groups_that_are_read_in_many_pages_are_whole(
    project: Project, batchgen: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_of_export, "PAGE_ROWS", 3)
    monkeypatch.setattr(rows_of_store, "PAGE_CHARS", 200)
    project.pool({"word": f"w{n}"} for n in range(300))
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "5")).code == 0
    assert (await batchgen("export", "--group")).code == 0
    assert [(group["id"], numbers(group)) for group in grouped(project)] == [
        (5 * n + 1, [1, 2, 3, 4, 5]) for n in range(300)
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--format", "messages"), "format messages"),
        (("-o", "t.csv"), "format csv"),
        (("--failed",), "failed items"),
        (("--shards", "2"), "shards"),
        (("--summary", "s.json"), "a summary"),
        (("--with", "reasoning"), "extras"),
    ],
)
async def test_groups_of_another_kind_are_refused_by_name(
    project: Project, batchgen: Typist, options: tuple[str, ...], named: str
) -> None:
    await enqueued(batchgen, "--samples", "2")
    refused = await batchgen("export", "--group", *options)
    assert refused.code == 2
    assert f"so they do not go with {named}." in refused.err
    assert not (project.path / "t.csv").exists()


# --- looking up ------------------------------------------------------------------------------


async def mixed(project: Project, simulator: Simulator) -> None:
    """Of item "a" the samples 1 and 3 are done, and 2 is refused."""
    project.config("parser: json\n")
    project.pool([{"id": "a", "word": "one"}])
    simulator.script("one", Behaviour.ok("[1]"), "refusal", Behaviour.ok("[3]"))
    ended = await project.batchgen("run", "pool.jsonl", "--samples", "3", "-c", "1")
    assert ended.code == 3, ended.err


async def test_an_id_names_all_samples_and_a_number_one(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    await mixed(project, simulator)
    shown = (await batchgen("show", "a", "--json")).json
    assert [(one["number"], one["sample"], one["state"]) for one in shown] == [
        (1, 1, "done"), (2, 2, "failed"), (3, 3, "done"),
    ]  # fmt: skip
    assert (await batchgen("show", "2")).out.startswith(
        "item 2 (id a), sample 2, of default: failed, refusal"
    )


async def test_retry_by_id_takes_the_samples_that_failed(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    await mixed(project, simulator)
    again = await batchgen("retry", "--id", "a")
    assert again.out == "1 failed item went back to pending.\n"
    assert project.query("select item_id from work where state = 'pending'") == [(2,)]
    refused = await batchgen("retry", "--id", "a")
    assert (refused.code, "Say --done" in refused.err) == (2, True)


async def test_reparse_by_id_takes_all_samples_with_an_answer(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    await mixed(project, simulator)
    again = await batchgen("reparse", "--id", "a", "--parser", "raw", "--json")
    assert again.json["answers"] == 2


async def test_verify_finds_a_sample_that_is_there_twice(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    await mixed(project, simulator)
    assert (await batchgen("verify")).code == 0
    change(project.database, "update items set sample = 3 where id = 2")
    found = await batchgen("verify")
    assert (found.code, found.out) == (1, "id 'a' is there more than once\n")
