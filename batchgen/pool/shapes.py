"""The shapes that an item may have, and what is wrong with an item that has none of them. Pure."""

import json
import reprlib
from collections.abc import Generator
from typing import Any

from msgspec import Struct

from batchgen.endpoints import (
    CHAT,
    COMPLETIONS,
    ENDPOINTS,
    LIMITS,
    Endpoint,
    endpoint_of_url,
)
from batchgen.errors import InputError
from batchgen.items import ItemInput, PoolItem
from batchgen.parameters import LARGEST_MAX_TOKENS, PARAMETER_NAMES


class BadLine(Struct, frozen=True):
    """A line that cannot be an item. `text` is the line as it was read: bytes that are not UTF-8 as
    `\\xff`, and only the beginning of a line over the limit. `fatal`: nothing follows. `blank`: it
    has cells, but nothing in them, as spreadsheets leave behind; to be counted, and passed over."""

    where: str
    problem: str
    text: str = ""
    fatal: bool = False
    blank: bool = False


Entry = PoolItem | BadLine
Entries = Generator[Entry, None, None]


def read_item(obj: Any, where: str) -> ItemInput:
    """The item that `obj` is, by its shape; `given` in it is `obj` itself.

    Raises InputError, which begins with `where`.
    """
    try:
        return _item_input(obj)
    except _ProblemError as exc:
        raise InputError(f"{where}: {exc}") from None


class _ProblemError(Exception):
    """What is wrong with an item, for a caller who knows where it is."""


def entry_of(obj: Any, where: str, text: str, *, is_json: bool = False) -> Entry:
    """The item that `obj` is, or what is wrong with it; `text` is the line that it came from, and
    the item itself if it `is_json`."""
    given_text = text if is_json else ""
    if type(obj) is dict and obj.keys().isdisjoint(_TELLING_NAMES):  # as most are
        return PoolItem(ItemInput(obj, user_variables=obj, system_variables=obj), where, given_text)
    try:
        return PoolItem(_item_input(obj), where, given_text)
    except _ProblemError as exc:
        return BadLine(where, str(exc), text)


_KWARGS = ("user_prompt_kwargs", "system_prompt_kwargs")
_RESERVED_NAMES = frozenset(("id", "custom_id", "messages", "metadata", "params", *_KWARGS))
# An item without any of these consists of variables alone, as most do.
_TELLING_NAMES = _RESERVED_NAMES | {"body"}
# `metadata` is the item's own; the others are as often a name for something else.
_PARAMETERS_BESIDE = (PARAMETER_NAMES | {"max_output_tokens", "model", "stream"}) - {
    *("metadata", "audio", "documents", "moderation", "plugins", "prediction", "reasoning"),
    *("store", "thinking", "user"),
}


def _item_input(obj: Any) -> ItemInput:
    if not isinstance(obj, dict):
        raise _ProblemError(f"an item must be an object, not {shown_kind(obj)}")
    if "body" in obj:
        _refuse_nameless_batch_line(obj)
    if obj.keys().isdisjoint(_TELLING_NAMES):
        return ItemInput(obj, user_variables=obj, system_variables=obj)
    shapes = [name for name in ("messages", *_KWARGS) if name in obj]
    if _is_batch_line(obj):
        _refuse_mixture(["body", *shapes], len(shapes) > 0)
        return _batch_line(obj)
    _refuse_mixture(shapes, "messages" in shapes and len(shapes) > 1)
    params = _params(obj.get("params", {}), "params")
    common: dict[str, Any] = {
        "given": obj,
        "id": _item_id(obj, "id"),
        "metadata": obj.get("metadata"),
        "params": _params_beside(obj) | params if shapes else params,
    }
    if "messages" in obj:
        if "custom_id" in obj:  # as in a batch, whose lines have their messages in a body
            if "id" in obj:
                raise _ProblemError("has both id and custom_id")
            common["id"] = _item_id(obj, "custom_id")
        return ItemInput(**common, messages=_messages(obj["messages"]))
    if shapes:
        user, system = (_variables(obj, name) for name in _KWARGS)
        return ItemInput(**common, user_variables=user, system_variables=system)
    return ItemInput(**common, user_variables=obj, system_variables=obj)


def _refuse_mixture(shapes: list[str], mixed: bool) -> None:
    if mixed:
        raise _ProblemError(
            f"has both {shapes[0]} and {shapes[1]}; an item has either messages or variables"
        )


def _is_batch_line(obj: dict[str, Any]) -> bool:
    """Whether it is a line of an OpenAI batch. A variable may be called `body` or `url` too, so one
    of these names alone does not make it one."""
    if "custom_id" not in obj or "body" not in obj:
        return False
    return isinstance(obj["body"], dict) or ("method" in obj and "url" in obj)


def _batch_line(obj: dict[str, Any]) -> ItemInput:
    body, url, method = obj["body"], obj.get("url"), obj.get("method")
    if "id" in obj:
        raise _ProblemError("has both id and custom_id")
    if method is not None and method != "POST":
        raise _ProblemError(f"method must be POST, not {shown_kind(method)}")
    endpoint = _endpoint_of(url)
    if endpoint in (None, CHAT):
        if not isinstance(body, dict) or "messages" not in body:
            raise _ProblemError(f"body must be an object with messages{_why_not_chat(url, body)}")
        prompt, messages = None, _messages(body["messages"])
    else:
        prompt, messages = _prompt(body, endpoint), None
    members = endpoint.prompt_members if endpoint else CHAT.prompt_members
    params = {name: value for name, value in body.items() if name not in members}
    return ItemInput(
        given=obj,
        id=_item_id(obj, "custom_id"),
        metadata=obj.get("metadata"),
        params=_params(params | _params(obj.get("params", {}), "params"), "body"),
        messages=messages,
        prompt=prompt,
        endpoint=endpoint.name if endpoint else None,
    )


def _why_not_chat(url: Any, body: Any) -> str:
    is_another = isinstance(body, dict) and not body.keys().isdisjoint(("input", "prompt"))
    return "; one for another endpoint needs its url" if url is None and is_another else ""


def _endpoint_of(url: Any) -> Endpoint | None:
    """The one that a line of a batch is for. None: it does not say."""
    if url is None:
        return None
    found = endpoint_of_url(url) if isinstance(url, str) else None
    if found is None:
        paths = ", ".join(f"/v1{one.path}" for one in ENDPOINTS.values())
        raise _ProblemError(f"url must be one of {paths}, not {shown_kind(url)}")
    return found


def _prompt(body: Any, endpoint: Endpoint) -> dict[str, Any]:
    """The prompt of a request line, as its endpoint takes it."""
    name = endpoint.prompt_members[-1]
    if not isinstance(body, dict) or name not in body:
        raise _ProblemError(f"body must be an object with {name}")
    value = body[name]
    if not isinstance(value, str | list) or not value or value == [""]:
        raise _ProblemError(f"body.{name} must be text or a list, not {shown_kind(value)}")
    if isinstance(value, str) and not value.strip():
        raise _ProblemError(f"the prompt is empty: body.{name} has nothing in it")
    is_several = isinstance(value, list) and len(value) > 1 and type(value[0]) is not int
    if is_several and endpoint is COMPLETIONS:
        raise _ProblemError(
            "body.prompt must be one text: of several answers only the first is kept"
        )
    return {one: body[one] for one in endpoint.prompt_members if one in body}


def _refuse_nameless_batch_line(obj: dict[str, Any]) -> None:
    """A line of a batch that cannot be told from an item with variables, but for its body."""
    body = obj["body"]
    if "custom_id" in obj or not isinstance(body, dict):
        return
    if "messages" in body or ("url" in obj and not body.keys().isdisjoint(("input", "prompt"))):
        instead = "; it has id in its place" if "id" in obj else ""
        raise _ProblemError(f"looks like a line of an OpenAI batch, but has no custom_id{instead}")


def _params_beside(obj: dict[str, Any]) -> dict[str, Any]:
    """The parameters that stand in the item itself, beside its messages or variables. With a model
    it is a whole request, as the body of a call: then nothing in it means anything else."""
    if "model" in obj and "messages" in obj:
        beside = {name: value for name, value in obj.items() if name not in _RESERVED_NAMES}
    else:
        beside = {name: obj[name] for name in obj.keys() & _PARAMETERS_BESIDE}
    return _params(beside, "item") if beside else beside


def _item_id(obj: dict[str, Any], name: str) -> str | None:
    if name not in obj:
        return None
    value = obj[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise _ProblemError(f"{name} must be a text that is not empty, not {shown_kind(value)}")
    return value


def _params(params: Any, name: str) -> dict[str, Any]:
    """Overrides of the request's parameters. The server judges them, but what batchgen sets or
    relies on itself is refused."""
    if not isinstance(params, dict):
        raise _ProblemError(f"{name} must be an object, not {shown_kind(params)}")
    if "messages" in params:
        raise _ProblemError(f"{name} must not contain messages")
    if params.get("stream") or params.get("stream_options"):
        raise _ProblemError(
            f"{name}: whether answers come as a stream is a setting, model.stream, for all items; "
            "what is stored is the same, so leave out stream and stream_options"
        )
    if params.get("n") not in (None, 1):
        raise _ProblemError(
            f"{name}.n must be 1: an item has one answer; for more, give it again with another id"
        )
    if params.get("background"):
        raise _ProblemError(f"{name}.background must not be set: answers are not fetched later")
    for limit in LIMITS:
        if not _is_count(params.get(limit, 1)):
            raise _ProblemError(
                f"{name}.{limit} must be a whole number from 1 on, not {shown_kind(params[limit])}"
            )
    if params.get("extra_body") is not None:
        _params(params["extra_body"], f"{name}.extra_body")
    return params


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= LARGEST_MAX_TOKENS)


def _variables(obj: dict[str, Any], name: str) -> dict[str, Any]:
    value = obj.get(name)
    if value is not None and not isinstance(value, dict):
        raise _ProblemError(f"{name} must be an object, not {shown_kind(value)}")
    return value or {}


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise _ProblemError(
            f"messages must be a list with at least one message, not {shown_kind(messages)}"
        )
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return messages


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, dict):
        raise _ProblemError(f"{name} must be an object, not {shown_kind(message)}")
    if not isinstance(message.get("role"), str):
        raise _ProblemError(f"{name}.role must be text, not {shown_kind(message.get('role'))}")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise _ProblemError(
            f"{name}.content must be text, a list or null, not {shown_kind(content)}"
        )
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, dict):
            raise _ProblemError(
                f"{name}.content[{index}] must be an object, not {shown_kind(part)}"
            )


def shown_kind(value: Any) -> str:
    """What a value is, short enough for a message."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
