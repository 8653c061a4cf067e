"""What each entry of `steps` may have: the table is the reference."""

import keyword
import unicodedata
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from batchgen.config.kinds import (
    BOOL,
    NOT_SETTINGS,
    PARAMETERS,
    PARSER,
    PATH,
    TEXT,
    Kind,
    NestedError,
    ValueContext,
    shown_key,
    shown_value,
)
from batchgen.config.steps import StepPrompt
from batchgen.config.values import OF_SERVERS

MODEL_KEYS = ("model", "endpoint", "stream", "price", *OF_SERVERS, *PARAMETERS)
"""What a step may have of its own of the section `model`."""
_RESERVED = frozenset(
    (
        *("custom_id", "element", "ended", "id", "input", "item", "messages", "metadata", "params"),
        *("parsed", "response", "steps", "null", "true", "false"),
    )
)


class StepKey(Struct, frozen=True):
    """What a step may have, for the reference."""

    name: str
    phrase: str
    default: str
    help: str


def _check_name(value: Any, context: ValueContext) -> str:
    name: str = TEXT.check(value, context)
    plain = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    if not plain or keyword.iskeyword(name):
        raise ValueError(
            f"must be a name for templates and conditions, of letters, digits and _, not {name!r}"
        )
    if name in _RESERVED:
        raise ValueError(f"cannot be {name}, which means something else; choose another name")
    return name


def _check_prompt(value: Any, context: ValueContext) -> StepPrompt:
    if isinstance(value, Mapping):
        if list(value) != ["text"]:
            raise ValueError("must be the path of a file, or {text: the template itself}")
        return StepPrompt(text=TEXT.check(value["text"], context))
    return StepPrompt(path=PATH.check(value, context))


def _check_each(value: Any, context: ValueContext) -> tuple[str, str]:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError("must be {NAME: PATH}: what each element is called, and where the list is")
    ((name, path),) = value.items()
    try:
        name = _check_name(name, context)
        return name, TEXT.check(path, context)
    except ValueError as exc:
        raise NestedError(shown_key(name), str(exc)) from None


def _one_of(*words: str) -> Callable[[Any, ValueContext], Any]:
    def check(value: Any, _: ValueContext) -> Any:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}, not {shown_value(value)}")
        return value

    return check


def _check_function(value: Any, context: ValueContext) -> str:
    from batchgen.userfunctions import is_function_spec  # here: it loads much

    spec: str = PARSER.check(value, context)
    if not is_function_spec(spec) and not spec.startswith("python:"):
        raise ValueError("names no function; write module:function or path/to/file.py:function")
    return spec


_NAME = Kind("a name", _check_name, text=True)
_PROMPT = Kind("a path, or {text: ...}", _check_prompt)
_SETTINGS_OF_MODEL = Kind("a mapping", lambda value, _: value)
_OTHERWISE = Kind("`end` or `skip`", _one_of("end", "skip"), text=True)
_EACH = Kind("`{NAME: PATH}`", _check_each)
_FUNCTION = Kind("text", _check_function, text=True)

STEP_KEYS: Mapping[str, tuple[Kind, str, str]] = {
    "name": (
        _NAME, "",
        "what it is called, as later templates and conditions name its value; no name that the "
        "items have",
    ),
    "user": (_PROMPT, "", "its user template; with `.j2` Jinja2: `{{ critique.score }}`"),
    "system": (_PROMPT, "", "its system template; by default none"),
    "model": (
        _SETTINGS_OF_MODEL, "",
        "what differs from the section `model`: `model`, `endpoint`, parameters, `price`. With "
        "`base_url` or `servers` it is asked there: then `api_key`, `headers`, `query` and the "
        "limits are those of the step alone",
    ),
    "parser": (PARSER, "raw", "what makes `parsed` out of its answer; see [parsers](parsers.md)"),
    "structured_output": (BOOL, "false", "ask for answers that fit the parser's schema"),
    "function": (
        _FUNCTION, "",
        "in place of a call: `path.py:name` of your function of `(item)` or `(item, values)`, "
        "whose value is what it returns",
    ),
    "value": (
        TEXT, "parsed",
        "what the step is called by: a path into `parsed` or `response`, as in `parsed[0]`",
    ),
    "when": (
        TEXT, "",
        "a condition, as exports have them, with the steps before it, `input`, `metadata` and "
        "`id`; by default always",
    ),
    "otherwise": (
        _OTHERWISE, "end",
        "where the condition does not hold the chain ends, or goes on with the step after, where "
        "this one is null",
    ),
    "each": (_EACH, "", "a row for each element of that list, known by that name"),
    "gather": (
        _NAME, "",
        "one row for all rows of the step before that an item has, of `each` and of samples; by "
        "that name it sees the list of their values",
    ),
    "conversation": (
        BOOL, "false",
        "begin with what the step before was sent, and its answer",
    ),
}  # fmt: skip


def step_keys() -> tuple[StepKey, ...]:
    """All that a step may have, in the order of the reference."""
    return tuple(
        StepKey(name, kind.phrase, default, text)
        for name, (kind, default, text) in STEP_KEYS.items()
    )


def unknown_key(name: str) -> str:
    if name in MODEL_KEYS and name != "model":
        return f"unknown key; it goes under model: model: {{{name}: ...}}"
    near = _OTHER_WORDS.get(name) or get_close_matches(name[:60].lower(), STEP_KEYS, 1, 0)[0]
    return f"unknown key; did you mean {near}?"


_OTHER_WORDS = {
    **dict.fromkeys(("user_prompt", "user_prompt_path", "prompt", "template"), "user"),
    **dict.fromkeys(("system_prompt", "system_prompt_path"), "system"),
    **dict.fromkeys(("if", "where", "condition"), "when"),
    **dict.fromkeys(("else",), "otherwise"),
    **dict.fromkeys(("for_each", "foreach", "map"), "each"),
}


def unknown_model_key(name: str) -> str:
    if name in NOT_SETTINGS:
        return "cannot be set; batchgen decides it for every request"
    near = get_close_matches(name[:60].lower(), MODEL_KEYS, 1, 0)[0]
    hint = "A parameter that only your server knows goes under extra_body"
    return f"unknown key; did you mean {near}? {hint}"
