"""A process of batchgen's own: its settings of the interpreter, which a library must not touch, and
how it ends."""

import errno
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import click

from batchgen.cli.terminal import say
from batchgen.errors import BatchgenError

_SHOWN_CHARS = 60
# How many new objects there may be before the interpreter looks for cycles, of which there are
# hardly any. With its own 700 that took a quarter of a worker's CPU. More than a start makes, as
# nearly all of those stay; and in work so few that a look does not hold up its calls.
_OBJECTS_OF_A_START, _OBJECTS_OF_A_TURN = 200_000, 20_000


def run_process(command: Callable[[], Any]) -> NoReturn:
    """Run it and end the process, with what it returns as exit code, or that of its exception."""
    gc.set_threshold(_OBJECTS_OF_A_START, 20, 100)
    gc.enable()
    threading.excepthook = _tell_of_thread
    sys.setswitchinterval(0.001)  # a thread that writes, or parses, and the event loop take turns
    code = exit_code_of(command)
    gc.freeze()  # the interpreter looks for cycles as it ends: a tenth of a short command's CPU
    sys.exit(code)


def tune_for_work() -> None:
    """Once the modules are imported of a worker, or of another process that lasts."""
    gc.freeze()  # what is imported stays, so no collection need look at it: that took 0.1 s each
    gc.set_threshold(_OBJECTS_OF_A_TURN, 20, 100)


def exit_code_of(command: Callable[[], Any]) -> int:
    """The exit code of the contract; what went wrong is said on stderr."""
    try:
        code = command()
    except click.exceptions.NoArgsIsHelpError as exc:
        say(exc.format_message())
        return exc.exit_code
    except click.ClickException as exc:
        say(f"error: {_one_line(exc)}")
        return exc.exit_code
    except click.Abort as exc:
        if isinstance(exc.__cause__, KeyboardInterrupt):  # click makes this of it
            return 130
        say("\naborted: nothing was changed.")
        return 1
    except BatchgenError as exc:
        return told(exc)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); do not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as exc:
        if exc.errno != errno.ENAMETOOLONG:
            return _internal_error()
        say(f"error: {str(exc.filename)[:_SHOWN_CHARS]}...: the name is too long for a file.")
        return 2
    except Exception:  # a bug: the one case for a traceback
        return _internal_error()
    return code if isinstance(code, int) else 0


def _tell_of_thread(raised: threading.ExceptHookArgs) -> None:
    """A second Ctrl-C ends the event loop wherever it is. Then a thread of the database's may still
    come to it with what it has done, which nobody waits for."""
    is_late = isinstance(raised.exc_value, RuntimeError) and "loop is closed" in str(
        raised.exc_value
    )
    if not is_late:
        threading.__excepthook__(raised)


def _internal_error() -> int:
    import traceback

    say(traceback.format_exc().rstrip())
    say("error: internal error, please report it with the lines above.")
    return 1


def told(exc: BatchgenError) -> int:
    """Say what went wrong, and return its exit code."""
    from batchgen.cli.hints import error_line

    say(f"error: {error_line(exc)}")
    return exc.exit_code


def _one_line(exc: click.ClickException) -> str:
    """A wrong command line, in one line that ends with where to look."""
    message = exc.format_message()
    message = message[0].lower() + message[1:] if message else "wrong usage"
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    stop = "" if message.endswith(("?", ".")) else "."
    return f"{message}{stop} See: {ctx.command_path if ctx else 'batchgen'} --help"
