"""`run` answers the items that are passed, and no others; of a bad pool it enqueues nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline
from batchgen.errors import InputError, TemplateError, UsageError
from batchgen.simulate import Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


def words_of(results: list[dict[str, Any]]) -> list[str]:
    return [result["input"]["word"] for result in results]


def rows(project: Project) -> int:
    return int(project.query("select count(*) from work")[0][0])


async def test_a_pool_that_is_cut_after_a_cancelled_run_costs_only_what_is_passed(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    run = asyncio.create_task(
        DataGenerationPipeline().run(words(100), concurrency_limit=2), name="run"
    )
    await simulator.received(2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    simulator.release()
    results = await DataGenerationPipeline().run(list(words(100))[40:50])
    assert words_of(results) == [f"w{n}" for n in range(40, 50)]
    assert simulator.calls == 2 + 10
    assert here.query("select count(*) from work where state = 'pending'") == [(90,)]
    assert here.query("select count(*) from work where selection is not null") == [(0,)]


async def test_what_the_command_line_enqueued_is_not_answered_along(
    here: Project, simulator: Simulator, words: Words
) -> None:
    here.pool(words(20))
    assert (await here.batchgen("enqueue", "pool.jsonl")).code == 0
    await DataGenerationPipeline().run([{"word": "mine"}, {"word": "w3"}])
    assert simulator.calls == 2
    assert (await here.batchgen("verify")).code == 0
    assert (await here.batchgen("work")).code == 0
    assert simulator.calls == 21


async def test_what_the_command_line_enqueues_meanwhile_is_not_answered_along(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    run = asyncio.create_task(
        DataGenerationPipeline().run(words(10), concurrency_limit=2), name="run"
    )
    await simulator.received(2)
    here.pool(words(30))
    assert (await here.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.release()
    assert words_of(await run) == [f"w{n}" for n in range(10)]
    assert simulator.calls == 10


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        ("topic", InputError, r"data_pool\[30\]: an item must be an object"),
        ({"wrd": "w"}, TemplateError, r"data_pool\[30\]: .*\{word\}"),
        ({"word": "x", "price": float("inf")}, InputError, r"data_pool\[30\]: .*price: inf"),
        ({"word": "x", "id": "known"}, InputError, r"data_pool\[30\]: id 'known'.*item 1 "),
        ({"word": "x", "id": "twice"}, InputError, r"data_pool\[30\]: id 'twice'.*data_pool\[29\]"),
    ],
    ids=["no_object", "no_variable", "no_json", "id_of_another", "id_twice"],
)
async def test_a_pool_in_memory_with_a_bad_item_enqueues_nothing(
    here: Project, simulator: Simulator, words: Words, bad: Any, kind: type[Exception], said: str
) -> None:
    await DataGenerationPipeline().run([{"word": "k", "id": "known"}])
    pool = [*list(words(29)), {"word": "t", "id": "twice"}, bad]
    with pytest.raises(kind, match=said):
        await DataGenerationPipeline().run(pool)
    assert rows(here) == 1
    await DataGenerationPipeline().run([{"word": "a"}, {"word": "b"}])
    assert simulator.calls == 3


async def test_a_bad_pool_leaves_no_database_behind(here: Project) -> None:
    with pytest.raises(InputError):
        await DataGenerationPipeline().run(["topic"])
    assert is_untouched(here.database)


async def test_a_stream_with_a_bad_item_asks_for_nothing_and_later_runs_for_what_they_pass(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def pool() -> Iterator[Any]:
        yield from words(5)
        yield "topic"

    with pytest.raises(InputError):
        await DataGenerationPipeline().run(pool())
    await DataGenerationPipeline().run([{"word": "w0"}])
    assert simulator.calls == 1


async def test_an_async_iterator_is_a_pool(here: Project, simulator: Simulator) -> None:
    async def pool() -> AsyncIterator[dict[str, str]]:
        for word in ("a", "b"):
            await asyncio.sleep(0)
            yield {"word": word}

    assert words_of(await DataGenerationPipeline().run(pool())) == ["a", "b"]


async def test_the_name_of_a_source_is_a_pool(here: Project, words: Words) -> None:
    here.pool(words(3))
    assert words_of(await DataGenerationPipeline().run("pool.jsonl")) == ["w0", "w1", "w2"]
    assert words_of(await DataGenerationPipeline().run(here.path / "pool.jsonl", until=3)) == [
        "w0", "w1", "w2",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"none\.jsonl"):
        await DataGenerationPipeline().run("none.jsonl")


async def test_a_source_that_is_wrong_from_its_start_makes_no_database(here: Project) -> None:
    here.write("bad.jsonl", '{"wrod": 1}\n')
    with pytest.raises(TemplateError, match=r"bad\.jsonl:1"):
        await DataGenerationPipeline().run("bad.jsonl")
    assert sorted(path.name for path in here.path.glob("batchgen*")) == []


async def test_the_results_of_another_experiment_are_a_pool(
    here: Project, simulator: Simulator, words: Words
) -> None:
    await DataGenerationPipeline(experiment_name="first").run(list(words(2)))
    here.write("prompts/user_prompts/default.txt", "Judge {input.word}: {response}")
    judged = await DataGenerationPipeline(experiment_name="second").run("results:first")
    assert [line["id"] for line in judged] == ["1", "2"]
    assert simulator.calls_of("Judge w1: ") == 1


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"word": "a"}, "data_pool: is a single item, a dict; put it into a list"),
        (17, "data_pool: must be items .* not int"),
        (None, "data_pool: must be items .* not NoneType"),
        (b"word", "data_pool: must be items .* not bytes"),
    ],
)
async def test_what_is_no_pool_is_refused_with_words(here: Project, pool: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        await DataGenerationPipeline().run(pool)


async def test_two_runs_that_share_an_item_both_have_its_result(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    await DataGenerationPipeline().run([{"word": "known"}])
    simulator.hold()
    pool = list(words(30))
    runs = [
        asyncio.create_task(DataGenerationPipeline().run(part, concurrency_limit=3), name="run")
        for part in (pool[:20], pool[10:])
    ]
    await simulator.received(6)
    simulator.release()
    one, two = await asyncio.gather(*runs)
    assert words_of(one) == [f"w{n}" for n in range(20)]
    assert words_of(two) == [f"w{n}" for n in range(10, 30)]
    assert simulator.calls == 31
    said = capfd.readouterr().err  # at most that rows of the other run wait for their turn
    assert all("rows of default that wait" in line for line in said.splitlines()), said
    lines = here.export()
    assert sorted(words_of(lines)) == sorted(["known", *(f"w{n}" for n in range(30))])
    assert [line["id"] for line in lines] == list(range(1, 32))  # whoever enqueued first


async def test_samples_wanted_are_samples_answered(here: Project, simulator: Simulator) -> None:
    pool = [{"word": "a"}, {"word": "b"}]
    (first,) = await DataGenerationPipeline().run(pool[:1])
    results = await DataGenerationPipeline().run(pool, samples=3)
    assert results[0] == {"sample": 1, **first}
    assert [(one["input"]["word"], one["sample"]) for one in results] == [
        (word, sample) for word in "ab" for sample in (1, 2, 3)
    ]
    assert simulator.calls == 6
    again = await DataGenerationPipeline().run(pool, samples=2)
    assert again == [one for one in results if one["sample"] <= 2]
    assert simulator.calls == 6
