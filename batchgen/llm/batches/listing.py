"""The newest batches of a provider's list, page by page."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from batchgen.items import Failure, Reason
from batchgen.llm.batches.protocol import BatchServerError, Seen

_MOST_PAGES = 1000


class Place(NamedTuple):
    """Where a page of the list begins: after so many pages, with so many batches, and the last of
    them."""

    pages: int = 0
    batches: int = 0
    last: str | None = None


class Page(NamedTuple):
    """Batches in the list's order; whether others follow, and after which of them, if it is told:
    a gateway may show it by another id than it is to be named by."""

    batches: Sequence[Seen]
    has_more: bool
    last: str | None = None


async def batches_since(since_ms: int, page_at: Callable[[Place], Awaitable[Page]]) -> list[Seen]:
    """Those that were created at that time or later, newest first. Raises BatchServerError where
    the list has no end: what is not in a part of it may have been made all the same."""
    found: dict[str, Seen] = {}
    place = Place()
    while place.pages < _MOST_PAGES:
        batches, has_more, last = await page_at(place)
        new = [one for one in batches if one.batch_id not in found]
        found.update((one.batch_id, one) for one in new)
        if not (has_more and batches) or _ends_before(batches, since_ms):
            return _newest_first(found.values(), since_ms)
        if not new:
            break
        place = Place(place.pages + 1, place.batches + len(batches), last or batches[-1].batch_id)
    said = "the list of batches has no end: it repeats its pages"
    raise BatchServerError(Failure(Reason.BAD_RESPONSE, said))


def _ends_before(batches: Sequence[Seen], since_ms: int) -> bool:
    """Whether all that follow are older; not so in a list that begins with the oldest."""
    first, last = batches[0].created_at, batches[-1].created_at
    return first is not None and last is not None and first >= last and _is_before(last, since_ms)


def _newest_first(batches: Iterable[Seen], since_ms: int) -> list[Seen]:
    of_then = [one for one in batches if not _is_before(one.created_at or since_ms, since_ms)]
    return sorted(of_then, key=lambda one: -(one.created_at or since_ms))


def _is_before(created_at: int, since_ms: int) -> bool:
    """Providers tell whole seconds."""
    return created_at + 999 < since_ms
