"""How the finished rows become a file, and what is said of it: for export, run and demo."""

import json
import sys
from pathlib import Path

import click

from batchgen.cli.session import Session, counted
from batchgen.config import Config
from batchgen.errors import BatchgenError
from batchgen.export import ExportRequest, export_file, export_stream, format_by_name, output_path
from batchgen.store import Experiment, Store


async def export_to(
    session: Session, store: Store, config: Config, experiment: Experiment,
    path: Path | None, wanted: ExportRequest | None = None, *, as_json: bool = False,
) -> None:  # fmt: skip
    """The last step: the finished rows (or what is wanted of them) as a file. Without `wanted`, its
    name says the format."""
    wanted = wanted or ExportRequest(format_by_name(path))
    if path is None:
        path = output_path(config.output_data, experiment, wanted)
    if path == Path("-"):
        await _export_to_stdout(store, experiment, wanted)
        return
    exported = await export_file(store, experiment, path, wanted)
    if as_json:
        shards = {"files": [str(file.path) for file in exported.files]}
        said = {"path": str(path), "rows": exported.rows, **(shards if wanted.shards > 1 else {})}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        files = f" in {wanted.shards} files" if wanted.shards > 1 else ""
        session.say(f"{counted(exported.rows, 'row')}{files} -> {path}")


async def _export_to_stdout(store: Store, experiment: Experiment, wanted: ExportRequest) -> None:
    try:
        await export_stream(store, experiment, sys.stdout.buffer, wanted)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise BatchgenError(f"stdout: cannot write the export ({exc.strerror}).") from exc
