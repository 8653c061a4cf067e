"""The Python API, in the words of a user's script."""

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batchgen import DataGenerationPipeline
from batchgen.errors import BatchgenError, ConfigError, InputError, TemplateError, UsageError
from batchgen.installed import shipped_path
from batchgen.simulate import Behaviour, Simulator
from tests.kits.processes import Process
from tests.kits.project import KEY, Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]

EXPORT_KEYS = [
    "id", "input", "response", "parsed", "metadata", "model", "finish_reason", "usage", "cost_usd",
    "attempts", "timestamp",
]  # fmt: skip

DRAFTS = [
    {
        "user_prompt_kwargs": {"topic": topic, "word_count": "100字"},
        "system_prompt_kwargs": {"tone": "专业"},
    }
    for topic in ("人工智能", "机器学习", "数据科学", "深度学习", "自然语言处理")
]


def words_of(results: list[dict[str, Any]]) -> list[str]:
    return [result["input"]["word"] for result in results]


# --- the script of the contract ---------------------------------------------------------------


async def run_script_of_the_contract() -> list[dict[str, Any]]:
    pipeline = DataGenerationPipeline(
        temperature=0.9,
        max_tokens=2048,
        system_prompt_path=str(shipped_path("prompts/system_prompts/default.txt")),
        user_prompt_path=str(shipped_path("prompts/user_prompts/default.txt")),
        output_data={
            "output_dir": "output",
            "experiment_name": "demo_test",
            "need_time_stamp": True,
        },
        need_time_stamp=False,
    )
    return await pipeline.run(
        DRAFTS,
        concurrency_limit=5,
        extract_function=pipeline.make_default_extractor(pattern_name="draft"),
    )


async def test_the_script_of_the_contract_gives_a_result_for_each_item_in_the_pools_order(
    here: Project, simulator: Simulator
) -> None:
    results = await run_script_of_the_contract()
    assert [result["input"] for result in results] == DRAFTS
    assert [list(result) for result in results] == [EXPORT_KEYS] * 5
    for result, item in zip(results, DRAFTS, strict=True):
        topic = item["user_prompt_kwargs"]["topic"]
        assert result["response"] == f"<draft>{result['parsed'][0]}</draft>"
        assert topic in result["response"]
    assert here.export("demo_test") == results
    assert [file.name for file in (here.path / "output").iterdir()] == ["demo_test.jsonl"]
    assert simulator.calls == 5


async def test_the_script_asks_for_what_it_says(here: Project, simulator: Simulator) -> None:
    await run_script_of_the_contract()
    body = simulator.requests[0].body
    assert body["model"] == "simulated"
    assert (body["temperature"], body["max_tokens"]) == (0.9, 2048)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "专业" in body["messages"][0]["content"]


@pytest.mark.on_both_engines
async def test_the_script_run_again_calls_nothing_and_gives_the_same(
    here: Project, simulator: Simulator
) -> None:
    first = await run_script_of_the_contract()
    file = (here.path / "output/demo_test.jsonl").read_bytes()
    assert await run_script_of_the_contract() == first
    assert (here.path / "output/demo_test.jsonl").read_bytes() == file
    assert simulator.calls == 5


# --- settings ---------------------------------------------------------------------------------


def test_a_leaf_by_name_wins_over_its_section(here: Project) -> None:
    section = {"experiment_name": "x", "need_time_stamp": True}
    config = DataGenerationPipeline(output_data=section).config
    assert config.output_data.need_time_stamp is True
    config = DataGenerationPipeline(output_data=section, need_time_stamp=False).config
    assert config.output_data.need_time_stamp is False
    assert config.output_data.experiment_name == "x"


def test_settings_come_from_file_environment_and_names_in_this_order(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.config("work: {concurrency: 3, max_attempts: 2, timeout_s: 7}\n")
    monkeypatch.setenv("BATCHGEN_WORK_CONCURRENCY", "4")
    monkeypatch.setenv("BATCHGEN_WORK_MAX_ATTEMPTS", "4")
    work = DataGenerationPipeline(concurrency=5).config.work
    assert (work.concurrency, work.max_attempts, work.timeout_s) == (5, 4, 7)


async def test_config_path_names_another_file(
    here: Project, simulator: Simulator, tmp_path: Path
) -> None:
    text = (here.path / "config.yaml").read_text()
    other = here.write("deep/other.yaml", text + "output_data: {experiment_name: other}\n")
    here.write("deep/prompts/user_prompts/default.txt", "Shout {word}\n")
    here.write("config.yaml", "nonsense: true\n")
    pipeline = DataGenerationPipeline(config_path=other)
    await pipeline.run([{"word": "w0"}])
    assert "Shout w0" in simulator.ledger
    assert pipeline.experiment_path == tmp_path / "deep/output/other.jsonl"
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        DataGenerationPipeline(config_path="none.yaml")


def test_an_unknown_setting_is_an_error_that_names_the_nearest(here: Project) -> None:
    with pytest.raises(ConfigError, match=r"temprature: unknown key; did you mean .*temperature"):
        DataGenerationPipeline(temprature=0.9)  # type: ignore[call-arg]


async def test_concurrency_limit_is_the_number_of_calls_at_once(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    running = asyncio.create_task(
        DataGenerationPipeline().run(words(6), concurrency_limit=2), name="run"
    )
    await simulator.received(2)
    simulator.release()
    assert len(await running) == 6
    assert simulator.max_in_flight == 2


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_concurrency_limit_below_one_is_refused(
    here: Project, simulator: Simulator, limit: int
) -> None:
    with pytest.raises(ConfigError, match=f"concurrency_limit.*{limit}"):
        await DataGenerationPipeline().run([{"word": "w0"}], concurrency_limit=limit)
    assert simulator.calls == 0


# --- extract_function -------------------------------------------------------------------------


def text_only(text: str) -> str:
    return text.upper()


def text_and_item(text: str, item: dict[str, Any]) -> list[Any]:
    return [item["word"], len(text)]


async def async_text(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


async def async_text_and_item(text: str, item: dict[str, Any]) -> list[Any]:
    return [item["word"], len(text)]


def text_and_option(text: str, suffix: str = "") -> str:
    return text + suffix


class Extractors:
    def method(self, text: str) -> str:
        return text.upper()

    async def async_method(self, text: str, item: dict[str, Any]) -> list[Any]:
        return [item["word"], len(text)]

    def __call__(self, text: str) -> str:
        return text.upper()


@pytest.mark.parametrize(
    ("extract", "wanted"),
    [
        (None, lambda text: text),
        (text_only, str.upper),
        (text_and_item, lambda text: ["w0", len(text)]),
        (async_text, str.upper),
        (async_text_and_item, lambda text: ["w0", len(text)]),
        (lambda text: text.upper(), str.upper),
        (Extractors().method, str.upper),
        (Extractors().async_method, lambda text: ["w0", len(text)]),
        (Extractors(), str.upper),
        (partial(text_and_option, suffix="!"), lambda text: text + "!"),
        (str.upper, str.upper),
        ("regex:wrote", lambda text: "wrote"),
        ("my_parsers.py:shout", lambda text: text + "!"),
    ],
    ids=[
        "none", "text", "text_and_item", "async_text", "async_text_and_item", "lambda", "method",
        "async_method", "object", "partial", "method_in_c", "spec", "file_spec",
    ],
)  # fmt: skip
async def test_extract_function_makes_parsed_out_of_the_text(
    here: Project, extract: Any, wanted: Callable[[str], Any]
) -> None:
    here.write("my_parsers.py", "def shout(response): return response + '!'\n")
    [result] = await DataGenerationPipeline().run([{"word": "w0"}], extract_function=extract)
    assert result["parsed"] == wanted(result["response"])


@pytest.mark.parametrize(
    ("extract", "said"),
    [
        (lambda: None, "response"),
        (lambda a, b, c: None, "response"),
        (str, "function"),
        (17, "extract_function: must be a function or a parser spec, not int"),
        ("nonsense", "unknown parser 'nonsense'"),
    ],
    ids=["no_parameter", "three_parameters", "class", "number", "unknown_spec"],
)
async def test_an_extract_function_of_no_use_is_refused_before_anything_is_asked(
    here: Project, simulator: Simulator, extract: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await DataGenerationPipeline().run([{"word": "w0"}], extract_function=extract)
    assert simulator.calls == 0


async def test_an_extract_function_that_raises_costs_its_own_item_only(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def extract(text: str, item: dict[str, Any]) -> str:
        if item["word"] == "w1":
            raise ValueError("no title")
        return text

    results = await DataGenerationPipeline().run(words(3), extract_function=extract)
    assert [result["parsed"] is None for result in results] == [False, True, False]
    failed = results[1]
    assert "ValueError: no title" in failed["error"]
    assert "test_pipeline.py" in failed["error"]
    assert failed["reason"] == "parse"
    assert "Say w1" in failed["response"]
    assert "error" not in results[0]
    assert [line["input"]["word"] for line in here.export()] == ["w0", "w2"]
    # It stays failed, and what the model said stays paid for.
    assert await DataGenerationPipeline().run(words(3), extract_function=extract) == results
    assert simulator.calls == 3


def test_the_default_extractor_can_be_called_like_a_function() -> None:
    extract = DataGenerationPipeline.make_default_extractor("draft")
    assert extract("<draft>one</draft> and <DRAFT a='b'>two</DRAFT>") == ["one", "two"]


# --- results ----------------------------------------------------------------------------------


async def test_results_keep_the_pools_order_whatever_is_known_already(
    here: Project, simulator: Simulator
) -> None:
    await DataGenerationPipeline().run([{"word": "b"}, {"word": "d", "id": "four"}])
    pool = [{"word": "a"}, {"word": "b"}, {"word": "c"}, {"word": "d", "id": "four"}]
    results = await DataGenerationPipeline().run(pool)
    assert words_of(results) == ["a", "b", "c", "d"]
    assert [result["id"] for result in results] == [3, 1, 4, "four"]
    assert simulator.calls == 4


async def test_the_second_copy_of_equal_content_is_a_second_item(
    here: Project, simulator: Simulator
) -> None:
    results = await DataGenerationPipeline().run([{"word": "a"}, {"word": "b"}, {"word": "a"}])
    assert words_of(results) == ["a", "b", "a"]
    assert [result["id"] for result in results] == [1, 2, 3]
    assert simulator.calls == 3


async def test_the_same_id_twice_in_a_pool_is_one_item_with_its_result_twice(
    here: Project, simulator: Simulator
) -> None:
    results = await DataGenerationPipeline().run([{"word": "a", "id": "x"}] * 2)
    assert results[0] == results[1]
    assert simulator.calls == 1


async def test_metadata_and_ids_come_back_as_they_were(here: Project) -> None:
    item = {"id": "mine", "word": "a", "metadata": {"来源": [1, None]}}
    [result] = await DataGenerationPipeline().run([item])
    assert (result["id"], result["metadata"]) == ("mine", {"来源": [1, None]})
    assert result["input"] == item


async def test_a_pool_that_grew_by_one_costs_one_call(
    here: Project, simulator: Simulator, words: Words
) -> None:
    first = await DataGenerationPipeline().run(words(5))
    assert (await DataGenerationPipeline().run(words(6)))[:5] == first
    assert simulator.calls == 6


async def test_more_results_than_a_page_of_the_store(here: Project, words: Words) -> None:
    results = await DataGenerationPipeline().run(words(1100), concurrency_limit=100)
    assert words_of(results) == [f"w{n}" for n in range(1100)]


async def test_an_empty_pool_gives_no_results(here: Project, simulator: Simulator) -> None:
    pipeline = DataGenerationPipeline()
    assert await pipeline.run([]) == []
    assert pipeline.experiment_path == here.path / "output/default.jsonl"
    assert pipeline.experiment_path.read_bytes() == b""
    assert simulator.calls == 0


async def test_a_bad_item_is_named_by_its_place_and_costs_nothing(
    here: Project, simulator: Simulator, words: Words
) -> None:
    pool: list[Any] = [*words(3), "no item", {"word": "w4"}]
    with pytest.raises(InputError, match=r"^data_pool\[3\]: "):
        await DataGenerationPipeline().run(pool)
    pool[3] = {"wrd": "w3"}
    with pytest.raises(TemplateError, match=r"^data_pool\[3\]: .*word"):
        await DataGenerationPipeline().run(pool)
    assert simulator.calls == 0
    pool[3] = {"word": "w3"}
    assert words_of(await DataGenerationPipeline().run(pool)) == [f"w{n}" for n in range(5)]
    assert simulator.calls == 5


async def test_an_exception_of_the_users_generator_comes_out_as_it_is(here: Project) -> None:
    def pool() -> Iterator[dict[str, str]]:
        yield {"word": "w0"}
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await DataGenerationPipeline().run(pool())


# --- what stops a run -------------------------------------------------------------------------


async def test_a_wrong_key_halts_with_words_and_the_right_one_goes_on(
    here: Project, words: Words
) -> None:
    model = Simulator(api_key=KEY)
    async with model.running() as url:
        here.config(base_url=url)
        await DataGenerationPipeline().run(words(2))
        with pytest.raises(BatchgenError) as raised:
            await DataGenerationPipeline(api_key="sk-wrong").run(words(30))
        said = str(raised.value)
        assert "api_key" in said
        assert "2 of 30 items are done and kept" in said
        assert "run it again" in said
        assert "sk-wrong" not in said
        refused = model.calls - 2
        assert 1 <= refused <= 4
        assert len(here.export()) == 2
        results = await DataGenerationPipeline().run(words(30))
        assert words_of(results) == [f"w{n}" for n in range(30)]
        assert model.calls == 2 + refused + 28


async def test_a_changed_template_stops_until_told_what_to_do(
    here: Project, simulator: Simulator, words: Words
) -> None:
    await DataGenerationPipeline().run(words(2))
    here.write("prompts/user_prompts/default.txt", "Shout {word}\n")
    with pytest.raises(UsageError, match=r"the user template changed.* recipe=\"add\""):
        await DataGenerationPipeline().run(words(2))
    assert simulator.calls == 2
    results = await DataGenerationPipeline().run(words(2), recipe="add")
    assert all("Shout" in result["response"] for result in results)
    assert len(here.export()) == 4


async def test_recipe_replace_asks_what_the_old_one_has_not_answered(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.script("Say w1", Behaviour.error(401))
    with pytest.raises(BatchgenError):
        await DataGenerationPipeline().run(words(2), concurrency_limit=1)
    here.write("prompts/user_prompts/default.txt", "Shout {word}\n")
    results = await DataGenerationPipeline().run(words(2), recipe="replace")
    assert words_of(results) == ["w0", "w1"]
    said = [line["response"].split('"')[1] for line in here.export()]
    assert said == ["Say w0", "Shout w1"]


async def test_an_unknown_word_for_recipe_is_refused(here: Project) -> None:
    with pytest.raises(UsageError, match=r"recipe.*'mix'.*stop, replace, again, add"):
        await DataGenerationPipeline().run([{"word": "w0"}], recipe="mix")  # type: ignore[arg-type]


async def test_a_cancelled_run_leaves_nothing_open_and_the_next_one_completes(
    here: Project, simulator: Simulator, words: Words
) -> None:
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    simulator.hold()
    run = asyncio.create_task(
        DataGenerationPipeline().run(words(8), concurrency_limit=3, extract_function=text_only),
        name="run",
    )
    await simulator.received(3)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    new = set(threading.enumerate()) - threads
    for thread in (new := {one for one in new if not one.name.startswith("asyncio_")}):
        thread.join(timeout=10)  # it was told to end; a loop keeps its own
    assert not [thread for thread in new if thread.is_alive()]
    assert tasks >= asyncio.all_tasks() - {run}
    assert here.query("select count(*) from work where state = 'running'") == [(0,)]
    assert here.query("select count(*) from workers") == [(0,)]
    simulator.release()
    assert words_of(await DataGenerationPipeline().run(words(8), extract_function=text_only)) == [
        f"w{n}" for n in range(8)
    ]
    assert simulator.calls == 3 + 8
    status = (await here.batchgen("status", "--json")).json
    assert status["total"]["unknown_calls"] == 3


async def test_an_answer_that_came_before_the_cancelling_is_kept(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def extract(text: str, item: dict[str, Any]) -> str:
        if item["word"] == "w0":
            loop.call_soon_threadsafe(run.cancel)
        return text

    loop = asyncio.get_running_loop()
    run = asyncio.create_task(
        DataGenerationPipeline().run(words(3), concurrency_limit=1, extract_function=extract),
        name="run",
    )
    with pytest.raises(asyncio.CancelledError):
        await run
    assert here.query("select count(*) from work where state = 'running'") == [(0,)]
    assert len(await DataGenerationPipeline().run(words(3), extract_function=extract)) == 3
    assert simulator.calls_of("Say w0") == 1


async def test_a_run_within_a_timeout_raises_timeout_error(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await DataGenerationPipeline().run(words(3))
    simulator.release()
    assert len(await DataGenerationPipeline().run(words(3))) == 3


# --- without async, and several at once -------------------------------------------------------


async def test_run_sync_works_in_any_thread(
    here: Project, simulator: Simulator, words: Words
) -> None:
    results = await asyncio.to_thread(DataGenerationPipeline().run_sync, words(3))
    assert words_of(results) == ["w0", "w1", "w2"]


SYNC_SCRIPT = """
from batchgen import DataGenerationPipeline

def extract(text):
    return text.upper()

results = DataGenerationPipeline().run_sync(
    [{"word": f"w{n}"} for n in range(20)], concurrency_limit=5, extract_function=extract
)
print([result["input"]["word"] for result in results])
"""


async def start_script(project: Project, text: str = SYNC_SCRIPT) -> Process:
    return await project.start(str(project.write("script.py", text)))


async def test_run_sync_in_a_script(project: Project, simulator: Simulator) -> None:
    script = await ended(await start_script(project))
    assert (script.code, script.err) == (0, "")
    assert script.out == f"{[f'w{n}' for n in range(20)]}\n"


async def test_two_pipelines_on_one_database_at_the_same_time(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.hold()
    runs = [
        asyncio.create_task(
            DataGenerationPipeline(experiment_name=name).run(
                [{"word": f"{name}{n}"} for n in range(20)], concurrency_limit=4
            ),
            name=name,
        )
        for name in ("one", "two")
    ]
    await simulator.received(1, "Say one")
    await simulator.received(1, "Say two")
    simulator.release()
    one, two = await asyncio.gather(*runs)
    assert words_of(one) == [f"one{n}" for n in range(20)]
    assert words_of(two) == [f"two{n}" for n in range(20)]
    assert (here.export("one"), here.export("two")) == (one, two)
    assert simulator.calls == 40
    logs = sorted((here.path / "logs").iterdir())
    assert len(logs) == 2
    for log in logs:
        assert all(json.loads(line) for line in log.read_text().splitlines())


# --- crashes and the command line -------------------------------------------------------------


async def test_a_script_that_was_killed_goes_on_and_repeats_only_what_was_in_flight(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["ok"] * 7, *[Behaviour.ok(delay_s=3600)] * 5)
    script = await start_script(project)
    await simulator.received(12)
    script.send_signal(signal.SIGKILL)
    await ended(script)
    again = await ended(await start_script(project))
    assert again.code == 0, again.err
    assert again.out == f"{[f'w{n}' for n in range(20)]}\n"
    assert simulator.calls == 20 + 5
    assert [line["attempts"] for line in project.export()] == [1] * 20
    assert (await project.batchgen("verify")).code == 0


async def test_ctrl_c_lets_a_script_finish_its_calls_and_keep_them(
    project: Project, simulator: Simulator
) -> None:
    simulator.hold()
    script = await start_script(project)
    await simulator.received(4)
    script.send_signal(signal.SIGINT)
    assert script.stderr is not None
    assert b"stopping" in await script.stderr.readline()
    simulator.release()
    stopped = await ended(script)
    assert stopped.code == 1
    in_flight = simulator.calls
    assert f"stopped by a signal. {in_flight} of 20 items are done and kept" in stopped.err
    assert len(project.export()) == in_flight
    assert (await ended(await start_script(project))).code == 0
    assert simulator.calls == 20


async def test_work_leaves_items_that_only_their_script_can_parse(
    project: Project, simulator: Simulator
) -> None:
    simulator.hold()
    script = await start_script(project)
    await simulator.received(4)
    script.send_signal(signal.SIGKILL)
    await ended(script)
    simulator.release()
    sent = simulator.calls
    worked = await project.batchgen("work")
    assert worked.code == 2
    assert "only the Python script that enqueued these items has its __main__.extract" in worked.err
    assert "Run that script" in worked.err
    assert "Traceback" not in worked.err
    assert simulator.calls == sent
    assert project.query("select count(*) from work where state = 'done'") == [(0,)]
    assert (await ended(await start_script(project))).code == 0
    assert [line["parsed"] == line["response"].upper() for line in project.export()] == [True] * 20
