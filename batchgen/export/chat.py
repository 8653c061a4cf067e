"""Results as conversations, one a line: for fine-tuning, and as OpenAI's batch output.

The messages that were sent are rendered again, by the recipe that the item was enqueued with.
"""

from collections.abc import Mapping
from json import loads
from typing import Any, NoReturn

from batchgen.errors import Remedy, UsageError
from batchgen.export.extras import whole_body
from batchgen.export.request import Format
from batchgen.items import Recipe
from batchgen.json_text import dump_json
from batchgen.llm.responses import parts_beside_text
from batchgen.pool import read_item
from batchgen.prompts import Renderer
from batchgen.store import AnswerDetails, ResultRow

_Message = dict[str, Any]
_SPEAKERS = {"user": "human", "assistant": "gpt"}


class Chats:
    """Makes the lines of one format. `recipes` may grow while it is used."""

    def __init__(
        self, kind: Format, recipes: Mapping[int, Recipe], *, with_reasoning: bool
    ) -> None:
        self._kind, self._recipes, self._with_reasoning = kind, recipes, with_reasoning
        self._renderers: dict[int, Renderer] = {}

    def line(self, row: ResultRow, details: AnswerDetails) -> str:
        """The line of one result. Raises UsageError for a conversation that the format cannot
        hold."""
        if self._kind is Format.OPENAI_BATCH:
            return _batch_line(row, details)
        asked, answer = self._asked(row, details), loads(row.response)
        if self._kind is Format.MESSAGES:
            reply = _assistant(answer, details)
            if self._with_reasoning:
                parts = parts_beside_text(details.body)
                if "reasoning" in parts:
                    reply["reasoning_content"] = loads(parts["reasoning"])
            chat: dict[str, Any] = {"messages": [*asked, reply]}
            if row.metadata and row.metadata != "null":
                chat["metadata"] = loads(row.metadata)
        else:
            chat = _text_chat(self._kind, asked, answer, row.id)
        return f"{dump_json(chat)}\n"

    def _asked(self, row: ResultRow, details: AnswerDetails) -> list[_Message]:
        renderer = self._renderers.get(details.recipe_id)
        if renderer is None:
            renderer = Renderer(self._recipes[details.recipe_id])
            self._renderers[details.recipe_id] = renderer
        return renderer.messages(read_item(loads(row.input), f"item {row.id}"))


def _assistant(answer: str, details: AnswerDetails) -> _Message:
    """The answer as a message, with its tool calls when it has no text."""
    message: _Message = {"role": "assistant", "content": answer}
    if not answer and details.body:
        sent = loads(details.body)["choices"][0]["message"]
        calls = {name: sent[name] for name in ("tool_calls", "function_call") if sent.get(name)}
        if calls:
            message |= {"content": None, **calls}
    return message


def _text_chat(kind: Format, asked: list[_Message], answer: str, item_id: int) -> dict[str, Any]:
    """A conversation in the format of Alpaca or ShareGPT, which hold only text."""
    system, turns = _text_turns(kind, asked, item_id)
    if not answer:
        _refuse(kind, item_id, "an answer without text")
    with_system = {"system": system} if system else {}
    if kind is Format.SHAREGPT:
        spoken = [{"from": _SPEAKERS[role], "value": text} for role, text in turns]
        return {"conversations": [*spoken, {"from": "gpt", "value": answer}], **with_system}
    if [role for role, _ in turns] != ["user"]:
        _refuse(kind, item_id, "a conversation of several turns")
    return {"instruction": turns[0][1], "input": "", "output": answer, **with_system}


def _text_turns(
    kind: Format, asked: list[_Message], item_id: int
) -> tuple[str, list[tuple[str, str]]]:
    """The system text, and who says what after it."""
    system, turns = "", []
    for number, message in enumerate(asked):
        role, text = message["role"], _text_of(message.get("content"))
        if text is None:
            _refuse(kind, item_id, "content that is not text")
        if role in ("system", "developer") and number == 0:
            system = text
        elif role in _SPEAKERS:
            turns.append((role, text))
        else:
            _refuse(kind, item_id, f"a message of role {role} at this place")
    return system, turns


def _text_of(content: Any) -> str | None:
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


def _refuse(kind: Format, item_id: int, what: str) -> NoReturn:
    raise UsageError(f"item {item_id}: {kind} has no place for {what}.", Remedy.LEAVE_OUT_ITEM)


def _batch_line(row: ResultRow, details: AnswerDetails) -> str:
    """A line of OpenAI's batch output; that of a failed item has its error, and what the server
    sent, if anything."""
    error = None if row.reason is None else {"code": row.reason, "message": row.error}
    custom_id = row.custom_id or str(row.id)
    if row.custom_id and row.sample and row.sample > 1:
        custom_id += f"#{row.sample}"  # a batch has each id once
    return (
        f'{{"id": "batch_req_{row.id}", "custom_id": {dump_json(custom_id)}, '
        f'"response": {_batch_response(row, details)}, "error": {dump_json(error)}}}\n'
    )


def _batch_response(row: ResultRow, details: AnswerDetails) -> str:
    body = whole_body(row, details)
    if details.http_status is None or body is None:
        return "null"
    return (
        f'{{"status_code": {details.http_status}, "request_id": {dump_json(details.request_id)}, '
        f'"body": {body}}}'
    )
