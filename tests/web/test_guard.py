"""Who may ask: every rule, by a client that says of itself what a browser would."""

import asyncio
import io
import re
from itertools import cycle, product

import aiohttp
import pytest

from batchgen.errors import UsageError
from batchgen.web.guard import MOST_BYTES, Guard, allowed_name
from batchgen.web.server import ROUTES
from tests.kits.page import Answer, Viewer, viewing
from tests.kits.project import KEY, Project

ORDERS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SAID_BY_ALL = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Server": "batchgen",
}


def places(viewer: Viewer) -> list[str]:
    """A URL of each route, and what is none."""
    known = {
        "{name:[^/]+}": "default",
        "{name}": "view.js",
        "{id:[0-9]+}": "1",
        "{seq:[0-9]+}": "1",
        "{part:input|value}": "input",
        "{way:next|previous}": "next",
        "{order:pause|resume|set|stop}": "pause",
    }
    found = []
    for _, place, _ in ROUTES:
        for part, value in known.items():
            place = place.replace(part, value)
        assert "{" not in place, f"say here what stands for the parts of {place}"
        found.append(place)
    return [*dict.fromkeys(found), "/none", "/e/none"]


def check_headers(answer: Answer) -> None:
    said = {name: answer.headers.get(name, "") for name in SAID_BY_ALL}
    policy = said["Content-Security-Policy"].removesuffix("; sandbox")  # of what is to be saved
    assert {**said, "Content-Security-Policy": policy} == SAID_BY_ALL
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def tab_of(answer: Answer) -> str:
    """What a page asks for itself with."""
    return re.search(r'data-tab="(.*?)"', answer.text)[1]  # type: ignore[index]


async def test_it_is_called_by_a_name_of_this_machine_on_any_port(viewer: Viewer) -> None:
    for name in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        for host in (name, f"{name}:{viewer.port}", f"{name}:8080"):
            assert (await viewer.get("/e/default", {"Host": host})).status == 200


async def test_by_no_other_name_is_anything_answered(viewer: Viewer) -> None:
    for host in (
        "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "localhost.",
        "0.0.0.0", "127.0.0.1@evil.example", "evil.example:80@127.0.0.1", "127.0.0.2", "[::]",
        "::1", "", "[::1", "127.0.0.1:80:80", "127.0.0.1:x",
    ):  # fmt: skip
        for place in [*places(viewer), f"/?token={viewer.token}"]:
            answer = await viewer.get(place, {"Host": host})
            assert answer.status == 403, (host, place)
            assert "Set-Cookie" not in answer.headers
            check_headers(answer)
            assert "default" not in answer.text


async def test_two_names_are_none(viewer: Viewer) -> None:
    for hosts in ("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", viewer.port)
        lines = [f"Host: {host}\r\n" for host in hosts]
        writer.write(f"GET /?token={viewer.token} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
        status = await reader.readline()
        assert status.split()[1] in (b"400", b"403")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "given",
    ["http://x/", "x:80", "x/", "x/path", "", " x", "x.", ".x", "*", "*.x", "a b", "ü.de", "::1",
     "[::1]:80", "[x]", "[]", "x@y", "x\n"],
)  # fmt: skip
def test_what_is_no_name_is_said_to_be_none(given: str) -> None:
    with pytest.raises(UsageError, match="give the name alone") as said:
        allowed_name(given)
    assert "\n" not in str(said.value)


def test_names_are_as_browsers_send_them() -> None:
    given = {"GPU-box.lan": "gpu-box.lan", "xn--bcher-kva.de": "xn--bcher-kva.de", "a_b": "a_b",
             "10.0.0.1": "10.0.0.1", "[FE80:0::1]": "[fe80::1]"}  # fmt: skip
    assert {one: allowed_name(one) for one in given} == given


async def test_another_name_can_be_allowed(answered: Project) -> None:
    async with viewing(answered, names=["GPU-box.lan"]) as viewer:
        assert (await viewer.get("/e/default", {"Host": "gpu-box.lan:80"})).status == 200
        assert (await viewer.get("/e/default", {"Host": "other.lan:80"})).status == 403


async def test_without_the_token_there_is_nothing(viewer: Viewer) -> None:
    cookie, session = viewer.cookie
    wrong = [{}, {cookie: ""}, {cookie: "0" * 32}, {cookie: session[:-1]}, {cookie: "ü"},
             {cookie: viewer.token}, {f"batchgen-{viewer.port}": session}]  # fmt: skip
    for cookies in wrong:
        async with aiohttp.ClientSession() as stranger:
            asking = Viewer(viewer.link, stranger, [])
            held = "; ".join(f"{name}={value}" for name, value in cookies.items())
            for place in places(viewer):
                answer = await asking.get(place, {"Cookie": held} if held else {})
                assert answer.status == 401
                check_headers(answer)
            other = viewer.token[:-1] + ("1" if viewer.token[-1] == "0" else "0")
            for token in ("", other, f"{viewer.token}0", "%C3%BC"):
                assert (await asking.get(f"/?token={token}")).status == 401


async def test_the_style_is_there_for_who_has_no_token_so_that_what_is_said_can_be_read(
    viewer: Viewer,
) -> None:
    async with aiohttp.ClientSession() as stranger:
        asking = Viewer(viewer.link, stranger, [])
        refused = await asking.get("/e/default")
        [style] = re.findall(r'<link rel="stylesheet" href="([^"?]*[?]v=\w+)">', refused.text)
        assert "src=" not in refused.text
        answer = await asking.get(style)
        assert (answer.status, "Set-Cookie" in answer.headers) == (200, False)
        assert answer.body == (await viewer.get(style)).body
        check_headers(answer)
        assert (await asking.post(style, {})).status == 401
        for name in ("view.js", "uplot.min.css", "icon.svg", "none"):
            assert (await asking.get(f"/assets/{name}")).status == 401
        for header in ({"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await asking.get(style, header)).status == 403


async def test_the_link_gives_a_cookie_and_leaves_no_token_in_the_address(viewer: Viewer) -> None:
    for place, bare in [("/", "/"), ("/e/a%2Fb?x=%26&y=", "/e/a%2Fb?x=%26&y=")]:
        mark = "&" if "?" in place else "?"
        answer = await viewer.get(f"{place}{mark}token={viewer.token}")
        assert (answer.status, answer.place) == (303, bare)
        (given, *said) = answer.headers["Set-Cookie"].split("; ")
        assert given == "=".join(viewer.cookie)
        assert sorted(said) == ["HttpOnly", "Path=/", "SameSite=Lax"]  # until the browser ends
        check_headers(answer)


async def test_what_a_browser_keeps_is_good_for_this_process_alone(answered: Project) -> None:
    """The token stays the same, so that links do. Whoever gets the cookie, as a program that takes
    the port after us, has nothing of it."""
    async with viewing(answered) as first:
        page, (name, session) = await first.get("/e/default"), first.cookie
        key = tab_of(page)
        for known in (session, key, name):
            assert first.token not in known
        assert first.token not in page.text + str(page.headers)
    async with viewing(answered, port=first.port) as second, aiohttp.ClientSession() as stranger:
        assert second.token == first.token
        assert second.cookie[0] == name
        assert second.cookie[1] != session
        asking = Viewer(second.link, stranger, [])
        for language, words in (("en", "has ended. Open the link"), ("zh", "已结束")):
            said = {"Cookie": f"{name}={session}", "Accept-Language": language}
            answer = await asking.get("/e/default", said)
            assert answer.status == 401
            assert words in answer.text
        assert (await asking.get("/e/default", {"Batchgen-Tab": key})).status == 401


def test_viewers_of_two_machines_that_are_reached_by_one_are_not_mixed_up() -> None:
    """Both have the usual port there, and cookies know none."""
    assert Guard("0" * 32, 8777).cookie != Guard("1" * 32, 8777).cookie
    assert Guard("0" * 32, 8777).cookie == Guard("0" * 32, 8777).cookie


async def test_a_page_asks_for_itself_without_a_cookie_and_can_only_look(viewer: Viewer) -> None:
    key = tab_of(await viewer.get("/e/default"))
    async with aiohttp.ClientSession() as tab:
        asking = Viewer(viewer.link, tab, [])
        own = {"Batchgen-Tab": key, "Sec-Fetch-Site": "same-origin"}
        for place in ("/e/default", "/series.json?experiment=default"):
            answer = await asking.get(place, own)
            assert answer.status == 200
            assert "Set-Cookie" not in answer.headers
            for site in ("same-site", "cross-site"):
                assert (await asking.get(place, {**own, "Sec-Fetch-Site": site})).status == 403
            assert (await asking.get(place, {**own, "Host": "evil.example"})).status == 403
        assert (await asking.get("/e/default", {"Batchgen-Tab": key[:-1]})).status == 401
        for method in ORDERS:
            for place in places(viewer):
                assert (await asking.ask(method, place, headers=own)).status == 401


async def test_the_link_leads_nowhere_else(viewer: Viewer) -> None:
    for place in ("//evil.example/", "///evil.example", "/%5Cevil.example", "/\\x", "//\\/x"):
        reader, writer = await asyncio.open_connection("127.0.0.1", viewer.port)
        asked = f"GET {place}?token={viewer.token} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        writer.write(asked.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert re.search(r"^Location: /[^/\\]", head, re.MULTILINE), head
        writer.close()
        await writer.wait_closed()


async def test_only_our_own_pages_give_orders(viewer: Viewer, *, slow: bool) -> None:
    """By no method and at no place, whatever is said: with `--slow` each at each."""
    own = viewer.origin
    all_said: tuple[dict[str, str], ...] = (
        {},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin, same-origin"},
        {"Sec-Fetch-Site": "same-site", "Origin": own},
        {"Sec-Fetch-Site": ""},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": own.replace("127.0.0.1", "localhost")},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": f"{own}.evil.example"},
        {"Referer": f"{own}/"},
    )
    orders = list(product(ORDERS, places(viewer)))
    asked = product(orders, all_said) if slow else zip(orders, cycle(all_said), strict=False)
    for (method, place), said in asked:
        answer = await viewer.ask(method, place, headers=said)
        assert answer.status == 403, (method, place, said)
        check_headers(answer)


@pytest.mark.quick("headers1")
@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1:{port}"}]
)
async def test_what_our_own_pages_send_comes_to_the_routes(
    viewer: Viewer, headers: dict[str, str]
) -> None:
    said = {name: value.format(port=viewer.port) for name, value in headers.items()}
    assert (await viewer.ask("POST", "/none", headers=said, data={"a": "b"})).status == 404
    assert (await viewer.ask("POST", "/e/default", headers=said, data={"a": "b"})).status == 405
    assert (await viewer.ask("DELETE", "/e/default", headers=said)).status == 405


async def test_only_forms_and_json_are_read(viewer: Viewer) -> None:
    own = {"Sec-Fetch-Site": "same-origin"}
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/octet-stream"):
        answer = await viewer.ask(
            "POST", "/e/default", data=b"a=b", headers={**own, "Content-Type": kind}
        )
        assert answer.status == 415
    json = {**own, "Content-Type": "application/json"}
    assert (await viewer.ask("POST", "/e/default", data=b"{}", headers=json)).status == 405


async def test_a_body_that_is_too_large_is_refused(viewer: Viewer) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    body = io.BytesIO(b"x" * (MOST_BYTES + 1))
    assert (await viewer.ask("POST", "/e/default", data=body, headers=own)).status == 413


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_other_sites_go_there_but_take_nothing(viewer: Viewer) -> None:
    for site in ("cross-site", "same-site", "something", "none, none"):
        for mode, target in (
            ("cors", "empty"), ("no-cors", "image"), ("no-cors", "script"),
            ("navigate", "iframe"), ("navigate", "object"), ("websocket", ""),
        ):  # fmt: skip
            said = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": target}
            for place in places(viewer):
                assert (await viewer.get(place, said)).status == 403, (said, place)
        visit = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await viewer.get("/e/default", visit)).status == 200


async def test_our_own_pages_and_whoever_types_the_address_are_answered(viewer: Viewer) -> None:
    for site in ("same-origin", "none"):
        said = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
        assert (await viewer.get("/e/default", said)).status == 200


async def test_each_answer_says_what_a_browser_may_do_with_it(viewer: Viewer) -> None:
    for place in places(viewer):
        for method in ("GET", "HEAD"):
            answer = await viewer.ask(method, place)
            check_headers(answer)
            is_kept = place.startswith("/assets/") and "?v=" in place
            assert is_kept or answer.headers["Cache-Control"] == "no-store"


async def test_no_answer_has_a_secret(viewer: Viewer, answered: Project) -> None:
    for place in places(viewer):
        answer = await viewer.get(place)
        for secret in (KEY, answered.base_url, viewer.token):
            assert secret.encode() not in answer.body + str(dict(answer.headers)).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"no http at all\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # https
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\nCookie: SECRET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: SECRET\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: SECRET\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: SECRET\r\n\r\n",
        b"GET /?token=SECRET HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET /?token=SECRET" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_as_all_else_and_sent_back_to_nobody(
    viewer: Viewer, raw: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", viewer.port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.0 400 Bad Request\r\n"))
    assert body == b"This is no request that can be read.\n"
    for name, value in SAID_BY_ALL.items():
        assert f"\r\n{name}: {value}\r\n".encode() in head + b"\r\n"
    assert b"SECRET" not in answer
    assert (viewer.said, caplog.records, *capfd.readouterr()) == ([], [], "", "")


async def raw(viewer: Viewer, lines: str, *, cut: bool = False) -> str:
    """What comes back, by somebody who is let in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", viewer.port)
    cookie = "=".join(viewer.cookie)
    writer.write(f"{lines}\nCookie: {cookie}\nConnection: close".replace("\n", "\r\n").encode())
    writer.write(b"\r\n\r\n")
    if cut:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer.decode()


@pytest.mark.parametrize("target", [
    "http://evil.example/e/default", "http://127.0.0.1/e/default", "http://evil.example/?token={}",
    "*", "evil.example:80", "127.0.0.1:22",
])  # fmt: skip
async def test_it_is_no_proxy(viewer: Viewer, target: str) -> None:
    method = {"*": "OPTIONS"}.get(target, "GET" if "/" in target else "CONNECT")
    target = target.format(viewer.token)
    answer = await raw(viewer, f"{method} {target} HTTP/1.1\nHost: 127.0.0.1")
    assert answer.startswith("HTTP/1.1 403")
    assert "Set-Cookie" not in answer


async def test_a_form_that_is_cut_off_is_no_fault_of_ours(viewer: Viewer) -> None:
    lines = "POST /workers/pause HTTP/1.1\nHost: 127.0.0.1\nSec-Fetch-Site: same-origin\n"
    lines += "Content-Type: application/x-www-form-urlencoded\nContent-Length: 50"
    await raw(viewer, lines, cut=True)
    assert (await viewer.get("/e/default")).status == 200
    assert viewer.said == []


@pytest.mark.parametrize("more", [
    "Content-Length: 5\nTransfer-Encoding: chunked", "Content-Length: 0\nContent-Length: 44",
    "Content-Length: 0, 44", "Content-Length: +5", "Transfer-Encoding: chunked, identity",
    "X: a\n folded", "Host: evil.example",
])  # fmt: skip
async def test_what_may_be_read_in_two_ways_is_not_read(viewer: Viewer, more: str) -> None:
    """Of a second request in the body of the first nothing is seen."""
    lines = "POST /workers/pause HTTP/1.1\nHost: 127.0.0.1\nSec-Fetch-Site: same-origin\n"
    lines += f"Content-Type: application/x-www-form-urlencoded\n{more}"
    answer = await raw(viewer, lines)
    assert re.findall(r"HTTP/1\.[01] (\d+)", answer) in (["400"], ["403"])


async def test_connections_that_say_nothing_hold_up_nobody(viewer: Viewer) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", viewer.port) for _ in range(200)]
    for _, writer in opened[::2]:
        writer.write(b"GET /e/default HTTP/1.1\r\nHost: 127.")
    assert (await asyncio.wait_for(viewer.get("/e/default"), 10)).status == 200
    for _, writer in opened:
        writer.close()
