"""Where an export may go, and what it never replaces."""

import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from signal import SIG_IGN, SIGHUP, SIGKILL, signal
from typing import Any

import pytest

from batchgen.items import Done, State
from batchgen.simulate import Behaviour, Simulator
from batchgen.store.transactions import results
from tests.kits.crashes import said
from tests.kits.project import Project, ended
from tests.kits.table import answered, open_table

Words = Callable[[int], Iterator[dict[str, Any]]]


@pytest.fixture
async def done_project(project: Project, words: Words) -> Project:
    project.pool(words(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    return project


@pytest.mark.only_sqlite("it is about its files")
@pytest.mark.parametrize("name", ["batchgen.db", "batchgen.db-gate", "./batchgen.db", "link"])
async def test_the_work_database_is_never_replaced(done_project: Project, name: str) -> None:
    (done_project.path / "link").symlink_to("batchgen.db")
    before = done_project.file.read_bytes()
    refused = await done_project.batchgen("export", "-o", name)
    assert (refused.code, refused.err) == (
        2,
        f"error: {Path(name)}: belongs to the work database; name another file for the export.\n",
    )
    assert done_project.file.read_bytes() == before
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
    assert (await done_project.batchgen("export", "-o", "latest.jsonl", "--force")).code == 0
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
    kept = answer.replace("\0", "\ufffd") if project.server else answer  # it has no NUL
    assert f'"response": {json.dumps(kept, ensure_ascii=False)}, ' in line


def test_a_page_of_big_results_ends_early_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a" * 3_000_000, "b" * 3_000_000, "c")
        worker = table.join()
        for item in table.claim(worker, 3):
            table.finish(worker, item, Done(), answered())
        pages = [
            [row.id for row in results.result_page(table.transaction, 1, State.DONE, after, 500)]
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
    assert project.query("select state, count(*) from work group by 1 order by 1") == [
        ("done", 3), ("pending", 7),
    ]  # fmt: skip


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_under_nohup_a_terminal_that_goes_away_stops_nothing(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(10))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    before = signal(SIGHUP, SIG_IGN)
    try:
        worker = await project.start("work", "-c", "3", fresh=True)
    finally:
        signal(SIGHUP, before)
    await simulator.received(3)
    worker.send_signal(SIGHUP)
    simulator.release()
    done = await ended(worker)
    assert (done.code, "stopping" in done.err) == (0, False), done.err
    assert project.query("select state, count(*) from work group by 1") == [("done", 10)]


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
    assert project.query("select state, count(*) from work group by 1 order by 1") == [("done", 10)]


OLD = "a line of last year\n" * 1000
WRITERS = [
    ("export", "-o", "{}"),
    ("export", "--follow", "-o", "{}"),
    ("export", "-o", "new.jsonl", "--summary", "{}"),
    ("work", "-o", "{}"),
    ("run", "pool.jsonl", "-o", "{}"),
]


def filled(command: tuple[str, ...], name: str) -> list[str]:
    return [word.format(name) for word in command]


@pytest.mark.quick("export -o {}", "work -o {}")
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
async def test_a_file_that_batchgen_did_not_write_is_replaced_only_by_force(
    done_project: Project, command: tuple[str, ...]
) -> None:
    old = done_project.write("old.jsonl", OLD)
    refused = await done_project.batchgen(*filled(command, "old.jsonl"))
    assert (refused.code, old.read_text()) == (2, OLD)
    assert refused.err.endswith(
        "error: old.jsonl: is there already, and batchgen did not write it for this database. "
        "Name another with -o, or replace it with --force.\n"
    )
    assert (await done_project.batchgen(*filled(command, "old.jsonl"), "--force")).code == 0
    assert OLD not in old.read_text()
    assert (await done_project.batchgen(*filled(command, "old.jsonl"))).code == 0


KEPT = {
    "config.yaml": "is a file of this project",
    "link.jsonl": "is a file of this project",
    "prompts/user.txt": "is a file of this project",
    "parse.py": "is a file of this project",
    "another.jsonl": "is a database",
    "another.jsonl-gate": "belongs to a database",
    "another.jsonl-worker-7": "belongs to a database",
    "another.jsonl-wal": "belongs to a database",  # or will: there is none yet
    "prompts/empty.txt": "is a file of this project",
}


@pytest.mark.quick("command0", "command3", "command4", "command7", "command12")
@pytest.mark.parametrize(
    ("command", "name"),
    [*((WRITERS[0], name) for name in KEPT), *((one, "link.jsonl") for one in WRITERS[1:])],
)
async def test_a_file_of_a_project_is_never_replaced(
    project: Project, words: Words, command: tuple[str, ...], name: str
) -> None:
    project.pool(words(3))
    project.write("parse.py", "def parse(text): return text\n")
    project.write("prompts/user.txt", "Say {word}")
    project.write("prompts/empty.txt", "")
    prompts = "{user_prompt_path: prompts/user.txt, system_prompt_path: prompts/empty.txt}"
    project.config(f"parser: parse.py:parse\nprompts: {prompts}\n")
    (project.path / "link.jsonl").symlink_to("config.yaml")
    with closing(sqlite3.connect(project.path / "another.jsonl")) as database:
        database.execute("create table t (x)")
    for beside in ("gate", "worker-7"):
        project.write(f"another.jsonl-{beside}", "pid 1")
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    target = project.path / name
    before = target.read_bytes() if target.exists() else None
    refused = await project.batchgen(*filled(command, name), "--force")
    assert refused.code == 2
    said = f"error: {name}: {KEPT[name]}; name another file.\n"
    assert refused.err.endswith(said)
    assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.quick("export -o {}", "work -o {}")
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
async def test_a_pool_is_never_replaced(done_project: Project, command: tuple[str, ...]) -> None:
    before = (done_project.path / "pool.jsonl").read_bytes()
    refused = await done_project.batchgen(*filled(command, "pool.jsonl"), "--force")
    assert (refused.code, "is a file of this project" in refused.err) == (2, True)
    assert (done_project.path / "pool.jsonl").read_bytes() == before


@pytest.mark.quick("pool.py:items")
@pytest.mark.parametrize(
    ("source", "name"), [("texts", "texts/sub/b.txt"), ("pool.py:items", "pool.py")]
)
async def test_a_pool_of_many_files_or_of_code_is_never_replaced(
    project: Project, source: str, name: str
) -> None:
    project.write("texts/a.txt", "a")
    project.write("texts/sub/b.txt", "b")
    project.write("pool.py", "def items():\n    yield {'text': 'x'}\n")
    project.write("prompts/user_prompts/default.txt", "Say {text}")
    before = (project.path / name).read_bytes()
    assert (await project.batchgen("enqueue", source)).code == 0
    refused = await project.batchgen("export", "-o", name, "--force")
    assert (refused.code, "is a file of this project" in refused.err) == (2, True)
    assert (project.path / name).read_bytes() == before


async def test_stdout_by_its_name_is_where_it_goes(done_project: Project) -> None:
    exported = await done_project.process("export", "-o", "/dev/stdout")
    assert (exported.code, len(exported.out.splitlines())) == (0, 3), exported.err


async def test_a_run_asks_nothing_when_its_export_could_not_be_written(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(3))
    project.write("output/default.jsonl", OLD)
    refused = await project.batchgen("run", "pool.jsonl")
    assert (refused.code, simulator.calls) == (2, 0)
    assert "output/default.jsonl: is there already" in refused.err


async def test_an_empty_file_is_nobodys_work(done_project: Project) -> None:
    done_project.write("made-by-mktemp.jsonl", "")
    assert (await done_project.batchgen("export", "-o", "made-by-mktemp.jsonl")).code == 0


async def test_a_project_that_was_moved_goes_on_with_its_files(done_project: Project) -> None:
    assert (await done_project.batchgen("work", "-o", "live.jsonl")).code == 0
    place = done_project.path.with_name(f"{done_project.path.name}-moved")
    moved = Project(place, done_project.base_url, server=done_project.server)
    done_project.path.rename(moved.path)
    assert (await moved.batchgen("run", "pool.jsonl")).code == 0
    assert (await moved.batchgen("work", "-o", "live.jsonl")).code == 0


@pytest.mark.quick("work -o {}")
@pytest.mark.parametrize(
    "command", [("export", "-o", "{}"), ("run", "pool.jsonl", "-o", "{}"), ("work", "-o", "{}")],
    ids=" ".join,
)  # fmt: skip
async def test_what_somebody_changed_in_an_export_is_kept_beside_it(
    done_project: Project, command: tuple[str, ...]
) -> None:
    again = filled(command, "out.jsonl")
    assert (await done_project.batchgen("export", "-o", "out.jsonl")).code == 0
    out = done_project.path / "out.jsonl"
    written = sorted(out.read_text().splitlines())
    for number, name in enumerate(["out.jsonl.changed", "out.jsonl.changed-2"]):
        mended = out.read_text().replace("w0", f"mended by hand {number}")
        out.write_text(mended)
        done = await done_project.batchgen(*again)
        assert (done.code, sorted(out.read_text().splitlines())) == (0, written)
        assert f"{out}: was changed since; what was in it is kept as {name}\n" in done.err
        assert (done_project.path / name).read_text() == mended
        assert stat.S_IMODE((done_project.path / name).stat().st_mode) == 0o600
    out.write_text("not needed")
    for options in (["--force"], []):
        assert "is kept as" not in (await done_project.batchgen(*again, *options)).err
    assert sorted(out.read_text().splitlines()) == written


async def test_lines_that_somebody_added_to_a_live_file_are_kept_beside_it(
    done_project: Project,
) -> None:
    assert (await done_project.batchgen("work", "-o", "live.jsonl")).code == 0
    live = done_project.path / "live.jsonl"
    written = live.read_text()
    live.write_text(f'{written}{{"id": "mine"}}\n')
    again = await done_project.batchgen("work", "-o", "live.jsonl")
    assert "written anew, as it was not as batchgen had left it" in again.err
    assert live.read_text() == written
    kept = done_project.path / "live.jsonl.changed"
    assert kept.read_text() == f'{written}{{"id": "mine"}}\n'


async def test_bad_lines_are_appended_to_no_file_of_the_project(project: Project) -> None:
    project.write("pool.jsonl", '{"word": "x"}\n{"word": \n')
    for name in ("pool.jsonl", "config.yaml"):
        before = (project.path / name).read_bytes()
        for dry in ([], ["--dry-run"]):
            refused = await project.batchgen("enqueue", "pool.jsonl", "--skip-invalid", name, *dry)
            assert (refused.code, "is a file of this project" in refused.err) == (2, True)
        assert (project.path / name).read_bytes() == before


async def test_an_export_that_became_a_pool_is_written_again(done_project: Project) -> None:
    assert (await done_project.batchgen("export", "-o", "out.jsonl")).code == 0
    done_project.write("prompts/user_prompts/default.txt", "Again: {response}")
    chained = await done_project.batchgen("enqueue", "out.jsonl", "--experiment", "next")
    assert chained.code == 0, chained.err
    assert (await done_project.batchgen("export", "-o", "out.jsonl")).code == 0


async def test_a_file_that_was_read_once_and_is_gone_may_be_written(done_project: Project) -> None:
    (done_project.path / "pool.jsonl").rename(done_project.path / "kept.jsonl")
    for _ in range(2):
        assert (await done_project.batchgen("export", "-o", "pool.jsonl")).code == 0


async def test_a_live_file_of_another_database_is_not_even_replaced_by_force(
    done_project: Project,
) -> None:
    live = done_project.write("live.jsonl", OLD)
    with live.open("rb") as file:  # as its writer does
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = await done_project.batchgen("export", "-o", "live.jsonl", "--force")
    assert (refused.code, f"pid {os.getpid()} keeps it up to date" in refused.err) == (2, True)
    assert live.read_text() == OLD
