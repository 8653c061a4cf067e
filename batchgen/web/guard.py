"""Who may ask, and what each answer says to the browser: deny by default.

Each rule is here because others went without it. A page of another site must not reach us through
the browser of somebody who has us open: not by a name that it makes point here (Host), not by a
form or a script on another port of this machine (Sec-Fetch-Site, Origin), not in a frame. Other
users of this machine have no token.

What a browser sends by itself, or to whoever has the port by now, is good for this process alone:
the token in the link, which is kept, is exchanged for a cookie that is not, and a page that asks
for itself sends no cookie but a key of its own, with which one can only look.
"""

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDictProxy

from batchgen.errors import UsageError
from batchgen.web.tokens import is_same

MOST_BYTES = 8 << 20  # of a request
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_READS = ("GET", "HEAD")
_HOST = re.compile(r"([^:\[\]]+|\[[^\[\]]*\])(?::\d*)?")
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_BODIES = ("application/x-www-form-urlencoded", "application/json")
_TAB = "Batchgen-Tab"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SANDBOX = f"{_POLICY}; sandbox"  # of what is to be saved: it can do nothing where it is opened
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer a form of ours would have the Origin null
    "Server": "batchgen",
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
}
_OWN_OF_PAGES = ("Content-Security-Policy", "Cache-Control")


class Refusal(NamedTuple):
    """`text` is the key of its words."""

    status: int
    text: str


class Guard:
    """One for a server; `names` are those that it may be called by, besides its own."""

    def __init__(
        self, token: str, port: int, names: Collection[str] = (), public: Collection[str] = ()
    ) -> None:
        """The `names` as `allowed_name` has them. `public` paths have nothing of anybody's, and are
        there without the token."""
        # Cookies know no port, and two viewers may be reached by one, each on a machine of its own.
        self.cookie = f"batchgen-{port}-{sha256(token.encode()).hexdigest()[:8]}"
        self.tab = secrets.token_hex(16)
        self._token, self._session = token, secrets.token_hex(16)
        self._names, self._public = OWN_NAMES | set(names), frozenset(public)

    def refusal(self, request: web.Request) -> Refusal | None:
        """Why it is not answered; None: it is."""
        headers = request.headers
        if not self._is_meant(request):
            return Refusal(403, "wrong_host")
        cookie, tab = request.cookies.get(self.cookie), _only(headers, _TAB)
        is_tab = tab is not None and request.method in _READS and is_same(self.tab, tab)
        is_public = request.method in _READS and request.path in self._public
        if not (is_tab or is_public or is_same(self._session, cookie or "")):
            return Refusal(401, "no_token" if cookie is None else "session_ended")
        if request.method in _READS:
            return Refusal(403, "other_site") if _is_embedded(headers) else None
        return self._refusal_of_order(request)

    def brings_token(self, request: web.Request) -> bool:
        """Whether somebody follows the link. It is asked before `refusal`, and so looks at the name
        too."""
        given = request.query.get("token")
        return (
            request.method in _READS
            and given is not None
            and self._is_meant(request)
            and is_same(self._token, given)
        )

    def let_in(self, request: web.Request) -> web.Response:
        """Give the cookie, and lead to the same page without the token in its address."""
        target = request.rel_url.without_query_params("token")
        place = "/" + str(target).lstrip("/\\")  # never to another machine, as //name would
        response = web.Response(status=303, headers={"Location": place})
        response.set_cookie(
            self.cookie, self._session, path="/", httponly=True,
            samesite="Lax",  # Strict would be lost on the way from a page with the link
        )  # fmt: skip
        return response

    def _is_meant(self, request: web.Request) -> bool:
        """By its name, and as a server: who takes it for a proxy asks for a whole address."""
        name = _name(_only(request.headers, "Host"))
        return name in self._names and request.raw_path.startswith("/")

    def _refusal_of_order(self, request: web.Request) -> Refusal | None:
        """Of all that may change something."""
        headers = request.headers
        site = _only(headers, "Sec-Fetch-Site")
        if site is None:  # an old browser, or a name for which they do not send it
            host = (_only(headers, "Host") or "").lower()
            is_own = _only(headers, "Origin") == f"http://{host}"
        else:
            is_own = site == "same-origin"
        if not is_own:
            return Refusal(403, "other_site")
        if request.body_exists and not _is_readable(request):
            return Refusal(415, "wrong_type")
        if (request.content_length or 0) > MOST_BYTES:
            return Refusal(413, "too_large")
        return None


def _is_readable(request: web.Request) -> bool:
    """As a browser sends what is typed: neither packed nor in letters of another kind."""
    is_plain = "Content-Encoding" not in request.headers
    is_text = (request.charset or "utf-8").lower() == "utf-8"
    return request.content_type in _BODIES and is_plain and is_text


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """To each answer, also to errors."""
    said = response.headers
    kept = {name: said[name] for name in _OWN_OF_PAGES if name in said}
    said.update({**HEADERS, **kept})


def _is_embedded(headers: CIMultiDictProxy[str]) -> bool:
    """Whether another site wants it for itself, and nobody goes there."""
    if _only(headers, "Sec-Fetch-Site") in (None, "same-origin", "none"):
        return False
    mode, place = _only(headers, "Sec-Fetch-Mode"), _only(headers, "Sec-Fetch-Dest")
    return mode != "navigate" or place not in (None, "document")


def _only(headers: CIMultiDictProxy[str], name: str) -> str | None:
    """None: there is none; one that is there twice is none that we know."""
    found = headers.getall(name, [])
    return found[0] if len(found) == 1 else ", ".join(found) or None


def allowed_name(given: str) -> str:
    """A name of `--allow-host`, as a browser sends it. Raises UsageError for what none sends."""
    name = given.lower()
    if name.startswith("[") and name.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
        except ValueError:
            pass
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--allow-host {given!r:.60}: give the name alone, as gpu-box.lan: without http://, "
            "port and path (an address of IPv6 in brackets, letters of other scripts as xn--)."
        )
    return name


def _name(host: str | None) -> str:
    """Without the port, which ssh -L changes."""
    found = _HOST.fullmatch((host or "").lower())
    return found[1] if found else ""
