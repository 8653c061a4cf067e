"""Results as JSONL: streamed in the order of the pool, a page of rows at a time.

The stored JSON texts are put into the line as they are, without parsing them. A file appears whole
or not at all: it is written beside its place, made durable, and renamed.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from typing import IO, Any

from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError
from batchgen.items import State
from batchgen.store import Experiment, ExportRecord, ResultRow, Store

_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Exported:
    rows: int
    sha256: str


def output_path(output: OutputConfig, experiment: Experiment) -> Path:
    """Where an experiment's export goes: the time in its name is the experiment's creation, in
    local time, so that a resumed run has the same file."""
    name = experiment.name
    if output.need_time_stamp:
        created = datetime.fromtimestamp(experiment.created_at / 1000, UTC).astimezone()
        name = f"{name}_{created:%Y%m%d-%H%M%S}"
    return output.output_dir / f"{name}.jsonl"


async def export_file(
    store: Store, experiment: Experiment, path: Path, state: State = State.DONE
) -> Exported:
    """Write the export to `path`, replacing what was there in one step.

    Raises BatchgenError when the file cannot be written; then `path` is as it was.
    """
    result_seq = await store.newest_result()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            exported = await export_stream(store, experiment, file, state)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_directory(path.parent)
    except OSError as exc:
        raise BatchgenError(f"{path}: cannot write the export ({exc.strerror or exc}).") from exc
    finally:
        _remove(part)
    if state is State.DONE:
        await store.record_export(experiment.id, path, exported.rows, exported.sha256, result_seq)
    return exported


async def export_stream(
    store: Store, experiment: Experiment, file: IO[bytes], state: State = State.DONE
) -> Exported:
    """Write the lines to an open file."""
    digest, rows = hashlib.sha256(), 0
    async for page in _pages(store, experiment, state):
        chunk = "".join(map(export_line, page)).encode()
        await asyncio.to_thread(file.write, chunk)
        digest.update(chunk)
        rows += len(page)
    return Exported(rows, digest.hexdigest())


async def check_export(store: Store, record: ExportRecord) -> str | None:
    """What is wrong with a file that was exported earlier, or None. A file that is gone, and one
    that is older than the newest results, is no contradiction."""
    path = Path(record.path)
    found = await asyncio.to_thread(_sha256, path)
    if found is None:
        return None
    if found != record.sha256:
        return f"{path}: is not what export wrote (changed since?); run batchgen export again"
    if await store.newest_result() != record.result_seq:
        return None
    experiment = Experiment(record.experiment_id, record.experiment, 0)
    with await asyncio.to_thread(open, os.devnull, "wb") as nowhere:
        now = await export_stream(store, experiment, nowhere)
    if (now.sha256, now.rows) != (record.sha256, record.rows):
        return f"{path}: the table has other results than export wrote"
    return None


def _sha256(path: Path) -> str | None:
    """Of the file at `path`; None when there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def export_line(row: ResultRow) -> str:
    """One line of JSON, with its line break."""
    response = dumps(row.response, ensure_ascii=False)
    done = row.reason is None
    # Parser raw stores no second copy of the answer.
    parsed = (row.parsed or response) if done else "null"
    line = (
        f'{{"id": {dumps(row.custom_id or row.id, ensure_ascii=False)}, "input": {row.input}, '
        f'"response": {response}, "parsed": {parsed}, "metadata": {row.metadata or "null"}, '
        f'"model": {dumps(row.model, ensure_ascii=False)}, '
        f'"finish_reason": {dumps(row.finish_reason, ensure_ascii=False)}, '
        f'"usage": {dumps(usage_object(row))}, "cost_usd": {dumps(row.cost_usd)}, '
        f'"attempts": {row.attempts}, "timestamp": "{timestamp(row.finished_at)}"'
    )
    if not done:
        line += f', "reason": "{row.reason}", "error": {dumps(row.error, ensure_ascii=False)}'
    return line + "}\n"


def result_object(row: ResultRow) -> dict[str, Any]:
    """The line as an object, for Python; `error` is there for failed items only."""
    result: dict[str, Any] = loads(export_line(row))
    return result


def usage_object(row: ResultRow) -> dict[str, Any]:
    """Tokens as the server counted them; the details only where it gave them."""
    usage = {
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
    }
    if row.cached_tokens is not None:
        usage["cached_tokens"] = row.cached_tokens
    if row.reasoning_tokens is not None:
        usage["reasoning_tokens"] = row.reasoning_tokens
    return usage


def timestamp(at_ms: int) -> str:
    """ISO 8601, UTC, milliseconds."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _pages(
    store: Store, experiment: Experiment, state: State
) -> AsyncIterator[list[ResultRow]]:
    after = 0
    while page := await store.result_page(experiment.id, state, after, _PAGE_ROWS):
        yield page
        after = page[-1].id


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # it could not be made either, and that is the error to tell of


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
