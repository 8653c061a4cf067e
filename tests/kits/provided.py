"""A project on a provider of batches, which misbehaves as a test wants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchgen.database_address import PostgresAddress
from batchgen.simulate import Simulator
from tests.kits.project import Project
from tests.kits.typist import Ended, Typist

QUICK = {"poll_s": 0.1, "probe": False}


class Provided(Project):
    """Template "Say {word}", parser raw."""

    def __init__(
        self, path: Path, provider: Simulator, server: PostgresAddress | None = None
    ) -> None:
        super().__init__(path, provider.base_url, server=server)
        self.provider = provider
        self.in_batches()
        self.write("prompts/user_prompts/default.txt", "Say {word}\n")

    def in_batches(self, text: str = "", model: Mapping[str, Any] = {}, **batch: Any) -> None:
        """Its config, with these settings of the sections `batch` and `model`."""
        settings = ", ".join(f"{name}: {value!s}" for name, value in {**QUICK, **batch}.items())
        settings = settings.replace("False", "false").replace("True", "true")
        self.config(f"batch: {{{settings}}}\n{text or 'parser: raw'}\n", **model)

    def words(self, n: int) -> None:
        """Its pool: so many items."""
        self.pool({"word": f"w{number:03}"} for number in range(n))

    async def work(self, *arguments: str) -> Ended:
        return await Typist(self.path, self.env)("work", "--batch", *arguments)

    async def run(self, *arguments: str) -> Ended:
        return await Typist(self.path, self.env)("run", "pool.jsonl", "--batch", *arguments)

    async def assert_sound(self) -> None:
        """The database says one consistent thing, and nothing was answered twice."""
        said = await Typist(self.path, self.env)("verify")
        assert said.code == 0, said.err
        assert self.provider.bill.twice == 0
