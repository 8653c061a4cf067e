"""Results as JSONL: streamed in the order of the pool, a page of rows at a time.

The stored JSON texts are put into the line as they are, without parsing them. A file appears whole
or not at all: it is written beside its place, made durable, and renamed.
"""

import asyncio
import fcntl
import glob
import hashlib
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder, loads
from pathlib import Path
from typing import IO, Any

from batchgen.config import OutputConfig
from batchgen.errors import BatchgenError, UsageError
from batchgen.items import State
from batchgen.store import Experiment, ExportRecord, ResultRow, Store
from batchgen.waiting import to_its_end

_PAGE_ROWS = 500
_quote = JSONEncoder(ensure_ascii=False).encode


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
        _remove_parts_of_the_dead(path)
        with part.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
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

    def write(lines: bytes) -> None:
        file.write(lines)
        digest.update(lines)

    async def write_and_read_on(lines: bytes, after: int) -> list[ResultRow]:
        reading = store.result_page(experiment.id, state, after, _PAGE_ROWS)
        page, _ = await asyncio.gather(reading, asyncio.to_thread(write, lines))
        return page

    page = await store.result_page(experiment.id, state, 0, _PAGE_ROWS)
    while page:
        rows += len(page)
        lines = "".join(map(export_line, page)).encode()
        page = await to_its_end(write_and_read_on(lines, page[-1].id))
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
    done = row.reason is None
    # Parser raw stores no second copy of the answer.
    parsed = (row.parsed or row.response) if done else "null"
    end = "" if done else f', "reason": "{row.reason}", "error": {_json(row.error)}'
    return (
        f'{{"id": {_json(row.custom_id) if row.custom_id else row.id}, "input": {row.input}, '
        f'"response": {row.response}, "parsed": {parsed}, "metadata": {row.metadata or "null"}, '
        f'"model": {_json(row.model)}, "finish_reason": {_json(row.finish_reason)}, '
        f'"usage": {_usage(row)}, "cost_usd": {_json(row.cost_usd)}, '
        f'"attempts": {row.attempts}, "timestamp": "{timestamp(row.finished_at)}"{end}}}\n'
    )


def result_object(row: ResultRow) -> dict[str, Any]:
    """The line as an object, for Python; `error` is there for failed items only."""
    result: dict[str, Any] = loads(export_line(row))
    return result


def _usage(row: ResultRow) -> str:
    """Tokens as the server counted them; the details only where it gave them."""
    usage = (
        f'"prompt_tokens": {_json(row.prompt_tokens)}, '
        f'"completion_tokens": {_json(row.completion_tokens)}'
    )
    if row.cached_tokens is not None:
        usage += f', "cached_tokens": {row.cached_tokens}'
    if row.reasoning_tokens is not None:
        usage += f', "reasoning_tokens": {row.reasoning_tokens}'
    return f"{{{usage}}}"


def _json(value: str | float | None) -> str:
    if value is None:
        return "null"
    return _quote(value) if isinstance(value, str) else repr(value)


def timestamp(at_ms: int) -> str:
    """ISO 8601, UTC, milliseconds."""
    second, ms = divmod(at_ms, 1000)
    return f"{_second(second)}.{ms:03}Z"


@lru_cache(maxsize=1000)  # items of one page finished about the same time
def _second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _remove_parts_of_the_dead(path: Path) -> None:
    """What exports to `path` left behind when they were killed: nobody has it locked."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        try:
            with part.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)
        except OSError:
            pass  # its writer lives, or it is another user's


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
