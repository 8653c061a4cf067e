"""Results as conversations, one a line: for fine-tuning, and as OpenAI's batch output."""

from json import loads
from typing import Any, NoReturn

from batchgen.endpoints import parts_beside_text
from batchgen.errors import Remedy, UsageError
from batchgen.export.reviewed import answer_of, is_edited
from batchgen.export.writer import Content, Extra
from batchgen.store import AnswerDetails, ResultRow
from batchgen.text.json_text import dump_json

_Message = dict[str, Any]
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def messages_line(row: ResultRow, content: Content) -> str:
    """The messages that were sent, and the answer as the last one."""
    details = content.details[row.id]
    reply = _assistant(_answer("messages", row), details)
    if Extra.REASONING in content.extras:
        parts = parts_beside_text(details.body)
        if "reasoning" in parts:
            reply["reasoning_content"] = loads(parts["reasoning"])
    chat: dict[str, Any] = {"messages": [*_messages("messages", row, content), reply]}
    if row.metadata and row.metadata != "null":
        chat["metadata"] = loads(row.metadata)
    return _line(chat)


def alpaca_line(row: ResultRow, content: Content) -> str:
    """Raises UsageError for a conversation that has more than one question, or not only text."""
    system, turns, answer = _texts("alpaca", row, content)
    if [role for role, _ in turns] != ["user"]:
        _refuse("alpaca", row, "a conversation of several turns")
    return _line({"instruction": turns[0][1], "input": "", "output": answer, **system})


def sharegpt_line(row: ResultRow, content: Content) -> str:
    """Raises UsageError for a conversation that has not only text."""
    system, turns, answer = _texts("sharegpt", row, content)
    spoken = [{"from": _SPEAKERS[role], "value": text} for role, text in turns]
    return _line({"conversations": [*spoken, {"from": "gpt", "value": answer}], **system})


def batch_line(row: ResultRow, content: Content) -> str:
    """A line of OpenAI's batch output: what the server sent or, where nothing came back, an
    error."""
    response = _batch_response(row, content)
    error = None if response else {"code": row.reason or "unknown", "message": row.error or ""}
    custom_id = row.custom_id or str(row.id)
    if row.custom_id and row.sample and row.sample > 1:
        custom_id += f"#{row.sample}"  # a batch has each id once
    return (
        f'{{"id": "batch_req_{row.id}", "custom_id": {dump_json(custom_id)}, '
        f'"response": {response or "null"}, "error": {dump_json(error)}}}\n'
    )


def _batch_response(row: ResultRow, content: Content) -> str | None:
    """None: there is none."""
    details = content.details[row.id]
    body = content.body_of(row, _answer("openai-batch", row) if is_edited(row) else None)
    if details.http_status is None or body is None:
        return None
    if not isinstance(sent := loads(body), dict):  # a proxy's page: readers want an object
        message = sent if isinstance(sent, str) else body
        sent = {"error": {"message": message, "type": row.reason, "param": None, "code": None}}
        body = dump_json(sent)
    own_id = sent.get("id")
    request_id = details.request_id or (own_id if isinstance(own_id, str) else None)
    request_id = request_id or f"batch_req_{row.id}"
    return (
        f'{{"status_code": {details.http_status}, "request_id": {dump_json(request_id)}, '
        f'"body": {body}}}'
    )


def _answer(format_name: str, row: ResultRow) -> str:
    """The answer, with an edit in it."""
    answer = answer_of(row)
    if answer is None:
        _refuse(
            format_name,
            row,
            "an edited value, as its answer is more than that value",
            Remedy.LEAVE_OUT_ITEM,
        )
    return answer


def _assistant(answer: str, details: AnswerDetails) -> _Message:
    """The answer as a message, with its tool calls when it has no text."""
    message: _Message = {"role": "assistant", "content": answer}
    if not answer and details.body:
        calls = parts_beside_text(details.body).get("tool_calls")
        if calls:
            message |= {"content": None, "tool_calls": loads(calls)}
    return message


def _messages(format_name: str, row: ResultRow, content: Content) -> list[_Message]:
    """The conversation so far."""
    if not content.endpoint_of(row).has_text:
        _refuse(format_name, row, "an embedding", Remedy.LEAVE_OUT_ITEM)
    messages = content.messages_of(row)
    if messages is None:
        _refuse(format_name, row, "a request line without messages", Remedy.LEAVE_OUT_ITEM)
    return messages


def _texts(
    format_name: str, row: ResultRow, content: Content
) -> tuple[dict[str, str], list[tuple[str, str]], str]:
    """The system text by its key, if there is one; who says what after it; and the answer."""
    system, turns, answer = "", [], _answer(format_name, row)
    for number, message in enumerate(_messages(format_name, row, content)):
        role, text = message["role"], _text_of(message.get("content"))
        if text is None:
            _refuse(format_name, row, "content that is not text")
        if role in ("system", "developer") and number == 0:
            system = text
        elif role in _SPEAKERS:
            turns.append((role, text))
        else:
            _refuse(format_name, row, f"a message of role {role} at this place")
    if not answer:
        _refuse(format_name, row, "an answer without text")
    return {"system": system} if system else {}, turns, answer


def _text_of(content: Any) -> str | None:
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None


def _refuse(
    format_name: str, row: ResultRow, what: str, remedy: Remedy = Remedy.CHOOSE_MESSAGES
) -> NoReturn:
    raise UsageError(f"item {row.id}: {format_name} has no place for {what}.", remedy)


def _line(chat: _Message) -> str:
    return f"{dump_json(chat)}\n"
