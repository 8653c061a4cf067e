"""What a shell proposes while a command is typed, beside what click knows: experiments, files."""

from typing import TYPE_CHECKING

import click

from batchgen.cli.group import global_options
from batchgen.errors import BatchgenError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from batchgen.store import Experiment


def experiments(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the database that the command line, or the config, names; steps of them by
    `demo/judge`."""
    names = dict.fromkeys(name for one in _experiments(ctx) for name in (one.name, one.own_name))
    return [name for name in names if name.startswith(incomplete)]


def steps(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the experiment that is named, or of all."""
    given = ctx.params.get("experiment") or ctx.params.get("named") or ()
    names = (given,) if isinstance(given, str) else given
    found = [one for one in _experiments(ctx) if one.step is not None]
    chosen = [one for one in found if one.name.split("/", 1)[0] in names] or found
    return [
        name for name in dict.fromkeys(one.step or "" for one in chosen)
        if name.startswith(incomplete)
    ]  # fmt: skip


def _experiments(ctx: click.Context) -> "list[Experiment]":
    from batchgen.cli.session import Session  # here: it is rarely asked for
    from batchgen.store import read_now, read_store

    try:
        with read_store(Session(**global_options(ctx)).config().database) as store:
            return read_now(store.experiments())
    except BatchgenError:  # it is told when the command runs
        return []


def files(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """As the shell itself would."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
