"""What the README and docs/ say is true: commands run, SQL works, tables are complete."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.cli import cli
from batchgen.config import load
from batchgen.items import Reason
from batchgen.jobs.asked import asked_of
from batchgen.parsers import parser_from_callable
from batchgen.pool import read_item
from batchgen.simulate import Simulator
from tests.kits.pages import PAGES, ROOT, Block, Reader, blocks_of
from tests.kits.project import KEY
from tests.kits.typist import Typist

README, DOCS = ROOT / "README.md", ROOT / "docs"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def reader(
    tmp_path: Path,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Reader:
    """In an empty directory, with a key, and the simulated model as a server with a price, which a
    reader who waits for batches asks more often."""
    price = "{input_usd_per_mtok: 1, output_usd_per_mtok: 1}"
    monkeypatch.setenv("BATCHGEN_MODEL_PRICE", price)
    monkeypatch.setenv("BATCHGEN_BATCH_POLL_S", "0.1")
    monkeypatch.setenv("BATCHGEN_MODEL_BASE_URL", simulator.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Reader(Typist(tmp_path))


@each_page
async def test_the_commands_run_as_they_stand(page: Path, reader: Reader) -> None:
    await reader.follow(page)
    assert reader.failed == {}


async def test_sixty_seconds_make_a_table_with_a_label_for_each_row(reader: Reader) -> None:
    await reader.follow(README)
    [line, *lines] = (reader.directory.parent / "labels.csv").read_text("utf-8-sig").splitlines()
    assert "input.review" in line
    assert "parsed.label" in line
    assert len(lines) == 2


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not heading or heading in headings(linked), target


def headings(page: Path) -> set[str]:
    """The anchors that a forge makes of the headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@each_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\btests/[\w/]+\.py", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


def test_files_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`([\w/]+(?:\.py|\.sql|/))`", (DOCS / "architecture.md").read_text("utf-8"))
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "batchgen" / name).exists()] == []


def test_the_pages_that_are_made_from_the_code_are_up_to_date() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")


async def test_the_sql_runs_and_finds_something(reader: Reader) -> None:
    for command in (("init",), ("run", "data_pool.jsonl")):
        assert (await reader.typist(*command)).code == 0
    statements = [part for part in block(DOCS / "sql.md", "sql").text.split(";") if part.strip()]
    assert len(statements) == 6
    connection = sqlite3.connect(reader.directory / "batchgen.db")
    results = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    assert results[0] == [("initial_test", "done", None, 5)]
    assert len(results[1]) == 5
    assert results[4][0][:2] == ("initial_test", 5)
    assert sum(answers for _, answers in results[5]) == 5


def test_the_steps_of_the_page_are_steps(tmp_path: Path) -> None:
    """Each of its configs can be enqueued, as far as one can tell without an item."""
    (tmp_path / "score.py").write_text(block(DOCS / "steps.md", "python").text, encoding="utf-8")
    found = [one for one in blocks_of(DOCS / "steps.md") if one.language == "yaml"]
    assert len(found) > 6
    for number, one in enumerate(found):
        (tmp_path / "config.yaml").write_text(one.text, encoding="utf-8")
        config = load(None, env={}, cwd=tmp_path)
        assert len(asked_of(config).readers) > 1, number


def test_every_command_and_exit_code_is_named() -> None:
    text = README.read_text(encoding="utf-8")
    for name in cli.commands:
        assert re.search(rf"^\|[^|]*`{name}\b", text, re.MULTILINE), name
    for code in ("0", "1", "2", "3", "4", "130", "143"):
        assert re.search(rf"\b{code}\b", text.split("**Exit codes**")[1].split("\n\n")[0])


def test_every_task_of_dev_py_is_named() -> None:
    tasks = re.findall(r"^    python3 dev.py (\w+)", (ROOT / "dev.py").read_text("utf-8"), re.M)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)(?: [^`]*)?` \|", text, re.MULTILINE)
    assert set(tasks) == set(named)


def test_every_reason_is_explained() -> None:
    text = (DOCS / "failures.md").read_text(encoding="utf-8")
    for reason in Reason:
        assert re.search(rf"^\| `{reason}` \|", text, re.MULTILINE), reason


def test_the_parser_of_the_page_works() -> None:
    namespace: dict[str, object] = {}
    exec(block(DOCS / "parsers.md", "python").text, namespace)  # the page's own text
    function = namespace["parse_response"]
    assert callable(function)
    parser = parser_from_callable(function)
    assert parser.parse(" Positive\n", {}, None) == {"label": "positive"}
    with pytest.raises(ValueError, match="not a label"):
        parser.parse("maybe", {}, None)


def test_the_items_of_the_page_are_items() -> None:
    page = block(DOCS / "pools.md", "json", lambda text: "custom_id" in text)
    items = [read_item(json.loads(line), "pools.md") for line in page.text.splitlines()]
    assert [item.id for item in items] == [None, None, None, "a-1"]


def block(page: Path, language: str, where: Callable[[str], bool] = bool) -> Block:
    return next(b for b in blocks_of(page) if b.language == language and where(b.text))
