"""Items through a server that misbehaves in every way at once, and servers that go away.

What each call gets is drawn by hash from the request and the number of its try, so what must
become of each item is known beforehand. `--slow` is the long one.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from batchgen.items import ParserVersion, Reason, Recipe, Template
from batchgen.jobs.enqueue import enqueue
from batchgen.pool import read_objects
from batchgen.simulate import Behaviour, ErrorMix, Simulator
from batchgen.simulate.answers import Chat, completion, json_object
from batchgen.simulate.deciding import rolls
from batchgen.store import open_store
from tests.kits.job import Job

pytestmark = pytest.mark.usefixtures("server")  # on both engines

MIX = (
    "429=0.08,500=0.03,409=0.01,reset=0.03,cut=0.03,hang=0.01,trickle=0.01,html=0.02,"
    "bad_json=0.02,no_choices=0.01,empty=0.01,refusal=0.02,content_filter=0.01,length=0.01"
)
SEED = 11
SLOTS = 50
MAX_ATTEMPTS = 4
RETRY_AFTER_S = 0.25
PATTERN = r"(?s)^(?!.*patient.*patient).*$"  # which some of the answers do not match
# What the attempt is, what becomes of the item when this was its last, and whether it is charged:
# a reset, a timeout, a 5xx or what is no completion is not when the server seems to be down, or the
# connection was stale.
KINDS = {
    "ok": ("answered", None, "always"),
    "length": ("answered", "truncated", "always"),
    "429": ("rate_limit", None, "never"),
    "500": ("server", "server", "perhaps"),
    "409": ("server", "server", "perhaps"),
    "reset": ("connection", "connection", "perhaps"),
    "cut": ("connection", "connection", "perhaps"),
    "hang": ("timeout", "timeout", "perhaps"),
    "trickle": ("timeout", "timeout", "perhaps"),
    "html": ("bad_response", "bad_response", "perhaps"),
    "bad_json": ("bad_response", "bad_response", "perhaps"),
    "no_choices": ("bad_response", "bad_response", "perhaps"),
    "empty": ("bad_response", "bad_response", "perhaps"),
    "refusal": ("refusal", "refusal", "always"),
    "content_filter": ("refusal", "refusal", "always"),
}
FINAL = ("ok", "length", "refusal", "content_filter")


def chat_of(word: str) -> Chat:
    messages = [{"role": "user", "content": f"Say {word}"}]
    chat = Chat.of({"model": "simulated", "messages": messages})
    assert chat is not None
    return chat


def drawn(chat: Chat, tries: int) -> list[str]:
    """What the first calls of a request get."""
    mix = ErrorMix.parse(MIX)
    found = [rolls(SEED, chat, number)[0] for number in range(1, tries + 1)]
    return [mix.pick(roll) or "ok" for roll in found]


def is_parsed(chat: Chat) -> bool:
    body = json_object(completion(chat))
    return re.search(PATTERN, body["choices"][0]["message"]["content"]) is not None


def expected_end(chat: Chat, kinds: Sequence[str]) -> tuple[str, str | None]:
    if kinds[-1] == "ok":
        return ("done", None) if is_parsed(chat) else ("failed", "parse")
    return "failed", KINDS[kinds[-1]][1]


async def run_storm(job: Job, words: Sequence[str]) -> None:
    recipe = Recipe(None, Template("Say {word}"), "simulated", {})
    parser = ParserVersion(f"regex:{PATTERN}")
    async with open_store(job.database, create=True) as store:
        pool = read_objects({"word": word} for word in words)
        await enqueue(store, pool, recipe, "default", parser=parser)
        await job.work(store, slots=SLOTS, max_attempts=MAX_ATTEMPTS, timeout_s=5)
        assert await store.verify() == []
    assert job.log.bugs == []


@pytest.mark.slow
@pytest.mark.on_both_engines
@pytest.mark.timeout(3600)
async def test_in_a_storm_every_item_ends_as_its_calls_say(tmp_path: Path, slow: bool) -> None:
    words = [f"w{number}" for number in range(20_000 if slow else 300)]
    simulator = Simulator(errors=MIX, seed=SEED, retry_after_s=RETRY_AFTER_S)
    async with simulator.running() as url:
        job = Job(tmp_path, url)
        await run_storm(job, words)
    ends = job.ends()
    attempts = defaultdict(list)
    for item, outcome, reason in job.query(
        "select item_id, outcome, reason from attempts order by item_id, seq"
    ):
        attempts[item].append(reason or outcome)
    for item, (word, end) in enumerate(zip(words, ends, strict=True), start=1):
        chat = chat_of(word)
        kinds = drawn(chat, simulator.ledger[f"Say {word}"])
        assert attempts[item] == [KINDS[kind][0] for kind in kinds]  # each call, and no other
        assert not set(kinds[:-1]) & set(FINAL), (word, kinds)
        assert end[:2] == expected_end(chat, kinds), (word, kinds)
        charges = [KINDS[kind][2] for kind in kinds]
        assert charges.count("always") <= end[2] <= len(charges) - charges.count("never")
        assert end[2] == MAX_ATTEMPTS or kinds[-1] in FINAL, (word, kinds)
    calls = sum(len(calls) for calls in attempts.values())
    assert simulator.calls == calls
    assert job.query("select sum(calls), sum(unknown_calls) from totals") == [(calls, 0)]
    assert_retry_after_was_honoured(simulator)


def assert_retry_after_was_honoured(simulator: Simulator) -> None:
    """By each item that was told to wait."""
    arrivals: dict[str, list[float]] = defaultdict(list)
    for received in simulator.requests:
        arrivals[received.body["messages"][-1]["content"]].append(received.at)
    waits = 0
    for text, at in arrivals.items():
        if len(at) < simulator.ledger[text]:
            continue  # the simulator forgets the oldest requests
        kinds = drawn(chat_of(text.removeprefix("Say ")), len(at))
        for number in (number for number, kind in enumerate(kinds) if kind == "429"):
            assert at[number + 1] - at[number] >= RETRY_AFTER_S, (text, kinds)
            waits += 1
    assert waits > 0


# Servers that go away


async def test_a_server_that_is_refused_for_a_while_costs_no_attempt(
    tmp_path: Path, simulator: Simulator
) -> None:
    job = Job(tmp_path, simulator.base_url)
    simulator.hold()
    running = asyncio.create_task(job.run([f"w{n}" for n in range(60)], slots=20, max_attempts=2))
    await simulator.received(4)
    await simulator.stop()
    # Twice: what was in flight is cut off, and what comes after it is refused.
    await job.log.first(Reason.CONNECTION).wait()
    job.log.seen.clear()
    await job.log.first(Reason.CONNECTION).wait()
    simulator.release()
    await simulator.start()
    await running
    assert {end[:2] for end in job.ends()} == {("done", None)}
    assert simulator.calls == 4 + 60
    assert {end[2] for end in job.ends()} == {1}


async def test_a_gateway_without_a_server_costs_no_attempt(
    tmp_path: Path, simulator: Simulator
) -> None:
    job = Job(tmp_path, simulator.base_url)
    simulator.script("Say", *map(Behaviour.error, (502, 503, 504, 529, 503)))
    await job.run([f"w{n}" for n in range(60)], slots=20, max_attempts=2)
    assert {end[:2] for end in job.ends()} == {("done", None)}
    assert simulator.calls == 5 + 60
    assert {end[2] for end in job.ends()} == {1}


async def test_an_item_that_the_server_hangs_up_on_pays_for_each_of_its_calls(
    tmp_path: Path, simulator: Simulator
) -> None:
    job = Job(tmp_path, simulator.base_url)
    simulator.script("Say bad", *["reset"] * 9)
    await job.run(["bad", *(f"w{n}" for n in range(60))], slots=1, max_attempts=3)
    bad, *others = job.ends()
    assert bad[:2] == ("failed", "connection")
    assert bad[2] == 3
    assert {end[:3] for end in others} == {("done", None, 1)}
