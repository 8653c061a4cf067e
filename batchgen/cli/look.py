"""Looking at what there is: status, failures, show."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.lookup import items_called, open_experiments
from batchgen.cli.options import epilog, json_option, only_experiment_option, reason_choice
from batchgen.cli.session import Session, run_async

if TYPE_CHECKING:
    from rich.console import Console

    from batchgen.store import Store


@click.command(
    epilog=epilog(
        "batchgen status", "batchgen status --watch", "batchgen status --json | jq .total.done"
    )
)
@json_option
@click.option("--watch", is_flag=True,
              help="Again every two seconds, until Ctrl-C; on a terminal as a dashboard, with how "
                   "rate and latency went in the last minutes.")  # fmt: skip
@click.pass_obj
def status(session: Session, as_json: bool, watch: bool) -> int:
    """Show counts, speed, failures and workers."""
    import asyncio

    from batchgen.clock import now_ms
    from batchgen.display.texts import foreign_writer_warning, status_object, status_text
    from batchgen.jobs.unknown_cost import most_of_unknown
    from batchgen.llm.prices import Prices

    config = session.config()

    prices = Prices(config.model)

    async def look(store: "Store") -> dict[str, Any]:
        rows = [(e, await store.counts([e.id])) for e in await store.experiments()]
        total, workers = await store.counts(), await store.workers()
        dead = [worker for worker in workers if not worker.alive]
        unknown = await most_of_unknown(
            store, prices, total.unknown_calls + sum(worker.calls for worker in dead),
            [worker.id for worker in dead], parse_feedback=config.work.parse_feedback,
        )  # fmt: skip
        return status_object(
            rows, total, await store.pace(), workers, unknown, await store.learned_rate(), now_ms()
        )

    async def job() -> int:
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            if watch and not as_json and (console := _screen()):
                from batchgen.display.dashboard import show

                return await show(lambda: look(store), str(config.database), console)
            while True:
                seen = await look(store)
                if watch and not as_json:
                    click.clear()
                click.echo(json.dumps(seen, ensure_ascii=False) if as_json else status_text(seen))
                if not watch:
                    break
                await asyncio.sleep(2)
        if session.verbose and (warning := foreign_writer_warning()):
            session.warn(warning)
        return 0

    return run_async(job())


def _screen() -> "Console | None":
    """What a dashboard can be drawn on."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal
    return console if drawable and not console.options.ascii_only else None


@click.command(epilog=epilog("batchgen failures", "batchgen failures --reason parse --json"))
@click.option("--reason", type=reason_choice)
@only_experiment_option
@json_option
@click.pass_obj
def failures(session: Session, reason: str | None, experiment: str | None, as_json: bool) -> int:
    """Group the failed items by reason and message.

    Each group with its count and the number of an example to show.
    """
    from batchgen.display.texts import failures_text

    config = session.config()

    async def job() -> int:
        async with open_experiments(config, experiment) as (store, chosen):
            groups = [(e.name, await store.failures(e.id, reason)) for e in chosen]
        if as_json:
            rows = [
                {"experiment": name, "reason": g.reason, "error": g.error, "count": g.n,
                 "example": g.example}
                for name, found in groups for g in found
            ]  # fmt: skip
            click.echo(json.dumps(rows, ensure_ascii=False))
        else:
            click.echo("\n".join(failures_text(name, found) for name, found in groups))
        return 0

    return run_async(job())


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
    from batchgen.display.texts import item_object, item_text

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


async def _messages(store: "Store", item: dict[str, Any]) -> list[dict[str, Any]] | None:
    from batchgen.pool import read_item
    from batchgen.prompts import Renderer

    renderer = Renderer(await store.recipe(item["recipe_id"]))
    return renderer.messages(read_item(json.loads(item["input"]), f"item {item['id']}"))
