"""`work --batch`: each row is answered, and billed, once, whatever the provider does."""

import pytest

from tests.batches.conftest import Provide
from tests.kits.project import without_times

pytestmark = pytest.mark.on_both_engines


async def test_all_rows_are_answered_in_batches_as_they_are_online(provide: Provide) -> None:
    project = await provide(items=25)
    project.in_batches(max_requests=10)
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.in_batches == project.provider.bill.answers == 25
    assert project.query("select count(*), sum(requests), min(state) from provider_batches") == [
        (3, 25, "closed")
    ]
    await project.assert_sound()
    in_batches = project.export()
    project.config("output_data: {experiment_name: online}\nparser: raw\n")
    online = await project.batchgen("run", "pool.jsonl")
    assert online.code == 0, online.err
    assert list(map(of_the_answer, in_batches)) == list(
        map(of_the_answer, project.export("online"))
    )


def of_the_answer(line: dict[str, object]) -> dict[str, object]:
    """What is the same however it was asked."""
    return {name: of for name, of in without_times(line).items() if name not in ("id", "cost_usd")}


async def test_with_no_wait_it_is_one_round(provide: Provide) -> None:
    project = await provide(items=3, seconds=0.0)
    await project.batchgen("enqueue", "pool.jsonl")
    first = await project.work("--no-wait")
    assert first.code == 0, first.err
    assert project.query("select state, count(*) from work group by 1") == [("running", 3)]
    again = await project.work("--no-wait")
    assert again.code == 0, again.err
    assert project.query("select state, count(*) from work group by 1") == [("done", 3)]
    await project.assert_sound()


async def test_one_row_is_asked_online_before_the_first_batch(provide: Provide) -> None:
    project = await provide(items=5)
    project.in_batches(probe=True)
    said = await project.run()
    assert said.code == 0, said.err
    bill = project.provider.bill
    assert (sum(bill.online.values()), bill.in_batches) == (1, 4)
    await project.assert_sound()


async def test_a_wrong_key_halts_before_anything_is_sent(provide: Provide) -> None:
    project = await provide(items=5, api_key="another")
    project.in_batches(probe=True)
    said = await project.run()
    assert said.code == 4
    assert "model.api_key" in said.err
    assert project.query("select count(*) from provider_batches") == [(0,)]
    assert project.query("select state, count(*) from work group by 1") == [("pending", 5)]


@pytest.mark.parametrize("faults", [
    "lost_create=1", "dropped_create=1", "false_create=500:1", "lost_upload=1", "late_output=0.3",
    "empty_id=1", "text_body=1", "cut_download=1", "twice_line=2", "foreign_line=2",
])  # fmt: skip
async def test_what_goes_wrong_costs_nothing(provide: Provide, faults: str) -> None:
    project = await provide(faults)
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.answers == 20
    await project.assert_sound()


async def test_what_an_expired_batch_has_answered_is_kept(provide: Provide) -> None:
    project = await provide("expire=0.5:1")
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.answers == 20
    assert project.query("select count(*) > 0 from attempts where reason = 'timeout'") == [(1,)]
    await project.assert_sound()


async def test_a_bad_line_costs_its_own_row_only(provide: Provide) -> None:
    project = await provide("validation=w007")
    said = await project.run()
    assert said.code == 3, said.err
    assert project.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", 19), ("failed", 1),
    ]  # fmt: skip
    await project.assert_sound()


async def test_a_file_that_is_refused_whole_is_halved(provide: Provide) -> None:
    project = await provide("failed=internal_error:1")
    said = await project.run()
    assert said.code == 0, said.err
    assert [n for (n,) in project.query("select requests from provider_batches order by id")] == [
        20, 10, 10,
    ]  # fmt: skip
    await project.assert_sound()


async def test_a_limit_of_enqueued_tokens_is_learned(provide: Provide) -> None:
    project = await provide("token_limit=60")
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.answers == 20
    await project.assert_sound()


async def test_an_answer_that_is_in_no_file_is_an_unknown_call(provide: Provide) -> None:
    project = await provide("no_line=3:1")
    said = await project.run()
    assert said.code == 0, said.err
    assert project.query("select count(*) from attempts where outcome = 'unknown'") == [(3,)]
    assert project.provider.bill.answers == 23


async def test_without_a_list_a_lost_reply_is_asked_about(provide: Provide) -> None:
    project = await provide("lost_create=1,no_list=100")
    said = await project.run()
    assert said.code == 4
    assert "has no list to look in" in said.err
    assert project.query("select state from provider_batches") == [("creating",)]


async def test_a_parser_of_the_users_reads_answers_that_are_durable(provide: Provide) -> None:
    project = await provide(items=12)
    project.write("parsers.py", "def words(text):\n    return text.split()[:2]\n")
    project.in_batches("parser: parsers.py:words", max_requests=5)
    said = await project.run()
    assert said.code == 0, said.err
    assert [line["parsed"] for line in project.export()] == [["You", "wrote"]] * 12
    await project.assert_sound()


async def test_samples_are_rows_of_a_batch_with_seeds_of_their_own(provide: Provide) -> None:
    project = await provide(items=4)
    said = await project.run("--samples", "3")
    assert said.code == 0, said.err
    assert project.provider.bill.in_batches == 12
    assert len({line["response"] for line in project.export()}) == 12
    await project.assert_sound()


STEPS = """
steps:
  - {name: draft, user: {text: "Write about {word}"}}
  - {name: short, function: "functions.py:first_line"}
  - {name: critique, user: {text: "Judge {short}"}, when: "short != null"}
"""


async def test_steps_follow_one_another_in_batches(provide: Provide) -> None:
    project = await provide(items=6)
    project.write("functions.py", "def first_line(item, values):\n"
                  "    return values['draft'].splitlines()[0]\n")  # fmt: skip
    project.in_batches(STEPS)
    (project.path / "prompts/user_prompts/default.txt").unlink()
    said = await project.run()
    assert said.code == 0, said.err
    assert project.provider.bill.in_batches == 12
    assert [line["ended"] for line in project.export()] == ["critique"] * 6
    await project.assert_sound()


async def test_one_step_alone_goes_in_batches(provide: Provide) -> None:
    project = await provide(items=6)
    project.write("functions.py", "def first_line(item, values):\n"
                  "    return values['draft'].splitlines()[0]\n")  # fmt: skip
    project.in_batches(STEPS)
    (project.path / "prompts/user_prompts/default.txt").unlink()
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    said = await project.work("--step", "draft")
    assert said.code == 0, said.err
    assert project.provider.bill.in_batches == 6
    assert (await project.batchgen("work")).code == 0
    assert project.provider.bill.in_batches == 6
    assert sum(project.provider.bill.online.values()) == 6
    await project.assert_sound()


async def test_until_is_not_passed(provide: Provide) -> None:
    project = await provide(items=20)
    project.in_batches(max_requests=4)
    said = await project.run("--until", "7")
    assert said.code == 0, said.err
    assert project.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", 7), ("pending", 13),
    ]  # fmt: skip
    assert project.provider.bill.answers == 7
    await project.assert_sound()


async def test_so_many_items_are_sent_and_no_more(provide: Provide) -> None:
    project = await provide(items=20)
    await project.batchgen("enqueue", "pool.jsonl")
    said = await project.work("--max-items", "6")
    assert said.code == 0, said.err
    assert project.provider.bill.answers == 6
    await project.assert_sound()


PRICED = "{input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}"


async def test_a_budget_is_not_passed_and_counts_the_batch_price(provide: Provide) -> None:
    project = await provide(items=20)
    project.in_batches("parser: raw")
    config = (project.path / "config.yaml").read_text()
    project.write("config.yaml", config.replace("model:\n", f"model:\n  price: {PRICED}\n"
                                                "  max_tokens: 100\n"))  # fmt: skip
    said = await project.run("--max-cost", "0.3")
    assert said.code == 4
    assert "the budget" in said.err
    [(spent,)] = project.query("select sum(cost_usd) from totals")
    [(done,)] = project.query("select count(*) from work where state = 'done'")
    [(tokens,)] = project.query("select sum(prompt_tokens + completion_tokens) from totals")
    assert 0 < done < 20
    assert spent == pytest.approx(tokens / 1000 / 2)
    assert spent <= 0.3
    await project.assert_sound()


async def test_too_many_failures_halt(provide: Provide) -> None:
    project = await provide(items=20, item_errors=["w00=400"])
    project.in_batches(max_requests=10)
    said = await project.run("--max-failures", "5")
    assert said.code == 4
    assert "have failed" in said.err


async def test_a_request_that_is_larger_than_a_batch_fails_alone(provide: Provide) -> None:
    project = await provide(items=3)
    project.in_batches(max_mb=1)
    project.pool([{"word": "a" * 1_500_000}, {"word": "b"}])
    said = await project.run()
    assert said.code == 3
    assert "a batch takes 1" in said.err or project.query("select error from results")


async def test_who_asks_online_beside_a_batch_does_not_wait_for_it(provide: Provide) -> None:
    project = await provide(items=8, seconds=3600)
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.work("--no-wait", "--max-items", "5")).code == 0
    online = await project.batchgen("work")
    assert online.code == 0
    assert "5 rows wait for a provider. To collect them: batchgen work --batch" in online.err
    assert project.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", 3), ("running", 5),
    ]  # fmt: skip
