"""The example does what it says, with no key and no network."""

import asyncio
import json
import sys
from pathlib import Path

from tests.kits.project import ended
from tests.kits.typist import Ended

ROOT = Path(__file__).parents[2]


async def python(where: Path, *arguments: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=where, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return await ended(process)


async def test_the_example_answers_five_items_and_then_nothing_is_called_again(
    tmp_path: Path,
) -> None:
    example = str(ROOT / "example/generate_drafts.py")
    first = await python(tmp_path, example, "--simulate")
    assert (first.code, first.err) == (0, "")
    topics = [line.split(" -> ")[0] for line in first.out.splitlines() if " -> " in line]
    assert topics == ["人工智能", "机器学习", "数据科学", "深度学习", "自然语言处理"]
    assert f"written to {tmp_path}/output/demo_test.jsonl" in first.out
    lines = (tmp_path / "output/demo_test.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["parsed"]) for line in lines] == [1] * 5

    again = await python(tmp_path, example, "--simulate")
    assert again == first
    status = await python(tmp_path, "-m", "batchgen", "status", "--json")
    assert status.json["total"]["calls"] == 5
    assert len(list((tmp_path / "logs").iterdir())) == 1  # the second run had nothing to do


async def test_without_a_key_the_example_says_what_is_missing(tmp_path: Path) -> None:
    run = await python(tmp_path, str(ROOT / "example/generate_drafts.py"))
    assert run.code == 1
    assert "Set the environment variable OPENAI_API_KEY" in run.err.splitlines()[-1]
