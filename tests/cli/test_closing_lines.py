"""What a command says in the end: nothing that was left out goes unsaid."""

import json
from collections.abc import Callable, Iterator

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import change
from tests.kits.project import Project
from tests.kits.typist import Typist

Words = Callable[[int], Iterator[dict[str, str]]]


@pytest.fixture
async def mixed(project: Project, batchgen: Typist, simulator: Simulator, words: Words) -> Project:
    """Two done, one failed, one pending."""
    simulator.script("Say w0", Behaviour.error(400, message="no"))
    project.pool(words(4))
    await batchgen("enqueue", "pool.jsonl")
    await batchgen("work", "-c", "1", "--max-items", "3")
    return project


@pytest.mark.quick("a.jsonl")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.messages.jsonl"])
async def test_an_export_counts_what_it_leaves_out(
    mixed: Project, batchgen: Typist, name: str
) -> None:
    exported = await batchgen("export", "-o", name)
    assert exported.err == (
        f"2 rows -> {name}; left out: 1 failed (batchgen export --failed), 1 not answered yet\n"
    )
    as_json = (await batchgen("export", "-o", name, "--json")).json
    assert as_json["left_out"] == {"failed": 1, "open": 1, "not_chosen": 0}


async def test_an_export_of_some_counts_the_others(mixed: Project, batchgen: Typist) -> None:
    chosen = await batchgen("export", "-o", "-", "--where", "input.word == 'w1'")
    assert chosen.err == (
        "1 row; left out: 1 failed (batchgen export --failed), 1 not answered yet, "
        "1 done, but not as --where says\n"
    )
    failed = await batchgen("export", "-o", "f.csv", "--failed")
    assert failed.err == "1 row -> f.csv\n"


@pytest.mark.quick("a.jsonl")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
async def test_with_all_the_failed_ones_stand_among_the_others(
    mixed: Project, batchgen: Typist, name: str
) -> None:
    exported = await batchgen("export", "--all", "-o", name)
    assert exported.err == f"3 rows -> {name}; left out: 1 not answered yet\n"
    assert (await batchgen("verify")).code == 0
    if name.endswith(".jsonl"):
        lines = [json.loads(line) for line in (mixed.path / name).read_text().splitlines()]
        assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
        assert [line["parsed"] is None for line in lines] == [True, False, False]
        assert [line.get("reason") for line in lines] == ["rejected", None, None]


async def test_all_goes_neither_with_failed_nor_into_training(
    mixed: Project, batchgen: Typist
) -> None:
    for more in (["--failed"], ["--format", "messages"], ["--group"], ["--follow"]):
        refused = await batchgen("export", "--all", "-o", "a.jsonl", *more)
        assert (refused.code, refused.err.count("\n")) == (2, 1)


async def test_a_run_that_halts_exports_what_is_done(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    for number in range(2, 20):  # the key is withdrawn
        simulator.script(f"Say w{number}", *[Behaviour.error(401)] * 2)
    project.pool(words(20))
    run = await batchgen("run", "pool.jsonl", "-c", "1")
    assert run.code == 4
    assert "halted: " in run.err
    assert run.err.endswith("default.jsonl; left out: 18 not answered yet\n")
    assert [line["input"]["word"] for line in project.export()] == ["w0", "w1"]


async def test_a_run_that_halts_at_once_writes_no_file(
    project: Project, batchgen: Typist, simulator: Simulator, words: Words
) -> None:
    simulator.script("Say", *(Behaviour.error(401) for _ in range(2)))
    project.pool(words(2))
    assert (await batchgen("run", "pool.jsonl", "-c", "1")).code == 4
    assert not (project.path / "output").exists()


async def test_status_of_one_experiment(project: Project, batchgen: Typist, words: Words) -> None:
    project.pool(words(2))
    await batchgen("run", "pool.jsonl")
    project.pool(words(3))
    await batchgen("enqueue", "pool.jsonl", "--experiment", "other")
    for name, total, done in (("default", 2, 2), ("other", 3, 0)):
        seen = (await batchgen("status", "--experiment", name, "--json")).json
        assert [one["name"] for one in seen["experiments"]] == [name]
        assert (seen["total"]["total"], seen["total"]["done"]) == (total, done)
        assert (seen["items_per_s"] > 0) == (done > 0)
        assert (seen["latency_p50_s"] is not None) == (done > 0)
    refused = await batchgen("status", "--experiment", "no")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "there is: default, other" in refused.err


async def test_parsing_again_is_no_speed(project: Project, batchgen: Typist, words: Words) -> None:
    project.pool(words(3))
    await batchgen("run", "pool.jsonl")
    # As if they had been an hour ago.
    change(project.database, "update results set finished_at = finished_at - 3600000")
    assert (await batchgen("reparse", "--all", "--parser", "json")).code == 3
    assert (await batchgen("status", "--json")).json["items_per_s"] == 0
