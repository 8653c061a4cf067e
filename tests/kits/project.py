"""A directory with a job in it, and commands to run there."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.database_address import DatabaseAddress, PostgresAddress
from tests.kits.database import ask
from tests.kits.processes import Process, start
from tests.kits.typist import Ended, Typist

KEY = "sk-secret-0123456789"


@dataclass
class Project:
    """A directory with a config, prompts and a pool, and batchgen to run in it."""

    path: Path
    base_url: str
    env: dict[str, str] = field(default_factory=dict)
    running: list[Process] = field(default_factory=list)
    server: PostgresAddress | None = None  # of the database, where it is no file

    @property
    def database(self) -> DatabaseAddress:
        return self.server or self.file

    @property
    def file(self) -> Path:
        """Of the database, where it is one."""
        return self.path / "batchgen.db"

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def config(self, text: str = "", **model: Any) -> Path:
        """A config for the simulated model; `model` are keys of that section, `text` the rest."""
        settings = {"base_url": self.base_url, "api_key": KEY, "model": "simulated", **model}
        lines = [f"  {name}: {json.dumps(value)}" for name, value in settings.items()]
        text = text or "parser: raw\n"
        return self.write("config.yaml", "model:\n" + "\n".join(lines) + "\n" + text)

    def pool(self, items: Iterable[Any], name: str = "pool.jsonl") -> Path:
        lines = [json.dumps(item, ensure_ascii=False) for item in items]
        return self.write(name, "".join(f"{line}\n" for line in lines))

    async def start(
        self, *arguments: str, stdin: bytes | None = None, fresh: bool = False
    ) -> Process:
        """Start a command, or a Python file, in a process of its own: a warm one, unless it must
        be `fresh`."""
        process = await start(arguments, self.path, self.env, stdin=stdin is not None, fresh=fresh)
        self.running.append(process)
        return process

    async def batchgen(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run a command to its end, in this process."""
        return await Typist(self.path, self.env)(*arguments, stdin=stdin)

    async def process(self, *arguments: str, stdin: bytes | None = None) -> Ended:
        """Run a command to its end, in a process of its own."""
        return await ended(await self.start(*arguments, stdin=stdin), stdin)

    def export(self, name: str = "default") -> list[dict[str, Any]]:
        """The lines of an exported file."""
        text = (self.path / "output" / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def query(self, sql: str, parameters: Mapping[str, Any] | tuple[Any, ...] = ()) -> list[Any]:
        """Ask the database while nobody works on it."""
        return ask(self.database, sql, parameters)


async def ended(process: Process, stdin: bytes | None = None) -> Ended:
    """Wait for a process and take what it printed."""
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    """An export line as any other run would give it."""
    return {name: value for name, value in line.items() if name != "timestamp"}
