"""The application: all routes, the port, start and end."""

import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from batchgen.clock import own_ms
from batchgen.config import Config
from batchgen.display.commands import Commands
from batchgen.errors import BatchgenError, StoreBusyError, UsageError
from batchgen.store import open_store
from batchgen.web.frame import HAS_BATCHES, STYLE, VERSION, Frame
from batchgen.web.guard import MOST_BYTES, Guard, Handler, add_headers, allowed_name
from batchgen.web.hiding import hiding
from batchgen.web.listening import answering, listen
from batchgen.web.pages import (
    batches,
    diff,
    failures,
    fields,
    files,
    item,
    items,
    overview,
    recipes,
    review,
    series,
    workers,
)
from batchgen.web.reader import open_reader
from batchgen.web.tokens import kept_token, reading_token
from batchgen.web.view import HintOf, View

Page = Callable[[View, web.Request], Awaitable[web.StreamResponse]]

# Names of experiments may have any characters: what is quoted in them is one part of the path.
ROUTES: tuple[tuple[str, str, Page], ...] = (
    ("GET", "/", overview.experiments),
    ("GET", "/e/{name:[^/]+}", overview.experiment),
    ("GET", "/e/{name:[^/]+}/items", items.items),
    ("GET", "/e/{name:[^/]+}/{way:next|previous}", items.step_to),
    ("GET", "/items/{id:[0-9]+}", item.item),
    ("GET", "/items/{id:[0-9]+}/diff", diff.diff),
    ("GET", "/items/{id:[0-9]+}/raw/{part:input|value}", item.part),
    ("GET", "/items/{id:[0-9]+}/attempts/{seq:[0-9]+}/raw", item.raw),
    ("GET", "/e/{name:[^/]+}/review", review.review),
    ("POST", "/e/{name:[^/]+}/review", review.say),
    ("GET", "/e/{name:[^/]+}/failures", failures.failures),
    ("GET", "/e/{name:[^/]+}/retry", failures.retry),
    ("POST", "/e/{name:[^/]+}/retry", failures.ask_again),
    ("GET", "/e/{name:[^/]+}/fields", fields.fields),
    ("GET", "/series.json", series.series),
    ("GET", "/calls/{seq:[0-9]+}", series.call),
    ("GET", "/workers", workers.workers),
    ("GET", "/workers/stop", workers.stop),
    ("POST", "/workers/{order:pause|resume|set|stop}", workers.order),
    ("GET", "/batches", batches.batches),
    ("GET", "/recipes", recipes.recipes),
    ("GET", "/recipes/compare", recipes.compared),
    ("GET", "/recipes/{id:[0-9]+}", recipes.recipe),
    ("GET", "/assets/{name}", files.asset),
)

_NAMED = (403, 404, 405, 413)  # statuses with words of their own
_LIVES_S = 10  # a page that nothing has changed is drawn anew so often: rates go down by themselves


@asynccontextmanager
async def serve(
    config: Config,
    *,
    called: str,
    commands: Commands,
    hint_of: HintOf,
    port: int | None = None,
    read_only: bool = False,
    names: Collection[str] = (),
    say: Callable[[str], None] = print,
) -> AsyncIterator[str]:
    """Serves the pages of the config's database on this machine while one is inside, where the link
    is given, with its token.

    `called` is how batchgen is called for this database, as a shell takes it, and `commands` what
    its displays suggest, as `hint_of` about a group of failures. `port` None: the usual one, or the
    next that is free. `names` are other names by which it may be called. `say` is told of orders,
    and of faults of our own. Raises BatchgenError for a port that is taken and a name that is none,
    and as `read_store`.
    """
    names = [allowed_name(name) for name in names]
    async with AsyncExitStack() as stack:
        pages = await stack.enter_async_context(open_reader(config.database, "reads for pages"))
        scans = await stack.enter_async_context(open_reader(config.database, "scans for pages"))
        store = None
        if not read_only:
            store = await stack.enter_async_context(open_store(config.database))
        listening = listen(port)
        token, number = kept_token(config.database), listening.getsockname()[1]
        if read_only:
            token = reading_token(token)
        guard = Guard(token, number, names, [STYLE])
        frame = Frame(
            str(config.database), called, read_only=read_only, hide=hiding(config), tab=guard.tab
        )
        view = View(config, pages, scans, store, frame, commands, hint_of, say)
        await stack.enter_async_context(answering(application(view, guard), listening, say))
        yield f"http://127.0.0.1:{number}/?token={token}"


def application(view: View, guard: Guard) -> web.Application:
    app = web.Application(
        middlewares=[_answering(view), _guarding(view, guard), _living(view)],
        client_max_size=MOST_BYTES,
    )
    app.on_response_prepare.append(add_headers)
    app.add_routes(web.route(method, place, _bound(page, view)) for method, place, page in ROUTES)
    return app


def _bound(page: Page, view: View) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await page(view, request)

    return handle


def _answering(view: View) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Each answer is a page, also of what went wrong."""
    frame = view.frame

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        t = frame.text(request)
        try:
            return await handler(request)
        except web.HTTPException as exc:
            if exc.status < 400:
                raise
            status, words = exc.status, None
        except BatchgenError as exc:
            status, words = _status_of(exc, request), str(exc)
        except Exception as exc:  # a bug: its story is for the terminal, and not for the page
            story = "".join(traceback.format_tb(exc.__traceback__))
            view.say(f"{story}error: {request.method} {request.path}: {exc!r}, please report it.")
            status, words = 500, None
        has_name = status in _NAMED or (status == 400 and words is None)
        known = f"status_{status}" if has_name else "status_other"
        return frame.page(
            request, "error.html", title=t(known, status=status), status=status, words=words
        )

    return answer


def _status_of(exc: BatchgenError, request: web.Request) -> int:
    if isinstance(exc, StoreBusyError):
        return 503
    if isinstance(exc, UsageError):
        return 404 if request.method in ("GET", "HEAD") else 400
    return 409


def _guarding(view: View, guard: Guard) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if guard.brings_token(request):
            return guard.let_in(request)
        if refused := guard.refusal(request):
            return view.frame.refusal(request, refused.status, refused.text)
        return await handler(request)

    return check


def _living(view: View) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A page that is open asks for itself every two seconds, with the version that it has: it gets
    nothing while that is what there is."""
    began = secrets.token_hex(4)  # what the database counts begins anew with each connection

    @web.middleware
    async def live(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and not request.path.startswith("/assets/"):
            mark = await view.pages.read(lambda store: store.change_mark())
            version = f"{began}-{mark}-{own_ms() // (1000 * _LIVES_S)}"
            if request.headers.get("Batchgen-Seen") == version:
                return web.Response(status=204)
            request[VERSION] = version
            newest = await view.pages.read(lambda store: store.batches.newest(1))
            request[HAS_BATCHES] = bool(newest)
        return await handler(request)

    return live
