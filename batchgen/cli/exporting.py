"""What export, run and demo say of the file that they write."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen.cli.session import Session, counted, print_json
from batchgen.config import Config
from batchgen.errors import BatchgenError
from batchgen.export import (
    ExportRequest,
    Overwriting,
    export_stream,
    follow_to_stream,
    format_by_name,
)
from batchgen.jobs.export import ExportResult, export, follow
from batchgen.store import Experiment, Store

_STDOUT = Path("-")


async def export_to(
    session: Session, store: Store, config: Config, experiment: Experiment,
    path: Path | None, request: ExportRequest | None = None, *, force: bool = False,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Write the finished rows, or what is requested of them, and say how many went where."""
    if path == _STDOUT:
        with _writing_to_stdout():
            request = request or ExportRequest(format_by_name(path))
            await export_stream(store, experiment, sys.stdout.buffer, request)
        return
    overwriting = Overwriting(config.own_files, force)
    exported = await export(store, config.output_data, experiment, path, request, overwriting)
    _say_result(session, exported, as_json=as_json)


async def follow_to(
    session: Session, store: Store, config: Config, experiment: Experiment,
    path: Path | None, *, force: bool = False, as_json: bool,
) -> None:  # fmt: skip
    """The same while items finish, until nothing is left to be done."""
    if path == _STDOUT:
        with _writing_to_stdout():
            await follow_to_stream(store, experiment, sys.stdout.buffer, session.warn)
        return
    overwriting = Overwriting(config.own_files, force)
    followed = await follow(
        store, config.output_data, experiment, path, overwriting, say=session.say
    )
    _say_result(session, followed, as_json=as_json)


def _say_result(session: Session, result: ExportResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        files = f" in {len(result.shards)} files" if result.shards else ""
        session.say(f"{counted(result.rows, 'row')}{files} -> {result.path}")


@contextmanager
def _writing_to_stdout() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise BatchgenError(f"stdout: cannot write the export ({exc.strerror}).") from exc
