"""Batches as Mistral has them, /batch/jobs: the same batches in other words."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from batchgen.simulate.batch import Batch, Wanted
from batchgen.simulate.batch_bodies import RefusedError, endpoint_in, metadata_in, object_in
from batchgen.simulate.batch_runs import Batches
from batchgen.simulate.files import Files, StoredFile

_STATUSES = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
    "cancelled": "CANCELLED",
}
_MOST_HOURS = 7 * 24
_MOST_A_PAGE = 1000


class MistralJobs:
    """A job's lines have no method and no URL, and need no model: they are written anew, as OpenAI
    has them, in a file of the simulator's own. `make` makes a batch of it."""

    def __init__(self, files: Files, batches: Batches, make: Callable[[Wanted], Batch]) -> None:
        self._files = files
        self._batches = batches
        self._make = make
        self._input_files: dict[str, list[str]] = {}  # by the id of our own

    async def create(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        body = object_in(await request.content.read())
        endpoint, hours, model = endpoint_in(body), body.get("timeout_hours", 24), body.get("model")
        if not isinstance(hours, int) or not 1 <= hours <= _MOST_HOURS:
            raise RefusedError(422, f"timeout_hours must be from 1 to {_MOST_HOURS}")
        if not isinstance(model, str | None):
            raise RefusedError(422, "model must be a text")
        names = body.get("input_files")
        if not (isinstance(names, list) and names):
            raise RefusedError(422, "input_files must be a list of files")
        found = [self._input_file(name) for name in names]
        path = self._files.new_path()
        await asyncio.to_thread(_write_anew, found, path, endpoint, model)
        made = self._files.keep(path, "job.jsonl", "batch")
        self._input_files[made.id] = names
        window_s = hours * 3600
        wanted = Wanted(made.id, endpoint, f"{hours}h", window_s, metadata_in(body))
        return self._job(self._make(wanted))

    async def list(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        page, size = (_number(request.query, *one) for one in (("page", 0), ("page_size", 100)))
        jobs = [one for one in self._batches.newest_first() if self._is_job(one)]
        if request.query.get("order_by") == "created":
            jobs.reverse()
        data = [self._job(one) for one in jobs[page * size : (page + 1) * size]]
        return {"object": "list", "data": data, "total": len(jobs)}

    async def show(self, _: web.BaseRequest, job_id: str) -> dict[str, Any]:
        return self._job(self._found(job_id))

    async def cancel(self, _: web.BaseRequest, job_id: str) -> dict[str, Any]:
        batch = self._found(job_id)
        if batch.has_ended:
            raise RefusedError(422, f"the job is {_STATUSES[batch.status]}")
        if batch.status != "cancelling":
            batch.cancel()
        return self._job(batch)

    def _input_file(self, name: Any) -> StoredFile:
        file = self._files.get(name) if isinstance(name, str) else None
        if file is None or file.purpose != "batch":
            raise RefusedError(422, f"there is no file {name!r} for batches")
        return file

    def _found(self, job_id: str) -> Batch:
        batch = self._batches.get(job_id)
        if batch is None or not self._is_job(batch):
            raise RefusedError(404, f"there is no job {job_id!r}")
        return batch

    def _is_job(self, batch: Batch) -> bool:
        return batch.wanted.input_file_id in self._input_files

    def _job(self, batch: Batch) -> dict[str, Any]:
        """Mistral's object."""
        shown = batch.to_json()
        ends = (shown[f"{status}_at"] for status in ("completed", "failed", "expired", "cancelled"))
        return {
            "id": batch.id,
            "object": "batch",
            "input_files": self._input_files[batch.wanted.input_file_id],
            "endpoint": batch.wanted.endpoint,
            "model": batch.model,
            "agent_id": None,
            "metadata": batch.wanted.metadata,
            "status": _STATUSES[batch.status],
            "output_file": shown["output_file_id"],
            "error_file": shown["error_file_id"],
            "outputs": None,
            "errors": [
                {
                    "message": f"line {one.line}: {one.message}" if one.line else one.message,
                    "count": 1,
                }
                for one in batch.problems
            ],
            "created_at": shown["created_at"],
            "started_at": shown["in_progress_at"],
            "completed_at": next(filter(None, ends), None),
            "total_requests": batch.total,
            "completed_requests": batch.done,
            "succeeded_requests": batch.succeeded,
            "failed_requests": batch.failed,
        }


def _write_anew(files: Sequence[StoredFile], path: Path, endpoint: str, model: str | None) -> None:
    with path.open("wb") as out:
        for file in files:
            with file.path.open("rb") as lines:
                for line in lines:
                    out.write(_line_anew(line.rstrip(b"\n"), endpoint, model) + b"\n")


def _line_anew(line: bytes, endpoint: str, model: str | None) -> bytes:
    """What is no request stays as it is, and the batch fails for it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not (isinstance(value, dict) and isinstance(value.get("body"), dict)):
        return line
    body = {**value["body"], **({} if model is None else {"model": model})}
    return json.dumps({**value, "method": "POST", "url": endpoint, "body": body}).encode()


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or int(text) > _MOST_A_PAGE:
        raise RefusedError(422, f"{name} must be from 0 to {_MOST_A_PAGE}")
    return int(text)
