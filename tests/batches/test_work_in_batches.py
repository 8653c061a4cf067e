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
