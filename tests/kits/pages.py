"""The pages of the documentation, as a reader follows them: block by block, from the top.

A fenced block after a line that is nothing but `NAME`: is a file of that name. In a `sh` block each
line is a command, and `cat > NAME <<'END'` writes a file. batchgen runs in the process of the test.
"""

import asyncio
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace  # noqa: TID251  of a dataclass of its own
from pathlib import Path

from tests.kits.typist import Ended, Typist

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)

_BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"cat > (\S+) <<'END'")
# What a reader has and a test has not: a package index, a key, a server in another terminal.
_NOT_TYPED = (
    "batchgen simulate",
    "batchgen view",
    "export ",
    "pip install batchgen-llm",
    "python3 dev.py ",
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    file: str | None


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(found["language"], found["text"], found["file"])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


@dataclass
class Reader:
    """Somebody who does what a page says. `ran` has what came of each batchgen command."""

    typist: Typist
    ran: list[tuple[str, Ended]] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.typist.directory

    @property
    def failed(self) -> dict[str, str]:
        """The commands that did not end well, with what they said."""
        return {line: ended.err for line, ended in self.ran if ended.code != 0}

    async def follow(self, page: Path) -> None:
        for block in blocks_of(page):
            if block.file:
                self._write(block.file, block.text)
            elif block.language == "sh":
                lines = iter(block.text.splitlines())
                for line in lines:
                    await self._type(line, lines)

    async def _type(self, line: str, following: Iterator[str]) -> None:
        if line.startswith(_NOT_TYPED):
            return
        if here := _HERE_DOCUMENT.fullmatch(line):
            self._write(here[1], "".join(f"{text}\n" for text in iter(following.__next__, "END")))
            return
        command, *arguments = shlex.split(line, comments=True)
        match command, arguments:
            case "mkdir", [name]:
                (self.directory / name).mkdir()
            case "cd", [name]:
                self.typist = replace(self.typist, directory=self.directory / name)
            case "python", [name]:
                await asyncio.to_thread(self.typist.script, name)
            case "batchgen", _:
                self.ran.append((line, await self.typist(*arguments)))
            case _:
                raise AssertionError(f"the tests do not know how to type: {line}")

    def _write(self, name: str, text: str) -> None:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
