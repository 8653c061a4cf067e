"""show: one item, with all that was sent and came back."""

import json
from typing import Any

import click

from batchgen.cli.group import epilog
from batchgen.cli.lookup import items_called, open_experiments
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, run_async
from batchgen.display.texts import item_object, item_text
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import Store


@click.command(epilog=epilog("batchgen show 17", "batchgen show my-own-id --json"))
@click.argument("item_id", metavar="ID")
@click.option("--experiment", metavar="NAME", help="Where to look; default: in all.")
@json_option
@click.pass_obj
def show(session: Session, item_id: str, experiment: str | None, as_json: bool) -> int:
    """Show one item with all that was sent and came back.

    The messages, every attempt with its raw answer or error, and what was parsed. ID is your own
    id of the item, or its number.
    """
    config = session.config()

    async def job() -> int:
        async with open_experiments(config, experiment) as (store, chosen):
            only = chosen[0].id if experiment else None
            shown = [
                item_object(found, await _messages(store, found))
                for number in await items_called(store, item_id, only)
                if (found := await store.item(number))
            ]
        if as_json:
            click.echo(json.dumps(shown[0] if len(shown) == 1 else shown, ensure_ascii=False))
        else:
            click.echo("\n\n".join(item_text(one) for one in shown))
        return 0

    return run_async(job())


async def _messages(store: Store, item: dict[str, Any]) -> list[dict[str, Any]] | None:
    renderer = Renderer(await store.recipe(item["recipe_id"]))
    return renderer.messages(read_item(json.loads(item["input"]), f"item {item['id']}"))
