"""What is said of a call that brought no whole answer: fields of its `Reply`."""

import re
from typing import Any

import aiohttp

from batchgen.items import Reason
from batchgen.llm.connections import Progress
from batchgen.llm.receive import BodyTooLargeError, ReceivedBody


def ended_early() -> dict[str, Any]:
    """A stream that ended in good order, but not its answer: so gateways end one whose own end they
    have not seen."""
    message = "the stream ended before the answer did, without finish_reason and [DONE]"
    return {"fault": Reason.CONNECTION, "fault_message": message}


def too_large(exc: BodyTooLargeError) -> dict[str, Any]:
    return {"fault": Reason.BAD_RESPONSE, "fault_message": str(exc)}


def not_connected(exc: Exception) -> dict[str, Any]:
    return {"fault": Reason.CONNECTION, "fault_message": _error_text(exc), "sent": False}


def timed_out(timeout_s: float, progress: Progress, received: ReceivedBody) -> dict[str, Any]:
    if not progress.sent:
        message = f"no connection within {timeout_s:g} s"
        return {"fault": Reason.CONNECTION, "fault_message": message, "sent": False}
    if received.is_stream:
        message = f"nothing more of the answer within {timeout_s:g} s"
        return {"fault": Reason.TIMEOUT, "fault_message": message}
    return {"fault": Reason.TIMEOUT, "fault_message": f"no whole answer within {timeout_s:g} s"}


def cut_off(exc: Exception, progress: Progress, *, answered: bool) -> dict[str, Any]:
    """A connection that failed. `reused`: it was a kept-alive one and failed before any byte came
    back, so the server had most likely closed it already. What came in HTTP, but cannot be read, is
    an answer for which somebody may have paid."""
    unreadable = progress.sent and _is_unreadable(exc)
    return {
        "fault": Reason.BAD_RESPONSE if unreadable else Reason.CONNECTION,
        "fault_message": _error_text(exc),
        "sent": progress.sent,
        "reused": progress.reused and not answered and not unreadable,
    }


def _is_unreadable(exc: Exception) -> bool:
    if isinstance(exc, aiohttp.ClientResponseError):
        return not exc.message.startswith(_NO_HTTP)
    return isinstance(exc, aiohttp.ClientPayloadError) and _BAD_ENCODING in str(exc)


def _error_text(exc: Exception) -> str:
    """What went wrong. Where a reply is no HTTP, none of its bytes: they may be those of the
    request, cut anywhere."""
    text = str(exc)
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        text = exc.message if isinstance(exc.message, str) else "Server disconnected"
    elif isinstance(exc, aiohttp.ClientResponseError):
        text = _description(exc.message, quotes=_ANY_QUOTE)
    elif isinstance(exc, aiohttp.ClientPayloadError):
        if not _is_unreadable(exc) and _NOT_COMPLETED in text:
            return "the connection ended in the middle of the answer"
        text = _description(text, quotes=_BYTES_QUOTE)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


_NO_HTTP, _BAD_ENCODING = "Bad status line", "Can not decode content-encoding"
_NOT_COMPLETED = "payload is not completed"
# How the parser's error begins to quote what it was reading; the other quotes words of its own.
_ANY_QUOTE, _BYTES_QUOTE = re.compile(r"""\bb['"]|(?<!\w)['"]"""), re.compile(r"""\bb\\?['"]""")


def _description(said: str, quotes: re.Pattern[str]) -> str:
    """An error of aiohttp's parser, without what it was reading."""
    words, _, _ = said.replace("\\n", "\n").partition("\n\n")
    return " ".join(quotes.split(words)[0].split()).rstrip(" :,")
