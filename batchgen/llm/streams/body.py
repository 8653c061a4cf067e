"""Puts the events of a stream together to the body that the same request would have brought without
one. Which endpoint streams is told by the events. Pure.

Chat completions and completions come as chunks: each has pieces of choices, and what else it says
counts until another one says it anew. The usage comes with the last choices, after them with none,
or with every chunk. Those of the Responses API are in `response`.
"""

from typing import Any

import msgspec

from batchgen.llm.streams.events import Event
from batchgen.llm.streams.pieces import add_piece, plain
from batchgen.llm.streams.response import StreamedResponse
from batchgen.text.foreign_json import dump_whole, load_json

_OF_MESSAGE = ("delta", "message", "index")
_CHUNK = "chat.completion.chunk"
_TOO_DEEP = "nested too deep"


class StreamedBody:
    """The body of one streamed answer, as far as it has come."""

    def __init__(self) -> None:
        self._body: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._response: StreamedResponse | None = None
        self._error: Any = None
        self._unread = ""  # the last event that is no JSON
        self._done = False
        self._is_too_deep = False
        self.held_chars = 0
        """About how much is kept."""

    @property
    def is_closed(self) -> bool:
        """The server has said that nothing follows: [DONE], or an error."""
        ended = self._response is not None and self._response.is_ended
        return self._done or ended or self._error is not None

    @property
    def is_whole(self) -> bool:
        """Nothing of the answer is missing. Some servers send no [DONE] after the last choice, and
        some no finish_reason."""
        finished = self._choices and all(one.is_finished for one in self._choices.values())
        return bool(self.is_closed or finished)

    def add(self, event: Event) -> bool:
        """Whether it brought anything: a text, an end, the usage. Without an answer a server may
        send empty chunks for as long as it likes."""
        try:
            return self._add(event)
        except RecursionError:
            self._is_too_deep = True
            return True

    def to_json(self) -> str:
        """As the server would have sent it; "" if it has said nothing."""
        if self._is_too_deep:
            return _TOO_DEEP
        try:
            body = self._whole()
            return self._unread if body is None else dump_whole(body)
        except RecursionError:
            return _TOO_DEEP

    def _add(self, event: Event) -> bool:
        if event.data.strip() == "[DONE]":
            self._done = True
            return True
        value = _load(event.data)
        if not isinstance(value, dict):
            return self._add_unread(event)
        kind = value.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            self._response = self._response or StreamedResponse()
            self.held_chars += len(event.data)
            return self._response.add(kind, value)
        is_error = event.name == "error" or kind == "error" or value.get("object") == "error"
        error = value.get("error") or (is_error and "choices" not in value and value)
        if error:
            self._error = error
            self.held_chars += len(event.data)
        new = self._add_chunk(value)
        self.held_chars += new
        return new > 0 or bool(error)

    def _whole(self) -> dict[str, Any] | None:
        """None: nothing has come that is one. An error in mid-stream stands where it stands in a
        whole answer: in the choice that it cut off or, without one, alone."""
        if self._response is not None:
            return self._response.whole(self._error)
        if self._choices or self._body or self._error:
            return self._whole_chunks()
        return None

    def _add_unread(self, event: Event) -> bool:
        """What is no object: for each line, if the server has forgotten the empty lines between its
        events; an error in words; or nothing that says anything."""
        lines = event.data.split("\n")
        if len(lines) > 1:
            return sum(self.add(Event(event.name, line)) for line in lines) > 0
        if event.name == "error":
            self._error = event.data
        self._unread = event.data
        return event.name == "error"

    def _add_chunk(self, chunk: dict[str, Any]) -> int:
        new = 0
        for name, value in chunk.items():
            if name == "choices" and isinstance(value, list):
                for piece in value:
                    new += self._add_choice(piece)
            elif name == "usage":
                if value and value != self._body.get("usage"):
                    new += 1
                self._body["usage"] = value or self._body.get("usage")
            elif name != "error" and (value or name not in self._body):
                self._body[name] = value
        return new

    def _add_choice(self, piece: Any) -> int:
        if not isinstance(piece, dict):
            return 0
        index = piece.get("index")
        index = index if isinstance(index, int) else 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        return choice.add(piece)

    def _whole_chunks(self) -> dict[str, Any]:
        body = dict(self._body)
        if body.get("object") == _CHUNK:
            body["object"] = _CHUNK.removesuffix(".chunk")
        choices = [self._choices[i].whole(i) for i in sorted(self._choices)]
        if choices:
            body["choices"] = choices
            body["usage"] = body.get("usage") or _usage_elsewhere(body, choices)
        if self._error and choices:
            choices[0]["error"] = self._error
        elif self._error:
            body["error"] = self._error
        return body


class _Choice:
    """A choice, as far as it has come."""

    __slots__ = ("_calls", "_message", "_rest")

    def __init__(self) -> None:
        self._rest: dict[str, Any] = {}
        self._message: dict[str, Any] | None = None
        self._calls = _ToolCalls()

    @property
    def is_finished(self) -> bool:
        return bool(self._rest.get("finish_reason"))

    def add(self, piece: dict[str, Any]) -> int:
        new = 0
        for name, value in piece.items():
            if value is None:
                self._rest.setdefault(name, None)
            elif name in ("text", "logprobs") or type(value) is list:  # `text`: of a completion
                new += add_piece(self._rest, {name: value})
            elif name not in _OF_MESSAGE and (value or name not in self._rest):
                new += name == "finish_reason"
                self._rest[name] = value
        delta = piece.get("delta")
        if delta is None:  # a server that sends its whole answer as one event
            delta = piece.get("message")
        return new + self._add_delta(delta) if isinstance(delta, dict) else new

    def whole(self, index: int) -> dict[str, Any]:
        choice = {**plain(self._rest), "index": index}
        if self._message is not None:
            choice["message"] = {"role": "assistant", "content": None, **plain(self._message)}
            if calls := self._calls.whole():
                choice["message"]["tool_calls"] = calls
        return choice

    def _add_delta(self, delta: dict[str, Any]) -> int:
        if self._message is None:
            self._message = {}
        calls = delta.get("tool_calls")
        if calls is None:
            return add_piece(self._message, delta)
        rest = {name: value for name, value in delta.items() if name != "tool_calls"}
        return add_piece(self._message, rest) + self._calls.add(calls)


class _ToolCalls:
    """The calls of tools in a message. Their pieces go by `index`; Gemini gives each whole call the
    same one, and some servers give none."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._by_index: dict[int | None, dict[str, Any]] = {}

    def add(self, pieces: Any) -> int:
        pieces = pieces if isinstance(pieces, list) else []
        return sum(self._add(piece) for piece in pieces if isinstance(piece, dict))

    def whole(self) -> list[dict[str, Any]]:
        return [plain(call) for call in self._calls]

    def _add(self, piece: dict[str, Any]) -> int:
        given = piece.get("index")
        index = given if isinstance(given, int) else None
        call = self._by_index.get(index)
        if call is None or _begins_another(piece, call):
            call = self._by_index[index] = {}
            self._calls.append(call)
        rest = {name: value for name, value in piece.items() if name != "index"}
        return add_piece(call, rest) + 1


def _begins_another(piece: dict[str, Any], call: dict[str, Any]) -> bool:
    """Whether a piece with the same index is of another call: by its id, and by its name, as a
    server may give each piece of a call a new id."""
    function = piece.get("function")
    is_named = isinstance(function, dict) and function.get("name")
    return bool(is_named and piece.get("id") and piece["id"] != call.get("id"))


def _load(data: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):  # it may be JSON all the same: NaN, half a character
        return load_json(data)


def _usage_elsewhere(body: dict[str, Any], choices: list[dict[str, Any]]) -> Any:
    """Where a server that is not asked for it says what it used (Moonshot, Groq)."""
    groq = body.get("x_groq")
    return choices[0].get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
