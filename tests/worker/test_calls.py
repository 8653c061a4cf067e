"""The calls of an item, cancelled at the worst moments."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from batchgen.config import load
from batchgen.endpoints import CHAT
from batchgen.items import Failure, Outcome, Release
from batchgen.llm.client import open_client
from batchgen.simulate import Behaviour, Simulator
from batchgen.worker.calls import Calls
from batchgen.worker.judge import CallResult
from batchgen.worker.requests import Request
from batchgen.worker.stragglers import CallsInFlight
from tests.kits.desk import claimed, desk
from tests.kits.project import KEY

pytestmark = pytest.mark.usefixtures("server")  # on both engines

LATENCIES_MS = [10] * 30  # so that each call is late at once
REQUEST = Request({"model": "m", "messages": [{"role": "user", "content": "late"}]}, {}, CHAT)


@pytest.mark.parametrize("cancels", [1, 5])
async def test_a_call_that_ended_before_it_was_left_is_known_and_nothing_stays_behind(
    tmp_path: Path, simulator: Simulator, cancels: int
) -> None:
    simulator.script("late", Behaviour.error(500, delay_s=0.5), "hang")
    given = {"base_url": simulator.base_url, "api_key": KEY, "model": "m"}
    model = load(None, env={}, overrides=given, cwd=tmp_path).model
    calls: list[CallResult | None] = []
    async with desk(tmp_path) as worker, open_client(model, timeout_s=60) as client:
        item = await claimed(worker.committer)
        worker.servers[item.server].client = client
        sender = Calls(worker.servers, worker.committer, CallsInFlight(LATENCIES_MS), hedge=True)
        before = asyncio.all_tasks()
        sending = asyncio.create_task(sender.send(item, REQUEST, calls))
        while len(calls) < 2 or calls[0] is None:
            await asyncio.sleep(0)
        await _cancel(sending, cancels)
        assert {t for t in asyncio.all_tasks() - before if "of item" in t.get_name()} == set()
        assert worker.permits.in_flight == 1  # the item's own
        await worker.committer.hand_in(Outcome(item, (), Release()))
    first, second = calls
    assert first is not None
    assert isinstance(first.verdict, Failure)
    assert second is None


async def _cancel(task: asyncio.Task[Any], times: int) -> None:
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
