"""Runs parsers, and the functions of steps, so that a bad one costs only its item: off the event
loop, with a deadline."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchgen.errors import ParseError
from batchgen.parsers.exits import exit_code_kept
from batchgen.parsers.parser import Parser
from batchgen.parsers.patterns import RegexTimeoutError
from batchgen.userfunctions import describe, text_of

if TYPE_CHECKING:  # most experiments run no code of the user's
    from batchgen.parsers.step_function import StepFunction

FAST_REGEX_S = 0.02  # how long a pattern may hold the event loop; nearly all need less
_A_PARSER, _A_FUNCTION = "a parser", "the function of a step"
THREADS = 4  # parsers share the GIL, so more at once would gain nothing


class _Returned(Struct, frozen=True):
    value: Any = None
    error: BaseException | None = None


class _Thread:
    """A thread that runs one call at a time. It is a daemon, so that a call that hangs does not
    keep the process from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batchgen-parser", daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], Any], what: str) -> asyncio.Future[_Returned]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Returned] = loop.create_future()

        def call() -> None:
            try:
                with exit_code_kept(what):
                    returned = _Returned(function())
            except BaseException as exc:  # SystemExit too, which a thread would swallow
                returned = _Returned(error=exc)
            try:
                loop.call_soon_threadsafe(_settle, future, returned)
            except RuntimeError:
                pass  # the loop is closed, so nobody waits for the result

        self._calls.put(call)
        return future

    def stop(self) -> None:
        """End the thread after its current call, however long that takes."""
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

    Python cannot stop a call that misses its deadline: its thread is abandoned, and another one
    takes its place. `stuck` counts the abandoned threads that still run.
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
        """What the parser makes of `text`. Time spent waiting for a free thread does not count.

        Raises ParseError, whatever went wrong, and CancelledError only when it is cancelled itself.
        """
        if parser.kind == "inline":
            return parser.parse(text, item, None)
        if parser.kind == "regex":
            try:
                return parser.parse(text, item, min(FAST_REGEX_S, timeout_s))
            except RegexTimeoutError:
                pass  # again on a thread, with all the time that it may take
        elif parser.is_async:
            return await _awaited(parser.parse(text, item, None), timeout_s)
        return await self._run_in_thread(lambda: parser.parse(text, item, timeout_s), timeout_s)

    async def run_step(
        self, function: "StepFunction", item: Mapping[str, Any], values: Mapping[str, Any],
        timeout_s: float,
    ) -> Any:  # fmt: skip
        """What the function of a step returns; the same holds as of a parser."""
        if function.is_async:
            return await _awaited(function.call(item, values), timeout_s, _A_FUNCTION)
        call = partial(function.call, item, values)
        return await self._run_in_thread(call, timeout_s, _A_FUNCTION)

    def close(self) -> None:
        """End the idle threads; those that hang end with the process."""
        while self._idle:
            self._idle.pop().stop()

    async def _run_in_thread(
        self, call: Callable[[], Any], timeout_s: float, what: str = _A_PARSER
    ) -> Any:
        async with self._free:
            thread = self._idle.pop() if self._idle else _Thread()
            future = thread.start(call, what)
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
            return await _awaited(returned.value, timeout_s, what)
        return returned.value

    def _put_back(self, thread: _Thread, *, finished: bool) -> None:
        if finished:
            self._idle.append(thread)
        else:
            thread.stop()
            self._abandoned.append(thread)


async def _awaited(awaitable: Awaitable[Any], timeout_s: float, what: str = _A_PARSER) -> Any:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            with exit_code_kept(what):
                return await awaitable
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _parse_error(exc) from exc  # raised by the function, not by our caller
    except (Exception, SystemExit) as exc:
        if deadline.expired() and isinstance(exc, TimeoutError):
            raise _took_too_long(timeout_s) from None
        raise _parse_error(exc) from exc


def _took_too_long(timeout_s: float) -> ParseError:
    return ParseError(f"took longer than {timeout_s:g} s")


def _parse_error(exc: BaseException) -> ParseError:
    return ParseError(text_of(exc) if isinstance(exc, ParseError) else describe(exc))
