"""Servers, pools, configs and templates that mean harm, or might as well.

Whatever comes in ends as one of our own errors or as a failed item: no traceback, no hang, no
memory without bounds, and the other items are done.
"""

import asyncio
import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.config import load
from batchgen.endpoints import CHAT
from batchgen.errors import ConfigError, TemplateError
from batchgen.items import Answer, Failure, Reply, Template
from batchgen.llm.client import open_client
from batchgen.llm.replies import read_reply
from batchgen.pool import BadLine, open_pool, read_objects
from batchgen.prompts import compile_template
from batchgen.simulate import Behaviour, Simulator
from tests.kits.job import Job
from tests.kits.project import KEY, Project, ended
from tests.kits.tcp import listening
from tests.kits.typist import Ended, Typist

MB = 1 << 20
PEAK_MB = 450  # Python and our imports take 60, an item as large as they get a few times 64

# Runs batchgen, and says in the end how much memory it had at most. Not by getrusage, which begins
# with what the process that started it has.
MEASURED = """
import atexit, re, sys
from pathlib import Path
status = Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) // 1024
atexit.register(lambda: print("PEAK", peak(), file=sys.stderr))
from batchgen.cli import main
main()
"""


async def measured(
    project: Project, *arguments: str, stdin: Iterable[bytes] = ()
) -> tuple[Ended, int]:
    """Run batchgen to its end; also the most memory it had, in MB."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, *arguments,
        cwd=project.path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    project.running.append(process)
    assert process.stdin is not None
    try:
        for chunk in stdin:
            process.stdin.write(chunk)
            await process.stdin.drain()
    except ConnectionError:
        pass  # it has read enough
    end = await ended(process, b"")
    assert "Traceback" not in end.err
    peak_mb = int(end.err.rpartition("PEAK ")[2])
    print(f"peak: {peak_mb} MB\n{end.err}")
    return end, peak_mb


# Servers

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWER = b'{"choices": [{"message": {"content": "Hello"}}]}'


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return await reader.readexactly(length)


def endlessly(chunk: bytes) -> Iterator[bytes]:
    while True:
        yield chunk


def huge_answer() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: %d\r\n\r\n" % (200 * MB)
    yield b'{"choices": [{"message": {"content": "'
    yield from (b"x" * MB for _ in range(200))


def endless_chunks() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from endlessly(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def gzip_bomb() -> Iterator[bytes]:
    """10 GB of blanks in 10 MB."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = pack.compress(b" " * MB) + pack.flush(zlib.Z_FULL_FLUSH)
    again = pack.compress(b" " * MB) + pack.flush(zlib.Z_FULL_FLUSH)
    yield HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    for part in (start, *[again * 64] * 160):
        yield b"%x\r\n" % len(part) + part + b"\r\n"


def endless_headers() -> Iterator[bytes]:
    yield HEAD
    yield from endlessly(b"".join(b"X-%d: y\r\n" % number for number in range(10_000)))


def one_endless_header() -> Iterator[bytes]:
    yield HEAD + b"X-Long: "
    yield from endlessly(b"y" * 65536)


def endless_continues() -> Iterator[bytes]:
    return endlessly(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def endless_trailers() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield b"%x\r\n" % len(ANSWER) + ANSWER + b"\r\n0\r\n"
    yield from endlessly(b"".join(b"X-%d: y\r\n" % number for number in range(10_000)))


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "reasons"),
    [
        (huge_answer, {"bad_response"}),
        pytest.param(endless_chunks, {"bad_response"}, marks=pytest.mark.slow),
        (gzip_bomb, {"bad_response", "connection"}),
        (endless_headers, {"bad_response"}),
        pytest.param(one_endless_header, {"bad_response"}, marks=pytest.mark.slow),
        pytest.param(endless_continues, {"timeout"}, marks=pytest.mark.slow),
        pytest.param(
            endless_trailers, {"connection", "bad_response", "timeout"}, marks=pytest.mark.slow
        ),
    ],
)
async def test_a_server_that_sends_without_end_costs_its_item_and_little_memory(
    project: Project, send: Callable[[], Iterator[bytes]], reasons: set[str]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"evil" in await read_request(reader):
                for chunk in send():
                    writer.write(chunk)
                    await writer.drain()
            else:
                writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass  # the client has left

    async with listening(served) as url:
        project.base_url = url
        project.config("work: {timeout_s: 3, max_attempts: 1}\n")
        project.pool([{"word": "evil"}, *({"word": f"w{n}"} for n in range(5))])
        end, peak_mb = await measured(project, "run", "pool.jsonl", "-c", "2")
    rows = project.query("select state, reason, error from results order by item_id")
    assert (end.code, len(rows)) == (3, 6), end.err
    assert rows[0][0] == "failed"
    assert rows[0][1] in reasons, rows[0]
    assert rows[1:] == [("done", None, None)] * 5
    assert peak_mb < PEAK_MB, rows[0]


@pytest.mark.slow
async def test_answers_that_unpack_to_megabytes_are_not_in_memory_all_at_once(
    project: Project,
) -> None:
    """24 of 20 MB each, from 20 KB; nothing is kept of one that is written."""
    answer = b'{"choices": [{"message": {"content": "%s"}}]}' % (b"x" * (20 * MB))
    packed = gzip.compress(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await read_request(reader)
                head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(packed) + packed)
        except asyncio.IncompleteReadError:
            pass  # the client has left

    async with listening(serve) as url:
        project.base_url = url
        project.config()
        project.pool({"word": f"w{n}"} for n in range(24))
        assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
        end, peak_mb = await measured(project, "work", "-c", "24")
    assert end.code == 0, end.err
    assert peak_mb < PEAK_MB + 100


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed_with_the_key(
    tmp_path: Path, simulator: Simulator, status: int
) -> None:
    elsewhere = Simulator()
    async with elsewhere.running() as url:
        simulator.script("Say", Behaviour.redirect(f"{url}/chat/completions", status))
        job = Job(tmp_path, simulator.base_url)
        result = await job.run(["a", "b"], slots=1)
    assert str(result.stats.halted and result.stats.halted.why).startswith(
        "the server sends us elsewhere."
    )
    assert [received.headers["Authorization"] for received in simulator.requests] == [
        f"Bearer {KEY}"
    ]
    assert job.ends() == [("pending", None, 0)] * 2
    assert (elsewhere.calls, list(elsewhere.requests)) == (0, [])


DEEP = "[" * 100_000 + "]" * 100_000
BODIES = {
    "deep": DEEP,
    "deep inside": f'{{"choices": [{{"message": {{"content": "x", "y": {DEEP}}}}}]}}',
    "digits": '{"choices": ' + "9" * 100_000 + "}",
    "nul": "\0" * 1000,
    "no object": '"choices"',
    "infinite": '{"choices": [{"message": {"content": null}}], "usage": {"prompt_tokens": 1e999}}',
    "odd types": '{"choices": {"0": []}, "error": [], "usage": [], "model": {}}',
}
ANSWERS = {
    "deep answer": DEEP,
    "NUL answer": "a\0b",
    "surrogate answer": "half \ud83d",
    "formula": "=HYPERLINK(1)",
}


async def test_bodies_and_answers_of_any_kind_cost_their_item_at_most(
    tmp_path: Path, simulator: Simulator
) -> None:
    for word, body in BODIES.items():
        simulator.script(f"Say {word}.", *[Behaviour.response(200, body)] * 2)
    for word, text in ANSWERS.items():
        simulator.script(
            f"Say {word}.",
            Behaviour.response(200, json.dumps({"choices": [{"message": {"content": text}}]})),
        )
    job = Job(tmp_path, simulator.base_url)
    words = [f"{word}." for word in [*BODIES, *ANSWERS]]
    await job.run([*words, "ok."], parser="json", max_attempts=1)
    bad = [("failed", "bad_response", 1)] * len(BODIES)
    unparsed = [("failed", "parse", 1)] * len(ANSWERS)
    assert job.ends() == [*bad, *unparsed, ("failed", "parse", 1)]


def json_values() -> st.SearchStrategy[Any]:
    names = st.sampled_from(
        ["choices", "message", "content", "error", "code", "usage", "finish_reason", "refusal",
         "prompt_tokens", "model", "text", "detail", "prompt_tokens_details"]
    )  # fmt: skip
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    leaves |= st.sampled_from(["length", "\ud800", "content_filter", "429", 429, 500])
    return st.recursive(
        leaves,
        lambda some: st.lists(some, max_size=3) | st.dictionaries(names, some),
        max_leaves=20,
    )


@given(
    status=st.sampled_from([200, 201, 302, 400, 401, 403, 404, 429, 500, 503]),
    body=json_values().map(json.dumps) | st.text(),
    name=st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "location"]),
    value=st.text() | st.integers().map(str) | st.floats().map(str),
)
def test_any_reply_is_an_answer_or_a_failure_that_can_be_stored(
    status: int, body: str, name: str, value: str
) -> None:
    verdict = read_reply(Reply(0, 0, status=status, headers={name: value}, body=body), CHAT)
    if isinstance(verdict, Answer):
        assert json.loads(verdict.rest) is not None
        verdict.text.encode()
        verdict.rest.encode()
    else:
        assert isinstance(verdict, Failure)
        verdict.message.encode()
        assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= 6 * 3600


WIRE_BYTES = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 429 \xff\r\n", b"HTTP/1.0 500 x\r\n", b"HTTP/9 9\r\n",
         b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n",
         b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99\r\n",
         b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
         b"Retry-After: 1e999\r\n",
         b"Content-Encoding: br\r\n", b"Content-Type: text/html; charset=nonsense\r\n", b": \r\n",
         b"Set-Cookie: a=\0b\r\n", b"Location: http://[\r\n", b"\r\n",
         b"X: " + b"y" * 9000 + b"\r\n",
         b"5\r\nHello\r\n", b"-5\r\n", b"zz\r\n", b"0\r\n\r\n", b"\x1f\x8b\x08", b"\0", b"\xff" * 9,
         ANSWER, b"%x\r\n" % len(ANSWER) + ANSWER + b"\r\n"]
    ), max_size=12,
).map(b"".join)  # fmt: skip


@given(raw=WIRE_BYTES)
def test_any_bytes_on_the_wire_are_a_reply(raw: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    async def ask() -> Reply:
        async with listening(serve) as url:
            given = {"base_url": url, "api_key": KEY}
            model = load(None, env={}, overrides=given, cwd=Path.cwd()).model
            async with open_client(model, timeout_s=5) as client:
                return await client.complete({"messages": []}, CHAT)

    verdict = read_reply(asyncio.run(ask()), CHAT)
    assert isinstance(verdict, Answer | Failure)


# Parsers


async def test_a_pattern_that_backtracks_for_ever_costs_its_item_only(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.script("Say evil", Behaviour.ok("a" * 60 + "!"))
    for n in range(20):
        simulator.script(f"Say w{n}.", Behaviour.ok("aa"))
    job = Job(tmp_path, simulator.base_url)
    await job.run(
        ["evil", *(f"w{n}." for n in range(20))], parser="regex:^(?:a|a?)+(?:a|aa)+$",
        parse_timeout_s=4, slots=2,
    )  # fmt: skip
    assert job.ends() == [("failed", "parse", 1), *[("done", None, 1)] * 20]
    assert job.error().endswith("took longer than 4 s")
    # Nobody waited for it: the others were done first.
    assert job.query("select item_id from results order by seq desc limit 1") == [(1,)]


@pytest.mark.parametrize(
    "value", [json.loads("[" * 900 + "]" * 900), "half \ud83d", {"a": float("nan")}, "x" * MB]
)
async def test_what_a_parser_returns_is_stored_or_costs_its_item(
    tmp_path: Path, simulator: Simulator, value: Any
) -> None:
    job = Job(tmp_path, simulator.base_url)
    await job.run(["a"], parse=lambda response: value)
    assert job.ends()[0][:2] in [("done", None), ("failed", "parse")]


# Pools


def one_long_line() -> Iterator[bytes]:
    """More than the memory that it may take without a line break, and a good item."""
    yield b'{"word": "'
    yield from (b"x" * MB for _ in range(PEAK_MB + 50))
    yield b'"}\n{"word": "good"}\n'


def one_long_row() -> Iterator[bytes]:
    """A row of CSV that goes on and on: each cell is short, and so is each line."""
    yield b'word\n"a\n"'
    yield from (b',"a\n"' * (MB // 5) for _ in range(300))
    yield b"\ngood\n"


def one_long_element() -> Iterator[bytes]:
    yield b'[{"word": "'
    yield from (b"x" * MB for _ in range(1024))
    yield b'"}, {"word": "good"}]'


@pytest.mark.slow
@pytest.mark.on_both_engines
@pytest.mark.parametrize(
    ("name", "chunks", "new"),
    [("-", one_long_line, 1), ("p.csv", one_long_row, None), ("p.json", one_long_element, None)],
)
async def test_a_pool_without_end_is_named_and_takes_little_memory(
    project: Project, name: str, chunks: Callable[[], Iterator[bytes]], new: int | None
) -> None:
    if name == "-":
        enqueued, peak_mb = await measured(
            project, "enqueue", name, "--skip-invalid", "bad.jsonl", stdin=chunks()
        )
    else:
        os.mkfifo(project.path / name)
        writing = asyncio.create_task(asyncio.to_thread(write_fifo, project.path / name, chunks()))
        enqueued, peak_mb = await measured(project, "enqueue", name, "--skip-invalid", "bad.jsonl")
        await writing
    assert peak_mb < PEAK_MB, enqueued.err
    if new is not None:
        assert project.query("select count(*) from items") == [(new,)]


def write_fifo(path: Path, chunks: Iterator[bytes]) -> None:
    try:
        with path.open("wb") as fifo:
            for chunk in chunks:
                fifo.write(chunk)
    except BrokenPipeError:
        pass  # nobody reads on


POOL_BYTES = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r", b"\0", b"word", b"id", b"1e999",
         b"NaN", b"\\ud800", b"\xff", b"null", b'"messages"', b'"params"', b'{"word": "w"}\n',
         b"\xef\xbb\xbf", b"=1+1", b"'", b"[" * 5000]
    ), max_size=30,
).map(b"".join)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=POOL_BYTES, suffix=st.sampled_from(["jsonl", "json", "csv"]))
def test_any_bytes_are_items_or_bad_lines(tmp_path: Path, content: bytes, suffix: str) -> None:
    pool = tmp_path / f"pool.{suffix}"
    pool.write_bytes(content)
    for entry in open_pool(str(pool)):
        if not isinstance(entry, BadLine):
            json.dumps(entry.input.given, ensure_ascii=False, allow_nan=False).encode()


@given(objects=st.lists(json_values(), max_size=5))
def test_any_objects_are_items_or_bad_lines(objects: list[Any]) -> None:
    assert len(list(read_objects(objects))) == len(objects)


async def test_formulas_go_through_untouched(project: Project, simulator: Simulator) -> None:
    formula = '=HYPERLINK("http://evil","x")'
    project.write("pool.csv", 'word\n"=HYPERLINK(""http://evil"",""x"")"\n@SUM(A1)\n')
    simulator.script("Say =", Behaviour.ok("=1+1"))
    assert (await project.batchgen("run", "pool.csv")).code == 0
    assert simulator.ledger == {f"Say {formula}": 1, "Say @SUM(A1)": 1}
    first = project.export()[0]
    assert (first["input"], first["response"]) == ({"word": formula}, "=1+1")


# Configs


@pytest.mark.parametrize("name", ["a/b", "../x", "a\\b", "/etc/x", "..", "a\0b", "-rf", "x" * 300])
def test_an_experiments_name_cannot_be_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="experiment_name"):
        load(None, env={}, overrides={"experiment_name": name}, cwd=tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            ["model:", "work:", "prompts:", "\n", "  ", "timeout_s: ", "!!python/object", "&a ",
             "*a", "{", "}", "[", "]", ": ", "- ", "'", '"', "1e999", "-1", ".inf", "2026-13-45",
             "null", "\t", "\0", "? ", "<<: ", "[" * 3000, "extra_body: ", "x" * 50]
        ), max_size=30,
    ).map("".join).map(str.encode)
)  # fmt: skip
def test_any_config_is_settings_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    try:
        load(None, env={}, cwd=tmp_path)
    except ConfigError:
        pass


# Templates

VARIABLES = {"topic": "cats", "items": [1, 2, 3]}
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ '{0.__class__.__mro__}'.format(topic) }}",
    "{{ items.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% for x in lipsum.__code__ %}{% endfor %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_that_reaches_beyond_its_item_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^template p\.j2"):
        compile_template(Template(text, "jinja2", "p.j2")).check(VARIABLES)


@given(
    text=st.text(max_size=50)
    | st.lists(
        st.sampled_from(
            ["{{", "}}", "{%", "%}", "{#", "{", "}", "topic", "items", "|", " + ", " ~ ", "9", ".",
             "for x in ", "endfor", "set y = ", "if ", "endif", "'a'", "(", ")", "[", "]", "\n",
             "macro m()", "endmacro", "__class__", "join", "map", "("*300]
        ), max_size=20,
    ).map("".join),
    syntax=st.sampled_from(["braces", "jinja2"]),
)  # fmt: skip
def test_any_template_is_rendered_or_a_template_error(text: str, syntax: Any) -> None:
    try:
        compile_template(Template(text, syntax, "p.txt")).render(VARIABLES).encode()
    except TemplateError:
        pass
    except UnicodeEncodeError:
        assert any("\ud800" <= char <= "\udfff" for char in text)


# All of it together


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pool=POOL_BYTES,
    template=st.sampled_from(["Say {word}", "{", "{word", "{{word}}", "{id}", "\0", "{word}" * 99])
    | st.text(max_size=30),
    parser=st.sampled_from(
        ["raw", "tag:a", "regex:(", "json", "x:y", "x.py", "[]", "null", "tag:"]
    ),
    suffix=st.sampled_from(["jsonl", "json", "csv"]),
    skip=st.booleans(),
)
def test_any_project_is_enqueued_or_refused_with_words(
    tmp_path: Path,
    pool: bytes, template: str, parser: str, suffix: str, skip: bool,
) -> None:  # fmt: skip
    for database in tmp_path.glob("batchgen.db*"):
        database.unlink()
    (tmp_path / "template.txt").write_bytes(template.encode(errors="surrogatepass"))
    (tmp_path / f"pool.{suffix}").write_bytes(pool)
    (tmp_path / "config.yaml").write_text(
        f"model: {{model: m}}\nparser: {parser}\nprompts: {{user_prompt_path: template.txt}}\n"
    )
    options = ["--skip-invalid", "bad.jsonl"] if skip else []
    type_ = Typist(tmp_path).type
    enqueued = type_("enqueue", f"pool.{suffix}", *options)
    assert enqueued.code in (0, 2), enqueued.err
    assert "Traceback" not in enqueued.err
    if (tmp_path / "batchgen.db").exists():
        assert type_("verify").code == 0
