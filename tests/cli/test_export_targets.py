"""Where an export may go, and what it never replaces."""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGKILL
from typing import Any

import pytest

from batchgen.items import Done, State
from batchgen.simulate import Behaviour, Simulator
from batchgen.store.sqlite import results
from tests.kits.crashes import said
from tests.kits.project import Project, ended
from tests.kits.table import answered, open_table

Words = Callable[[int], Iterator[dict[str, Any]]]


@pytest.fixture
async def done_project(project: Project, words: Words) -> Project:
    project.pool(words(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    return project


@pytest.mark.parametrize("name", ["batchgen.db", "batchgen.db-gate", "./batchgen.db", "link"])
async def test_the_work_database_is_never_replaced(done_project: Project, name: str) -> None:
    (done_project.path / "link").symlink_to("batchgen.db")
    before = done_project.database.read_bytes()
    refused = await done_project.batchgen("export", "-o", name)
    assert (refused.code, refused.err) == (
        2,
        f"error: {Path(name)}: belongs to the work database; name another file for the export.\n",
    )
    assert done_project.database.read_bytes() == before
    assert (await done_project.batchgen("verify")).code == 0


async def test_a_directory_is_no_place_for_an_export(done_project: Project) -> None:
    refused = await done_project.batchgen("export", "-o", ".")
    assert (refused.code, refused.err) == (
        2,
        "error: .: is a directory; name a file for the export.\n",
    )


async def test_a_link_stays_a_link_and_a_file_keeps_its_mode(done_project: Project) -> None:
    target = done_project.write("data.jsonl", "old\n")
    target.chmod(0o600)
    (done_project.path / "latest.jsonl").symlink_to("data.jsonl")
    assert (await done_project.batchgen("export", "-o", "latest.jsonl")).code == 0
    assert (done_project.path / "latest.jsonl").is_symlink()
    assert len(target.read_text().splitlines()) == 3
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_a_pipe_is_written_to_and_stays_a_pipe(done_project: Project) -> None:
    pipe = done_project.path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert (await done_project.batchgen("export", "-o", "pipe")).code == 0
        assert os.read(reading, 1 << 20).count(b"\n") == 3
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    assert (await done_project.batchgen("verify")).code == 0


async def test_what_a_killed_export_left_goes_with_the_next_one(done_project: Project) -> None:
    dead = done_project.write(".out.jsonl.1-1.part", "half a li")
    of_another = done_project.write(".other.jsonl.1-1.part", "half a li")
    alive = done_project.write(".out.jsonl.2-2.part", "half a li")
    with alive.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (await done_project.batchgen("export", "-o", "out.jsonl")).code == 0
    assert not dead.exists()
    assert (alive.exists(), of_another.exists()) == (True, True)


async def test_an_answer_is_written_as_json_whatever_is_in_it(
    project: Project, simulator: Simulator
) -> None:
    answer = "".join(map(chr, range(0x100))) + "\u2028\u2029\ufeff世 🌍"
    simulator.script("Say x", Behaviour.ok(answer))
    project.pool([{"word": "x"}])
    assert (await project.batchgen("run", "pool.jsonl", "-o", "out.jsonl")).code == 0
    line = (project.path / "out.jsonl").read_bytes().decode()
    assert f'"response": {json.dumps(answer, ensure_ascii=False)}, ' in line


def test_a_page_of_big_results_ends_early_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a" * 3_000_000, "b" * 3_000_000, "c")
        worker = table.join()
        for item in table.claim(worker, 3):
            table.finish(worker, item, Done(), answered())
        pages = [
            [row.id for row in results.result_page(table.db, 1, State.DONE, after, 500)]
            for after in (0, 2, 3)
        ]
    assert pages == [[1, 2], [3], []]


async def test_run_writes_to_stdout_too(done_project: Project) -> None:
    out = await done_project.batchgen("run", "pool.jsonl", "-o", "-")
    assert (out.code, len(out.out.splitlines())) == (0, 3)
    assert not (done_project.path / "-").exists()


async def test_a_full_device_is_one_clear_line(done_project: Project) -> None:
    out = await done_project.batchgen("export", "-o", "/dev/full")
    assert out.code == 1
    assert out.err == "error: /dev/full: cannot write the export (No space left on device).\n"
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


async def test_calls_of_a_killed_worker_show_before_anybody_takes_over(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(10))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", "3")
    await simulator.received(3)
    worker.send_signal(SIGKILL)
    await worker.wait()
    status = (await project.batchgen("status", "--json")).json
    assert status["total"]["unknown_calls"] == 3
    simulator.release()
    assert (await project.batchgen("work")).code == 0
    status = (await project.batchgen("status", "--json")).json
    assert status["total"]["unknown_calls"] == 3


async def test_a_terminal_that_goes_away_drains_the_worker(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(10))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", "3")
    await simulator.received(3)
    worker.send_signal(SIGHUP)
    await said(worker, "stopping: 3 calls in flight")
    simulator.release()
    assert (await ended(worker)).code == 129
    assert simulator.calls == 3
    assert project.query("select state, count(*) from work group by 1") == [
        ("done", 3), ("pending", 7),
    ]  # fmt: skip


async def test_a_run_goes_on_when_nobody_reads_what_it_says(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(10))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.script("Say w3", "500")
    simulator.hold()
    worker = await project.start("-v", "work", "-c", "3")
    await simulator.received(3)
    assert worker.stderr is not None
    worker.stderr._transport.close()  # type: ignore[attr-defined]
    simulator.release()
    await worker.wait()
    assert project.query("select state, count(*) from work group by 1") == [("done", 10)]
