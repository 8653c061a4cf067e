"""The import contracts of pyproject.toml refuse what they should, in every module."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = ("click", "openai", "psycopg", "sqlite3")


def lint_imports(directory: Path) -> tuple[int, set[tuple[str, str]]]:
    """The exit code of import-linter there, and each import that it refuses."""
    ended = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=directory, env={"PYTHONPATH": str(directory)}, capture_output=True, text=True,
    )  # fmt: skip
    print(ended.stdout, ended.stderr)
    refused = re.findall(r"^- +batchgen\.(\S+) -> (\w+) \(l\.\d+\)", ended.stdout, re.MULTILINE)
    return ended.returncode, set(refused)


def may_import(module: str, package: str) -> bool:
    return {
        "click": module.startswith("cli."),
        "openai": module == "llm.server_address",
        "psycopg": module.startswith("store.postgres."),
        "sqlite3": module.startswith("store.sqlite."),
    }[package]


@pytest.mark.slow
def test_an_outside_package_is_refused_in_every_module_that_is_not_its_room(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "batchgen", tmp_path / "batchgen")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint_imports(tmp_path) == (0, set())
    modules = set()
    for file in (tmp_path / "batchgen").rglob("[a-z]*.py"):
        with file.open("a") as module:
            module.write(f"\nimport {', '.join(OUTSIDE)}\n")
        modules.add(".".join(file.relative_to(tmp_path / "batchgen").with_suffix("").parts))
    assert {"clock", "limits.tokens", "parsers.json_value", "export.files"} <= modules
    code, refused = lint_imports(tmp_path)
    assert code == 1
    assert refused == {
        (module, package)
        for module in modules
        for package in OUTSIDE
        if not may_import(module, package)
    }
