"""What is the same at all providers that take requests in files and list their batches."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

from batchgen.endpoints import Endpoint
from batchgen.llm.batches.files import Files, quoted
from batchgen.llm.batches.listing import Page, Place, batches_since
from batchgen.llm.batches.members import text_in
from batchgen.llm.batches.protocol import BatchLine, BatchServerError, Refused, Seen, Unclear
from batchgen.llm.batches.replies import failure_of, is_success, json_of, made_of
from batchgen.llm.batches.transport import Transport
from batchgen.text.json_text import sent_json

PAGE_SIZE = 100
# For some readers these end a line. In JSON they can be in texts alone, where escapes are the same.
_LINE_ENDS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029", "\x85": b"\\u0085"}
_NOT_THERE = (404, 405, 501)


class Request(NamedTuple):
    """A line of an input file; `path` is the endpoint's, as `/v1/...`."""

    custom_id: str
    path: str
    body: Mapping[str, Any]


class Order(NamedTuple):
    """What is asked for with a batch."""

    input_file: str
    path: str
    model: str
    window: str
    token: str


class FileBatches(ABC):
    """A `BatchServer`, but for the words of a provider, which a subclass has."""

    most_requests: int
    most_bytes: int
    path: ClassVar[str]
    """Where the batches are, after the base URL."""
    stopping: ClassVar[frozenset[str]]
    """The statuses of a batch for which cancelling was asked."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._files = Files(transport)

    @abstractmethod
    def request_body(self, request: Request) -> Mapping[str, Any]:
        """What stands in a line of an input file."""

    @abstractmethod
    def order_body(self, order: Order) -> Mapping[str, Any]:
        """What is sent to make a batch."""

    @abstractmethod
    def seen_in(self, body: Any) -> Seen | None:
        """The batch that a JSON value is; None: it is none."""

    @abstractmethod
    def page_query(self, place: Place) -> Mapping[str, str]:
        """What asks for the page of the list that begins there."""

    @abstractmethod
    def count_or_more(self, body: Mapping[str, Any]) -> int | bool | None:
        """What a page says of all: how many there are, or whether others follow it."""

    def line(self, custom_id: str, body: Mapping[str, Any], endpoint: Endpoint) -> bytes:
        line = sent_json(self.request_body(Request(custom_id, _path_of(endpoint), body)))
        for end, escape in _LINE_ENDS.items():
            line = line.replace(end.encode(), escape)
        return line + b"\n"

    async def upload(self, file: BinaryIO, size: int, name: str) -> str:
        return await self._files.upload(file, size, name)

    async def create(
        self, input_file: str, *, endpoint: Endpoint, model: str, window: str, token: str
    ) -> Seen | Refused | Unclear:
        order = Order(input_file, _path_of(endpoint), model, window, token)
        reply = await self._transport.call("POST", self.path, body=self.order_body(order))
        return made_of(reply, self.seen_in)

    async def recent(self, since_ms: int) -> list[Seen] | None:
        try:
            return await batches_since(since_ms, self._page_at)
        except _NoListError:
            return None

    async def get(self, batch_id: str) -> Seen | None:
        reply = await self._transport.call("GET", f"{self.path}/{quoted(batch_id)}")
        if reply.fault is None and reply.status == 404:
            return None
        seen = self.seen_in(json_of(reply))
        if seen is None:
            raise BatchServerError(failure_of(reply))
        return seen

    def lines(self, seen: Seen) -> AsyncGenerator[BatchLine, None]:
        return self._files.lines(seen)

    async def custom_ids(self, input_file: str, lines: Collection[int]) -> dict[int, str]:
        return await self._files.custom_ids(input_file, lines)

    async def cancel(self, batch_id: str) -> None:
        reply = await self._transport.call("POST", f"{self.path}/{quoted(batch_id)}/cancel")
        if reply.fault is None and is_success(reply.status):
            return
        seen = await self.get(batch_id) if reply.fault is None else None
        if seen is None or not (seen.standing.is_over or seen.status in self.stopping):
            raise BatchServerError(failure_of(reply))

    async def forget(self, file_ids: Sequence[str]) -> bool:
        return await self._files.forget(file_ids)

    async def _page_at(self, place: Place) -> Page:
        reply = await self._transport.call("GET", self.path, query=self.page_query(place))
        if reply.fault is None and reply.status in _NOT_THERE:
            raise _NoListError
        body = json_of(reply)
        if isinstance(body, list):  # a list that has no pages
            return Page(self._batches_in(body), has_more=False)
        if not isinstance(body, dict) or "data" not in body:
            raise BatchServerError(failure_of(reply))
        batches = self._batches_in(body["data"])
        told, so_far = self.count_or_more(body), place.batches + len(batches)
        if isinstance(told, bool):
            return Page(batches, told, text_in(body, "last_id"))
        return Page(batches, so_far % PAGE_SIZE == 0 if told is None else so_far < told)

    def _batches_in(self, found: Any) -> list[Seen]:
        found = found if isinstance(found, list) else []
        return [seen for one in found if (seen := self.seen_in(one))]


class _NoListError(Exception):
    """The provider has no list of batches."""


def _path_of(endpoint: Endpoint) -> str:
    """As batches name it, whatever the base URL ends in."""
    return f"/v1{endpoint.path}"
