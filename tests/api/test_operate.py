"""Status, failures, retry, reparse, export and stop of a pipeline."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline
from batchgen.api.words import REMEDIES
from batchgen.errors import ConfigError, Remedy, UsageError
from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

Words = Callable[[int], Iterator[dict[str, Any]]]


@pytest.fixture
async def with_failures(here: Project, simulator: Simulator, words: Words) -> Project:
    """Six items, of which two were rejected."""
    for word in ("w1", "w4"):
        simulator.script(f"Say {word}", Behaviour.error(400))
    await DataGenerationPipeline().run(words(6))
    return here


async def test_status_has_fields_and_prints_as_the_command(with_failures: Project) -> None:
    status = DataGenerationPipeline().status()
    assert (status.total, status.done, status.failed, status.pending) == (6, 4, 2, 0)
    assert status.reasons == {"rejected": 2}
    assert status.calls == 6
    assert "pipeline.failures()" in str(status)
    assert (await DataGenerationPipeline().status()).done == 4


async def test_failures_are_groups_with_an_example(with_failures: Project) -> None:
    (group,) = DataGenerationPipeline().failures()
    assert (group.reason, group.n, group.example) == ("rejected", 2, 2)
    assert "pipeline.retry('rejected', params=" in group.hint
    assert group.hint in str(DataGenerationPipeline().failures())
    assert DataGenerationPipeline().failures("timeout") == []
    assert list(DataGenerationPipeline().failures().to_pandas().columns)[:2] == ["reason", "error"]


async def test_results_are_a_frame_with_a_column_for_each_field(
    with_failures: Project, words: Words
) -> None:
    def count(text: str) -> dict[str, int]:
        return {"words": len(text.split())}

    results = await DataGenerationPipeline().run(words(6), extract_function=count)
    frame = results.to_pandas()
    assert list(frame["input.word"]) == [f"w{n}" for n in range(6)]
    assert list(frame["parsed.words"].isna()) == [False, True, False, False, True, False]
    assert frame["reason"][1] == "rejected"
    assert len(results[1:3].to_pandas()) == 2
    assert (await DataGenerationPipeline().run([])).to_pandas().empty


@pytest.mark.on_both_engines
async def test_retry_puts_back_and_the_next_run_asks(
    with_failures: Project, simulator: Simulator, words: Words
) -> None:
    pipeline = DataGenerationPipeline()
    assert pipeline.retry(dry_run=True).retried == 2
    assert pipeline.retry("rejected", params={"max_tokens": 77}).retried == 2
    results = await pipeline.run(words(6))
    assert [one["parsed"] is not None for one in results] == [True] * 6
    assert [one.body.get("max_tokens") for one in list(simulator.requests)[-2:]] == [77, 77]
    assert simulator.calls == 8
    assert pipeline.retry(ids=[3], done=True).retried == 1


async def test_reparse_uses_another_function_without_a_call(
    with_failures: Project, simulator: Simulator
) -> None:
    def first_word(text: str) -> str:
        return text.split()[0]

    pipeline = DataGenerationPipeline()
    shown = pipeline.reparse(first_word, dry_run=True)
    assert (shown.changed, len(shown.differences)) == (4, 4)
    assert pipeline.reparse(first_word).changed == 4
    pipeline.export("out.jsonl")
    assert simulator.calls == 6
    assert with_failures.query("select distinct parsed from results where parsed is not null") == [
        ('"You"',)
    ]


async def test_reparse_without_a_function_is_by_the_parser_that_the_rows_have(
    here: Project, simulator: Simulator, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    here.write("mine.py", "def parse(text):\n    return text.split()[0]\n")
    pipeline = DataGenerationPipeline()
    await pipeline.run(words(2), extract_function="mine.py:parse")
    here.write("mine.py", "def parse(text):\n    return text.split()[1]\n")
    assert pipeline.export("out.jsonl").rows == 2
    assert "2 items have the value of another parser than mine.py:parse" in capfd.readouterr().err
    assert pipeline.reparse().changed == 2
    assert pipeline.reparse().unchanged == 2
    await pipeline.run(words(2), extract_function=str.upper)
    with pytest.raises(
        ConfigError, match=r"has its builtins\.str\.upper\. Pass it as extract_function"
    ):
        pipeline.reparse()
    assert simulator.calls == 2


async def test_export_writes_in_the_format_that_the_name_says(with_failures: Project) -> None:
    pipeline = DataGenerationPipeline()
    exported = pipeline.export("out.csv")
    assert (exported.rows, exported.path.name) == (4, "out.csv")
    assert (exported.failed, exported.open) == (2, 0)
    assert (with_failures.path / "out.csv").read_text("utf-8-sig").startswith("id,input.word")
    assert pipeline.export("failed.jsonl", failed=True).rows == 2
    assert pipeline.export("some.jsonl", where="id <= 3").rows == 2
    assert pipeline.export(format="messages").rows == 4


async def test_export_can_do_what_the_command_can(with_failures: Project) -> None:
    pipeline = DataGenerationPipeline()
    assert pipeline.export("all.jsonl", failed_too=True).rows == 6
    assert pipeline.export("more.jsonl", extras=["body"]).rows == 4
    first = json.loads((with_failures.path / "more.jsonl").read_text().splitlines()[0])
    assert "choices" in first["body"]
    assert pipeline.export("items.jsonl", group=True).rows == 4
    split = pipeline.export("part.jsonl", shards=2, summary="part.json")
    assert [file.name for file in split.shards] == [
        "part-00001-of-00002.jsonl", "part-00002-of-00002.jsonl",
    ]  # fmt: skip
    assert json.loads((with_failures.path / "part.json").read_text())["rows"] == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"failed": True, "failed_too": True}, "failed and failed_too exclude each other"),
        ({"shards": 0}, "shards: must be from 1 to 200"),
        ({"extras": ["thoughts"]}, "extras: 'thoughts' is not one of reasoning, tool_calls"),
        ({"group": True, "shards": 2}, "do not go with shards"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    with_failures: Project, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        DataGenerationPipeline().export("out.jsonl", **asked)


def test_methods_work_within_async_code_too(with_failures: Project) -> None:
    assert DataGenerationPipeline().status().done == 4


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda p: p.failures("nonsense"), "reason: 'nonsense' is not one of rate_limit"),
        (lambda p: p.retry("nonsense"), "reason: 'nonsense' is not one of rate_limit"),
        (lambda p: p.retry(ids=["none"]), "no item has the id or number 'none'"),
        (lambda p: p.retry(ids=[1]), r"item 1 is done\. Pass done=True"),
        (lambda p: p.retry(done=True), r"done=True goes with ids="),
        (lambda p: p.retry(params={"max_tokens": -1}), "params: max_tokens: must be"),
        (lambda p: p.retry(params={"nonsense": 1}), "params: nonsense: unknown key"),
        (lambda p: p.export(format="xls"), "format: 'xls' is not one of jsonl"),
        (lambda p: p.reparse(17), "extract_function: must be a function"),
    ],
)
async def test_what_cannot_be_done_is_said_in_pythons_words(
    with_failures: Project, ask: Callable[[DataGenerationPipeline], Any], said: str
) -> None:
    with pytest.raises((ConfigError, UsageError), match=said) as raised:
        ask(DataGenerationPipeline())
    assert "--" not in str(raised.value)


@pytest.mark.only_sqlite("the tests' databases on a server have their tables already")
def test_before_anything_was_run_they_say_so(here: Project) -> None:
    with pytest.raises(UsageError, match="Run a data pool first"):
        DataGenerationPipeline().status()


def test_each_remedy_has_words_for_python() -> None:
    assert set(Remedy) == set(REMEDIES)
    assert [words for words in REMEDIES.values() if "--" in words] == []


class Printer:
    """What IPython gives an object to print itself."""

    def __init__(self) -> None:
        self.printed = ""

    def text(self, text: str) -> None:
        self.printed += text

    def pretty(self, value: object) -> None:
        self.printed += repr(value)


async def test_the_last_line_of_a_cell_shows_what_can_be_read(
    here: Project, simulator: Simulator, words: Words
) -> None:
    simulator.script("Say w1", Behaviour.error(400))
    pipeline = DataGenerationPipeline()
    results = await pipeline.run(words(9))
    shown = Printer()
    status = pipeline.status()
    for value in (results, pipeline.failures(), status):
        value._repr_pretty_(shown, cycle=False)
    assert shown.printed.count("'input'") == 5
    assert "... and 4 more: results.to_pandas()" in shown.printed
    assert str(pipeline.failures()) in shown.printed
    assert str(status) in shown.printed
