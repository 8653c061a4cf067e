"""What a shell proposes while a command is typed, beside what click knows: experiments, files."""

from typing import TYPE_CHECKING

import click

from batchgen.cli.group import global_options
from batchgen.errors import BatchgenError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def experiments(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the database that the command line, or the config, names."""
    from batchgen.cli.session import Session, read_now  # here: it is rarely asked for
    from batchgen.store import read_store

    try:
        with read_store(Session(**global_options(ctx)).config().database) as store:
            names = [one.name for one in read_now(store.experiments())]
    except BatchgenError:  # it is told when the command runs
        return []
    return [name for name in names if name.startswith(incomplete)]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """As the shell itself would."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
