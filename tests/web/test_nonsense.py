"""Whatever is asked for by whoever may ask: it is answered, and what cannot be is refused in words.
A fault of the page's own would be told in the terminal, and fail the test by that."""

import json
import random
import re
import string
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from yarl import URL

from batchgen.web.server import ROUTES
from tests.kits.page import Answer, Viewer

NUMBERS = (
    "0",
    "1",
    "2",
    "9" * 18,
    "9" * 19,
    str(2**63),
    "9" * 20,
    "9" * 5000,
    "-1",
    "1.5",
    "٣",
    "",
)
DEEP = "[" * 990
TEXTS = (
    "", "x", "default", "none", "\0", "a\0b", "%", "%ff", "\ud800", "ü", "\u202e", "a/b", "a%2Fb",
    "..", "'", '"', "a12", "r1", "e1", "s1", "a" + "9" * 30, "parsed.x", "parsed ==", "a == 1 and",
    "(" * 500, "not " * 500 + "x", "parsed." * 400 + "x", "1" * 5000, "x" * 6000, DEEP, "1:2:3",
    "1.2", "9" * 17 + ".1", "1,2", "newest", "1e400", "nan", "true", "yes",
)  # fmt: skip
NAMES = (
    "a", "after", "all", "at", "attempt", "b", "before", "e", "edited", "experiment", "item",
    "lang", "last", "looked", "max_tokens", "message", "n", "note", "notice", "now", "of", "order",
    "q", "reason", "result", "row", "rpm", "say", "seed", "slots", "span", "stale", "state", "step",
    "token", "tpm", "upto", "v", "where", "worker",
)  # fmt: skip
KNOWN = {
    "state": ("done", "failed", "pending", "running", "stale", "rejected", "earlier"),
    "order": ("newest", "pool"),
    "say": ("accepted", "rejected", "undo", ""),
    "stale": ("yes",), "all": ("yes",), "now": ("yes",), "lang": ("en", "zh", "xx"),
    "span": ("1h", "all"), "of": ("body",), "reason": ("server", "truncated"),
    "n": ("100", "1"), "item": ("1",), "result": ("1",), "experiment": ("default",),
    "where": ("parsed == 1", "review == null", "input.word == 'w1'"), "a": ("s1",), "b": ("s2",),
}  # fmt: skip
PARTS = {
    "{name:[^/]+}": ("default", *TEXTS),
    "{name}": ("view.css", *TEXTS),
    "{id:[0-9]+}": NUMBERS,
    "{seq:[0-9]+}": NUMBERS,
    "{part:input|value}": ("input", "value"),
    "{way:next|previous}": ("next", "previous"),
    "{order:pause|resume|set|stop}": ("pause", "resume", "set", "stop"),
}


def test_each_name_that_is_read_is_tried() -> None:
    """What the pages take from an address or a form."""
    from pathlib import Path

    from batchgen.web import pages

    text = "".join(one.read_text() for one in Path(pages.__path__[0]).glob("*.py"))
    read = set(re.findall(r'(?:query|form|given)\.get\("(\w+)"', text))
    read |= set(re.findall(r'(?:query|form)\["(\w+)"\]', text))
    assert read <= set(NAMES)


def made(place: str, chosen: random.Random, *, usual: bool = False) -> str:
    for part, values in PARTS.items():
        while part in place:
            value = values[0 if usual and part.startswith("{name") else 1] if usual else (
                chosen.choice(values)
            )  # fmt: skip
            place = place.replace(part, quoted(value), 1)
    return place


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def values_of(name: str) -> tuple[str, ...]:
    return (*KNOWN.get(name, ()), *NUMBERS, *TEXTS)


def pairs(chosen: random.Random) -> list[tuple[str, str]]:
    names = chosen.sample(NAMES, chosen.randint(0, 4))
    found = []
    for name in names:
        known = KNOWN.get(name)
        values = known if known and chosen.random() < 0.6 else values_of(name)
        found.append((name, chosen.choice(values)))
    return found


def encoded(those: list[tuple[str, str]]) -> str:
    return urlencode(those, errors="surrogatepass")


async def asked(viewer: Viewer, method: str, place: str, body: bytes | None = None,
                headers: dict[str, str] | None = None) -> Answer:  # fmt: skip
    own = {"Sec-Fetch-Site": "same-origin", "Origin": viewer.origin}
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
    request = viewer.client.request(
        method, URL(viewer.origin + place, encoded=True), data=body, allow_redirects=False,
        headers={**own, **kind, **(headers or {})},
    )  # fmt: skip
    async with request as response:
        return Answer(response.status, response.headers, await response.read())


async def check(viewer: Viewer, method: str, place: str, body: bytes | None = None,
                headers: dict[str, str] | None = None) -> Answer:  # fmt: skip
    answer = await asked(viewer, method, place, body, headers)
    assert answer.status < 500, (method, place[:300], body and body[:300], viewer.said)
    assert not [one for one in viewer.said if "please report" in one]
    assert "Content-Security-Policy" in answer.headers
    return answer


def of_numbers() -> Iterator[tuple[str, str]]:
    for method, place, _ in ROUTES:
        for number in NUMBERS:
            there = re.sub(r"\{(id|seq):[^}]*\}", number, place)
            if there != place:
                yield method, there


async def test_a_number_that_none_has_is_not_found(viewer: Viewer) -> None:
    for method, place in of_numbers():
        await check(viewer, method, made(place, random.Random(1), usual=True))
    for number in ("9" * 19, "9" * 30):
        assert (await viewer.get(f"/calls/{number}")).status == 404
        assert (await viewer.get(f"/items/{number}")).status == 404


async def test_each_value_by_itself(viewer: Viewer) -> None:
    """In each page, by each name that any page takes."""
    places = [made(place, random.Random(1), usual=True) for method, place, _ in ROUTES
              if method == "GET" and "assets" not in place]  # fmt: skip
    chosen = random.Random(7)
    for place in dict.fromkeys(places):
        for name in NAMES:
            for value in chosen.sample(values_of(name), 2):
                await check(viewer, "GET", f"{place}?{encoded([(name, value)])}")


@pytest.mark.quick("0")
@pytest.mark.on_both_engines
@pytest.mark.parametrize("seed", range(2))
async def test_anything_together(viewer: Viewer, seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(200):
        method, place, _ = chosen.choice(ROUTES)
        address = f"{made(place, chosen, usual=chosen.random() < 0.7)}?{encoded(pairs(chosen))}"
        if len(address) > 8000:
            continue
        body = encoded(pairs(chosen)).encode() if method == "POST" else None
        await check(viewer, method, address, body)
    viewer.said.clear()


REVIEW = "/e/default/review?n=3"


async def test_what_is_typed_may_be_anything(viewer: Viewer) -> None:
    """Each as an edit and a note of each row."""
    for value in (*TEXTS, "[" * 100_000, '{"a":' * 3000, "1" * 5000, "1e999", "-0", "NaN",
                  '"\\ud800"', '{"a": 1, "a": 2}', " ", "\r\n", "null"):  # fmt: skip
        for extra in ({"edited": value}, {"note": value}):
            form = {"item": "1", "result": "1", "say": "accepted", **extra}
            await check(viewer, "POST", REVIEW, encoded(list(form.items())).encode())
            form["say"] = "undo"
            await check(viewer, "POST", REVIEW, encoded(list(form.items())).encode())
    shown = await viewer.post(REVIEW, {"item": "1", "result": "1", "edited": DEEP})
    assert shown.status in (303, 400)
    viewer.said.clear()


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe=\xff", b"item=%ff%fe", b"&&&==&", b"item=1&item=2", b"\0", b"=" * 5000, b"%",
     b"%zz=%", b"a" * 100_000, b"&" * 100_000],
    ids=range(10),
)  # fmt: skip
async def test_what_is_no_form_is_refused(viewer: Viewer, body: bytes) -> None:
    for place in (REVIEW, "/workers/set"):
        assert (await check(viewer, "POST", place, body)).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded; charset=klingon"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=utf-16"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=rot13"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=zlib"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded; charset"}, 0),
        ({"Content-Type": ";"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "deflate"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "zstd"}, 415),
        ({"Expect": "wonders"}, 417),
    ],
)
async def test_what_is_sent_in_another_way_is_refused(
    viewer: Viewer, headers: dict[str, str], status: int
) -> None:
    form = b"item=1&result=1&say=&note=x"
    for place in (REVIEW, "/workers/set"):
        answer = await check(viewer, "POST", place, form, headers)
        assert answer.status == (status or answer.status), place


@pytest.mark.parametrize("name", [
    "Accept-Language", "Batchgen-Seen", "Batchgen-Tab", "Cookie", "Origin", "Referer", "Accept",
    "If-None-Match", "Range", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Content-Type", "Expect",
])  # fmt: skip
async def test_what_a_header_says_may_be_anything(viewer: Viewer, name: str) -> None:
    values = ["", "x", ";q=", "en;q=x,zh", "en;q=nan", "zh;q=inf,en;q=-inf", "en;q=1e999", "ü",
              ",", ";", "=", "a=b; c", '"', "x" * 5000,
              "".join(c for c in string.punctuation)]  # fmt: skip
    for value in values:
        await check(viewer, "GET", "/e/default", headers={name: value})


async def test_json_is_not_taken_for_a_form(viewer: Viewer) -> None:
    headers = {"Content-Type": "application/json"}
    for text in ("", "{}", DEEP, "x", json.dumps({"item": 1, "result": 1})):
        for place in (REVIEW, "/workers/set"):
            answer = await check(viewer, "POST", place, text.encode(), headers)
            assert answer.status == 400
