"""The HTTP side of files and batches: /files, and /batches as OpenAI has them. Mistral's are in
mistral_jobs."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import IO, Any

from aiohttp import BodyPartReader, web

from batchgen.simulate.arrivals import Arrivals
from batchgen.simulate.batch import Batch, Wanted
from batchgen.simulate.batch_bodies import RefusedError, page_of, read_wanted
from batchgen.simulate.batch_faults import BatchFaults
from batchgen.simulate.batch_runs import Batches
from batchgen.simulate.faults import hang_up, until_disconnected
from batchgen.simulate.files import Files, StoredFile
from batchgen.simulate.mistral_jobs import MistralJobs

_KINDS = ("files", "batches", "batch/jobs")
_JSON = {"Content-Type": "application/json"}
_CHUNK_BYTES = 256 * 1024
_MOST_BYTES = 512 * 1024 * 1024
_LIMIT_REACHED = "Enqueued token limit reached. Please try again once some batches have ended."


class LostError(Exception):
    """A request that gets no reply."""


class _Hold:
    """Of so many requests more (None: any)."""

    def __init__(self, left: int | None) -> None:
        self.released = asyncio.Event()
        self._left = left

    def takes(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left is None or self._left >= 0


class BatchRequests:
    """Answers what is sent to files and batches, if it is `authorized`. `asked` counts requests by
    their route, such as `POST /batches/ID/cancel`; `faults` are what happens from now on."""

    def __init__(
        self, files: Files, batches: Batches, faults: BatchFaults,
        authorized: Callable[[web.BaseRequest], bool], arrivals: Arrivals,
    ) -> None:  # fmt: skip
        self.faults = faults
        self.asked: Counter[str] = Counter()
        self._held: dict[str, _Hold] = {}
        self._files = files
        self._batches = batches
        self._authorized = authorized
        self._arrivals = arrivals
        jobs = MistralJobs(files, batches, self._make)
        self.routes: Mapping[str, Callable[[web.BaseRequest, str], Awaitable[Any]]] = {
            "POST /files": self._upload,
            "GET /files": self._list_files,
            "GET /files/ID": self._show_file,
            "GET /files/ID/content": self._content,
            "DELETE /files/ID": self._delete_file,
            "POST /batches": self._create,
            "GET /batches": self._list_batches,
            "GET /batches/ID": self._show_batch,
            "POST /batches/ID/cancel": self._cancel,
            "POST /batch/jobs": jobs.create,
            "GET /batch/jobs": jobs.list,
            "GET /batch/jobs/ID": jobs.show,
            "POST /batch/jobs/ID/cancel": jobs.cancel,
        }

    @staticmethod
    def takes(path: str) -> bool:
        return _kind_of(path) is not None

    def hold(self, route: str, times: int | None) -> None:
        """So many requests to it (None: all) are done, but get no reply until `release`."""
        assert route in self.routes, route
        self._held[route] = _Hold(times)

    def release(self, routes: Sequence[str]) -> None:
        """Those to these routes; none: to all."""
        for route in routes or list(self._held):
            self._held.pop(route).released.set()

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """`path` is what follows where the API is."""
        kind = _kind_of(path) or ""
        of_id, _, action = path.strip("/").removeprefix(kind).lstrip("/").partition("/")
        names = [name for name in (kind, of_id and "ID", action) if name]
        route = f"{request.method} /{'/'.join(names)}"
        try:
            reply = await self._replied(request, route, of_id)
            self._count(route)
            if (hold := self._held.get(route)) and hold.takes():
                await hold.released.wait()
            return await self._send(request, reply)
        except ConnectionError:
            # The client left while we wrote; if it were raised, aiohttp would log it as our fault.
            return await until_disconnected()

    async def _replied(self, request: web.BaseRequest, route: str, of_id: str) -> Any:
        """What the reply has: a value of JSON, a file, or what is wrong."""
        try:
            if not self._authorized(request):
                raise RefusedError(401, "wrong API key")
            if route not in self.routes:
                text = f"unknown URL {request.method} {request.path}"
                raise RefusedError(404, text, code="unknown_url")
            return await self.routes[route](request, of_id)
        except (RefusedError, LostError) as exc:
            return exc

    def _count(self, route: str) -> None:
        if route in self.routes:
            self.asked[route] += 1
            self._arrivals.wake()

    async def _send(self, request: web.BaseRequest, reply: Any) -> web.StreamResponse:
        if isinstance(reply, LostError):
            return await hang_up(request)
        if isinstance(reply, RefusedError):
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        if isinstance(reply, StoredFile):
            return await self._send_file(request, reply)
        return web.Response(body=json.dumps(reply).encode(), headers=_JSON)

    async def _send_file(self, request: web.BaseRequest, file: StoredFile) -> web.StreamResponse:
        headers = {
            "Content-Type": "application/octet-stream", "Content-Length": str(file.size),
            "Content-Disposition": f'attachment; filename="{file.id}"',
        }  # fmt: skip
        left = file.size // 2 if self.faults.take("cut_download") else file.size
        is_cut = left < file.size
        response = web.StreamResponse(headers=headers)
        with file.path.open("rb") as content:
            await response.prepare(request)
            while chunk := content.read(min(_CHUNK_BYTES, left)):
                left -= len(chunk)
                await response.write(chunk)
        if is_cut:
            await hang_up(request)
        await response.write_eof()
        return response

    async def _upload(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        if not request.content_type.startswith("multipart/"):
            raise RefusedError(400, "the body must be multipart/form-data")
        path = self._files.new_path()
        try:
            with path.open("wb") as file:
                name, fields = await _read_form(request, file)
            purpose = fields.get("purpose")
            if name is None or purpose is None:
                missing = "file" if name is None else "purpose"
                raise RefusedError(400, f"'{missing}' is a required property", missing)
        except BaseException:  # the client is gone, too
            path.unlink()
            raise
        kept = self._files.keep(path, name, purpose)
        if self.faults.take("lost_upload"):
            raise LostError
        return kept.to_json()

    async def _list_files(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        query = request.query
        purpose, order = query.get("purpose"), query.get("order", "desc")
        found = [one for one in self._files.all() if purpose in (None, one.purpose)]
        objects = [one.to_json() for one in (found if order == "asc" else reversed(found))]
        return page_of(objects, query, 10_000, 10_000)

    async def _show_file(self, _: web.BaseRequest, file_id: str) -> dict[str, Any]:
        return self._file(file_id).to_json()

    async def _content(self, _: web.BaseRequest, file_id: str) -> StoredFile:
        return self._file(file_id)

    async def _delete_file(self, _: web.BaseRequest, file_id: str) -> dict[str, Any]:
        self._files.delete(self._file(file_id).id)
        return {"id": file_id, "object": "file", "deleted": True}

    def _file(self, file_id: str) -> StoredFile:
        file = self._files.get(file_id)
        if file is None:
            raise RefusedError(404, f"No such File object: {file_id}", "id")
        return file

    async def _create(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        return self._make(read_wanted(await request.content.read())).to_json()

    def _make(self, wanted: Wanted) -> Batch:
        if self.faults.take("dropped_create"):
            raise LostError
        if refusal := self.faults.take("refuse_create"):
            raise RefusedError.by(refusal)
        tokens = self._batches.tokens_of(wanted.input_file_id) + self._batches.open_tokens()
        limit = self.faults.take("token_limit_429")
        if limit is not None and tokens > limit:
            raise RefusedError(429, _LIMIT_REACHED, code="token_limit_exceeded")
        made = self._batches.create(wanted, self.faults)
        if self.faults.take("lost_create"):
            raise LostError
        if lie := self.faults.take("false_create"):
            raise RefusedError.by(lie)
        return made

    async def _list_batches(self, request: web.BaseRequest, _: str) -> dict[str, Any]:
        if self.faults.take("no_list"):
            raise RefusedError(404, f"unknown URL GET {request.path}", code="unknown_url")
        objects = [batch.to_json() for batch in self._batches.newest_first()]
        return page_of(objects, request.query, 20, 100)

    async def _show_batch(self, _: web.BaseRequest, batch_id: str) -> dict[str, Any]:
        return self._batch(batch_id).to_json()

    async def _cancel(self, _: web.BaseRequest, batch_id: str) -> dict[str, Any]:
        batch = self._batch(batch_id)
        if batch.has_ended:
            raise RefusedError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        if batch.status != "cancelling":
            batch.cancel()
        return batch.to_json()

    def _batch(self, batch_id: str) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise RefusedError(404, f"No batch found with id '{batch_id}'.", "batch_id")
        return batch


def _kind_of(path: str) -> str | None:
    """What the path is about, if it is one of `_KINDS`."""
    return next((one for one in _KINDS if f"{path}/".startswith(f"/{one}/")), None)


async def _read_form(
    request: web.BaseRequest, file: IO[bytes]
) -> tuple[str | None, dict[str, str]]:
    """Writes the part `file`, piece by piece, and returns its name, and the other parts."""
    name: str | None = None
    fields: dict[str, str] = {}
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue  # a form within the form
            if part.name != "file":
                fields[part.name or ""] = (await part.read()).decode(errors="replace")
                continue
            name = part.filename or "file"
            while not part.at_eof():
                file.write(await part.read_chunk(_CHUNK_BYTES))
                if file.tell() > _MOST_BYTES:
                    raise RefusedError(413, f"a file may have {_MOST_BYTES} bytes", "file")
    except ValueError as exc:
        raise RefusedError(400, f"the form cannot be read: {exc}") from exc
    return name, fields
