"""show: one item, with all that was sent and came back."""

import click

from batchgen.cli.completion import experiments
from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, print_json, read_now
from batchgen.cli.terminal import print_text
from batchgen.display.items import item_text
from batchgen.jobs.lookup import items_called
from batchgen.jobs.show import item_details
from batchgen.store import read_store


@click.command(epilog=epilog("batchgen show 17", "batchgen show my-own-id --json"))
@click.argument("item_id", metavar="ID")
@click.option("--experiment", metavar="NAME", shell_complete=experiments,
              help="Where to look; default: in all.")  # fmt: skip
@json_option
@click.pass_obj
def show(session: Session, item_id: str, experiment: str | None, as_json: bool) -> int:
    """Show one item with all that was sent and came back.

    The messages, the model and the parameters, every attempt with its raw answer or error, and what
    was parsed. ID is your own id of the item, or its number.
    """
    config = session.config()

    with read_store(config.database) as store:
        numbers = read_now(items_called(store, item_id, experiment))
        details = [read_now(item_details(store, number)) for number in numbers]
    found = [one for one in details if one]
    if as_json:
        objects = [one.to_json() for one in found]
        print_json(objects[0] if len(objects) == 1 else objects)
    else:
        print_text("\n\n".join(map(item_text, found)))
    return 0
