"""The keywords of `run`: what they do, and what they refuse."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline, StoppedError
from batchgen.api import showing
from batchgen.errors import BatchgenError, ConfigError, InputError, UsageError
from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]


def words_of(results: list[dict[str, Any]]) -> list[str]:
    return [result["input"]["word"] for result in results]


async def test_until_stops_when_so_many_of_the_pool_are_done(
    here: Project, simulator: Simulator, words: Words
) -> None:
    await DataGenerationPipeline().run([{"word": "another"}])
    results = await DataGenerationPipeline().run(words(20), until=5)
    assert len(results) == 5
    assert simulator.calls == 6
    assert await DataGenerationPipeline().run(words(20), until=5) == results
    assert len(await DataGenerationPipeline().run(words(20), until=8)) == 8
    assert simulator.calls == 9


async def test_max_cost_halts_with_the_word_for_it(
    here: Project, simulator: Simulator, words: Words
) -> None:
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1e6}
    pipeline = DataGenerationPipeline(price=price, max_tokens=100)
    with pytest.raises(StoppedError, match=r"Raise max_cost to go on.*run it again"):
        await pipeline.run(words(20), max_cost=150)
    assert 1 <= simulator.calls < 20


@pytest.mark.parametrize("limit", [3, "3", "15%"])
async def test_max_failures_halts_with_the_word_for_it(
    here: Project, simulator: Simulator, words: Words, limit: int | str
) -> None:
    def refuse(text: str, item: dict[str, Any]) -> str:
        raise ValueError("no title")

    with pytest.raises(StoppedError, match=r"raise max_failures.*run it again"):
        await DataGenerationPipeline().run(words(20), 1, refuse, max_failures=limit)
    assert 3 <= simulator.calls <= 5


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_parser_by_its_name_works_in_several_processes(
    here: Project, simulator: Simulator, words: Words
) -> None:
    here.write("mine.py", "def shout(text): return text.upper()\n")
    results = await DataGenerationPipeline().run(
        words(12), 4, "mine.py:shout", processes=2, progress=False
    )
    assert [one["parsed"] == one["response"].upper() for one in results] == [True] * 12
    assert simulator.calls == 12


async def test_user_and_system_prompt_are_taken_as_text(
    here: Project, simulator: Simulator
) -> None:
    pipeline = DataGenerationPipeline(user_prompt="Sing {word}", system_prompt="Be {mood}.")
    await pipeline.run([{"word": "la", "mood": "gay"}])
    messages = [(one["role"], one["content"]) for one in simulator.requests[0].body["messages"]]
    assert messages == [("system", "Be gay."), ("user", "Sing la")]


async def test_on_result_gets_each_result_once_as_it_comes(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def refuse(text: str, item: dict[str, Any]) -> str:
        if item["word"] == "w3":
            raise ValueError("no title")
        return text

    first = await DataGenerationPipeline().run(words(2), extract_function=refuse)
    got: list[dict[str, Any]] = []
    results = await DataGenerationPipeline().run(
        words(5), extract_function=refuse, on_result=got.append
    )
    assert got[:2] == first
    assert sorted(words_of(got)) == [f"w{n}" for n in range(5)]
    assert [one["error"] is not None for one in results if "error" in one] == [True]
    assert {one["id"] for one in got} == {one["id"] for one in results}


async def test_on_result_may_be_async_and_is_called_while_others_are_in_flight(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.script("Say w1", Behaviour.ok(delay_s=3600))
    came = asyncio.Event()

    async def take(result: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        came.set()

    run = asyncio.create_task(DataGenerationPipeline().run(words(2), on_result=take), name="run")
    await came.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_what_on_result_raises_ends_the_run_after_the_calls_in_flight(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def fail(result: dict[str, Any]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await DataGenerationPipeline().run(words(50), concurrency_limit=2, on_result=fail)
    assert here.query("select count(*) from attempts where outcome = 'unknown'") == [(0,)]
    assert len(await DataGenerationPipeline().run(words(50))) == 50
    assert simulator.calls == 50


async def test_stream_gives_each_result_once(
    here: Project, simulator: Simulator, words: Words
) -> None:
    await DataGenerationPipeline().run(words(3))
    streamed = [one async for one in DataGenerationPipeline().stream(words(10), 2)]
    assert words_of(streamed[:3]) == ["w0", "w1", "w2"]
    assert sorted(words_of(streamed)) == [f"w{n}" for n in range(10)]
    assert words_of(here.export()) == [f"w{n}" for n in range(10)]


async def test_a_stream_that_is_left_early_finishes_what_is_in_flight_and_asks_no_more(
    here: Project, simulator: Simulator, words: Words
) -> None:
    stream = DataGenerationPipeline().stream(words(500), 2)
    assert (await anext(stream))["input"]["word"].startswith("w")
    await stream.aclose()
    asked = simulator.calls
    assert asked < 500
    assert here.query("select count(*) from attempts where outcome <> 'answered'") == [(0,)]
    assert len(here.export()) == asked


async def test_a_loop_over_a_stream_that_has_a_name_asks_no_more_when_it_is_left(
    here: Project, simulator: Simulator, words: Words
) -> None:
    pool = list(words(200))
    stream = DataGenerationPipeline().stream(pool, 2)
    async for _ in stream:
        break
    await stream.aclose()
    asked = simulator.calls
    assert asked < 200
    assert [one async for one in _rest_of(stream)] == []
    assert len([one async for one in stream]) == 200
    assert [one async for one in _rest_of(stream)] == []
    assert simulator.calls == 200


async def _rest_of(stream: Any) -> AsyncIterator[Any]:
    while (one := await anext(stream, None)) is not None:
        yield one


LEAVING_SCRIPT = """
import asyncio
from batchgen import DataGenerationPipeline

async def main():
    async for result in DataGenerationPipeline().stream([{"word": f"w{n}"} for n in range(500)], 4):
        print(result["input"]["word"])
        break

asyncio.run(main())
"""


async def test_a_script_that_leaves_the_loop_waits_for_what_is_in_flight(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", "ok", *[Behaviour.ok(delay_s=1)] * 30)
    script = await project.start(str(project.write("script.py", LEAVING_SCRIPT)))
    left = await ended(script)
    assert (left.code, left.err) == (0, "")
    assert simulator.calls < 31
    assert project.query("select outcome, count(*) from attempts group by 1 order by 1") == [
        ("answered", simulator.calls)
    ]
    assert len(project.export()) == simulator.calls


async def test_a_stream_that_is_cancelled_abandons_its_calls(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    stream = DataGenerationPipeline().stream(words(9), 2)
    waiting = asyncio.ensure_future(anext(stream))
    await simulator.received(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    simulator.release()
    assert here.query("select count(*) from attempts where outcome = 'unknown'") == [(2,)]
    assert len(await DataGenerationPipeline().run(words(9))) == 9


async def test_what_is_wrong_with_a_pool_is_raised_by_the_stream(here: Project) -> None:
    with pytest.raises(InputError, match=r"data_pool\[0\]"):
        async for _ in DataGenerationPipeline().stream(["topic"]):
            pass


async def test_stop_ends_a_run_that_goes_on_elsewhere(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    pipeline = DataGenerationPipeline()
    run = asyncio.create_task(pipeline.run(words(20), concurrency_limit=2), name="run")
    await simulator.received(2)
    assert (await asyncio.to_thread(pipeline.stop)).workers == 1
    simulator.release()
    with pytest.raises(StoppedError, match=r"was stopped\. 2 of 20 items are done and kept"):
        await run
    assert pipeline.stop().workers == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples: must be an integer >= 1, not 0"),
        ({"until": -1}, "until: must be an integer >= 1, not -1"),
        ({"until": True}, "until: must be an integer >= 1, not True"),
        ({"max_cost": 0}, "max_cost: must be US dollars above 0, not 0"),
        ({"max_cost": "5"}, "max_cost: must be US dollars above 0, not '5'"),
        ({"max_cost": float("nan")}, "max_cost: must be US dollars above 0, not nan"),
        ({"max_failures": "many"}, "max_failures: 'many' is not a number of failures"),
        ({"max_failures": True}, "max_failures: must be a number"),
        ({"processes": 1.5}, "processes: must be an integer >= 1, not 1.5"),
        ({"processes": 2, "extract_function": str.upper}, "give extract_function by its name"),
    ],
)
async def test_a_value_of_no_use_is_refused_by_the_keywords_name(
    here: Project, simulator: Simulator, options: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, UsageError), match=said):
        await DataGenerationPipeline().run([{"word": "w0"}], **options)
    assert simulator.calls == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 10}, "price"),
        ({"model": "gpt-4o"}, "max_tokens"),
    ],
    ids=["no_price", "no_limit"],
)
async def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_enqueued(
    here: Project, words: Words, settings: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        await DataGenerationPipeline(**settings).run(words(2), max_cost=1)
    assert "--" not in str(raised.value)
    assert is_untouched(here.database)


async def test_a_variable_that_no_template_uses_is_told(
    here: Project, simulator: Simulator, capfd: pytest.CaptureFixture[str]
) -> None:
    await DataGenerationPipeline().run([{"word": "a", "colour": "red"}])
    assert capfd.readouterr().err == "batchgen: warning: no template uses these variables: colour\n"


async def test_how_far_a_long_enqueueing_is_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(showing, "PLAIN_EVERY_S", 0.0)
    async with showing.Progress(quiet=False).telling(lambda: "3 items read"):
        while "batchgen: 3 items read" not in capfd.readouterr().err:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "pool", [[{"a\x1b[2J\u202e": 1}], "no\x1b[2J\u202e.jsonl"], ids=["names", "file"]
)
def test_what_an_error_says_cannot_steer_a_terminal(here: Project, pool: Any) -> None:
    with pytest.raises(BatchgenError, match=r"<U\+001B>\[2J<U\+202E>"):
        DataGenerationPipeline().run_sync(pool)


async def test_an_endpoint_by_its_name(here: Project, simulator: Simulator, words: Words) -> None:
    results = await DataGenerationPipeline(endpoint="embeddings", dimensions=3).run(words(2))
    assert [len(result["parsed"]) for result in results] == [3, 3]
    assert simulator.requests[0].path == "/v1/embeddings"
    pipeline = DataGenerationPipeline(
        endpoint="embeddings", output_data={"experiment_name": "another"}
    )
    with pytest.raises(ConfigError, match="extract_function: must be left out: an embedding has"):
        await pipeline.run(words(2), extract_function=len)
