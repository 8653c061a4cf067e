"""Hugging Face's `datasets` loads what we export, as a user would load it."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

pytestmark = pytest.mark.slow  # importing it takes seconds


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It looks at these when it is imported, or when it loads."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def load(kind: str, file: Path) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    cache = str(file.parent / "cache")
    loaded = datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=cache)
    return list(loaded)


@pytest.fixture
async def labelled(project: Project, simulator: Simulator) -> Project:
    """Items of two shapes, with Chinese text, a nested answer and metadata here and there."""
    project.config("parser: json\n", price={"input_usd_per_mtok": 1, "output_usd_per_mtok": 2})
    simulator.script("Say 茶", Behaviour.ok('{"label": "good", "pages": [{"n": 1}]}'))
    simulator.script("Say sum", Behaviour.ok('{"label": "bad", "pages": []}'))
    project.pool([{"word": "茶", "metadata": {"source": "web"}}, {"word": "sum", "id": "b-2"}])
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    return project


async def test_it_loads_jsonl(project: Project, labelled: Project) -> None:
    first, second = load("json", project.path / "output" / "default.jsonl")
    lines = project.export()
    assert (first["response"], second["response"]) == tuple(line["response"] for line in lines)
    assert first["parsed"] == {"label": "good", "pages": [{"n": 1}]}
    assert first["input"]["word"] == "茶"
    assert second["cost_usd"] == lines[1]["cost_usd"] > 0


async def test_it_loads_parquet(project: Project, labelled: Project) -> None:
    assert (await project.batchgen("export", "-o", "out.parquet")).code == 0
    first, second = load("parquet", project.path / "out.parquet")
    assert [first["id"], second["id"]] == ["1", "b-2"]
    assert first["parsed"] == {"label": "good", "pages": [{"n": 1}]}
    assert first["cost_usd"] == project.export()[0]["cost_usd"]
    assert first["timestamp"].tzinfo is not None


async def test_it_loads_parquet_whose_later_rows_have_what_the_first_had_not(
    project: Project, simulator: Simulator
) -> None:
    """Of JSON lines it looks at the first 10 MB for the columns, and fails at what comes later."""
    details = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
    choice = {"message": {"content": "late"}, "finish_reason": "stop"}
    late = json.dumps({"choices": [choice], "usage": details})
    simulator.script("the last", Behaviour.response(200, late))
    long = "x" * 100_000
    project.pool([*({"word": f"{n} {long}"} for n in range(120)), {"word": "the last"}])
    run = await project.batchgen("run", "pool.jsonl", "-o", "out.parquet")
    assert run.code == 0, run.err
    rows = load("parquet", project.path / "out.parquet")
    assert [row["cached_tokens"] for row in rows] == [None] * 120 + [3]
