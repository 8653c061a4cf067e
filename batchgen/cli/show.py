"""show: one item, with all that was sent and came back."""

import click

from batchgen.cli.completion import experiments
from batchgen.cli.group import epilog
from batchgen.cli.hints import commands
from batchgen.cli.options import json_option, step_option
from batchgen.cli.session import Session, print_json
from batchgen.cli.terminal import print_text
from batchgen.display.items import LISTED_ROWS, chain_text, item_text
from batchgen.errors import UsageError
from batchgen.jobs.lookup import items_called
from batchgen.jobs.show import ChainDetails, ItemDetails, details_of
from batchgen.store import read_now, read_store


@click.command(
    epilog=epilog(
        "batchgen show 17", "batchgen show my-own-id --json", "batchgen show my-own-id --step judge"
    )
)
@click.argument("item_id", metavar="ID")
@click.option("--experiment", metavar="NAME", shell_complete=experiments,
              help="Where to look; default: in all.")  # fmt: skip
@step_option
@click.option("--limit", type=click.IntRange(0), metavar="N",
              help="Of an item with steps, show N rows of each step; 0: all.  "
                   f"[default: {LISTED_ROWS}; with --json all]")  # fmt: skip
@json_option
@click.pass_obj
def show(
    session: Session, item_id: str, experiment: str | None, step: str | None, limit: int | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Show one item with all that was sent and came back.

    The messages, the model and the parameters, every attempt with its raw answer or error, and what
    was parsed. ID is your own id of the item, or its number. Of an item with steps there are all
    rows of its chains, in the order in which they were made of each other; by the number of a row
    of a later step, those of the chain that it is in.
    """
    config = session.config()

    with read_store(config.database) as store:
        numbers = read_now(items_called(store, item_id, experiment))
        most = (None if as_json else LISTED_ROWS) if limit is None else limit or None
        found = read_now(details_of(store, numbers, step, most))
    if not found:
        raise UsageError(f"item {item_id} has no row of a step {step!r}.")
    if as_json:
        objects = [one.to_json() for one in found]
        print_json(objects[0] if len(objects) == 1 else objects)
    else:
        print_text("\n\n".join(map(_text, found)))
    return 0


def _text(details: ItemDetails | ChainDetails) -> str:
    if isinstance(details, ChainDetails):
        return chain_text(details, commands())
    return item_text(details)
