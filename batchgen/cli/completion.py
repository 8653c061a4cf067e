"""What a shell proposes while a command is typed, beside what click knows: experiments, files."""

import asyncio
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from batchgen.cli.group import global_options
from batchgen.cli.session import Session
from batchgen.errors import BatchgenError
from batchgen.store import open_store


def experiments(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the database that the command line, or the config, names."""
    try:
        database = Session(**global_options(ctx)).config().database
        names = asyncio.run(_names(database))
    except BatchgenError:  # it is told when the command runs
        return []
    return [name for name in names if name.startswith(incomplete)]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As the shell itself would."""
    return [CompletionItem(incomplete, type="file")]


async def _names(database: Path) -> list[str]:
    async with open_store(database) as store:
        return [one.name for one in await store.experiments()]
