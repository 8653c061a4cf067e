"""`batches`: what is at providers, and what a person does about it, on the simulated provider."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from batchgen.simulate import Simulator
from batchgen.store import BatchState, WorkerKind
from tests.kits.project import KEY, Project
from tests.kits.sealing import Sealer
from tests.kits.typist import Ended

Words = Callable[[int], Iterator[dict[str, Any]]]
NO_SENDER = (
    "\nNo sender is at work: batchgen work --batch goes on with those that are not closed.\n"
)


@pytest.fixture
async def sealer(project: Project, words: Words, simulator: Simulator) -> Sealer:
    """Twenty pending rows; batches at the provider stay as they are."""
    simulator.hold()
    project.pool(words(20))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return Sealer(project)


@asynccontextmanager
async def sending(sealer: Sealer) -> AsyncIterator[int]:
    """A sender is at work meanwhile; its number among the workers."""
    async with sealer.store() as store, store.sending() as is_alone:
        assert is_alone
        async with store.seat(1, 30.0, 3, kind=WorkerKind.SENDER) as seat:
            yield seat.id


async def state_of(sealer: Sealer, number: int) -> BatchState:
    async with sealer.store() as store:
        return (await sealer.now(store, number)).state


def states(project: Project) -> dict[str, int]:
    return dict(project.query("select state, count(*) from work group by state"))


def cells(listed: Ended) -> list[list[str]]:
    """Those of each batch: columns are two spaces apart at least."""
    table = listed.out.partition("\n\n")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]


# The list


async def test_without_any_it_says_how_to_make_some(project: Project, sealer: Sealer) -> None:
    listed = await project.batchgen("batches")
    assert listed.code == 0
    assert listed.out.startswith("There are no provider batches. batchgen work --batch sends what")
    assert (await project.batchgen("batches", "--json")).json == []
    assert (await project.batchgen("batches", "--cancel-all")).out == (
        "No batch is open: there is nothing to cancel.\n"
    )


@pytest.mark.on_both_engines
async def test_each_is_listed_with_its_state_in_words(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    first = await sealer.seal(3)
    await sealer.seal(2, is_made=False)
    await sealer.end((await sealer.seal(2)).number, "expired")
    await sealer.close((await sealer.seal(1)).number, "refused whole: no room")
    listed = await project.batchgen("batches")
    rows = cells(listed)
    assert [(row[0], row[1], row[2], row[3], row[-1]) for row in rows] == [
        ("4", "default", "simulated", "0/1", "closed: refused whole: no room"),
        ("3", "default", "simulated", "1/2", "expired: to be collected"),
        ("2", "default", "simulated", "0/2", "not known yet whether the provider has it"),
        ("1", "default", "simulated", "0/3", "validating"),
    ]
    assert rows[3][-2] == first.batch_id
    assert rows[3][-3] in ("23 h 59 min", "24 h 0 min")
    assert [row[-3] for row in rows[:3]] == ["-", "-", "-"]
    assert NO_SENDER.strip() in listed.out
    assert "batchgen batches --adopt NUMBER ITS-ID, or --create NUMBER" in listed.out
    async with sending(sealer):
        listed = await project.batchgen("batches")
    assert cells(listed)[1][-1] == "expired: being collected"
    assert "No sender" not in listed.out
    found = (await project.batchgen("batches", "--json")).json
    assert [(one["number"], one["state"], one["status"]) for one in found] == [
        (4, "closed", "validating"), (3, "ended", "expired"), (2, "creating", None),
        (1, "open", "validating"),
    ]  # fmt: skip
    assert (found[3]["batch_id"], found[3]["requests"]) == (first.batch_id, 3)
    assert KEY not in listed.out + str(found)


async def test_of_those_that_are_closed_the_last_ten_are_listed(
    project: Project, sealer: Sealer
) -> None:
    await sealer.seal(1)
    for _ in range(12):
        await sealer.close((await sealer.seal(1)).number, "of no use")
    listed = await project.batchgen("batches")
    assert [int(row[0]) for row in cells(listed)] == [*range(13, 3, -1), 1]
    assert "Others are closed: batchgen batches --all\n" in listed.out
    everything = await project.batchgen("batches", "--all")
    assert [int(row[0]) for row in cells(everything)] == [*range(13, 0, -1)]
    assert "Others" not in everything.out


async def test_an_experiment_or_a_step_has_its_own(
    project: Project, words: Words, sealer: Sealer
) -> None:
    project.pool(words(3), "other.jsonl")
    await project.batchgen("enqueue", "other.jsonl", "--experiment", "other")
    await sealer.seal(1)
    await sealer.seal(2, "other")
    listed = await project.batchgen("batches", "--experiment", "other")
    assert [row[:2] for row in cells(listed)] == [["2", "other"]]
    refused = await project.batchgen("batches", "--experiment", "none")
    assert (refused.code, "no experiment 'none'" in refused.err) == (2, True)
    cancelled = await project.batchgen("batches", "--cancel-all", "--experiment", "other", "--json")
    assert cancelled.json == {"cancelled": [2], "failed": {}, "elsewhere": [], "unknown": []}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cancel", "1", "--abandon", "2"], "--cancel and --abandon do not go together"),
        (["--cancel-all", "--create", "2"], "--cancel-all and --create do not go together"),
        (["--cancel", "1", "--yes"], "--yes goes with --abandon"),
        (["--create", "1", "--all"], "--all goes with the list, and not with --create"),
        (["--adopt", "1", "x", "--experiment", "e"], "--experiment goes with the list and with"),
        (["--cancel", "0"], "invalid value for '--cancel'"),
        (["--adopt", "1"], "option '--adopt' requires 2 arguments"),
    ],
)
async def test_one_thing_is_done_at_a_time(
    project: Project, sealer: Sealer, options: list[str], said: str
) -> None:
    refused = await project.batchgen("batches", *options)
    assert refused.code == 2
    assert said in refused.err


# Cancelled


@pytest.mark.on_both_engines
async def test_the_provider_is_asked_to_cancel(project: Project, sealer: Sealer) -> None:
    batch, _, other = await sealer.seal(3), await sealer.seal(2), await sealer.seal(2)
    cancelled = await project.batchgen("batches", "--cancel", "1", "--cancel", "3")
    assert (cancelled.code, cancelled.err) == (0, "")
    assert cancelled.out == (
        f"batch 1 ({batch.batch_id}): the provider was asked to cancel it; cancelling, 0 of 3 "
        "answered so far\n"
        f"batch 3 ({other.batch_id}): the provider was asked to cancel it; cancelling, 0 of 2 "
        "answered so far\n"
        "What is done is collected by batchgen work --batch --no-wait, and is paid for; the rest "
        "is pending again then.\n"
    )
    assert [one.status for one in await sealer.listed()] == ["cancelling", "validating",
                                                             "cancelling"]  # fmt: skip
    assert states(project) == {"pending": 13, "running": 7}
    again = await project.batchgen("batches", "--cancel", "1")
    assert again.code == 0


async def test_all_are_cancelled_that_can_be(project: Project, sealer: Sealer) -> None:
    await sealer.seal(1, is_made=False)
    await sealer.seal(2)
    await sealer.end((await sealer.seal(2)).number)
    cancelled = await project.batchgen("batches", "--cancel-all")
    assert cancelled.code == 0
    assert "batch 2 (" in cancelled.out
    assert "batch 3" not in cancelled.out
    assert (
        "batch 1: not known yet whether the provider has it: not cancelled. batchgen work --batch "
        "finds out.\n"
    ) in cancelled.out


async def test_a_sender_that_is_at_work_sends_again_what_is_cancelled(
    project: Project, sealer: Sealer
) -> None:
    await sealer.seal(2)
    async with sending(sealer) as worker:
        cancelled = await project.batchgen("batches", "--cancel-all")
    assert cancelled.code == 0
    assert cancelled.out.endswith(
        f"Worker {worker} collects what is done. The rest is pending again then, and it sends that "
        "in new batches, unless it is stopped.\n"
    )


async def test_one_that_cannot_be_cancelled_keeps_no_other_from_it(
    project: Project, sealer: Sealer
) -> None:
    await sealer.seal(2, known_as="batch_gone")
    await sealer.seal(2)
    cancelled = await project.batchgen("batches", "--cancel-all")
    assert cancelled.code == 1
    assert "batch 2 (" in cancelled.out
    assert cancelled.err.startswith("error: batch 1 is not cancelled. The server said: 404 ")


async def test_with_a_wrong_key_nothing_is_cancelled(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    await sealer.seal(2)
    project.config(api_key="sk-another-0123456789")
    simulator._api_key = KEY
    refused = await project.batchgen("batches", "--cancel", "1")
    assert refused.code == 1
    assert refused.err.startswith("error: batch 1 is not cancelled. ")
    assert "401 wrong API key" in refused.err
    project.config()
    assert [one.status for one in await sealer.listed()] == ["validating"]


async def test_a_server_of_another_config_is_not_asked(project: Project, sealer: Sealer) -> None:
    batch = await sealer.seal(2)
    await sealer.seal(1, is_made=False)
    project.config(base_url="http://127.0.0.1:9/v1")
    for options in (["--cancel", "1"], ["--adopt", "2", "x"], ["--create", "2"]):
        refused = await project.batchgen("batches", *options)
        assert (refused.code, refused.err) == (
            2, f"error: batch {options[1]}: was sent to {batch.base_url}, which is no server of "
            "this config: set model.base_url and the key that it was sent with.\n",
        )  # fmt: skip
    everything = await project.batchgen("batches", "--cancel-all")
    assert everything.code == 0
    assert "which is no server of this config: not cancelled.\n" in everything.out


# A wrong number, a wrong state


@pytest.mark.parametrize(
    ("options", "can"),
    [
        (["--cancel"], "Only one that is open can be cancelled."),
        (["--abandon", "--yes"], "Only one that is creating or open or ended can be given up."),
        (["--adopt", "batch_x"], "Only one that is creating can be adopted."),
        (["--create"], "Only one that is creating can be made."),
    ],
)
async def test_a_wrong_number_or_state_is_told(
    project: Project, sealer: Sealer, options: list[str], can: str
) -> None:
    await sealer.close((await sealer.seal(1)).number, "of no use")
    first, *rest = options
    refused = await project.batchgen("batches", first, "7", *rest)
    assert (refused.code, refused.err) == (
        2, "error: there is no batch 7. See: batchgen batches --all\n"
    )  # fmt: skip
    refused = await project.batchgen("batches", first, "1", *rest)
    assert (refused.code, refused.err) == (
        2, f"error: batch 1 is closed: nothing of it is at the provider any more. {can} See: "
        "batchgen batches --all\n",
    )  # fmt: skip


@pytest.mark.parametrize("options", [["--abandon", "1", "--yes"], ["--adopt", "1", "x"],
                                     ["--create", "1"]])  # fmt: skip
@pytest.mark.on_both_engines
async def test_beside_a_sender_nothing_is_decided(
    project: Project, sealer: Sealer, options: list[str]
) -> None:
    await sealer.seal(2, is_made=False)
    async with sending(sealer) as worker:
        refused = await project.batchgen("batches", *options)
    assert (refused.code, refused.err) == (
        2,
        "error: batch 1: another process sends and collects the batches of this database, and may "
        "be at work on it; when that stops, its batches go on at the provider. Stop it first: "
        f"batchgen stop --wait --worker {worker}\n",
    )
    assert await state_of(sealer, 1) is BatchState.CREATING
    assert states(project) == {"pending": 18, "running": 2}


# Given up


@pytest.mark.on_both_engines
async def test_one_is_given_up_after_a_question(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    project.config(price={"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000})
    simulator.release()
    assert (await project.batchgen("work", "--max-items", "4")).code == 0
    simulator.hold()
    ((cost_usd,),) = project.query("select 3 * cost_usd / 4 from totals")
    batch = await sealer.seal(3)
    asked = await project.batchgen("batches", "--abandon", "1", stdin=b"n\n")
    assert asked.code == 1
    assert asked.err.startswith(
        f"batch 1 ({batch.batch_id}), validating: 3 rows would be pending again, each counted as "
        "sent, answer unknown. What the provider has answered, or answers yet, it charges for; it "
        f"is lost, and asked again, for about ${cost_usd:.4f} once more.\n"
        "To keep what is answered: batchgen batches --cancel 1, then batchgen work --batch "
        "--no-wait\n"
        "Give up for lost? This cannot be undone. [y/N]: "
    )
    assert asked.err.endswith("aborted: nothing was changed.\n")
    assert await state_of(sealer, 1) is BatchState.OPEN
    done = await project.batchgen("batches", "--abandon", "1", stdin=b"y\n")
    assert (done.code, done.out) == (
        0, f"batch 1 ({batch.batch_id}) is given up: 3 rows are pending again, counted as sent, "
        "answer unknown.\n",
    )  # fmt: skip
    assert await state_of(sealer, 1) is BatchState.CLOSED
    assert states(project) == {"pending": 16, "done": 4}
    assert project.query("select count(*) from attempts where outcome = 'unknown'") == [(3,)]
    listed = await project.batchgen("batches")
    assert cells(listed)[0][-1] == "closed: given up for lost"


async def test_several_are_given_up_without_a_question(project: Project, sealer: Sealer) -> None:
    await sealer.seal(2)
    await sealer.seal(1, is_made=False)
    done = await project.batchgen("batches", "--abandon", "1", "--abandon", "2", "--yes", "--json")
    assert (done.code, done.json) == (0, {"abandoned": {"1": 2, "2": 1}})
    assert (await project.batchgen("verify")).code == 0


async def test_one_that_the_provider_does_not_have_costs_nothing_to_give_up(
    project: Project, sealer: Sealer
) -> None:
    await sealer.seal(3, is_made=False)
    assert (await project.batchgen("batches", "--create", "1")).code == 0
    done = await project.batchgen("batches", "--abandon", "1", stdin=b"y\n")
    assert done.err.startswith(
        "batch 1, to be made: the provider does not have it: 3 rows would be pending again, "
        "untouched.\n"
    )
    assert done.out == "batch 1 is given up: 3 rows are pending again, untouched.\n"
    assert project.query("select count(*) from attempts") == [(0,)]
    assert states(project) == {"pending": 20}
    listed = await project.batchgen("batches")
    assert cells(listed)[0][-1] == "closed: given up before it was made"


# Found again


@pytest.mark.on_both_engines
async def test_one_of_which_nothing_was_heard_is_adopted(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    simulator.fail_batches("lost_create,no_list")
    await sealer.seal(2)
    simulator.fail_batches("")
    (seen,) = await sealer.listed()
    simulator.fail_batches("no_list")
    adopted = await project.batchgen("batches", "--adopt", "1", seen.batch_id)
    assert (adopted.code, adopted.err) == (0, "")
    assert adopted.out == (
        f"batch 1 is {seen.batch_id} (validating, 0 of 2 answered so far); batchgen work --batch "
        "goes on with it.\n"
    )
    async with sealer.store() as store:
        batch = await sealer.now(store, 1)
    assert (batch.state, batch.batch_id) == (BatchState.OPEN, seen.batch_id)
    assert batch.expires_at == seen.expires_at
    again = await project.batchgen("batches", "--adopt", "1", seen.batch_id)
    assert (again.code, "Only one that is creating can be adopted" in again.err) == (2, True)


async def test_another_batch_is_not_adopted(project: Project, sealer: Sealer) -> None:
    other = await sealer.seal(2)
    await sealer.seal(2, is_made=False)
    refused = await project.batchgen("batches", "--adopt", "2", "batch_nowhere")
    assert (refused.code, refused.err) == (
        2, f"error: batch 2: no batch batch_nowhere is known at {other.base_url} under this key.\n"
    )  # fmt: skip
    refused = await project.batchgen("batches", "--adopt", "2", str(other.batch_id))
    assert refused.code == 2
    assert f"{other.batch_id} was made of another file ({other.input_file}), not of" in refused.err
    assert await state_of(sealer, 2) is BatchState.CREATING


async def test_when_the_provider_is_away_nothing_changes(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    await sealer.seal(2, is_made=False)
    await simulator.stop()
    for options in (["--adopt", "1", "batch_x"], ["--create", "1"]):
        refused = await project.batchgen("batches", *options)
        assert refused.code == 1
        assert "cannot be asked, and nothing has changed. The server said: " in refused.err
    assert await state_of(sealer, 1) is BatchState.CREATING


@pytest.mark.on_both_engines
async def test_one_that_is_not_there_may_be_made(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    batch = await sealer.seal(2, is_made=False)
    simulator.fail_batches("no_list")
    told = await project.batchgen("batches", "--create", "1")
    assert (told.code, told.err) == (0, "")
    assert told.out == (
        "batch 1: batchgen work --batch makes it, of the file that the provider has "
        f"({batch.input_file}), without looking for it again.\n"
    )
    async with sealer.store() as store:
        assert (await sealer.now(store, 1)).absent
    listed = await project.batchgen("batches")
    assert cells(listed)[0][-1] == "to be made: the provider does not have it"
    assert "--adopt NUMBER" not in listed.out


async def test_one_that_the_providers_list_has_is_not_made_again(
    project: Project, sealer: Sealer, simulator: Simulator
) -> None:
    simulator.fail_batches("lost_create")
    await sealer.seal(2)
    (seen,) = await sealer.listed()
    refused = await project.batchgen("batches", "--create", "1")
    assert (refused.code, refused.err) == (
        2, f"error: batch 1: the provider has it, as {seen.batch_id} (validating). If that is it: "
        f"batchgen batches --adopt 1 {seen.batch_id}\n",
    )  # fmt: skip
    async with sealer.store() as store:
        assert not (await sealer.now(store, 1)).absent
