"""Only the command line prints, exits, starts an event loop, and says which flag or command to
type: what stands below it is used from Python too. A page says the command that does the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from batchgen.cli import cli

PACKAGE = Path(__file__).parents[2] / "batchgen"
SPEAKS_OF_COMMANDS = ("cli", "display", "simulate", "web")  # a display is the command line's
COMMAND_LINE = ("cli", "__main__.py")
BELOW = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in COMMAND_LINE
)
TYPED = re.compile(rf"(?<!\w)--[a-z]|\bbatchgen ({'|'.join(cli.commands)})\b")
IS_THE_COMMAND_LINES = {"print", "sys.exit", "os._exit", "asyncio.run", "exit", "click.echo"}
RUNS_A_LOOP = {("blocking.py", "asyncio.run")}  # run_sync
# What Python has no words for; it names no flag all the same: tests/api/test_operate.py.
SPEAKS_PYTHON = ("api", "words.py")


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text in the code, with its line; docstrings are not in the code."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node.lineno, str(node.value)


def test_only_the_command_line_prints_exits_and_says_what_to_type() -> None:
    found = {str(path.relative_to(PACKAGE)): [*what_is_not_its_own(path)] for path in BELOW}
    assert {path: words for path, words in found.items() if words} == {}
    assert len(found) > 300


def what_is_not_its_own(path: Path) -> Iterator[object]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = path.relative_to(PACKAGE).parts
    if parts[0] not in SPEAKS_OF_COMMANDS and parts != SPEAKS_PYTHON:
        yield from ((line, text) for line, text in texts(tree) if TYPED.search(text))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    allowed = {name for file, name in RUNS_A_LOOP if file == path.name}
    yield from calls & IS_THE_COMMAND_LINES - allowed
