"""Results as JSONL: streamed in the order of the pool, a page of rows at a time.

The stored JSON texts are put into the line as they are, without parsing them. A file appears whole
or not at all: it is written beside its place, made durable, and renamed.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from typing import IO, Any

from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError, UsageError
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
    """Write the export to `path`, replacing the file that was there in one step.

    A link stays a link, and what is no plain file (a pipe, a device) is written to as it is. Raises
    UsageError for a directory or a file of the database itself, and BatchgenError when the file
    cannot be written; then `path` is as it was.
    """
    result_seq = await store.newest_result()
    given, path = path, await asyncio.to_thread(_checked_target, path, store.path)
    special = path.exists() and not path.is_file()
    try:
        if special:
            return await _write(store, experiment, path, state)
        exported = await _write_and_rename(store, experiment, path, state)
    except OSError as exc:
        raise BatchgenError(f"{given}: cannot write the export ({exc.strerror or exc}).") from exc
    if state is State.DONE:
        await store.record_export(experiment.id, path, exported.rows, exported.sha256, result_seq)
    return exported


def _checked_target(path: Path, database: Path) -> Path:
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file for the export.")
    target, own = path.resolve(), database.resolve()
    if target == own or (target.parent == own.parent and target.name.startswith(f"{own.name}-")):
        raise UsageError(f"{path}: belongs to the work database; name another file for the export.")
    return target


async def _write(store: Store, experiment: Experiment, path: Path, state: State) -> Exported:
    with await asyncio.to_thread(path.open, "wb") as file:
        return await export_stream(store, experiment, file, state)


async def _write_and_rename(
    store: Store, experiment: Experiment, path: Path, state: State
) -> Exported:
    part = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _keep_mode(file, path)
            exported = await export_stream(store, experiment, file, state)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_directory(path.parent)
    finally:
        _remove(part)
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
    """Of the file at `path`; None when there is none, or something else by now."""
    if not path.is_file():
        return None
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


def _keep_mode(file: IO[bytes], path: Path) -> None:
    """Of the file at `path`, if there is one, which `file` will replace."""
    if path.exists():
        os.fchmod(file.fileno(), path.stat().st_mode)


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
