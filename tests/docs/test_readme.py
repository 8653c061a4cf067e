"""What the README says is true: its commands run, its SQL works, its tables are complete."""

import json
import re
import shlex
import sqlite3
from pathlib import Path

import pytest

from batchgen.config import leaf_table
from batchgen.parsers import parser_from_callable
from batchgen.pool import read_item
from batchgen.simulate import Simulator
from tests.kits.project import KEY, Ended, Project

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NOT_BATCHGEN = ("python3 dev.py ", "cd ", "export ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The batchgen commands of all shell blocks; what else stands there is known."""
    found = []
    for line in "".join(blocks("sh")).splitlines():
        if line.startswith("batchgen "):
            found.append(shlex.split(line, comments=True)[1:])
        else:
            assert line.startswith(NOT_BATCHGEN), line
    return found


async def run_readme(project: Project) -> list[tuple[list[str], Ended]]:
    """All its commands in their order, in the project that its `init` makes."""
    project.env |= {"BATCHGEN_MODEL_BASE_URL": project.base_url, "OPENAI_API_KEY": KEY}
    ran = []
    for arguments in commands():
        if arguments[0] == "simulate":
            continue
        ran.append((arguments, await project.batchgen(*arguments)))
        if arguments[0] == "init":
            project.path = project.path / arguments[1]
            assert ran[-1][1].code == 0
    return ran


@pytest.fixture
async def bare_project(tmp_path: Path, simulator: Simulator) -> Project:
    return Project(tmp_path, simulator.base_url)


async def test_the_commands_run_as_they_stand(bare_project: Project) -> None:
    ran = await run_readme(bare_project)
    assert {tuple(a): e.err for a, e in ran if e.code != 0} == {}
    assert {a[0] for a, _ in ran} >= {
        "init", "enqueue", "run", "work", "status", "failures", "retry", "show", "export", "verify",
    }  # fmt: skip


async def test_the_sql_runs_and_finds_something(bare_project: Project) -> None:
    await run_readme(bare_project)
    (sql,) = blocks("sql")
    statements = [part for part in sql.split(";") if part.strip()]
    assert len(statements) == 5
    connection = sqlite3.connect(bare_project.database)
    results = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    assert results[0] == [("initial_test", "done", None, 5)]
    assert len(results[1]) == 5
    assert results[4][0][:2] == ("initial_test", 5)


def test_the_config_table_has_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`)? ?\|", README, re.MULTILINE))
    for leaf in leaf_table():
        if leaf.path[0] == "model" and leaf.help.startswith("passed on"):
            continue
        assert leaf.name in rows, leaf.name
        shown = "" if leaf.default is None else str(leaf.default).removesuffix(".0")
        assert rows[leaf.name] == {"True": "true", "False": "false"}.get(shown, shown), leaf.name


def test_every_command_and_exit_code_is_named() -> None:
    from batchgen.cli import cli

    for name in cli.commands:
        assert re.search(rf"^\| `{name}\b", README, re.MULTILINE), name
    for code in ("0", "1", "2", "3", "4", "130", "143"):
        assert re.search(rf"\b{code}\b", README.split("**Exit codes**")[1].split("\n\n")[0])


def test_the_parser_of_the_readme_works() -> None:
    source = next(block for block in blocks("python") if "def parse_response" in block)
    namespace: dict[str, object] = {}
    exec(source, namespace)  # the README's own text
    function = namespace["parse_response"]
    assert callable(function)
    parser = parser_from_callable(function)
    assert parser.parse(" Positive\n", {}, None) == {"label": "positive"}
    with pytest.raises(ValueError, match="not a label"):
        parser.parse("maybe", {}, None)


def test_the_items_of_the_readme_are_items() -> None:
    lines = next(block for block in blocks("json") if "custom_id" in block).splitlines()
    assert [read_item(json.loads(line), "README").id for line in lines] == [None, None, None, "a-1"]


def test_every_reason_is_explained() -> None:
    from batchgen.items import Reason

    for reason in Reason:
        assert re.search(rf"^\| `{reason}` \|", README, re.MULTILINE), reason
