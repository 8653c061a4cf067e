"""The API key is in no file and in no text, whatever the server, the config or the user does.

The servers here are the worst there are: they send the key back, in bodies, headers and answers.
"""

import html
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from batchgen.config import load, secrets_of
from batchgen.simulate import Simulator
from batchgen.simulate.behaviours import Behaviour
from tests.kits.project import KEY, Project
from tests.kits.tcp import closing, listening
from tests.kits.typist import Ended, Typist

WRITTEN_BY_THE_USER = "config.yaml"
AUTHORIZATION = f"Authorization: Bearer {KEY}"
ERROR: dict[str, Any] = {"error": {"message": f"Unexpected value: {KEY}.", "code": KEY}}

ECHOES = {
    "json": Behaviour.response(400, json.dumps(ERROR)),
    "text": Behaviour.response(500, f"POST /v1\n{AUTHORIZATION}\n", content_type="text/plain"),
    "inside": Behaviour.response(200, json.dumps(ERROR)),
    "html": Behaviour.response(200, f"<pre>{AUTHORIZATION}</pre>", content_type="text/html"),
    "answer": Behaviour.ok(f"Your key is {KEY}, isn't it?"),
}


def places_with_the_key(project: Project, *seen: Ended) -> list[str]:
    """Every file of the project and every text of a process that has the key in it."""
    found = [
        str(file.relative_to(project.path))
        for file in sorted(project.path.rglob("*"))
        if file.is_file() and KEY.encode() in file.read_bytes()
    ]
    return found + [text for ended in seen for text in (ended.out, ended.err) if KEY in text]


async def look_at_everything(batchgen: Typist, items: int) -> list[Ended]:
    return [
        await batchgen(*command)
        for command in [
            ["-v", "status"],
            ["status", "--json"],
            ["failures"],
            ["failures", "--json"],
            *(["show", str(number)] for number in range(1, items + 1)),
            ["show", "1", "--json"],
            ["export"],
            ["export", "--failed"],
            ["export", "-o", "-"],
            ["experiments"],
            ["verify"],
        ]
    ]


@pytest.fixture
def looking(project: Project) -> Project:
    """A project with the key in its config; an item fails at its first failure."""
    project.config("work: {max_attempts: 1}\n")
    project.pool({"word": name} for name in ECHOES)
    return project


async def test_the_key_that_a_server_sends_back_is_stored_and_shown_nowhere(
    looking: Project, batchgen: Typist, simulator: Simulator
) -> None:
    for name, behaviour in ECHOES.items():
        simulator.script(f"Say {name}", behaviour)
    worked = await looking.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert worked.code == 3, worked.err
    assert simulator.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    seen = await look_at_everything(batchgen, len(ECHOES))
    assert [ended.code for ended in seen] == [0] * len(seen)
    assert places_with_the_key(looking, worked, *seen) == [WRITTEN_BY_THE_USER]
    # They did send it, and what they sent was kept.
    kept = looking.query(
        "select count(*) from attempts where coalesce(response, body) like '%[API key]%'"
    )
    assert kept == [(len(ECHOES),)]


@pytest.mark.quick("location")
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.error(422, message="no", headers={"x-request-id": f"req-{KEY}"}),
        Behaviour.redirect(f"http://127.0.0.1:9/login?key={KEY}"),
    ],
    ids=["request-id", "location"],
)
async def test_the_key_in_a_header_of_the_response_is_stored_and_shown_nowhere(
    looking: Project, batchgen: Typist, simulator: Simulator, behaviour: Behaviour
) -> None:
    simulator.script("Say json", behaviour)
    worked = await looking.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    seen = await look_at_everything(batchgen, 1)
    assert places_with_the_key(looking, worked, *seen) == [WRITTEN_BY_THE_USER]


HALF = KEY[: len(KEY) // 2]
BROKEN_HTTP = {
    "header": f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}\0\r\n\r\n",
    "header name": f"HTTP/1.1 200 OK\r\n{KEY} is it: yes\r\n\r\n",
    "status": f"HTTP/1.1 {KEY} what\r\n\r\n",
    "status line": f"{AUTHORIZATION}\r\n\r\n",
    "chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n",
    "chunk of an error": f"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n",
    "long header": f"HTTP/1.1 200 OK\r\nX-Echo: {KEY * 500}\r\n\r\n",
    "half of it": f"HTTP/1.1 200 OK\r\nX-Echo: {HALF}\0\r\n\r\n",
    "cut off": f"HTTP/1.1 200 OK\r\nX-Echo: {KEY}\r\nContent-Length: 9",
    "cut off later": f"HTTP/1.1 500 {KEY}\r\nX-Echo: {KEY}\r\nContent-Length: 99\r\n\r\n{{",
    "cookie": f"HTTP/1.1 400 No\r\nSet-Cookie: my {KEY}=1\r\nContent-Length: 2\r\n\r\nno",
    "no gzip": f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n{KEY}",
}


@pytest.mark.quick("header name", "half of it")
@pytest.mark.parametrize("reply", BROKEN_HTTP.values(), ids=BROKEN_HTTP)
async def test_a_reply_that_is_no_http_is_told_without_its_bytes(
    looking: Project, batchgen: Typist, reply: str
) -> None:
    looking.pool([{"word": "a"}])
    async with listening(closing(reply.encode())) as url:
        by_name = url.replace("127.0.0.1", "localhost")  # an address has no cookies
        looking.config("work: {max_attempts: 1, timeout_s: 10, stall_s: 1}\n", base_url=by_name)
        worked = await looking.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    seen = [await batchgen(*command) for command in (["failures"], ["show", "1"])]
    assert places_with_the_key(looking, worked, *seen) == [WRITTEN_BY_THE_USER]
    errors = looking.query("select error from attempts where error is not null")
    assert errors
    assert not any(HALF in error for (error,) in errors)


DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "capitals": str.upper,
    "slashes": lambda key: key.replace("/", "\\/"),
    "unicode": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "unicode in a text": lambda key: "".join(f"\\\\u{ord(char):04X}" for char in key),
    "percent": lambda key: quote(key, safe=""),
    "percent twice": lambda key: quote(quote(key, safe=""), safe=""),
    "html": lambda key: "".join(f"&#x{ord(char):X};" for char in key),
    "html names": lambda key: html.escape(key),
    "two lines": lambda key: f"{key[:9]}\\n    {key[9:]}",
    "utf-16": lambda key: "\0".join(key),
}


@pytest.mark.quick("plain", "unicode", "percent")
@pytest.mark.parametrize("form", DISGUISES)
async def test_a_key_in_disguise_is_found_too(
    looking: Project, batchgen: Typist, simulator: Simulator, form: str
) -> None:
    key = "sk/secret+<0123>&45'6789=="
    looking.config("work: {max_attempts: 1}\n", api_key=key)
    written = DISGUISES[form](key)
    body = '{"error": {"message": "' + f"http://h/x?key={written}&b=1 is {written}" + '"}}'
    simulator.script("Say json", Behaviour.response(400, body))
    looking.pool([{"word": "json"}])
    worked = await batchgen("-v", "run", "pool.jsonl")
    ((error, kept),) = looking.query("select error, body from attempts")
    assert "[API key]" in error
    assert "[API key]" in kept
    seen = await look_at_everything(batchgen, 1)
    for text in [error, kept, worked.err, *(ended.out for ended in seen)]:
        assert "0123" not in text


def test_what_a_proxy_is_sent_is_hidden_in_its_errors(tmp_path: Path) -> None:
    model = load(None, env={}, cwd=tmp_path).model
    secrets = secrets_of(model, "http://me:pass%2Fword@proxy:3128")
    sent = b64encode(b"me:pass/word").decode()
    said = f"407 for pass/word, pass%2Fword, Proxy-Authorization: Basic {sent}"
    assert secrets.hide(said) == (
        "407 for [proxy password], [proxy password], Proxy-Authorization: Basic [proxy password]"
    )


@pytest.mark.parametrize(("key", "in_answers"), [("sk-1234", False), ("token-abc123", True)])
async def test_a_short_key_is_hidden_where_it_can_be_no_word(
    looking: Project, batchgen: Typist, simulator: Simulator, key: str, in_answers: bool
) -> None:
    looking.config("work: {max_attempts: 1}\n", api_key=key)
    said = {"error": {"message": f"No such token: {key}."}}
    text = "fine" if in_answers else "task-1234 is no sk-1234"
    answer: dict[str, Any] = {"choices": [{"message": {"content": text}}]}
    if in_answers:
        answer["debug"] = {"Authorization": f"Bearer {key}"}
    simulator.script("Say json", Behaviour.response(200, json.dumps(said)))
    simulator.script("Say text", Behaviour.response(200, json.dumps(answer)))
    looking.pool([{"word": "json"}, {"word": "text"}])
    worked = await batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert key not in worked.err
    assert key not in (await batchgen("show", "1")).out
    assert looking.query("select count(*) from attempts where body like ?", (f"%{key}%",)) == [(0,)]
    assert looking.export()[0]["response"] == text


TOKEN = "tenant-4711-token"


@pytest.mark.quick("http://${{TOKEN}}:9/v1-Tenant-4711-token.localhost.invalid")
@pytest.mark.parametrize(
    ("base_url", "variable"),
    [
        ("{url}/${{TOKEN}}/v1", TOKEN),
        ("${{TOKEN}}/v1", "{url}/" + TOKEN),
        ("http://${{TOKEN}}:9/v1", f"{TOKEN}.localhost.invalid"),
        ("http://${{TOKEN}}:9/v1", f"{TOKEN.capitalize()}.localhost.invalid"),
    ],
)
async def test_a_variable_of_the_base_url_is_shown_by_its_name(
    looking: Project, batchgen: Typist, base_url: str, variable: str
) -> None:
    reply = json.dumps({"detail": f"no route for /{TOKEN}/v1/chat/completions"})
    head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(reply)}\r\n\r\n"
    looking.pool([{"word": "a"}])
    async with listening(closing((head + reply).encode())) as url:
        server = url.removesuffix("/v1")
        looking.env |= {"TOKEN": variable.format(url=server)}
        text = "work: {max_attempts: 1, stall_s: 1}\n"
        looking.config(text, base_url=base_url.format(url=server), max_tokens=9)
        worked = await batchgen("-v", "run", "pool.jsonl", "-c", "1")
        refused = await batchgen("work", "--max-cost", "1")
    seen = await look_at_everything(batchgen, 1)
    for text in [worked.err, worked.out, refused.err, *(ended.out for ended in seen)]:
        assert TOKEN not in text
    assert looking.query("select 1 from attempts where error like '%tenant-%'") == []
    assert "${TOKEN}" in refused.err


async def test_an_answer_may_speak_of_the_host(
    looking: Project, batchgen: Typist, simulator: Simulator
) -> None:
    looking.env |= {"HOST": "127.0.0.1"}
    looking.config(base_url=simulator.base_url.replace("127.0.0.1", "${HOST}"))
    simulator.script("Say a", Behaviour.ok("127.0.0.1 and \\/ 127.0.0.1"))
    looking.pool([{"word": "a"}])
    assert (await batchgen("run", "pool.jsonl")).code == 0
    assert looking.export()[0]["response"] == "127.0.0.1 and \\/ 127.0.0.1"


@pytest.mark.quick("401")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_not_in_the_message_that_says_so(
    looking: Project, batchgen: Typist, simulator: Simulator, status: int
) -> None:
    for name in ECHOES:
        simulator.script(f"Say {name}", Behaviour.response(status, json.dumps(ERROR)))
    worked = await looking.batchgen("-v", "run", "pool.jsonl", "-c", "1")
    assert worked.code == 4
    assert "halted: " in worked.err
    seen = await look_at_everything(batchgen, 1)
    assert places_with_the_key(looking, worked, *seen) == [WRITTEN_BY_THE_USER]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_killed_worker_leaves_the_key_in_no_file_nor_in_the_process_list(
    looking: Project, simulator: Simulator
) -> None:
    simulator.script("Say json", ECHOES["json"])
    assert (await looking.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.script("Say text", Behaviour("hang"))
    worker = await looking.start("-v", "work", "-c", "1", fresh=True)
    await simulator.received(2)
    arguments = Path(f"/proc/{worker.pid}/cmdline")
    if sys.platform == "linux":
        assert KEY.encode() not in arguments.read_bytes()
    worker.kill()
    await worker.wait()
    if looking.server is None:
        assert (looking.path / "batchgen.db-wal").stat().st_size > 0
    assert places_with_the_key(looking) == [WRITTEN_BY_THE_USER]


@pytest.mark.quick("$MY_KEY", "None")
@pytest.mark.parametrize(
    ("written", "env"),
    [
        ("${MY_KEY}", {"MY_KEY": KEY}),
        ("$MY_KEY", {"MY_KEY": KEY}),
        (None, {"OPENAI_API_KEY": KEY}),
        ("other", {"BATCHGEN_MODEL_API_KEY": KEY}),
    ],
)
async def test_a_key_of_the_environment_is_in_no_file_at_all(
    looking: Project, simulator: Simulator, written: str | None, env: dict[str, str]
) -> None:
    looking.config(api_key=written)
    looking.env |= env
    simulator.script("Say json", ECHOES["json"])
    worked = await looking.batchgen("-v", "run", "pool.jsonl")
    assert {request.headers["Authorization"] for request in simulator.requests} == {f"Bearer {KEY}"}
    assert places_with_the_key(looking, worked) == []


SENT = {
    "api-key": "${MY_KEY}",
    "x-portkey-config": '{"retry": 1, "virtual_key": "vk-0123456789abcdef"}',
    "x-team": "Bearer tt-0123456789",
    "x-trace": "Trace$ecret99",
    "X-Title": "Names of cities",
}
QUERY = {"token": "q-0123456789", "sig": "Sg/0123+456="}
SENT_SECRETS = (
    KEY, "vk-0123456789abcdef", "tt-0123456789", "Trace$ecret99", "q-0123456789",
    "Sg/0123+456=", "Sg/0123%2B456%3D", "Sg%2F0123%2B456%3D",
)  # fmt: skip


@pytest.mark.quick("2")
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_what_is_sent_with_each_request_is_stored_and_shown_nowhere(
    looking: Project, batchgen: Typist, simulator: Simulator, processes: str
) -> None:
    looking.config("work: {max_attempts: 1}\n", headers=SENT, query=QUERY)
    looking.env |= {"MY_KEY": KEY}
    looking.pool({"word": word} for word in ("error", "answer", "third"))
    everything = " ".join([*SENT_SECRETS, *SENT.values(), "?token=q%2D0123456789"])
    error = json.dumps({"error": {"message": f"unexpected: {everything}"}})
    simulator.script("Say error", Behaviour.response(400, error))
    simulator.script("Say answer", Behaviour.ok(f"{everything} are Names of cities"))
    worked = await looking.process("run", "pool.jsonl", "--processes", processes, "-c", "2")
    assert worked.code == 3, worked.err
    assert {request.headers["api-key"] for request in simulator.requests} == {KEY}
    assert {request.query["token"] for request in simulator.requests} == {"q-0123456789"}
    assert not any("Authorization" in request.headers for request in simulator.requests)
    seen = [worked, *await look_at_everything(batchgen, 3)]
    written = [file for file in looking.path.rglob("*") if file.is_file()]
    written.remove(looking.path / WRITTEN_BY_THE_USER)
    for secret in SENT_SECRETS:
        assert [file for file in written if secret.encode() in file.read_bytes()] == []
        assert [text for one in seen for text in (one.out, one.err) if secret in text] == []
    assert "[model.headers.x-team]" in seen[3].out  # failures
    answer = looking.export()[0]["response"]  # what an answer may speak of is left as it is
    assert answer.endswith("are Names of cities")


@pytest.mark.parametrize(
    "text",
    [
        f"model:\n  headers: 'api-key: {KEY}'\n",
        f"model:\n  headers:\n    api-key:{KEY}\n",
        f"model:\n  headers: {{api-key:{KEY}}}\n",
        f"model:\n  headers: [{KEY}]\n",
        f"model:\n  headers: {{Host: {KEY}}}\n",
        f'model:\n  query: {{key: "{KEY}\\n\\0"}}\n',
        f"model:\n  query: {{key: [{KEY}]}}\n",
        f"model:\n  api_key: [{KEY}]\n",
        f"model:\n  api_key:{KEY}\n",
        f"model: {{api_key:{KEY}}}\n",
        f"model: {{api_kye: {KEY}}}\n",
        f"model:\n  base_url: https://user:{KEY}@host/v1\n",
        f"model:\n  base_url: {KEY}\n",
        f"model:\n  api_key: '{KEY}\n",
        f"model:\n  api_key: {KEY}: x\n",
        f"model:\n\tapi_key: {KEY}\n",
        f"model:\n  api_key: {KEY}\n  api_key: {KEY}\n",
        f"api_key: {KEY}\n",
    ],
)
async def test_a_config_that_is_wrong_about_the_key_does_not_show_it(
    batchgen: Typist, looking: Project, text: str
) -> None:
    looking.write(WRITTEN_BY_THE_USER, text)
    refused = await batchgen("run", "pool.jsonl")
    assert refused.code == 2
    assert refused.err.startswith("error: config.yaml")
    assert places_with_the_key(looking, refused) == [WRITTEN_BY_THE_USER]
