"""One worker and the simulated model, each kind of trouble from the reply to the stored end."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import ConfigError
from batchgen.items import Reason
from batchgen.jobs.status import WorkerStatus
from batchgen.limits.buckets import Limits
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import open_store, server_key
from batchgen.worker.report import Held, HeldBy
from tests.kits.crashes import until
from tests.kits.job import Job
from tests.kits.project import Project
from tests.kits.table import claims
from tests.kits.tcp import answering, listening

pytestmark = pytest.mark.usefixtures("server")  # on both engines

NOW = {"retry-after-ms": "0"}
REPORTS_MORE = 'select count(*) from workers where report like \'%"by":"more"%\''


@pytest.fixture
def job(tmp_path: Path, simulator: Simulator) -> Job:
    return Job(tmp_path, simulator.base_url)


ANSWERED = ("answered", None, 200)


def done(tries: int = 1) -> tuple[str, None, int]:
    return ("done", None, tries)


def failed(reason: str, tries: int = 1) -> tuple[str, str, int]:
    return ("failed", reason, tries)


# From the reply to the end

FINAL = {
    "refusal": "refusal",
    "content_filter": "refusal",
    "400": "rejected",
    "404": "rejected",
    "413": "rejected",
    "418": "rejected",
    "422": "rejected",
}
RETRYABLE = {
    "500": "server",
    "408": "server",
    "409": "server",
    "html": "bad_response",
    "bad_json": "bad_response",
    "no_choices": "bad_response",
    "empty": "bad_response",
}
MAY_BE_AN_OUTAGE = {"502": "server", "529": "server", "cut": "connection"}


async def test_what_will_never_work_fails_at_once(job: Job, simulator: Simulator) -> None:
    for kind in FINAL:
        simulator.script(f"Say {kind}", kind)
    # One after another: a 404 before any answer may be about the server, and is asked again.
    result = await job.run(["ok", *FINAL], slots=1)
    assert job.ends() == [done(), *(failed(reason) for reason in FINAL.values())]
    assert simulator.calls == len(FINAL) + 1
    assert (result.exit_code, result.counts.done, result.counts.failed) == (3, 1, len(FINAL))


async def test_what_may_work_is_tried_max_attempts_times(job: Job, simulator: Simulator) -> None:
    for kind in RETRYABLE:
        simulator.script(f"Say {kind}", kind, kind)
    result = await job.run([*RETRYABLE, "ok"], slots=20, max_attempts=2)
    assert job.ends() == [*(failed(reason, 2) for reason in RETRYABLE.values()), done()]
    assert {kind: simulator.calls_of(f"Say {kind}") for kind in RETRYABLE} == dict.fromkeys(
        RETRYABLE, 2
    )
    assert (result.exit_code, result.stats.calls) == (3, 2 * len(RETRYABLE) + 1)


async def test_what_takes_too_long_is_tried_max_attempts_times(
    job: Job, simulator: Simulator
) -> None:
    for kind in ("hang", "trickle"):
        simulator.script(f"Say {kind}", kind, kind)
    result = await job.run(["ok", "hang", "trickle"], max_attempts=2, timeout_s=1)
    assert job.ends() == [done(), failed("timeout", 2), failed("timeout", 2)]
    assert (result.exit_code, result.stats.calls) == (3, 5)


@pytest.mark.quick("529")
@pytest.mark.parametrize("kind", MAY_BE_AN_OUTAGE)
async def test_one_item_that_meets_what_looks_like_an_outage_is_tried_as_often(
    job: Job, simulator: Simulator, kind: str
) -> None:
    simulator.script(f"Say {kind}", *[kind] * 9)
    # The wait is long enough for others to show that the server is well.
    words = [kind, *(f"w{n}" for n in range(20))]
    await job.run(words, slots=1, max_attempts=2, retry_wait_s=1)
    assert job.ends() == [failed(MAY_BE_AN_OUTAGE[kind], 2), *[done()] * 20]
    # Once more when nobody else is left to show that the server is well.
    assert simulator.calls_of(f"Say {kind}") in (2, 3)


async def test_each_attempt_is_kept_with_what_the_server_said(
    job: Job, simulator: Simulator
) -> None:
    overloaded = Behaviour.error(500, message="Overloaded", headers=NOW)
    simulator.script("Say a", overloaded, "html", Behaviour.ok("Hello"))
    await job.run(["a"])
    assert job.ends() == [done(3)]
    assert simulator.calls == 3
    kept = job.query("select outcome, reason, error, http_status, body, response from attempts")
    first, second, third = kept
    assert first[:4] == ("failed", "server", "500 Overloaded", 500)
    assert json.loads(first[4])["error"]["message"] == "Overloaded"
    assert second == (
        "failed", "bad_response",
        "200, but not JSON: <html><body><h1>Welcome</h1></body></html>", 200,
        "<html><body><h1>Welcome</h1></body></html>", None,
    )  # fmt: skip
    assert (*third[:4], third[5]) == ("answered", None, None, 200, "Hello")
    assert json.loads(third[4])["choices"][0]["message"]["content"] is None
    assert job.log.attempts == [
        (1, "failed", "Retry"),
        (1, "failed", "Suspect"),  # nobody has been answered yet
        (1, "answered", "Done"),
    ]


async def test_a_429_uses_up_no_attempt(job: Job, simulator: Simulator) -> None:
    simulator.script("Say a", *[Behaviour.error(429, headers={"retry-after-ms": "1"})] * 7)
    result = await job.run(["a"], max_attempts=1)
    assert (job.ends(), simulator.calls) == ([done(1)], 8)
    assert job.calls() == [("failed", "rate_limit", 429)] * 7 + [ANSWERED]
    assert (result.exit_code, result.counts.retried) == (0, 7)


async def test_a_kept_alive_connection_that_was_closed_costs_nothing(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say a", "stale")
    await job.run(["a", "b"], slots=1, max_attempts=1)
    assert job.ends() == [done(1), done(1)]
    assert (simulator.calls, simulator.dropped) == (2, 1)
    assert job.calls(2) == [("failed", "connection", None), ANSWERED]


async def test_an_item_that_makes_the_server_reset_every_connection_fails(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say poison", *["reset"] * 1000)
    words = [f"w{n}" for n in range(300)]  # they keep connections alive for it to be tried on
    await job.run(["w", "poison", *words], slots=3, max_attempts=2)
    assert job.ends() == [done(), failed("connection", 2), *[done()] * 300]
    # Once on a kept-alive connection, twice as its tries, and once when nobody else was left to
    # show that the server is well.
    assert simulator.calls_of("poison") <= 4


async def test_a_reset_of_a_new_connection_uses_up_an_attempt(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say a", "reset", "reset")
    await job.run(["a"], max_attempts=2)
    assert (job.ends(), simulator.calls) == ([failed("connection", 2)], 2)


async def test_a_server_that_is_down_at_the_start_costs_no_attempts(
    job: Job, simulator: Simulator
) -> None:
    await simulator.stop()
    running = asyncio.create_task(job.run([f"w{n}" for n in range(50)], slots=20, max_attempts=1))
    await job.log.first(Reason.CONNECTION).wait()
    await simulator.start()
    assert (await running).exit_code == 0
    assert (job.ends(), simulator.calls) == ([done()] * 50, 50)


async def test_a_server_that_goes_down_in_the_middle_costs_no_attempts(
    job: Job, simulator: Simulator
) -> None:
    words = [f"w{n}" for n in range(20)]
    simulator.hold()
    running = asyncio.create_task(job.run(words, slots=4, max_attempts=2))
    await simulator.received(4)
    await simulator.stop()
    await job.log.first(Reason.CONNECTION).wait()
    simulator.release()
    await simulator.start()
    assert (await running).exit_code == 0
    assert {(state, reason) for state, reason, _ in job.ends()} == {("done", None)}
    assert simulator.calls == 4 + 20


@pytest.mark.parametrize("trouble", ["only 429, for hours", "nobody there"])
async def test_a_worker_that_gets_nowhere_halts_and_gives_its_items_back(
    job: Job, simulator: Simulator, trouble: str
) -> None:
    limited = trouble.startswith("only")
    if limited:
        simulator.script("Say", *[Behaviour.error(429, headers={"Retry-After": "7200"})] * 10)
    else:
        await simulator.stop()
    result = await job.run(["a", "b"], stall_s=0.5)
    what = "the server was down for 0.5 s (work.stall_s)."
    if limited:
        what = "the server wants no calls for 120 min, longer than work.stall_s: "
    assert result.stats.halted is not None
    assert result.stats.halted.why.startswith(what)
    assert result.exit_code == 4
    assert job.ends() == [("pending", None, 0)] * 2


async def test_an_unknown_model_that_one_item_asked_for_costs_that_item_only(
    job: Job, simulator: Simulator
) -> None:
    message = "The model `m-9` does not exist."
    simulator.script("Say a", Behaviour.error(404, message=message, code="model_not_found"))
    result = await job.run([{"word": "a", "params": {"model": "m-9"}}, "b"], slots=1)
    assert job.ends() == [failed("rejected"), done()]
    assert job.error() == f"404 {message}"
    assert result.exit_code == 3


async def test_a_cut_off_answer_fails_where_the_parser_needs_the_whole(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say a", "length")
    await job.run(["a"], parser="json")
    assert (job.ends(), simulator.calls) == ([failed("truncated")], 1)
    assert job.calls() == [ANSWERED]


async def test_a_cut_off_answer_is_done_where_the_text_is_all_that_is_wanted(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say a", "length")
    await job.run(["a"])
    assert job.ends() == [done()]
    assert job.query("select finish_reason from attempts") == [("length",)]


ODD_TEXTS = ["NUL \0 inside", "\x1b[2J\x07\u2028\ufeff", "</a>\r\n", "x" * 3_000_000]


@pytest.mark.only_sqlite("PostgreSQL has no NUL")
async def test_whatever_an_answer_holds_is_stored_as_it_came(
    job: Job, simulator: Simulator
) -> None:
    for number, text in enumerate(ODD_TEXTS):
        simulator.script(f"Say w{number}", Behaviour.ok(text))
    await job.run([f"w{number}" for number in range(len(ODD_TEXTS))])
    stored = job.query("select response from attempts order by item_id")
    assert [text for (text,) in stored] == ODD_TEXTS


async def test_an_answer_with_half_a_character_is_stored_mended(
    job: Job, simulator: Simulator
) -> None:
    body = {"choices": [{"message": {"content": "half \ud83d"}}], "usage": {"prompt_tokens": -1}}
    simulator.script("Say a", Behaviour.response(200, json.dumps(body)))
    await job.run(["a"])
    assert job.query("select response, prompt_tokens from attempts") == [("half \ufffd", None)]


async def test_a_request_id_that_is_no_utf_8_does_not_stop_the_worker(tmp_path: Path) -> None:
    body = b'{"choices": [{"message": {"content": "Hello"}}]}'
    head = b"HTTP/1.1 200 OK\r\nx-request-id: caf\xe9\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with listening(answering(head + body)) as url:
        job = Job(tmp_path, url)
        await job.run(["a"])
    assert job.query("select response, request_id from attempts") == [("Hello", "caf\ufffd")]


# Parsers


async def test_an_answer_that_a_builtin_parser_cannot_use_is_kept(
    job: Job, simulator: Simulator
) -> None:
    simulator.script("Say a", Behaviour.ok("no JSON here"))
    result = await job.run(["a"], parser="json")
    assert (job.ends(), simulator.calls) == ([failed("parse")], 1)
    assert job.error() == "no JSON in the answer"
    assert job.query("select outcome, response from attempts") == [("answered", "no JSON here")]
    assert result.exit_code == 3


async def test_parse_attempts_asks_again(job: Job, simulator: Simulator) -> None:
    simulator.script("Say a", Behaviour.ok("no JSON"), Behaviour.ok('{"n": 1}'))
    simulator.script("Say b", Behaviour.ok("no JSON"), Behaviour.ok("no JSON either"))
    await job.run(["a", "b"], parser="json", parse_attempts=2)
    assert job.ends() == [done(2), failed("parse", 2)]
    assert (job.parsed(1), simulator.calls) == ({"n": 1}, 4)
    assert job.calls(2) == [ANSWERED, ANSWERED]


async def test_parse_attempts_never_exceed_max_attempts(job: Job, simulator: Simulator) -> None:
    await job.run(["a"], parser="tag:missing", parse_attempts=9, max_attempts=3)
    assert (job.ends(), simulator.calls) == ([failed("parse", 3)], 3)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_raises_costs_its_item_only(
    job: Job, simulator: Simulator, is_async: bool
) -> None:
    def parse(response: str, item: dict[str, Any]) -> Any:
        if item["word"] == "b":
            raise ValueError(f"cannot use {response[:3]}")
        return {"length": len(response)}

    async def parse_async(response: str, item: dict[str, Any]) -> Any:
        return parse(response, item)

    await job.run(["a", "b", "c"], parse=parse_async if is_async else parse)
    assert job.ends() == [done(), failed("parse"), done()]
    assert job.error(2).startswith("ValueError: cannot use You (")
    assert job.parsed(1) == {"length": len(job.query("select response from attempts")[0][0])}
    assert (simulator.calls, job.calls(2)) == (3, [ANSWERED])


async def test_a_function_that_hangs_costs_its_item_only(job: Job, simulator: Simulator) -> None:
    let_go = threading.Event()

    def parse(response: str, item: dict[str, Any]) -> str:
        if item["word"] == "b":
            let_go.wait()
        return "read"

    try:
        await job.run(["a", "b", "c"], parse=parse, parse_timeout_s=1)
    finally:
        let_go.set()
    assert job.ends() == [done(), failed("parse"), done()]
    assert (job.error(2), job.calls(2)) == ("took longer than 1 s", [ANSWERED])


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object(), "half \ud83d", b"bytes"])
async def test_a_function_that_returns_what_json_cannot_hold_costs_its_item_only(
    job: Job, value: object
) -> None:
    await job.run(["a"], parse=lambda response: value)
    assert job.ends() == [failed("parse")]
    assert job.error().startswith(f"the parser returned a {type(value).__name__} JSON cannot hold")


async def test_the_answer_is_durable_before_a_function_sees_it(job: Job) -> None:
    def parse(response: str) -> list[Any]:
        return job.query("select response, outcome from attempts")

    await job.run(["a"], parse=parse)
    ((response,),) = job.query("select response from attempts")
    assert job.parsed() == [[response, "answered"]]


async def test_a_parser_that_cannot_be_loaded_stops_the_worker_before_any_call(
    job: Job, simulator: Simulator
) -> None:
    with pytest.raises(ConfigError, match=r"missing\.py: no such file"):
        await job.run(["a", "b"], parser="missing.py:parse")
    assert (job.ends(), simulator.calls) == ([("pending", None, 0)] * 2, 0)


KILLER = """
import os, pathlib

def parse_response(response):
    {condition}:
        pathlib.Path("crashed").touch()
        os._exit(99)
    return "survived"
"""


async def test_an_answer_whose_parser_killed_the_process_is_parsed_again_not_asked_again(
    project: Project, simulator: Simulator
) -> None:
    project.write("killer.py", KILLER.format(condition='if not pathlib.Path("crashed").exists()'))
    project.config("parser: killer.py:parse_response\n")
    project.pool([{"word": "a"}])
    assert (await project.process("run", "pool.jsonl")).code == 1
    again = await project.batchgen("run", "pool.jsonl")
    assert (again.code, simulator.calls) == (0, 1), again.err
    assert [line["parsed"] for line in project.export()] == ["survived"]
    assert project.query("select outcome, count(*) from attempts group by 1") == [("answered", 1)]


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_parser_that_always_kills_the_process_fails_its_item_in_the_end(
    project: Project, simulator: Simulator
) -> None:
    project.write("killer.py", KILLER.format(condition="if True"))
    project.config("parser: killer.py:parse_response\nwork: {max_attempts: 3}\n")
    project.pool([{"word": "a"}])
    codes = [(await project.process("run", "pool.jsonl")).code for _ in range(4)]
    assert (codes, simulator.calls) == ([1, 1, 1, 3], 1)
    assert project.query("select reason, error from results") == [
        ("crash", "was in flight each of the 3 times its worker died")
    ]
    assert project.query("select outcome, response is not null from attempts") == [("answered", 1)]


# How much


async def test_max_items_claims_no_more(job: Job, simulator: Simulator) -> None:
    result = await job.run([f"w{n}" for n in range(10)], max_items=3)
    assert (simulator.calls, result.counts.done, result.counts.pending) == (3, 3, 7)
    assert job.ends() == [done()] * 3 + [("pending", None, 0)] * 7


async def test_a_worker_that_waits_takes_what_is_enqueued_later(
    job: Job, simulator: Simulator
) -> None:
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, ["a"])
        running = asyncio.create_task(job.work(store, wait_for_more=True))
        await simulator.received(1)
        await job.enqueue(store, ["a", "b"])
        await simulator.received(2)
        job.stop.drain.set()
        await running
    assert (job.ends(), simulator.calls) == ([done(), done()], 2)


async def test_a_worker_with_nothing_to_do_says_so_and_no_old_news(
    job: Job, simulator: Simulator
) -> None:
    """One call of five was refused, which is over."""
    simulator.script("Say a", Behaviour.error(429, headers=NOW), Behaviour.ok())
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, ["a", "b", "c", "d"])
        running = asyncio.create_task(job.work(store, slots=1, wait_for_more=True))
        await until(job.database, REPORTS_MORE)
        [worker] = [WorkerStatus.of(row) for row in await store.workers()]
        assert worker.report.held_by == Held(HeldBy.MORE)
        assert (worker.report.calls, worker.report.failed_calls) == (5, {"429": 1})
        simulator.hold()
        await job.enqueue(store, ["e"])
        await simulator.received(6)
        await until(job.database, REPORTS_MORE.replace("like", "not like"))
        simulator.release()
        job.stop.drain.set()
        await running


async def test_a_rate_limit_is_one_for_all_workers(job: Job, simulator: Simulator) -> None:
    async with open_store(job.database, create=True) as store:
        await job.enqueue(store, [f"w{n}" for n in range(12)])
        running = asyncio.create_task(job.work(store, slots=20, rpm=5))
        await simulator.received(1)
        async with store.seat(slots=20, lease_s=60, max_crashes=5) as other:
            want = claims(20, limits=Limits(5), server=server_key(job.base_url))
            assert (await other.exchange([], want)).items == []
        job.stop.drain.set()
        await running
    assert (job.ends(), simulator.calls) == ([done()] + [("pending", None, 0)] * 11, 1)


@pytest.mark.parametrize("parser", ["json", "parser.py:parse"])
async def test_asking_again_tells_what_was_wrong_with_the_answer(
    project: Project, simulator: Simulator, parser: str
) -> None:
    project.write("parser.py", "import json\n\ndef parse(text):\n    return json.loads(text)\n")
    project.config(f"parser: {parser}\nwork: {{parse_attempts: 3, parse_feedback: true}}\n")
    project.pool([{"word": "a"}])
    answers = ("not JSON", "nor this", "[1]")
    simulator.script("Say a", Behaviour.ok(answers[0]))
    simulator.script("Answer again", *map(Behaviour.ok, answers[1:]))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert project.export()[0]["parsed"] == [1]
    sent = [request.body["messages"] for request in simulator.requests]
    assert [message["role"] for message in sent[0]] == ["user"]
    for messages, answer in zip(sent[1:], answers, strict=False):
        assert [message["role"] for message in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"] == answer
        assert messages[2]["content"].startswith("Your answer could not be used: ")
    errors = project.query("select outcome, error is not null from attempts order by seq")
    assert errors == [("answered", 1), ("answered", 1), ("answered", 0)]
    assert (await project.batchgen("verify")).code == 0
