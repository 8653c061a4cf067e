"""Parsers: what an answer's text becomes.

A parser's `kind` says what it can do to the process, and so when it may run:

    inline     built in, linear in the text: runs anywhere, before the answer is committed too
    regex      the user's pattern, which may backtrack for ever: has a time limit of its own
    function   the user's code: may raise, hang, or take the process with it. Only after the raw
               answer is durable

`ParserRunner.run` runs any of them. Whatever goes wrong is a ParseError, which costs the item and
nothing else.
"""

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Literal, NoReturn

from batchgen.errors import ConfigError, ParseError
from batchgen.items import dump_json
from batchgen.userfunctions import describe, is_function_spec, load_function

FAST_REGEX_S = 0.02  # what the event loop can spare; nearly all patterns are done within it
MAX_STARTS = 1000  # places where the JSON of an answer may begin; each costs a look at the text
THREADS = 4  # parsers that run at once: they share the GIL, so more would gain nothing

_Parse = Callable[[str, Mapping[str, Any], float | None], Any]


@dataclass(frozen=True, slots=True)
class Parser:
    """`parse(text, item, timeout_s)` returns what JSON can hold (of a function: anything, or an
    awaitable) or raises ParseError (a function: anything). Only a regex looks at `timeout_s`.

    `needs_whole` is False when an answer that was cut off at max_tokens is of use all the same.
    """

    spec: str
    kind: Literal["inline", "regex", "function"]
    parse: _Parse
    needs_whole: bool = True
    is_async: bool = False


def load_parser(spec: str) -> Parser:
    """The parser that `spec` names. Raises ConfigError, in one line, when there is none."""
    prefix, colon, rest = spec.partition(":")
    if spec == "raw":
        return Parser(spec, "inline", _parse_raw, needs_whole=False)
    if spec == "json":
        return Parser(spec, "inline", _parse_json)
    if colon and prefix in _FACTORIES:
        return _FACTORIES[prefix](spec, rest)
    if is_function_spec(spec):
        try:
            function = load_function(spec, default_name="parse_response")
        except ConfigError as exc:
            raise ConfigError(f"parser {spec!r}: {exc}") from exc
        return _function_parser(function, spec)
    raise ConfigError(
        f"unknown parser {spec!r}; there are raw, tag:NAME, regex:PATTERN, json, "
        "module:function and path/to/file.py:function"
    )


def parser_from_callable(function: Callable[..., Any]) -> Parser:
    """A parser for `function`, which only this process can find: its spec is for the record."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return _function_parser(function, f"python:{named.__module__}.{named.__qualname__}")


def to_json(value: Any) -> str:
    """What a parser returned, as JSON. Raises ParseError when JSON cannot hold it."""
    try:
        return dump_json(value)
    except UnicodeEncodeError:
        problem = "a lone surrogate in a text"
    except Exception as exc:  # a subclass of dict or list is the user's code
        problem = str(exc)
    raise ParseError(f"the parser returned a {type(value).__name__} JSON cannot hold: {problem}")


def _parse_raw(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
    return text


# --- tag:NAME --------------------------------------------------------------------------------


def _tag_parser(spec: str, name: str) -> Parser:
    """Every `<NAME>...</NAME>`, without the white space round it: an opening tag and the nearest
    closing one after it, so that an opening tag within is text. `<NAME/>` is no element."""
    if not re.fullmatch(r"\w[\w.:-]*", name):
        raise ConfigError(f"parser {spec!r}: {name!r} is no name of a tag; write tag:draft")
    # One pass from tag to tag, where `<NAME>(.*?)</NAME>` would be quadratic in unclosed tags.
    tag = re.compile(rf"<(/?){re.escape(name)}(?=[\s/>])[^<>]*>", re.IGNORECASE)

    def parse(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> list[str]:
        found, start = [], None
        for match in tag.finditer(text):
            if match[1]:
                if start is not None:
                    found.append(text[start : match.start()].strip())
                start = None
            elif start is None and not match[0].endswith("/>"):
                start = match.end()
        if not found:
            unclosed = "" if start is None else f" (<{name}> is opened, but not closed)"
            raise ParseError(f"no <{name}>...</{name}> in the answer{unclosed}")
        return found

    return Parser(spec, "inline", parse)


# --- regex:PATTERN ---------------------------------------------------------------------------


def _regex_parser(spec: str, source: str) -> Parser:
    """The first match: its named groups as an object, or its groups as a list (null for one that
    took no part), or, without groups, its text. No flags but those in the pattern: `(?s)`."""
    import regex  # type: ignore[import-untyped]

    try:
        pattern = regex.compile(source)
    except regex.error as exc:
        raise ConfigError(f"parser {spec!r}: {exc}") from exc
    except (RecursionError, OverflowError, ValueError) as exc:
        raise ConfigError(f"parser {spec!r}: {describe(exc)}") from exc

    def parse(text: str, _item: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        try:
            # `concurrent` gives up the GIL, so that a pattern that backtracks stops nobody else
            match = pattern.search(text, timeout=timeout_s, concurrent=True)
        except TimeoutError:
            raise RegexTimeoutError(f"the pattern took longer than {timeout_s:g} s") from None
        if match is None:
            raise ParseError(f"no match for {source} in the answer")
        return match.groupdict() or (list(match.groups()) if pattern.groups else match[0])

    return Parser(spec, "regex", parse)


class RegexTimeoutError(ParseError):
    """The pattern may match, but not within the time it had."""


# --- json ------------------------------------------------------------------------------------


class _NoNumberError(ValueError):
    """NaN, an infinity, or a number beyond what a float can hold."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NoNumberError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _refuse_constant(f"the number {text[:20]}")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
_FENCE = re.compile(r"```[ \t]*json\b\s*", re.IGNORECASE)
_FENCE_END = re.compile(r"\s*(```|\Z)")
# What can begin an object or a list, unlike `{braces}` in a sentence.
_START = re.compile(r'\{\s*["}]|\[\s*[]\[{"tfn0-9-]')
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[][{}]', re.DOTALL)


def _parse_json(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
    """The whole text if it is JSON; else the first fenced block marked `json` that is; else, if
    there is no such block, the first object or list in the text."""
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError:
        pass
    except (ValueError, RecursionError) as exc:
        raise _unusable(exc) from None
    fences = list(islice(_FENCE.finditer(text), MAX_STARTS))
    try:
        return _fenced_json(text, fences) if fences else _first_json(text)
    except (ValueError, RecursionError) as exc:
        raise _unusable(exc) from None


def _unusable(exc: ValueError | RecursionError) -> ParseError:
    said = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
    return ParseError(f"the JSON in the answer is unusable: {said}")


def _fenced_json(text: str, fences: list[re.Match[str]]) -> Any:
    problem = ""
    for fence in fences:
        try:
            value, end = _decoder.raw_decode(text, fence.end())
        except json.JSONDecodeError as exc:
            problem = problem or str(exc)
            continue
        if _FENCE_END.match(text, end):
            return value
        problem = problem or "there is more after its first value"
    raise ParseError(f"the ```json block in the answer is not JSON: {problem}")


def _first_json(text: str) -> Any:
    """Where one that began well turns out broken, the search goes on behind its closing bracket:
    a part of a broken answer is not the answer. So it is linear as well, but for the lines that
    Python counts for each error; hence the limit."""
    problem, pos = "", 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, pos)
        if start is None:
            break
        try:
            return _decoder.raw_decode(text, start.start())[0]
        except json.JSONDecodeError as exc:
            problem = problem or f"; what begins like it is broken: {exc}"
            began_well = exc.pos >= start.end()
            pos = _closing_bracket(text, start.start()) if began_well else start.start() + 1
    raise ParseError(f"no JSON in the answer{problem}")


def _closing_bracket(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`; the text's end when none does."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        if match[0] in ("{", "["):
            depth += 1
        elif match[0] in ("}", "]"):
            depth -= 1
        if depth == 0:
            return match.end()
    return len(text)


# --- the user's functions --------------------------------------------------------------------


def _function_parser(function: Callable[..., Any], spec: str) -> Parser:
    if inspect.isclass(function):
        what = "pydantic models are" if hasattr(function, "model_validate") else "a class is"
        raise ConfigError(f"parser {spec!r}: {what} not supported yet; give a function")
    call = _caller(function, spec)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )

    def parse(text: str, item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
        return call(text, item)

    return Parser(spec, "function", parse, is_async=is_async)


def _caller(function: Callable[..., Any], spec: str) -> Callable[[str, Mapping[str, Any]], Any]:
    """`function` as one of (response, item). A second parameter gets the item unless it has a
    default and another name: then it is an option of the user's, `strict=True` say."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C have none
        return lambda text, _item: function(text)
    in_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    second = [param for param in parameters if param.kind in in_place][1:2]
    if second and (second[0].default is inspect.Parameter.empty or second[0].name == "item"):
        return _fitting(signature, spec, lambda text, item: function(text, item), (0, 1), {})
    if any(param.kind is param.KEYWORD_ONLY and param.name == "item" for param in parameters):
        return _fitting(
            signature, spec, lambda text, item: function(text, item=item), (0,), {"item": 1}
        )
    return _fitting(signature, spec, lambda text, _item: function(text), (0,), {})


def _fitting(
    signature: inspect.Signature,
    spec: str,
    call: Callable[[str, Mapping[str, Any]], Any],
    args: tuple[int, ...],
    kwargs: dict[str, int],
) -> Callable[[str, Mapping[str, Any]], Any]:
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise ConfigError(
            f"parser {spec!r} must take (response) or (response, item), not {signature}: {exc}"
        ) from exc
    return call


def _refuse_python(spec: str, name: str) -> NoReturn:
    raise ConfigError(
        f"parser {spec!r}: only the Python script that enqueued these items has its {name}; "
        "run that script to parse them"
    )


def _refuse_schema(spec: str, _file: str) -> NoReturn:
    raise ConfigError(f"parser {spec!r}: json_schema is not supported yet; use json or a function")


_FACTORIES: dict[str, Callable[[str, str], Parser]] = {
    "tag": _tag_parser,
    "regex": _regex_parser,
    "json_schema": _refuse_schema,
    "python": _refuse_python,
}


# --- running them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Returned:
    value: Any = None
    error: BaseException | None = None


class _Thread:
    """One daemon thread that runs one call at a time. Daemon: one that hangs must not keep the
    process from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batchgen-parser", daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], Any]) -> asyncio.Future[_Returned]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Returned] = loop.create_future()

        def call() -> None:
            try:
                returned = _Returned(function())
            except BaseException as exc:  # SystemExit too: in a thread nobody else would see it
                returned = _Returned(error=exc)
            try:
                loop.call_soon_threadsafe(_settle, future, returned)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        self._calls.put(call)
        return future

    def stop(self) -> None:
        """Ends it after its present call, however long that takes."""
        self._calls.put(None)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        while call := self._calls.get():
            call()


def _settle(future: asyncio.Future[_Returned], returned: _Returned) -> None:
    if not future.done():
        future.set_result(returned)


class ParserRunner:
    """Runs parsers of every kind, off the event loop where they may take long.

    A call that misses its deadline is left behind with its thread, and another thread takes over:
    Python cannot stop it. `stuck` counts those that still run.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._free = asyncio.Semaphore(threads)
        self._idle: list[_Thread] = []
        self._abandoned: list[_Thread] = []

    @property
    def stuck(self) -> int:
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        return len(self._abandoned)

    async def run(
        self, parser: Parser, text: str, item: Mapping[str, Any], timeout_s: float
    ) -> Any:
        """What the parser makes of `text`. The time waiting for a free thread does not count.

        Raises ParseError, whatever went wrong; only being cancelled goes through.
        """
        if parser.kind == "inline":
            return parser.parse(text, item, None)
        if parser.kind == "regex":
            try:
                return parser.parse(text, item, min(FAST_REGEX_S, timeout_s))
            except RegexTimeoutError:
                pass  # once more, with all the time it may have
        elif parser.is_async:
            return await _awaited(parser.parse(text, item, None), timeout_s)
        return await self._run_in_thread(parser, text, item, timeout_s)

    def close(self) -> None:
        """Ends the idle threads; those that hang end with the process."""
        while self._idle:
            self._idle.pop().stop()

    async def _run_in_thread(
        self, parser: Parser, text: str, item: Mapping[str, Any], timeout_s: float
    ) -> Any:
        async with self._free:
            thread = self._idle.pop() if self._idle else _Thread()
            future = thread.start(lambda: parser.parse(text, item, timeout_s))
            try:
                async with asyncio.timeout(timeout_s):
                    returned = await future
            except TimeoutError:
                raise _took_too_long(timeout_s) from None
            finally:
                self._put_back(thread, finished=future.done() and not future.cancelled())
        if returned.error is not None:
            raise _parse_error(returned.error) from returned.error
        if inspect.isawaitable(returned.value):  # a plain function that returned a coroutine
            return await _awaited(returned.value, timeout_s)
        return returned.value

    def _put_back(self, thread: _Thread, *, finished: bool) -> None:
        if finished:
            self._idle.append(thread)
        else:
            thread.stop()
            self._abandoned.append(thread)


async def _awaited(awaitable: Awaitable[Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await awaitable
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _parse_error(exc) from exc  # the function's own, not ours
    except (Exception, SystemExit) as exc:
        if deadline.expired() and isinstance(exc, TimeoutError):
            raise _took_too_long(timeout_s) from None
        raise _parse_error(exc) from exc


def _took_too_long(timeout_s: float) -> ParseError:
    return ParseError(f"took longer than {timeout_s:g} s")


def _parse_error(exc: BaseException) -> ParseError:
    return exc if isinstance(exc, ParseError) else ParseError(describe(exc))
