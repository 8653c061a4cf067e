"""`run_sync` where an event loop runs already, and what Ctrl-C does to a script and to a cell."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchgen import DataGenerationPipeline, StoppedError
from batchgen.errors import InputError, UsageError
from batchgen.simulate import Simulator
from tests.kits.project import Project, ended

Words = Callable[[int], Iterator[dict[str, Any]]]


def words_of(results: list[dict[str, Any]]) -> list[str]:
    return [result["input"]["word"] for result in results]


class ServerElsewhere:
    """A simulator on an event loop of its own, as a server is."""

    def __init__(self) -> None:
        self.simulator = Simulator()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        self._running = self.simulator.running()
        return asyncio.run_coroutine_threadsafe(self._running.__aenter__(), self._loop).result()

    def __exit__(self, *_: object) -> None:
        closing = self._running.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(closing, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def test_run_sync_works_within_async_code(here: Project, words: Words) -> None:
    with ServerElsewhere() as url:
        pipeline = DataGenerationPipeline(base_url=url)
        assert words_of(pipeline.run_sync(words(3))) == ["w0", "w1", "w2"]
        assert pipeline.status().done == 3


async def test_what_goes_wrong_there_is_raised_here(here: Project) -> None:
    with pytest.raises(InputError, match=r"data_pool\[0\]"):
        DataGenerationPipeline().run_sync(["topic"])


STOPPED_SCRIPT = """
import asyncio
from batchgen import DataGenerationPipeline

POOL = [{"word": f"w{n}"} for n in range(20)]

async def main():
    await DataGenerationPipeline().run(POOL, 4)

def main_in_a_cell():
    async def cell():  # a notebook's loop runs while the cell does
        DataGenerationPipeline().run_sync(POOL, 4)
    asyncio.run(cell())
"""


@pytest.mark.quick("sync", "cell")
@pytest.mark.parametrize(
    "call",
    ["asyncio.run(main())", "main_in_a_cell()", "DataGenerationPipeline().run_sync(POOL, 4)"],
    ids=["async", "cell", "sync"],
)
async def test_ctrl_c_ends_a_script_with_one_line_and_keeps_what_is_in_flight(
    project: Project, simulator: Simulator, call: str
) -> None:
    simulator.hold()
    script = await project.start(str(project.write("script.py", f"{STOPPED_SCRIPT}\n{call}\n")))
    await simulator.received(4)
    script.send_signal(signal.SIGINT)
    assert script.stderr is not None
    while (line := await script.stderr.readline()).startswith(b"0/20 "):
        pass  # how it goes, where 5 s have passed
    assert b"waiting for the calls in flight" in line
    simulator.release()
    stopped = await ended(script)
    assert stopped.code == 1
    assert len(stopped.err.splitlines()) == 1
    assert "4 of 20 items are done and kept; run it again" in stopped.err
    assert len(project.export()) == 4
    assert simulator.calls == 4


SLOW_SCRIPT = """
import threading
from itertools import count
from batchgen import DataGenerationPipeline

def pool(first):
    for number in count():
        print(number, flush=True)
        if number == first:
            threading.Event().wait(WAITS_S)
        yield {"word": f"w{number}"}

"""


async def test_a_source_without_an_end_is_stopped_by_the_first_signal(
    project: Project, simulator: Simulator
) -> None:
    text = f"{SLOW_SCRIPT}\nWAITS_S = 0\nDataGenerationPipeline().run_sync(pool(100))\n"
    script = await project.start(str(project.write("script.py", text)))
    assert script.stdout is not None
    while await script.stdout.readline() != b"100\n":
        pass
    script.send_signal(signal.SIGINT)
    stopped = await ended(script)
    assert stopped.code == 1
    assert stopped.err.splitlines()[-1] == (
        "batchgen: the run was stopped before it asked for anything."
    )
    assert simulator.calls == 0


async def test_a_source_that_hangs_is_interrupted_by_the_third_signal(
    project: Project, simulator: Simulator
) -> None:
    text = f"{SLOW_SCRIPT}\nWAITS_S = 3600\nDataGenerationPipeline().run_sync(pool(100))\n"
    script = await project.start(str(project.write("script.py", text)))
    assert script.stdout is not None
    while await script.stdout.readline() != b"100\n":
        pass
    while script.returncode is None:
        script.send_signal(signal.SIGINT)
        await asyncio.sleep(0.05)
    assert (await ended(script)).err.splitlines()[-1] in (
        "KeyboardInterrupt",
        # A server is told first that nobody enqueues any more; meanwhile the loop hears the others.
        "batchgen: the run was stopped before it asked for anything.",
    )
    assert simulator.calls == 0


async def test_what_a_callback_raises_shows_no_frames_of_ours(
    here: Project, simulator: Simulator, words: Words
) -> None:
    def mine(_: Any) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        await DataGenerationPipeline().run(words(2), on_result=mine)
    names = [entry.name for entry in raised.traceback]
    assert (names[-1], len(names) <= 3) == ("mine", True)


async def test_two_runs_at_once_are_both_stopped_by_a_signal_and_it_means_the_same_again_later(
    here: Project, simulator: Simulator
) -> None:
    before = signal.getsignal(signal.SIGINT)
    simulator.hold()
    runs = [
        asyncio.create_task(
            DataGenerationPipeline(experiment_name=name).run([{"word": name}] * 9, 2), name=name
        )
        for name in ("one", "two")
    ]
    await simulator.received(2, "Say one")
    await simulator.received(2, "Say two")
    os.kill(os.getpid(), signal.SIGINT)
    simulator.release()
    assert [type(one) for one in await asyncio.gather(*runs, return_exceptions=True)] == [
        StoppedError, StoppedError,
    ]  # fmt: skip
    assert signal.getsignal(signal.SIGINT) == before
    assert simulator.calls == 4


async def test_importing_a_script_for_its_parser_does_not_run_it(
    project: Project, simulator: Simulator, words: Words
) -> None:
    project.pool(words(2))
    for call in ("DataGenerationPipeline().run_sync(POOL, 4)", "asyncio.run(main())"):
        text = f"{STOPPED_SCRIPT}\ndef parse_response(text): return text\n{call}\n"
        project.write("script.py", text)
        ran = await project.process("run", "pool.jsonl", "--experiment", "x")
        assert ran.code == 0
        again = await project.process("reparse", "--parser", "script.py:parse_response", "--all")
        assert again.code == 2
        assert "script.py for its function ran" in again.err
        assert '`if __name__ == "__main__":`' in again.err
    assert simulator.calls == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda p, pool: p.run_sync(pool),
        lambda p, pool: p.run_sync(pool, until="x"),
        lambda p, pool: p.stream(pool, samples=0),
        lambda p, _: p.reparse(17),
        lambda p, _: p.retry("nonsense"),
    ],
    ids=["run", "until", "samples", "reparse", "retry"],
)
async def test_an_error_shows_no_frames_of_ours(here: Project, call: Callable[..., Any]) -> None:
    with pytest.raises(UsageError) as raised:
        call(DataGenerationPipeline(), [{"nothing": "of use"}])
    assert len(raised.traceback) <= 4  # the test, the call, the method, and what runs it
    assert raised.value.__cause__ is None
