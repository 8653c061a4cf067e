"""One item with all that was sent and came back."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict

from batchgen.clock import timestamp
from batchgen.endpoints import Endpoint
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import ReadStore, StoredAttempt, StoredItem


class ShownPrompt(NamedTuple):
    """The members of a request that hold its prompt; `conversation` is the one that may be a list
    of messages."""

    members: dict[str, Any]
    conversation: str | None

    @classmethod
    def of(cls, endpoint: Endpoint, request: Mapping[str, Any]) -> "ShownPrompt":
        names = [name for name in endpoint.prompt_members if name in request]
        return cls({name: request[name] for name in names}, endpoint.conversation)

    def to_json(self, messages: str, members: str) -> dict[str, Any]:
        """By the first name the messages of a chat completion, by the other what there is else."""
        if self.conversation == "messages":
            return {messages: self.members["messages"]}
        return {members: self.members}


class ItemDetails(Struct, frozen=True):
    """`request` is what its recipe makes of it, as it is sent to `endpoint`; `attempts` are in the
    order in which they ended, each with its raw answer or error."""

    item: StoredItem
    endpoint: Endpoint
    request: dict[str, Any]
    attempts: tuple[StoredAttempt, ...]

    @property
    def id(self) -> str | int:
        """The user's id or, without one, the item's number."""
        return self.item.custom_id or self.item.id

    @property
    def prompt(self) -> ShownPrompt:
        return ShownPrompt.of(self.endpoint, self.request)

    @property
    def settings(self) -> dict[str, Any]:
        """The model and the parameters: the rest of the request."""
        members = self.prompt.members
        return {name: value for name, value in self.request.items() if name not in members}

    @property
    def input(self) -> Any:
        """As it was given."""
        return json.loads(self.item.input)

    @property
    def parsed(self) -> Any:
        """What the parser made of the answer; None of an item that is not done."""
        if self.item.state != "done":
            return None
        return self.item.response if self.item.parsed is None else json.loads(self.item.parsed)

    def to_json(self) -> dict[str, Any]:
        """The object of `show --json`."""
        item = self.item
        return {
            "id": self.id,
            "number": item.id,
            **({} if item.sample is None else {"sample": item.sample}),
            "experiment": item.experiment,
            "state": item.state,
            "reason": item.reason,
            "error": item.error,
            "input": self.input,
            "endpoint": self.endpoint.name,
            **self.prompt.to_json("messages", "prompt"),
            "settings": self.settings,
            "parsed": self.parsed,
            "parser": item.parser,
            "finished_at": None if item.finished_at is None else timestamp(item.finished_at),
            "attempts": [
                {**asdict(call), "finished_at": timestamp(call.finished_at)}
                for call in self.attempts
            ],
        }


async def item_details(store: ReadStore, number: int) -> ItemDetails | None:
    """None: there is no item of this number."""
    item = await store.item(number)
    if item is None:
        return None
    attempts = await store.attempts_of(number)
    renderer = Renderer(await store.recipe(item.recipe_id))
    given = read_item(json.loads(item.input), f"item {number}")
    endpoint, request = renderer.endpoint_of(given), renderer.request_body(given, item.sample)
    return ItemDetails(item, endpoint, request, tuple(attempts))
