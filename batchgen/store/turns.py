"""One process at a time enqueues into a database, whatever engine keeps it: the others wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from batchgen.errors import Remedy, UsageError

_LOOK_S = 0.1


async def wait_to_enqueue(
    database: str, holder: Callable[[], Awaitable[str | None]], patience_s: float,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Until `holder` says of nobody that it has the turn, as it is ours then. `say` gets why it
    takes long. Raises UsageError after `patience_s`."""
    give_up_at = time.monotonic() + patience_s
    is_told = False
    while (who := await holder()) is not None:
        other = f"{database}: another batchgen is enqueueing into it ({who})"
        if time.monotonic() >= give_up_at:
            problem = f"{other}, for more than {patience_s:g} s. Wait until it is done."
            raise UsageError(problem, Remedy.RUN_AGAIN)
        if not is_told:
            say(f"{other}; waiting for it, up to {patience_s:g} s")
            is_told = True
        await asyncio.sleep(_LOOK_S)
