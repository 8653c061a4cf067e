"""What a form of a page has sent."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

_MOST_FIELDS = 100


async def form_of(request: web.Request) -> Mapping[str, str]:
    """Its fields. Raises HTTPBadRequest for what no form sends, and one that was cut off; the guard
    has refused other kinds of bodies."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        text = (await request.read()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except (ValueError, ConnectionError, web.RequestPayloadError):
        raise web.HTTPBadRequest from None
