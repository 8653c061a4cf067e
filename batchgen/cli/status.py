"""status: counts, speed, failures and workers."""

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, run_async
from batchgen.clock import now_ms
from batchgen.display.texts import status_object, status_text
from batchgen.jobs.unknown_cost import max_cost_of_unknown
from batchgen.llm.prices import Prices
from batchgen.store import Store, open_store

if TYPE_CHECKING:
    from rich.console import Console


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
    config = session.config()

    prices = Prices(config.model)

    async def look(store: Store) -> dict[str, Any]:
        rows = [(e, await store.counts([e.id])) for e in await store.experiments()]
        total, workers = await store.counts(), await store.workers()
        dead = [worker for worker in workers if not worker.alive]
        unknown = await max_cost_of_unknown(
            store, prices, total.unknown_calls + sum(worker.calls for worker in dead),
            [worker.id for worker in dead], parse_feedback=config.work.parse_feedback,
        )  # fmt: skip
        return status_object(
            rows, total, await store.pace(), workers, unknown, await store.learned_rate(), now_ms()
        )

    async def job() -> int:
        async with open_store(config.database) as store:
            if watch and not as_json and (console := _screen()):
                from batchgen.display.dashboard import show  # here: a text needs none of it

                return await show(lambda: look(store), str(config.database), console)
            while True:
                seen = await look(store)
                if watch and not as_json:
                    click.clear()
                click.echo(json.dumps(seen, ensure_ascii=False) if as_json else status_text(seen))
                if not watch:
                    break
                await asyncio.sleep(2)
        if session.verbose:
            for warning in store.warnings():
                session.warn(warning)
        return 0

    return run_async(job())


def _screen() -> "Console | None":
    """What a dashboard can be drawn on."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console  # as above

    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal
    return console if drawable and not console.options.ascii_only else None
