"""A response of the Responses API out of its events. Pure.

The last event has all of it. Until then what its items say is put together, so that something is
kept of one that is cut off; and some servers leave the items out of the last event.
"""

from collections.abc import Mapping
from typing import Any

from batchgen.llm.streams.pieces import add_piece, plain

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


class StreamedResponse:
    """The response, as far as it has come."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._begun: dict[int, dict[str, Any]] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self.is_ended = False

    def add(self, kind: str, event: Mapping[str, Any]) -> bool:
        """Whether the event, of this type, brought something."""
        if isinstance(response := event.get("response"), dict):
            self._response = response
        self.is_ended = self.is_ended or kind in _LAST
        index = event.get("output_index")
        place = index if isinstance(index, int) else 0
        item = event.get("item")
        if isinstance(item, dict) and kind == "response.output_item.done":
            self._items[place] = item
            return True
        begun = item if kind == "response.output_item.added" else _piece_of_item(kind, event)
        if isinstance(begun, dict):
            add_piece(self._begun.setdefault(place, {}), begun)
        return bool(event.get("delta")) or self.is_ended

    def whole(self, error: Any) -> dict[str, Any]:
        """As it would have come without a stream; with an error it has failed."""
        response = dict(self._response)
        if not response.get("output"):
            output = sorted({**self._begun, **self._items}.items())
            response["output"] = [plain(item) for _, item in output]
        return {**response, "status": "failed", "error": error} if error else response


def _piece_of_item(kind: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an event brings of an item of the output: a piece of its text, its thoughts, or of the
    arguments of a call; None: nothing."""
    delta = event.get("delta")
    if not isinstance(delta, str):
        return None
    part = {"index": event.get("content_index")}
    match kind.removeprefix("response.").removesuffix(".delta"):
        case "output_text":
            return _of_message({**part, "type": "output_text", "text": delta})
        case "refusal":
            return _of_message({**part, "type": "refusal", "refusal": delta})
        case "reasoning_text":
            thought = {**part, "type": "reasoning_text", "text": delta}
            return {"type": "reasoning", "content": [thought]}
        case "reasoning_summary_text":
            part = {"index": event.get("summary_index")}
            return {
                "type": "reasoning",
                "summary": [{**part, "type": "summary_text", "text": delta}],
            }
        case "function_call_arguments":
            return {"type": "function_call", "arguments": delta}
        case "custom_tool_call_input":
            return {"type": "custom_tool_call", "input": delta}
    return None


def _of_message(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [part]}
