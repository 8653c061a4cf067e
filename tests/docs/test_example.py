"""The examples do what they say, with no key and no network."""

import csv
import json
from pathlib import Path

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.processes import start
from tests.kits.project import KEY, ended
from tests.kits.typist import Ended

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example"


async def python(where: Path, *arguments: str) -> Ended:
    return await ended(await start(arguments, where, {}))


@pytest.fixture
def on_simulated_model(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    monkeypatch.setenv("BATCHGEN_MODEL_BASE_URL", simulator.base_url)
    monkeypatch.setenv("BATCHGEN_MODEL_API_KEY", KEY)
    return simulator


PARSED_AGAIN = (
    "batchgen: the parser is another one now; stored answers were parsed again, without a call: "
)


async def run(name: str, where: Path, said: str = "") -> str:
    script = await python(where, str(EXAMPLES / name))
    assert (script.code, script.err) == (0, said)
    return script.out


@pytest.mark.slow
async def test_the_example_answers_five_items_and_then_nothing_is_called_again(
    tmp_path: Path,
) -> None:
    example = str(EXAMPLES / "generate_drafts.py")
    first = await python(tmp_path, example, "--simulate")
    assert (first.code, first.err) == (0, "")
    topics = [line.split(" -> ")[0] for line in first.out.splitlines() if " -> " in line]
    assert topics == ["人工智能", "机器学习", "数据科学", "深度学习", "自然语言处理"]
    assert f"written to {tmp_path}/output/demo_test.jsonl" in first.out
    lines = (tmp_path / "output/demo_test.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["parsed"]) for line in lines] == [1] * 5

    again = await python(tmp_path, example, "--simulate")
    assert again == first
    status = await python(tmp_path, "status", "--json")
    assert status.json["total"]["calls"] == 5
    assert len(list((tmp_path / "logs").iterdir())) == 1  # the second run had nothing to do


async def test_without_a_key_the_example_says_what_is_missing(tmp_path: Path) -> None:
    script = await python(tmp_path, str(EXAMPLES / "generate_drafts.py"))
    assert script.code == 1
    assert "Set the environment variable OPENAI_API_KEY" in script.err.splitlines()[-1]


@pytest.mark.slow
async def test_the_rows_of_a_frame_get_labels(
    tmp_path: Path, on_simulated_model: Simulator
) -> None:
    out = await run("label_dataframe.py", tmp_path)
    labels = [line for line in out.splitlines() if "tive" in line or "neutral" in line]
    assert len(labels) == 4
    assert "no failures" in out
    assert any("(null stars)" in text for text in on_simulated_model.ledger)


async def test_each_sample_is_judged_once(tmp_path: Path, on_simulated_model: Simulator) -> None:
    first = await run("judge_answers.py", tmp_path)
    ids = [json.loads(line)["id"] for line in first.splitlines()]
    assert ids == [f"{name}-{sample}" for name in ("sky", "ice", "moon") for sample in (1, 2)]
    calls = on_simulated_model.calls
    assert calls == 12
    assert await run("judge_answers.py", tmp_path) == first
    assert on_simulated_model.calls == calls


async def test_the_best_of_four_answers_is_chosen_by_a_function(
    tmp_path: Path, on_simulated_model: Simulator
) -> None:
    first = await run("best_of_four.py", tmp_path)
    chains = [json.loads(line) for line in first.splitlines() if line.startswith("{")]
    assert [chain["id"] for chain in chains] == ["sky", "ice", "moon"]
    assert all(len(chain["of"]) == 4 and chain["score"] == max(chain["of"]) for chain in chains)
    calls = on_simulated_model.calls
    assert calls == 3 * 4 * 2
    again = await run("best_of_four.py", tmp_path)
    assert again.splitlines()[:3] == first.splitlines()[:3]
    assert on_simulated_model.calls == calls


async def test_the_stream_ends_when_there_are_enough(
    tmp_path: Path, on_simulated_model: Simulator
) -> None:
    on_simulated_model.script("One line", *[Behaviour.ok(delay_s=0.3)] * 40)
    out = await run("stream_results.py", tmp_path)
    assert len([line for line in out.splitlines() if line.startswith("idea-")]) == 5
    assert on_simulated_model.calls < 40


async def test_a_change_of_mind_costs_no_call(
    tmp_path: Path, on_simulated_model: Simulator
) -> None:
    out = await run("change_of_mind.py", tmp_path, f"{PARSED_AGAIN}5 done that had failed\n")
    assert "parse: ValueError" in out
    assert "5 calls for 5 results" in out
    with (tmp_path / "cities.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.reader(file))) == 6


async def test_the_cells_of_the_notebook_run_in_their_order(
    tmp_path: Path, on_simulated_model: Simulator
) -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    for _ in range(2):  # the kernel is restarted, and all cells are run again
        ran = await python(tmp_path, str(script))
        assert ran.code == 0
        assert {line.removeprefix(PARSED_AGAIN) for line in ran.err.splitlines()} <= {
            "5 changed", "6 changed",
        }  # fmt: skip
        assert on_simulated_model.calls == 5 + 1 + 6
    assert (tmp_path / "things.csv").exists()
