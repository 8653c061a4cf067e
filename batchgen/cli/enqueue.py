"""enqueue: the items of a data pool become rows."""

import click

from batchgen.cli.enqueueing import (
    OPTIONS,
    PoolFlags,
    dry_run_pool,
    enqueue_pool,
    pool_options,
    reading_pool,
)
from batchgen.cli.group import epilog
from batchgen.cli.options import json_option
from batchgen.cli.session import Session, run_async
from batchgen.config import Config
from batchgen.jobs.asked import asked_of
from batchgen.store import open_store


@click.command(epilog=epilog(
    "batchgen enqueue data_pool.jsonl",
    "batchgen enqueue data.csv --experiment labels --limit 100 --dry-run",
    "batchgen enqueue my_pool.py:make_items",
    "batchgen enqueue results:answers --experiment scores --where 'parsed.score < 3'",
    "batchgen enqueue data_pool.jsonl --samples 4",
    "batchgen enqueue data.csv --prompt 'Translate into French: {text}' --system ''",
))  # fmt: skip
@pool_options
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, show_default=True,
              help="A higher one is claimed first.")  # fmt: skip
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show the first prompt, write nothing."
)
@json_option
@click.pass_obj
def enqueue(session: Session, pool: PoolFlags, dry_run: bool, as_json: bool) -> int:
    """Turn the items of a data pool into pending rows.

    SOURCE is a .jsonl, .json, .csv, .tsv, .txt (each also .gz) or .parquet file, a directory of
    text files, - for JSON lines on stdin, a Python function that yields items, as module:function
    or path.py:function, or results:EXPERIMENT, what another one brought. Enqueueing the same pool
    again adds nothing; a pool that grew adds what is new. When templates, model or parameters have
    changed since, it stops, and says what each --recipe would ask. With --samples each item becomes
    several rows, and enqueueing it again with a higher number adds the rest.
    """
    config = session.config(OPTIONS, **pool.settings)
    if dry_run:
        return run_async(dry_run_pool(session, config, pool, as_json=as_json))
    return run_async(_enqueue(session, config, pool, as_json=as_json))


async def _enqueue(session: Session, config: Config, pool: PoolFlags, *, as_json: bool) -> int:
    asked = asked_of(config)
    with reading_pool(pool, config, asked) as entries:
        async with open_store(config.database, create=True) as store:
            await enqueue_pool(session, store, config, asked, entries, pool, as_json=as_json)
    return 0
