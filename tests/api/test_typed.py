"""The API as type checkers, editors and `help` see it."""

import subprocess
import sys
from pathlib import Path

from batchgen.api.settings import Settings
from batchgen.config import leaf_table

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio
from typing import Any

from batchgen import DataGenerationPipeline


def extract(text: str) -> int:
    return len(text)


async def main() -> None:
    pipeline = DataGenerationPipeline(temperature=0.9, output_data={"experiment_name": "x"})
    results: list[dict[str, Any]] = await pipeline.run([{"a": 1}], 5, extract, until=3)
    results = pipeline.run_sync([{"a": 1}], concurrency_limit=5, samples=2)
    async for result in pipeline.stream("pool.jsonl", recipe="again"):
        print(result["parsed"])
    print((await pipeline.status()).done, pipeline.retry("parse").retried, len(results))


asyncio.run(main())
"""
WRONG = """
from batchgen import DataGenerationPipeline

pipeline = DataGenerationPipeline(temprature=0.9)
pipeline.run_sync([], nonsense=3)
pipeline.run_sync([], recipe="mix")
pipeline.stream([], until="3")
pipeline.retry(reson="parse")
"""


def mypy(tmp_path: Path, text: str) -> list[str]:
    """What `mypy --strict` says of a user's script, a line each."""
    script = tmp_path / "script.py"
    script.write_text(text)
    ran = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--no-error-summary",
            "--follow-imports=silent",
            "--config-file=", f"--cache-dir={ROOT / '.mypy_cache/script'}", script.name,
        ],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(ran.stderr)
    return ran.stdout.splitlines()


def test_mypy_finds_a_wrong_keyword_and_nothing_else(tmp_path: Path) -> None:
    assert mypy(tmp_path, SCRIPT) == []
    wrong = [line for line in mypy(tmp_path, WRONG) if ": error: " in line]
    assert [line.split(":")[1] for line in wrong] == ["4", "5", "6", "7", "8"]


def test_the_keywords_are_the_settings() -> None:
    """A setting in config/settings.py has its line in api/settings.py."""
    names = {leaf.path[-1] for leaf in leaf_table()}
    sections = {leaf.path[0] for leaf in leaf_table() if len(leaf.path) > 1}
    assert set(Settings.__annotations__) == names | sections


def test_help_shows_the_class_and_its_methods() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import batchgen; help(batchgen)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in (
        "class DataGenerationPipeline",
        "run_sync(",
        "stream(",
        "max_cost",
        "StoppedError",
    ):
        assert name in ran.stdout, name


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "batchgen/py.typed").is_file()
