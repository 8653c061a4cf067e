"""401, 402 and 403 in the middle of a run: one item's own cost that item, whatever the words; a key
that was withdrawn or a credit that ended cost few calls and no item."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.simulate import Behaviour, Simulator
from batchgen.store.trial import MOST_CALLS
from tests.kits.project import Project, ended

ITEMS = 120
FIREWALL = Behaviour.response(
    403, "<html><head><title>403 Forbidden</title></head></html>", content_type="text/html"
)
ANSWER = Behaviour.ok(delay_s=0.05)


def said(status: int, body: Any) -> Behaviour:
    return Behaviour.response(status, json.dumps(body, ensure_ascii=False))


CHECKED = said(403, {"code": "no permission", "error": "This text was not accepted. Check: BIO"})
REVOKED = said(401, {"error": {"message": "Key is disabled", "code": "invalid_api_key"}})
FORBIDDEN = said(403, {"error": {"message": "Something about a project"}})
NO_MONEY = said(402, {"error": {"message": "Insufficient Balance"}})
NO_QUOTA = said(429, {"error": {"message": "no more", "code": "insufficient_quota"}})


def words(n: int = ITEMS) -> list[dict[str, Any]]:
    return [{"word": f"w{number:03}"} for number in range(n)]


def states(project: Project) -> list[Any]:
    return project.query(
        "select w.state, coalesce(r.reason, ''), w.tries, count(*) from work w"
        " left join results r on r.seq = w.result_seq group by 1, 2, 3 order by 1"
    )


@pytest.mark.quick("0-words", "57-page", "119-check")
@pytest.mark.parametrize("reply", [CHECKED, FIREWALL, FORBIDDEN], ids=["check", "page", "words"])
@pytest.mark.parametrize("place", [0, 57, ITEMS - 1])
async def test_an_item_that_is_refused_for_itself_stops_nobody(
    project: Project, simulator: Simulator, reply: Behaviour, place: int
) -> None:
    simulator.script(f"Say w{place:03}", *[reply] * 9)
    simulator.script("Say", *[ANSWER] * ITEMS)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", "8")).code == 3
    assert states(project) == [("done", "", 1, ITEMS - 1), ("failed", "rejected", 1, 1)]
    assert simulator.calls == ITEMS
    assert project.query("select count(*) from suspects") == [(0,)]
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.quick("10")
@pytest.mark.parametrize("every", [2, 10])
async def test_many_items_that_are_refused_for_themselves_stop_nobody(
    project: Project, simulator: Simulator, every: int
) -> None:
    bad = range(0, ITEMS, every)
    for number in bad:
        simulator.script(f"Say w{number:03}", *[CHECKED] * 9)
    simulator.script("Say", *[Behaviour.ok(delay_s=0.3)] * ITEMS)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", "40")).code == 3
    failed = ("failed", "rejected", 1, len(bad))
    assert states(project) == [("done", "", 1, ITEMS - len(bad)), failed]
    assert simulator.calls == ITEMS


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_block_of_items_that_are_refused_for_themselves_stops_nobody(
    project: Project, simulator: Simulator
) -> None:
    for number in range(30, 60):
        simulator.script(f"Say w{number:03}", *[CHECKED] * 9)
    simulator.script("Say", *[ANSWER] * ITEMS)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", "4")).code == 3
    assert states(project) == [("done", "", 1, ITEMS - 30), ("failed", "rejected", 1, 30)]
    assert simulator.calls == ITEMS


async def test_a_key_that_one_of_several_upstreams_refuses_now_and_then_costs_a_try(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    for number in range(5, ITEMS, 20):
        simulator.script(f"Say w{number:03}", REVOKED if number % 2 else NO_QUOTA)
    simulator.script("Say", *[ANSWER] * 2 * ITEMS)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", "4")).code == 0
    assert simulator.calls == ITEMS + 6


async def test_answers_that_just_came_count_before_they_are_written(
    project: Project, simulator: Simulator
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    simulator.script("Say", ANSWER, ANSWER, ANSWER, replace(NO_QUOTA, delay_s=0.06))
    project.pool(words(40))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "4")).code == 0
    assert simulator.calls == 41


@pytest.mark.quick("401", "429")
@pytest.mark.parametrize(
    ("reply", "words_", "options"),
    [
        (REVOKED, "does not accept the API key", ("-c", "12")),
        (FORBIDDEN, "the API key may not do this", ("-c", "1")),
        (FORBIDDEN, "the API key may not do this", ("-c", "8", "--processes", "4")),
        (NO_MONEY, "quota or credit is used up", ("-c", "12")),
        (NO_QUOTA, "quota or credit is used up", ("-c", "12")),
        (FIREWALL, "the API key may not do this", ("-c", "12")),
    ],
    ids=["401", "403 one by one", "403 processes", "402", "429", "page"],
)
async def test_what_ends_in_the_middle_halts_after_few_calls_and_costs_no_item_anything(
    project: Project, simulator: Simulator, reply: Behaviour, words_: str, options: tuple[str, ...]
) -> None:
    project.config("work: {retry_wait_s: 0.01}\n")
    simulator.script("Say", *[ANSWER] * 40, *[reply] * ITEMS)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", *options)
    assert halted.code == 4
    assert words_ in halted.err
    assert "nothing was answered meanwhile" in halted.err
    in_flight = 1 if options == ("-c", "1") else 32
    assert simulator.calls - 40 <= max(MOST_CALLS, in_flight + 14)
    assert states(project) == [("done", "", 1, 40), ("pending", "", 0, ITEMS - 40)]
    assert (await project.batchgen("verify")).code == 0


async def test_a_worker_that_dies_leaves_no_item_behind(
    project: Project, simulator: Simulator
) -> None:
    """What it did not know yet of its suspects, the next one finds out."""
    simulator.script("Say w003", *[CHECKED] * 9)
    simulator.script("Say", *[ANSWER] * 3, *[Behaviour("hang")] * 3)
    project.pool(words(12))
    work = await project.start("run", "pool.jsonl", "-c", "3")
    await simulator.received(7)
    work.kill()
    await work.wait()
    again = await project.batchgen("work", "-c", "3")
    assert again.code == 3, again.err
    assert [state[::3] for state in states(project)] == [("done", 11), ("failed", 1)]


async def test_a_key_that_one_of_two_servers_withdraws_costs_no_item_anything(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[ANSWER] * 30, *[FORBIDDEN] * ITEMS)
    async with Simulator(latency="0.05").running() as other:
        servers = [{"base_url": url, "concurrency": 8} for url in (simulator.base_url, other)]
        project.write(
            "config.yaml",
            f"model: {{model: m, servers: {json.dumps(servers)}}}\nparser: raw\n",
        )
        project.pool(words(200))
        run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert "is left out: the API key may not do this." in run.err
    assert states(project) == [("done", "", 1, 200)]


# Refusals in words that nobody knows

RETIRED = said(412, {"error": {"message": "This deployment was retired by its owner."}})
UNPROCESSABLE = said(422, {"detail": "not under the new policy"})


@pytest.mark.quick("four")
@pytest.mark.parametrize(
    ("reply", "options"),
    [
        (said(400, {"error": "no"}), ("-c", "1")),
        (RETIRED, ("-c", "12")),
        (UNPROCESSABLE, ("-c", "4")),
        (RETIRED, ("-c", "4", "--processes", "4")),
    ],
    ids=["one by one", "twelve", "four", "processes"],
)
async def test_what_all_get_after_answers_halts_in_any_words_and_costs_no_item_anything(
    project: Project, simulator: Simulator, reply: Behaviour, options: tuple[str, ...]
) -> None:
    simulator.script("Say", *[ANSWER] * 40, *[reply] * ITEMS * 2)
    project.pool(words())
    halted = await project.batchgen("run", "pool.jsonl", *options)
    assert halted.code == 4, halted.err
    assert "the server refuses now what it answered before. Check model.model" in halted.err
    assert "different items got this, and nothing was answered meanwhile" in halted.err
    assert "--max-failures" in halted.err
    assert simulator.calls - 40 <= 60
    waiting = ("pending", "", 0, ITEMS - 40)
    assert states(project) == [("done", "", 1, 40), waiting]
    asked = simulator.calls
    again = await project.batchgen("work", *options)
    assert (again.code, simulator.calls - asked <= MOST_CALLS) == (4, True), again.err
    assert states(project) == [("done", "", 1, 40), waiting]
    async with Simulator().running() as url:
        project.config(base_url=url)
        assert (await project.batchgen("work", "-c", "20")).code == 0
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.quick("50")
@pytest.mark.parametrize("slots", ["1", "8", "50"])
async def test_items_at_the_end_that_are_longer_than_all_others_are_refused_for_themselves(
    project: Project, simulator: Simulator, slots: str
) -> None:
    pool = [{"word": f"w{number:03} {'x' * number}"} for number in range(ITEMS)]
    for number in range(60, ITEMS):
        simulator.script(f"Say w{number:03}", *[UNPROCESSABLE] * 2)
    project.pool(pool)
    assert (await project.batchgen("run", "pool.jsonl", "-c", slots)).code == 3
    failed = ("failed", "rejected", 1, ITEMS - 60)
    assert states(project) == [("done", "", 1, 60), failed]
    assert set(simulator.ledger.values()) == {1}
    await project.batchgen("retry")  # nothing has been answered then, in this run
    assert (await project.batchgen("work", "-c", slots)).code == 3
    assert [state[::3] for state in states(project)] == [("done", 60), ("failed", ITEMS - 60)]


@pytest.mark.quick("30")
@pytest.mark.parametrize("slots", ["1", "30"])
async def test_a_block_in_the_middle_is_asked_once_and_stops_nobody(
    project: Project, simulator: Simulator, slots: str
) -> None:
    for number in range(30, 100):
        simulator.script(f"Say w{number:03}", *[RETIRED] * 2)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", slots)).code == 3
    assert states(project) == [("done", "", 1, ITEMS - 70), ("failed", "rejected", 1, 70)]
    assert set(simulator.ledger.values()) == {1}


async def test_who_says_how_many_may_fail_lets_the_end_of_a_pool_fail(
    project: Project, simulator: Simulator
) -> None:
    for number in range(30, ITEMS):
        simulator.script(f"Say w{number:03}", *[RETIRED] * 9)
    project.pool(words())
    assert (await project.batchgen("run", "pool.jsonl", "-c", "4")).code == 4
    assert states(project)[-1] == ("pending", "", 0, ITEMS - 30)
    assert (await project.batchgen("work", "-c", "4", "--max-failures", "100")).code == 3
    assert states(project) == [("done", "", 1, 30), ("failed", "rejected", 1, ITEMS - 30)]


async def test_a_drained_stop_asks_none_again_that_was_refused(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w003", *[RETIRED] * 2)
    simulator.script("Say", *[ANSWER] * 3, *[Behaviour.ok(delay_s=1.0)] * 3)
    project.pool(words(12))
    work = await project.start("run", "pool.jsonl", "-c", "3")
    await simulator.received(7)
    work.terminate()
    assert (await ended(work)).code == 143
    assert (await project.batchgen("work", "-c", "3")).code == 3
    assert set(simulator.ledger.values()) == {1}
    assert states(project) == [("done", "", 1, 11), ("failed", "rejected", 1, 1)]


async def test_what_one_of_two_servers_refuses_from_everybody_is_asked_at_the_other(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *[ANSWER] * 30, *[RETIRED] * 400)
    async with Simulator(latency="0.05").running() as other:
        servers = [{"base_url": url, "concurrency": 8} for url in (simulator.base_url, other)]
        project.write(
            "config.yaml",
            f"model: {{model: m, servers: {json.dumps(servers)}}}\nparser: raw\n",
        )
        project.pool(words(300))
        run = await project.batchgen("run", "pool.jsonl")
    assert run.code == 0, run.err
    assert "is left out: the server refuses now what it answered before." in run.err
    assert states(project) == [("done", "", 1, 300)]
