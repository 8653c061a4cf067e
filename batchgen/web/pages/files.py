"""The style and the scripts."""

from aiohttp import web

from batchgen.web.view import View


async def asset(view: View, request: web.Request) -> web.Response:
    found = view.frame.assets.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    is_exact = request.query.get("v") == found.mark
    return web.Response(
        body=found.content,
        headers={
            "Content-Type": found.content_type,
            "Cache-Control": "private, max-age=31536000, immutable" if is_exact else "no-store",
        },
    )
