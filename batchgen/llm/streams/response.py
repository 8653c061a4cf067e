"""A response of the Responses API out of its events. Pure.

The last event has all of it. Until then what its items say is put together, so that something is
kept of one that is cut off; and some servers leave the items out of the last event.
"""

from collections.abc import Mapping
from typing import Any

from batchgen.llm.streams.pieces import Text, plain

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


class StreamedResponse:
    """The response, as far as it has come."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, Text] = {}
        self.is_ended = False

    def add(self, kind: str, event: Mapping[str, Any]) -> bool:
        """Whether the event, of this type, brought something."""
        if isinstance(response := event.get("response"), dict):
            self._response = response
        self.is_ended = self.is_ended or kind in _LAST
        index = event.get("output_index")
        place = index if isinstance(index, int) else 0
        if isinstance(item := event.get("item"), dict) and kind == "response.output_item.done":
            self._items[place] = item
            return True
        delta = event.get("delta")
        if isinstance(delta, str) and kind == "response.output_text.delta":
            self._texts.setdefault(place, Text()).append(delta)
        return bool(delta) or self.is_ended

    def whole(self, error: Any) -> dict[str, Any]:
        """As it would have come without a stream; with an error it has failed."""
        response = dict(self._response)
        if not response.get("output"):
            response["output"] = self._output()
        return {**response, "status": "failed", "error": error} if error else response

    def _output(self) -> list[dict[str, Any]]:
        begun = {place: _message(plain(text)) for place, text in self._texts.items()}
        return [item for _, item in sorted({**begun, **self._items}.items())]


def _message(text: str) -> dict[str, Any]:
    """One that has not ended."""
    content = [{"type": "output_text", "text": text}]
    return {
        "type": "message", "role": "assistant", "status": "in_progress", "content": content,
    }  # fmt: skip
