"""The HTTP side of files and batches, as OpenAI has it: /files and /batches."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from aiohttp import BodyPartReader, web

from batchgen.endpoints import ENDPOINTS
from batchgen.simulate.batch_runs import Batches
from batchgen.simulate.behaviours import error_object
from batchgen.simulate.files import Files, StoredFile

_JSON = {"Content-Type": "application/json"}
_CHUNK_BYTES = 256 * 1024
_MOST_BYTES = 512 * 1024 * 1024
_ENDPOINTS = [f"/v1{one.path}" for one in ENDPOINTS.values()]
_WINDOW = re.compile(r"([1-9]\d{0,3})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class RefusedError(Exception):
    """A request that gets an error of OpenAI's."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_object(status, message, code, param)


class BatchRequests:
    """Answers what is sent to /files and /batches, if it is `authorized`."""

    def __init__(
        self, files: Files, batches: Batches, authorized: Callable[[web.BaseRequest], bool]
    ) -> None:
        self._authorized = authorized
        self._files = files
        self._batches = batches

    @staticmethod
    def takes(path: str) -> bool:
        return path.split("/")[1:2] in (["files"], ["batches"])

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """`path` is what follows where the API is."""
        try:
            return await self._handle(request, path)
        except RefusedError as exc:
            return web.Response(status=exc.status, body=exc.body, headers=_JSON)

    async def _handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if not self._authorized(request):
            raise RefusedError(401, "wrong API key")
        match request.method, *path.strip("/").split("/"):
            case "POST", "files":
                return _json(await self._upload(request))
            case "GET", "files":
                return _json(self._list_files(request.query))
            case "GET", "files", file_id:
                return _json(self._file(file_id).to_json())
            case "GET", "files", file_id, "content":
                return await self._content(request, self._file(file_id))
            case "DELETE", "files", file_id:
                self._files.delete(self._file(file_id).id)
                return _json({"id": file_id, "object": "file", "deleted": True})
            case "POST", "batches":
                return _json(self._create(await request.content.read()))
            case "GET", "batches":
                return _json(self._list_batches(request.query))
            case "GET", "batches", batch_id:
                return _json(self._batch(batch_id).to_json())
            case "POST", "batches", batch_id, "cancel":
                return _json(self._cancel(batch_id))
        raise RefusedError(404, f"unknown URL {request.method} {request.path}", code="unknown_url")

    async def _upload(self, request: web.BaseRequest) -> dict[str, Any]:
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
            return self._files.keep(path, name, purpose).to_json()
        except BaseException:  # the client is gone, too
            Path.unlink(path, missing_ok=True)
            raise

    def _list_files(self, query: Mapping[str, str]) -> dict[str, Any]:
        purpose, order = query.get("purpose"), query.get("order", "desc")
        found = [one for one in self._files.all() if purpose in (None, one.purpose)]
        objects = [one.to_json() for one in (found if order == "asc" else reversed(found))]
        return _page(objects, query, 10_000, 10_000)

    def _file(self, file_id: str) -> StoredFile:
        file = self._files.get(file_id)
        if file is None:
            raise RefusedError(404, f"No such File object: {file_id}", "id")
        return file

    async def _content(self, request: web.BaseRequest, file: StoredFile) -> web.StreamResponse:
        headers = {
            "Content-Type": "application/octet-stream", "Content-Length": str(file.size),
            "Content-Disposition": f'attachment; filename="{file.id}"',
        }  # fmt: skip
        response = web.StreamResponse(headers=headers)
        with file.path.open("rb") as content:
            await response.prepare(request)
            while chunk := content.read(_CHUNK_BYTES):
                await response.write(chunk)
        await response.write_eof()
        return response

    def _create(self, raw: bytes) -> dict[str, Any]:
        body = _object(raw)
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                text = f"Missing required parameter: '{name}'."
                raise RefusedError(400, text, name, "missing_required_parameter")
        endpoint, window = body["endpoint"], body["completion_window"]
        if endpoint not in _ENDPOINTS:
            text = f"Invalid value: {endpoint!r}. Supported values are: {', '.join(_ENDPOINTS)}."
            raise RefusedError(400, text, "endpoint", "invalid_value")
        found = _WINDOW.fullmatch(window)
        if found is None:
            text = f"Invalid value: {window!r}. A supported value is '24h'."
            raise RefusedError(400, text, "completion_window", "invalid_value")
        metadata = _metadata(body.get("metadata"))
        window_s = int(found[1]) * _SECONDS[found[2]]
        file_id = body["input_file_id"]
        return self._batches.create(file_id, endpoint, window, window_s, metadata).to_json()

    def _list_batches(self, query: Mapping[str, str]) -> dict[str, Any]:
        objects = [batch.to_json() for batch in self._batches.newest_first()]
        return _page(objects, query, 20, 100)

    def _batch(self, batch_id: str) -> Any:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise RefusedError(404, f"No batch found with id '{batch_id}'.", "batch_id")
        return batch

    def _cancel(self, batch_id: str) -> dict[str, Any]:
        batch = self._batch(batch_id)
        if batch.has_ended:
            text = f"Cannot cancel a batch with status '{batch.status}'."
            raise RefusedError(409, text)
        if batch.status != "cancelling":
            batch.cancel()
        body: dict[str, Any] = batch.to_json()
        return body


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


def _page(
    objects: Sequence[dict[str, Any]], query: Mapping[str, str], default: int, most: int
) -> dict[str, Any]:
    """A list of those after the one that the query names."""
    limit = query.get("limit", str(default))
    if not limit.isdecimal() or not 1 <= int(limit) <= most:
        raise RefusedError(400, f"limit must be from 1 to {most}", "limit", "invalid_value")
    begin = 0
    if after := query.get("after"):
        begin = next((at + 1 for at, one in enumerate(objects) if one["id"] == after), -1)
        if begin < 0:
            raise RefusedError(400, f"there is no {after!r}", "after", "invalid_value")
    page = objects[begin : begin + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin + len(page) < len(objects),
    }


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return value


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    is_one = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    if not is_one:
        raise RefusedError(400, "metadata must be an object of texts", "metadata", "invalid_type")
    if len(value) > _MOST_PAIRS:
        raise RefusedError(400, f"metadata may have {_MOST_PAIRS} pairs", "metadata")
    for key, text in value.items():
        if len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE:
            raise RefusedError(
                400, f"metadata may have keys of {_LONGEST_KEY} characters and values of "
                f"{_LONGEST_VALUE}", "metadata", "string_above_max_length",
            )  # fmt: skip
    return {**value}


def _json(value: object) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), headers=_JSON)
