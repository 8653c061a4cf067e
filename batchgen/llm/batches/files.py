"""Files at a provider, as all of them have them: sent up, read down line by line, and deleted."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import BinaryIO
from urllib.parse import quote

from msgspec.structs import replace

from batchgen.items import Failure, Reason
from batchgen.llm.batches.lines import LineReader, LineSplitter
from batchgen.llm.batches.protocol import BatchLine, BatchServerError, Seen
from batchgen.llm.batches.replies import failure_of, is_success, json_of
from batchgen.llm.batches.transport import Transport

_NO_FILES = "the server has no place for the files of provider batches. Check model.base_url."


def quoted(one_id: str) -> str:
    """An id as a part of a path, whatever a provider has put into it."""
    return quote(one_id, safe="")


class Files:
    """`/files` of a provider."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reader = LineReader(transport.secrets)

    async def upload(self, file: BinaryIO, size: int, name: str) -> str:
        """As `BatchServer.upload`."""
        reply = await self._transport.upload("/files", {"purpose": "batch"}, file, size, name)
        if reply.status in (404, 405, 501):
            raise BatchServerError(replace(failure_of(reply), halt=_NO_FILES))
        body = json_of(reply)
        file_id = body.get("id") if isinstance(body, dict) else None
        if not (isinstance(file_id, str) and file_id):
            raise BatchServerError(failure_of(reply))
        return file_id

    async def lines(self, seen: Seen) -> AsyncGenerator[BatchLine, None]:
        """As `BatchServer.lines`."""
        for file_id in filter(None, dict.fromkeys((seen.output_file, seen.error_file))):
            is_unproven = file_id == seen.output_file
            async with aclosing(self._lines(file_id)) as lines:
                async for line in lines:
                    if not line or line.isspace():
                        continue
                    found = self._reader.read(line)
                    if is_unproven:
                        _check_is_answer(found)
                        is_unproven = False
                    yield found

    async def custom_ids(self, input_file: str, lines: Collection[int]) -> dict[int, str]:
        """As `BatchServer.custom_ids`."""
        found: dict[int, str] = {}
        number = 0
        async with aclosing(self._lines(input_file)) as all_lines:
            async for line in all_lines:
                number += 1
                custom_id = self._reader.read(line).custom_id if number in lines else None
                if custom_id is not None:
                    found[number] = custom_id
        return found

    async def forget(self, file_ids: Sequence[str]) -> bool:
        """As `BatchServer.forget`."""
        are_gone = True
        for file_id in filter(None, dict.fromkeys(file_ids)):
            reply = await self._transport.call("DELETE", f"/files/{quoted(file_id)}")
            are_gone &= reply.status == 404 or (reply.fault is None and is_success(reply.status))
        return are_gone

    async def _lines(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Each line of the file; one may be empty."""
        splitter = LineSplitter()
        async with aclosing(self._pieces(file_id)) as pieces:
            async for piece in pieces:
                for line in splitter.feed(piece):
                    yield line

    async def _pieces(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Of the file, with an end for its last line."""

        async def whole_size() -> int | None:
            reply = await self._transport.call("GET", f"/files/{quoted(file_id)}")
            told = json_of(reply)
            return told.get("bytes") if isinstance(told, dict) else None

        path = f"/files/{quoted(file_id)}/content"
        async with aclosing(self._transport.download(path, whole_size)) as pieces:
            async for piece in pieces:
                yield piece
        yield b"\n"


def _check_is_answer(line: BatchLine) -> None:
    """Raises BatchServerError where not even the first line of a file of answers is one: it is
    something else, as an error with status 200. To take it for a file in which nothing was answered
    would be to ask, and pay, again."""
    if line.custom_id is None:
        said = f"not a file of answers: {line.error_message}"
        raise BatchServerError(Failure(Reason.BAD_RESPONSE, said))
