"""Chains of steps from Python."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from batchgen import DataGenerationPipeline, Step
from batchgen.errors import ConfigError, TemplateError, UsageError
from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project


class Critique(BaseModel):
    faults: list[str]
    score: int


def verdict(text: str) -> dict[str, Any]:
    """A score that depends on the topic alone."""
    number = int(text.split("tea ")[1].split()[0].strip('".'))
    return {"score": number}


def topics(n: int) -> list[dict[str, Any]]:
    return [{"id": f"a-{number}", "topic": f"tea {number}"} for number in range(1, n + 1)]


def three_steps(**changed: Any) -> list[Step]:
    """Drafts, a score for each, and a second version of those with less than 3."""
    critique: dict[str, Any] = {"user": "Judge {topic}", "parser": verdict, **changed}
    return [
        Step("draft", user="Write of {topic}"),
        Step("critique", **critique),
        Step("revise", when="critique.score < 3", user="Mend {draft}", temperature=0),
    ]


@pytest.fixture
def pipeline(here: Project) -> DataGenerationPipeline:
    here.config("output_data: {experiment_name: demo}\n")
    return DataGenerationPipeline(steps=three_steps(), result=["revise", "draft"])


async def test_a_result_is_a_chain_as_in_the_export(
    here: Project, pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    results = await pipeline.run(topics(4))
    assert [one["id"] for one in results] == ["a-1", "a-2", "a-3", "a-4"]
    assert [one["ended"] for one in results] == ["revise", "revise", "critique", "critique"]
    assert [one["parsed"].splitlines()[0] for one in results][2] == 'You wrote "Write of tea 3".'
    assert results[0]["steps"]["critique"]["parsed"] == {"score": 1}
    assert results[0]["parsed"] == results[0]["steps"]["revise"]["parsed"]
    assert here.export("demo") == results
    frame = results.to_pandas()
    assert list(frame["critique.parsed.score"]) == [1, 2, 3, 4]
    assert list(frame["revise.parsed"].isna()) == [False, False, True, True]
    calls = simulator.calls
    assert calls == 4 + 4 + 2
    assert await pipeline.run(topics(4)) == results
    assert simulator.calls == calls


async def test_only_the_items_that_are_passed_and_as_often(
    pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    await pipeline.run(topics(3))
    results = await pipeline.run([*topics(3)[1:2], *topics(3)[:1], *topics(3)[1:2]])
    assert [one["id"] for one in results] == ["a-2", "a-1", "a-2"]
    assert simulator.calls == 3 + 3 + 2


async def test_until_counts_the_chains_of_the_items_that_are_passed(
    pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    await pipeline.run(topics(2))
    some = await pipeline.run(topics(8), until=4)
    assert [one["id"] for one in some] == ["a-1", "a-2", "a-3", "a-4"]
    more = await pipeline.run(topics(7)[2:], until=3)  # others have ended, and another one waits
    assert [one["id"] for one in more] == ["a-3", "a-4", "a-5"]
    assert simulator.calls_of("Judge") == 5


async def test_chains_come_as_they_end_each_once(pipeline: DataGenerationPipeline) -> None:
    seen: list[str] = []
    await pipeline.run(topics(2))
    results = await pipeline.run(topics(5), on_result=lambda one: seen.append(one["id"]))
    assert seen[:2] == ["a-1", "a-2"]
    assert sorted(seen) == [one["id"] for one in results]
    streamed = [one async for one in pipeline.stream(topics(6))]
    assert sorted(one["id"] for one in streamed) == [f"a-{n}" for n in range(1, 7)]
    assert all(one["steps"]["critique"] for one in streamed)


async def test_a_chain_that_fails_is_a_result(
    pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    simulator.script("Mend", Behaviour.error(400))
    results = await pipeline.run(topics(2))
    assert sorted(one["parsed"] is None for one in results) == [False, True]
    failed = next(one for one in results if one["parsed"] is None)
    assert (failed["failed"], failed["reason"], failed["ended"]) == ("revise", "rejected", None)
    (group,) = pipeline.failures()
    assert (group.step, group.n) == ("revise", 1)
    assert "pipeline.retry" not in group.hint or "step='revise'" in group.hint
    assert pipeline.failures(step="draft") == []
    assert pipeline.retry(step="draft").retried == 0
    assert pipeline.retry(step="revise").retried == 1
    assert [one["ended"] for one in await pipeline.run(topics(2))] == ["revise", "revise"]


async def test_status_has_the_steps(pipeline: DataGenerationPipeline) -> None:
    await pipeline.run(topics(4))
    status = pipeline.status()
    assert (status.items, status.ended, status.total, status.stale) == (4, 4, 10, 0)
    assert [(one.name, one.done, one.skipped) for one in status.steps] == [
        ("draft", 4, 0), ("critique", 4, 0), ("revise", 2, 2),
    ]  # fmt: skip
    assert "critique" in str(status)
    assert pipeline.status(step="revise").done == 2


async def test_lists_samples_and_what_is_gathered(here: Project, simulator: Simulator) -> None:
    def halves(text: str) -> list[str]:
        return ["left", "right"]

    async def longest(item: Mapping[str, Any], values: Mapping[str, Any]) -> str:
        assert len(values["texts"]) == len(values["half"])
        return f"{item['topic']}: {max(values['half'], key=len)}"

    pipeline = DataGenerationPipeline(
        experiment_name="halves",
        steps=[
            Step("parts", user="Halve {topic}", parser=halves),
            Step("text", each={"half": "parts"}, user="Write of {half}"),
            Step("best", gather="texts", function=longest),
        ],
    )
    results = await pipeline.run(topics(2), samples=2)
    assert [one["parsed"] for one in results] == ["tea 1: right", "tea 2: right"]
    assert [(one["sample"], one["element"]) for one in results[0]["steps"]["text"]] == [
        (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert simulator.calls == 2 * 2 + 2 * 2 * 2
    without = DataGenerationPipeline(experiment_name="two", steps=three_steps()[:1])
    numbered = await without.run(topics(1), samples=2)
    assert [one["sample"] for one in numbered] == [1, 2]


async def test_until_ends_with_so_many_chains(
    pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    results = await pipeline.run(topics(20), 1, until=3)
    assert len(results) == 3
    assert simulator.calls < 20


async def test_an_edited_step_is_asked_again_and_what_follows_is_stale(
    here: Project, pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    await pipeline.run(topics(3))
    edited = DataGenerationPipeline(
        steps=three_steps(user="Judge harder: {topic}"), result=["revise", "draft"]
    )
    with pytest.raises(UsageError, match=r'critique.*recipe="replace"'):
        await edited.run(topics(3))
    calls = simulator.calls
    await edited.run(topics(3), recipe="again")
    assert simulator.calls - calls == 3  # the scores are the same, so nothing else is
    assert edited.status().stale == 0


async def test_another_value_makes_stale_what_retry_asks_again(
    pipeline: DataGenerationPipeline, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    def harder(text: str) -> dict[str, Any]:
        return {"score": verdict(text)["score"] - 1}

    await pipeline.run(topics(3))
    other = DataGenerationPipeline(
        steps=[
            *three_steps(parser=harder)[:2],
            Step("revise", when="critique.score < 3", user="{critique.score}: mend {draft}"),
        ],
        result=["revise", "draft"],
    )
    shown = other.reparse(step="critique", dry_run=True)
    assert (shown.changed, shown.made, shown.stale) == (3, 1, 2)
    calls = simulator.calls
    done = other.reparse(step="critique")
    assert (done.changed, simulator.calls) == (3, calls)
    assert other.status().stale == 2
    assert len(await other.run(topics(3), recipe="replace")) == 1
    assert "no results: 2. To ask again what follows it: pipeline.retry(stale=True)" in (
        capsys.readouterr().err
    )
    asked = other.retry(stale=True, dry_run=True)
    assert (asked.retried, asked.waiting) == (2, 0)
    assert other.retry(stale=True, step="revise").retried == 2
    results = await other.run(topics(3))
    assert [one["ended"] for one in results] == ["revise"] * 3
    with pytest.raises(UsageError, match="stale=True goes with"):
        other.retry("parse", stale=True)


async def test_for_stale_rows_that_the_steps_make_no_more_nothing_is_proposed(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    here.config("output_data: {experiment_name: demo}\n")

    def revised_below(score: int) -> DataGenerationPipeline:
        when = f"critique.score < {score}"
        mended = Step("revise", when=when, otherwise="skip", user="Mend {draft}")
        polished = Step("polish", user="Polish {draft}")
        return DataGenerationPipeline(steps=[*three_steps()[:2], mended, polished])

    await revised_below(3).run(topics(3))
    capsys.readouterr()
    narrower = revised_below(1)
    assert len(await narrower.run(topics(3), recipe="replace")) == 3
    assert narrower.status().stale == 4
    assert "no results: 2. The steps make what is stale no more\n" in capsys.readouterr().err


async def test_a_pydantic_model_asks_for_answers_that_fit(
    here: Project, simulator: Simulator
) -> None:
    pipeline = DataGenerationPipeline(
        experiment_name="judged",
        steps=[
            Step("draft", user="Write of {topic}", max_tokens=77),
            Step("critique", user="Judge {draft}", parser=Critique, structured_output=True,
                 model="judge-1", value="parsed.score"),
            Step("end", when="critique >= 0", conversation=True, user="Why {critique}?"),
        ],
    )  # fmt: skip
    (result,) = await pipeline.run(topics(1))
    assert isinstance(result["steps"]["critique"]["parsed"]["faults"], list)
    bodies = [one.body for one in simulator.requests]
    assert [body["model"] for body in bodies] == ["simulated", "judge-1", "simulated"]
    assert bodies[0]["max_tokens"] == 77
    assert [one["role"] for one in bodies[2]["messages"]] == ["user", "assistant", "user"]
    score = result["steps"]["critique"]["parsed"]["score"]
    assert bodies[2]["messages"][2]["content"] == f"Why {score}?"


async def test_an_export_is_of_chains_or_of_a_step(
    here: Project, pipeline: DataGenerationPipeline
) -> None:
    await pipeline.run(topics(4))
    good = pipeline.export("good.jsonl", where="critique.score >= 3")
    assert good.rows == 2
    drafts = pipeline.export("drafts.csv", step="draft", columns="id,parsed,critique.parsed.score")
    assert drafts.rows == 4
    first = (here.path / "drafts.csv").read_text("utf-8-sig").splitlines()[0]
    assert first == "id,parsed,critique.parsed.score"
    with pytest.raises(UsageError, match="no step 'judge'"):
        pipeline.export("x.jsonl", step="judge")


async def test_templates_are_files_or_texts(here: Project, simulator: Simulator) -> None:
    here.write("prompts/judge.j2", "{% if draft %}Judge {{ topic }}{% endif %}")
    pipeline = DataGenerationPipeline(
        steps=[
            Step("draft", user="Write of {topic}"),
            Step("one", user="prompts/judge.j2"),
            Step("two", user=Path("prompts/judge.j2"), system="Be brief."),
        ]
    )
    await pipeline.run(topics(1))
    assert simulator.calls_of("Judge tea 1") == 2


def wrong(*steps: Any) -> str:
    with pytest.raises((ConfigError, TemplateError, UsageError)) as refused:
        DataGenerationPipeline(steps=list(steps)).run_sync(topics(1))
    return str(refused.value)


def test_what_is_wrong_is_told_by_step_and_keyword(here: Project, simulator: Simulator) -> None:
    draft = Step("draft", user="Write of {topic}")
    with pytest.raises(ConfigError, match=r"Step\('x'\): unknown keyword temprature.*temperature"):
        Step("x", user="Say", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"Step\('x'\): unknown keyword wen; did you mean when"):
        Step("x", user="Say", wen="a > 1")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="parser must be a function or its name, not int"):
        Step("x", user="Say", parser=3)  # type: ignore[arg-type]
    assert "steps[1].when (step b): " in wrong(
        draft, Step("b", user="x {draft}", when="nobody > 1")
    )
    assert "steps[1].user (step b): is missing" in wrong(draft, Step("b"))
    assert "{missing}" in wrong(draft, Step("b", user="Say {missing}"))
    assert "steps[1]" in wrong(draft, 5)
    assert simulator.calls == 0


def test_what_does_not_go_with_steps_is_told(
    pipeline: DataGenerationPipeline, simulator: Simulator
) -> None:
    with pytest.raises(UsageError, match="each of which has a parser of its own"):
        pipeline.run_sync(topics(1), extract_function=verdict)
    with pytest.raises(UsageError, match="what step critique runs by its name"):
        pipeline.run_sync(topics(1), processes=2)
    assert simulator.calls == 0


async def test_nothing_of_a_pool_with_a_bad_item_is_enqueued(
    here: Project, pipeline: DataGenerationPipeline
) -> None:
    with pytest.raises(UsageError, match=r"data_pool\[2\].*draft"):
        await pipeline.run([*topics(2), {"topic": "x", "draft": "taken"}])
    assert is_untouched(here.database)


async def test_steps_of_the_config_run_from_python(here: Project) -> None:
    here.write("code.py", "def count(item, values):\n    return len(values['draft'])\n")
    here.config(
        "steps:\n"
        "  - {name: draft, user: {text: 'Write of {topic}'}}\n"
        "  - {name: n, function: 'code.py:count'}\n"
    )

    def pool() -> Iterator[dict[str, Any]]:
        yield from topics(3)

    results = await DataGenerationPipeline().run(pool(), processes=2)
    assert [one["parsed"] for one in results] == [
        len(one["steps"]["draft"]["parsed"]) for one in results
    ]
    assert json.loads(json.dumps(results)) == results
