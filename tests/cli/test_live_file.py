"""`work -o` and `export --follow`: a file that has each done item once, whatever happens to its
writer or to itself."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Any

import pytest

from batchgen.export import LiveFile, keep_live_file
from batchgen.items import Done
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import FileUse, open_store
from batchgen.store.transactions import files, repair
from tests.kits.crashes import said, until
from tests.kits.database import locked, look
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.table import Table, answered, open_table
from tests.kits.typist import Typist

ITEMS = 12
HELD = 5  # the item that the server does not answer: so many are done before it


async def enqueue(project: Project, items: int = ITEMS, *options: str) -> None:
    project.pool({"word": f"w{number:02}"} for number in range(items))
    assert (await project.batchgen("enqueue", "pool.jsonl", *options)).code == 0


def lines(project: Project, name: str = "live.jsonl") -> list[dict[str, Any]]:
    text = (project.path / name).read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def ids(project: Project, name: str = "live.jsonl") -> list[int]:
    return [line["id"] for line in lines(project, name)]


async def grown(project: Project, size: int, name: str = "live.jsonl") -> None:
    """Until the file has so many lines."""
    path = project.path / name
    async with asyncio.timeout(30):
        while not (path.exists() and path.read_bytes().count(b"\n") == size):
            await asyncio.sleep(0.005)


async def right(project: Project, name: str = "live.jsonl") -> None:
    """The file has the lines of an export, in finishing order, and the database agrees."""
    verified = await project.batchgen("verify")
    assert verified.code == 0, verified.out
    assert (await project.batchgen("export", "-o", "whole.jsonl")).code == 0
    whole = {line["id"]: line for line in lines(project, "whole.jsonl")}
    order = project.query("select item_id from work where state = 'done' order by result_seq")
    assert lines(project, name) == [whole[id_] for (id_,) in order]


def records(project: Project) -> list[tuple[str, int]]:
    found = look(project.database, "select path, rows from live_files order by path")
    return [(Path(path).name, rows) for path, rows in found]


async def held_midway(project: Project, simulator: Simulator, *options: str) -> Process:
    """A worker that waits for the answer of one item, and has written those before it."""
    await enqueue(project)
    simulator.script(f"w{HELD:02}", "hang")
    worker = await project.start("work", "-c", "1", "-o", "live.jsonl", *options)
    await until(project.database, "select coalesce(sum(rows), 0) from live_files", HELD)
    return worker


async def killed(process: Process) -> None:
    process.send_signal(SIGKILL)
    await process.communicate()


@pytest.mark.on_both_engines
async def test_work_keeps_a_file_up_to_date_in_finishing_order(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    simulator.script("w00", "500")
    work = await project.batchgen("work", "-c", "3", "-o", "live.jsonl")
    assert work.code == 0
    assert work.err.endswith(f"{ITEMS} rows -> live.jsonl\n")
    assert ids(project)[-1] == 1  # it was tried again after the others
    await right(project)


async def test_the_file_grows_while_the_work_goes_on_and_survives_a_kill(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator)
    assert ids(project) == [1, 2, 3, 4, 5]
    await killed(worker)
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert again.code == 0
    assert "written anew" not in again.err
    await right(project)


async def test_killed_after_the_lines_were_written_and_before_that_was_recorded(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    await project.batchgen("work", "-c", "1", "--max-items", "3", "-o", "live.jsonl")
    await project.batchgen("work", "-c", "1", "--max-items", "4")
    with locked(project.database, "live_files"):
        worker = await project.start("export", "--follow", "-o", "live.jsonl")
        await grown(project, 7)
        await killed(worker)
    assert (records(project), len(lines(project))) == ([("live.jsonl", 3)], 7)
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert (again.code, "written anew" in again.err) == (0, False)
    await right(project)


async def test_killed_after_the_file_was_written_anew_and_before_that_was_recorded(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    await project.batchgen("work", "-c", "1", "--max-items", "4")
    async with open_store(project.database) as store:  # else that would be written before
        await store.files.note_files([project.path / "live.jsonl"], FileUse.WRITTEN)
    with locked(project.database, "live_files"):
        worker = await project.start("export", "--follow", "-o", "live.jsonl")
        await grown(project, 4)
        await killed(worker)
    assert records(project) == []
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    await right(project)


async def test_what_a_crash_left_at_the_end_is_cut_off(
    project: Project, simulator: Simulator
) -> None:
    await killed(await held_midway(project, simulator))
    with (project.path / "live.jsonl").open("a") as file:
        file.write('{"id": 6, "input": {"wo')
    assert (await project.batchgen("verify")).code == 0
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert (again.code, "written anew" in again.err) == (0, False)
    await right(project)


def cut(file: Path) -> None:
    os.truncate(file, 100)


def edit(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"w04", b"W04"))


@pytest.mark.quick("edit")
@pytest.mark.parametrize("harm", [Path.unlink, cut, edit])
async def test_a_file_that_is_not_as_it_was_left_is_written_anew(
    project: Project, simulator: Simulator, harm: Callable[[Path], None]
) -> None:
    await killed(await held_midway(project, simulator))
    harm(project.path / "live.jsonl")
    assert (await project.batchgen("verify")).code == (0 if harm is Path.unlink else 1)
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert again.code == 0
    said_it = "live.jsonl: written anew, as it was not as batchgen had left it\n"
    assert again.err.count(said_it) == 1
    await right(project)


@pytest.mark.quick("cut")
@pytest.mark.parametrize("harm", [Path.unlink, cut])
async def test_the_same_while_the_worker_lives(
    project: Project, simulator: Simulator, harm: Callable[[Path], None]
) -> None:
    worker = await held_midway(project, simulator)
    harm(project.path / "live.jsonl")
    await said(worker, "live.jsonl: written anew")
    assert ids(project) == [1, 2, 3, 4, 5]
    await killed(worker)
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    await right(project)


async def test_replaced_results_do_not_stay_in_the_file(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    project.config("parser: 'regex:^(.)'\n")
    await project.batchgen("reparse", "--all")
    anew = "live.jsonl: written anew, as results in it were replaced (asked or parsed again)\n"
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert (again.code, again.err.count(anew)) == (0, 1)
    assert {len(line["parsed"]) for line in lines(project)} == {1}
    await right(project)
    await project.batchgen("retry", "--id", "3", "--done")
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert (again.code, again.err.count(anew)) == (0, 1)
    assert ids(project)[-1] == 3
    await right(project)
    assert anew not in (await project.batchgen("work", "-o", "live.jsonl")).err


async def test_a_result_that_is_taken_back_while_the_worker_lives_leaves_the_file(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator)
    await project.batchgen("retry", "--id", "2", "--done")
    await said(worker, "live.jsonl: written anew")
    assert ids(project) == [1, 3, 4, 5]
    await killed(worker)


async def test_one_writer_a_file_and_the_second_works_without_it(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator)
    following = await project.batchgen("export", "--follow", "-o", "live.jsonl")
    assert (following.code, following.err) == (
        2,
        f"error: live.jsonl: pid {worker.pid} keeps it up to date; name another file.\n",
    )
    second = await project.batchgen("work", "-o", "live.jsonl", "--max-items", "6")
    assert second.code == 0
    assert second.err.count("warning: ") == 1
    warning = f"live.jsonl: pid {worker.pid} keeps it up to date; this one leaves it alone\n"
    assert f"warning: {warning}" in second.err
    assert "rows -> live.jsonl" not in second.err
    await grown(project, ITEMS - 1)
    await killed(worker)
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    await right(project)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_processes_share_one_file_that_their_parent_writes(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, 60)
    work = await project.process("work", "--processes", "2", "-c", "6", "-o", "live.jsonl")
    assert work.code == 0
    assert work.err.endswith("60 rows -> live.jsonl\n")
    await right(project)


async def test_a_drained_stop_and_a_halt_leave_the_file_complete(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    simulator.hold()
    worker = await project.start("work", "-c", "4", "-o", "live.jsonl")
    await simulator.received(4)
    worker.send_signal(SIGINT)
    await said(worker, "stopping: 4 calls in flight")
    simulator.release()
    assert (await ended(worker)).code == 130
    assert len(lines(project)) == 4
    simulator.script("w09", "400")
    halted = await project.batchgen("work", "-c", "1", "-o", "live.jsonl", "--max-failures", "1")
    assert halted.code == 4
    assert "9 rows -> live.jsonl" in halted.err
    await right(project)


async def test_a_file_that_cannot_be_written_is_one_warning_and_the_work_goes_on(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator, "--grace", "0")
    (project.path / "live.jsonl").unlink()
    (project.path / "live.jsonl").mkdir()
    await said(worker, "warning: live.jsonl: cannot be kept up to date (Is a directory).")
    second = await project.batchgen("work", "--max-items", "6")
    assert second.code == 0
    worker.send_signal(SIGINT)
    drained = await ended(worker)
    assert (drained.code, "live.jsonl" in drained.err) == (130, False)
    (project.path / "live.jsonl").rmdir()
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    await right(project)


async def test_following_ends_when_the_work_does(project: Project, simulator: Simulator) -> None:
    await enqueue(project)
    simulator.hold()
    worker = await project.start("work", "-c", "2", "-o", "live.jsonl")
    to_file = await project.start("export", "--follow", "-o", "other.jsonl", "--json")
    to_default = await project.start("export", "--follow")
    to_stdout = await project.start("export", "--follow", "-o", "-")
    await until(project.database, "select count(*) from live_files", 3)
    simulator.release()
    assert (await ended(worker)).code == 0
    said_so = await ended(to_file)
    assert (said_so.code, said_so.json, said_so.err) == (
        0, {"path": "other.jsonl", "rows": ITEMS}, "",
    )  # fmt: skip
    assert (await ended(to_default)).err.endswith("/output/default.live.jsonl\n")
    streamed = await ended(to_stdout)
    assert (streamed.code, streamed.err) == (0, "")
    live_text = (project.path / "live.jsonl").read_text()
    assert streamed.out == live_text
    assert (project.path / "other.jsonl").read_text() == live_text
    assert (project.path / "output" / "default.live.jsonl").read_text() == live_text
    await right(project)


async def test_following_that_is_stopped_goes_on_next_time(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    await project.batchgen("work", "--max-items", "4")
    following = await project.start("export", "--follow", "-o", "live.jsonl")
    await until(project.database, "select coalesce(sum(rows), 0) from live_files", 4)
    following.send_signal(SIGINT)
    stopped = await ended(following)
    assert (stopped.code, stopped.out, stopped.err) == (130, "", "")
    assert (await project.batchgen("work")).code == 0
    rest = await project.batchgen("export", "--follow", "-o", "live.jsonl")
    assert (rest.code, rest.err) == (0, f"{ITEMS} rows -> live.jsonl\n")
    await right(project)


async def test_following_to_a_pipe_that_nobody_reads_ends_quietly(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    await project.batchgen("work", "--max-items", "1")
    following = await project.start("export", "--follow", "-o", "-")
    assert following.stdout is not None
    assert following.stderr is not None
    assert json.loads(await following.stdout.readline())["id"] == 1
    following.stdout._transport.close()  # type: ignore[attr-defined]
    assert (await project.batchgen("work")).code == 0
    assert await following.stderr.read() == b""


async def test_an_experiment_that_is_deleted_ends_the_following(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project)
    await project.batchgen("work", "--max-items", "3")
    followers = [
        await project.start("export", "--follow", "-o", name) for name in ("live.jsonl", "-")
    ]
    await until(project.database, "select coalesce(sum(rows), 0) from live_files", 3)
    assert followers[1].stdout is not None
    await followers[1].stdout.readline()  # both have begun
    assert (await project.batchgen("experiments", "delete", "default", "--yes")).code == 0
    for follower in followers:
        gone = await ended(follower)
        assert (gone.code, gone.err) == (
            1, "error: experiment 'default' was deleted, so there is nothing to follow.\n",
        )  # fmt: skip
    assert records(project) == []


async def test_an_export_takes_the_place_of_a_live_file_and_the_other_way_round(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator)
    assert (await project.batchgen("export", "-o", "live.jsonl")).code == 0
    await said(worker, "warning: live.jsonl: another batchgen command wrote it meanwhile, so it is")
    assert (records(project), (await project.batchgen("verify")).code) == ([], 0)
    await killed(worker)
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    assert project.query("select count(*) from exports") == [(0,)]
    await right(project)


async def test_a_database_of_several_experiments_must_be_told_whose(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, 2)
    await enqueue(project, 3, "--experiment", "b")
    unclear = await project.batchgen("work", "--all", "-o", "live.jsonl")
    assert (unclear.code, unclear.err) == (
        2,
        "error: live.jsonl: holds one experiment, and there is: default, b. "
        "Choose with --experiment.\n",
    )
    assert simulator.calls == 0
    assert (await project.batchgen("work", "-o", "live.jsonl", "--experiment", "b")).code == 0
    assert len(lines(project)) == 3
    assert (await project.batchgen("work", "-o", "a.jsonl", "--experiment", "default")).code == 0
    assert len(lines(project, "a.jsonl")) == 2


@pytest.fixture
def typist(project: Project) -> Typist:
    return Typist(project.path, project.env)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("work -o a.csv", "a.csv: a file that is kept up to date has JSON lines"),
        ("work -o a.parquet", "a.parquet: a file that is kept up to date has JSON lines"),
        ("work -o -", "-: is not a regular file, so it cannot be kept up to date"),
        ("work -o /dev/null", "/dev/null: is not a regular file"),
        ("work -o .", ".: is a directory"),
        pytest.param(
            "work -o batchgen.db",
            "batchgen.db: belongs to the work database",
            marks=pytest.mark.only_sqlite("it is about its file"),
        ),
        ("export --follow -o a.csv", "a.csv: a file that is kept up to date has JSON lines"),
        ("export --follow --format csv", "does not go with --format csv;"),
        ("export --follow --failed --where id==1", "does not go with --failed, --where;"),
        ("export --follow --shards 2 --summary s", "does not go with --shards, --summary;"),
    ],
)
async def test_what_cannot_be_a_live_file_is_refused(
    project: Project, simulator: Simulator, typist: Typist, command: str, problem: str
) -> None:
    await enqueue(project, 2)
    refused = await typist(*command.split())
    assert refused.code == 2
    assert problem in refused.err
    assert (simulator.calls, records(project)) == (0, [])


# The statements


def done(table: Table, *contents: str) -> None:
    table.enqueue(*contents)
    worker = table.join()
    for item in table.claim(worker, len(contents)):
        table.finish(worker, item, Done(), answered())


def page(table: Table, after: int, limit: int = 500) -> tuple[list[int], int, bool]:
    found = files.live_page(table.transaction, 1, after, limit)
    assert found is not None
    return [row.id for row in found.rows], found.result_seq, found.is_last


def test_pages_are_small_and_none_is_left_out(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        done(table, *"abc")
        assert page(table, 0, 2) == ([1, 2], 2, False)
        assert page(table, 2, 2) == ([3], 3, True)
        assert page(table, 3, 2) == ([], 3, True)
        done(table, "d" * 3_000_000, "e" * 3_000_000, "f")
        assert page(table, 3) == ([4, 5], 5, False)
        assert page(table, 5) == ([6], 6, True)


def test_only_what_is_its_items_result_counts(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        done(table, *"abc")
        item = repair.ended_item(table.transaction, 2)
        assert item is not None
        table.run(repair.reopen, [item], None, table.now)
        assert table.one("select superseded_results from experiments") == 1
        assert page(table, 0) == ([1, 3], 3, True)
        assert files.live_page(table.transaction, 2, 0, 500) is None


async def test_the_block_ends_after_the_writer_of_the_file_however_often_it_is_cancelled(
    project: Project,
) -> None:
    await enqueue(project)
    assert (await project.batchgen("work")).code == 0
    at_its_end: set[str] = set()
    async with open_store(project.database) as store:
        [experiment] = await store.experiments()
        live = LiveFile(store, experiment, project.path / "live.jsonl", print)
        await store.files.note_files([project.path / "live.jsonl"], FileUse.WRITTEN)

        async def keep() -> None:
            try:
                async with keep_live_file(live, asyncio.Event(), print):
                    await asyncio.Event().wait()
            finally:
                at_its_end.update(task.get_name() for task in asyncio.all_tasks())

        with locked(project.database, "live_files"):
            keeping = asyncio.create_task(keep())
            await grown(project, ITEMS)  # and its record waits for the database
            for _ in range(3):
                keeping.cancel()
                await asyncio.sleep(0)
        await asyncio.wait([keeping])
        assert keeping.cancelled()
        assert "live file" not in at_its_end
        assert await live.acquire()
        live.release()


@pytest.mark.quick("edited")
@pytest.mark.parametrize("change", ["edited", "repeated"])
async def test_a_line_far_from_the_end_that_was_changed_is_noticed(
    project: Project, simulator: Simulator, change: str
) -> None:
    """The file is long, and its length and its last lines are as they were."""
    simulator.script("w", *[Behaviour.ok("An answer of some length. " * 40)] * ITEMS)
    await enqueue(project)
    assert (await project.batchgen("work", "-o", "live.jsonl")).code == 0
    path = project.path / "live.jsonl"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first.replace("An", "No") if change == "edited" else second,
                             second, *rest]))  # fmt: skip
    verified = await project.batchgen("verify")
    assert (verified.code, "live.jsonl: is not as batchgen left it" in verified.out) == (1, True)
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert "written anew, as it was not as batchgen had left it" in again.err
    await right(project)


async def test_a_line_that_is_changed_while_the_file_is_written_is_noticed_at_the_end(
    project: Project, simulator: Simulator
) -> None:
    worker = await held_midway(project, simulator, "--grace", "0")
    path = project.path / "live.jsonl"
    with path.open("r+b") as file:
        file.write(b'{"id": 9')  # over {"id": 1
    worker.send_signal(SIGINT)
    finished = await ended(worker)
    assert finished.code == 130, finished.err
    assert "written anew, as it was not as batchgen had left it" in finished.err
    await right(project)
