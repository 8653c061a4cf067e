"""Files that follow the work: `work -o` and `export --follow`."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.session import Session, counted
from batchgen.errors import BatchgenError, UsageError

if TYPE_CHECKING:
    from batchgen.cli.display import Display
    from batchgen.config import Config
    from batchgen.export import LiveFile
    from batchgen.shutdown import Stop
    from batchgen.store import Experiment, Store


async def live_file(
    store: "Store", experiments: tuple[int, ...] | None, path: Path, display: "Display"
) -> "LiveFile":
    """What `work -o` keeps up to date. Raises UsageError for a file that cannot be one, or when it
    is not said whose."""
    from batchgen.export import LiveFile

    chosen = [
        one for one in await store.experiments() if experiments is None or one.id in experiments
    ]
    if not chosen:
        raise UsageError(f"{store.name}: nothing is enqueued yet; batchgen enqueue comes first.")
    if len(chosen) != 1:
        names = ", ".join(one.name for one in chosen)
        raise UsageError(
            f"-o {path}: holds one experiment, and there is: {names}. Choose with --experiment."
        )
    live = LiveFile(store, chosen[0], path, display.say)
    try:
        await live.acquire()
    except OSError as exc:
        raise BatchgenError(f"{path}: cannot be written ({exc.strerror or exc}).") from exc
    return live


@asynccontextmanager
async def kept_up_to_date(
    live: "LiveFile | None", stop: "Stop", display: "Display"
) -> AsyncIterator[None]:
    """While inside, if there is such a file, it follows the work; a second signal leaves the last
    of it to the next run."""
    if live is None:
        yield
        return
    from batchgen.export import keep_live_file

    async with keep_live_file(live, stop.now, display.warn):
        yield


async def follow(
    session: Session, store: "Store", config: "Config", experiment: "Experiment",
    path: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """`export --follow`: until nothing is left to be done."""
    from batchgen.export import LiveFile, follow_to_file, live_path

    if path == Path("-"):
        await _follow_to_stdout(session, store, experiment)
        return
    path = path or live_path(config.output_data, experiment)
    live = LiveFile(store, experiment, path, session.say)
    await follow_to_file(live, store, experiment)
    if as_json:
        click.echo(json.dumps({"path": str(path), "rows": live.rows}, ensure_ascii=False))
    else:
        session.say(f"{counted(live.rows, 'row')} -> {path}")


async def _follow_to_stdout(session: Session, store: "Store", experiment: "Experiment") -> None:
    from batchgen.export import follow_to_stream

    try:
        await follow_to_stream(store, experiment, sys.stdout.buffer, session.warn)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise BatchgenError(f"stdout: cannot write the export ({exc.strerror}).") from exc
