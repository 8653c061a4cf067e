"""`work --batch` at ogx, a provider that is not ours: its batches are answered by the simulated
model behind it."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batchgen.simulate import Simulator
from tests.kits.database import change
from tests.kits.ogx import MODEL, OGX, WHY_NOT, Ogx, ogx_before
from tests.kits.project import ended
from tests.kits.provided import Provided

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(OGX is None, reason=WHY_NOT),
]
ERRORS = {"x400": "400", "x404": "404", "x503": "503", "xlong": "too_long"}
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["title", "score"],
}


class OnOgx(Provided):
    ogx: Ogx

    def in_batches(self, text: str = "", model: Any = None, **batch: Any) -> None:
        super().in_batches(text, {"model": MODEL, **(model or {})}, **batch)


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[OnOgx]:
    model = Simulator(latency="0.02", item_errors=[f"{name}={of}" for name, of in ERRORS.items()])
    async with model.running() as url, ogx_before(url, tmp_path / "ogx") as ogx:
        made = OnOgx(tmp_path, model)
        made.ogx, made.base_url = ogx, ogx.url
        made.in_batches()
        yield made


def states(project: OnOgx) -> dict[str, int]:
    return dict(project.query("select state, count(*) from work group by 1"))


async def test_a_job_is_answered_once_and_leaves_no_file(project: OnOgx) -> None:
    project.write("schema.json", json.dumps(SCHEMA))
    parser = "parser: 'json_schema:schema.json'\nstructured_output: true\n"
    project.in_batches(parser, {"seed": 1}, probe=True, max_requests=100)
    project.words(100)
    said = await project.run("--samples", "3")
    assert said.code == 0, said.err
    assert states(project) == {"done": 300}
    assert project.provider.bill.answers == 300
    assert all(line["parsed"]["title"] for line in project.export())
    async with aiohttp.ClientSession() as client, client.get(f"{project.base_url}/files") as files:
        assert (await files.json())["data"] == []
    await project.assert_sound()


async def test_what_calls_brought_behind_it_is_told_apart(project: OnOgx) -> None:
    project.in_batches("parser: raw\nwork: {max_attempts: 2}")
    project.pool({"word": word} for word in [*ERRORS, *(f"w{n}" for n in range(5))])
    said = await project.run()
    assert said.code == 3, said.err
    reasons = project.query(
        "select distinct i.input ->> 'word', a.reason, a.http_status from attempts a"
        " join items i on i.id = a.item_id where a.outcome = 'failed' order by 1"
    )
    assert reasons == [
        ("x400", "rejected", 400), ("x404", "rejected", 404), ("x503", "server", 503),
        ("xlong", "rejected", 400),
    ]  # fmt: skip
    assert states(project) == {"done": 5, "failed": len(ERRORS)}


async def test_a_sender_that_is_killed_again_and_again_pays_for_nothing_twice(
    project: OnOgx,
) -> None:
    project.in_batches(max_requests=40, max_open=3)
    project.words(200)
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    for answered in range(0, 200, 25):
        sender = await project.start("work", "--batch")
        await project.provider.received(answered + 1, timeout_s=100)
        sender.kill()
        await ended(sender)
    said = await project.work()
    assert said.code == 0, said.err
    assert states(project) == {"done": 200}
    assert project.provider.bill.answers == 200
    await project.assert_sound()


async def test_a_batch_that_ogx_has_forgotten_to_go_on_with_is_given_up(project: OnOgx) -> None:
    project.provider.hold()
    project.words(20)
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.work("--no-wait")).code == 0
    await project.provider.received(1, timeout_s=60)
    await project.ogx.kill()
    project.provider.release()
    await project.ogx.start()
    thirty_hours_ago(project.ogx)
    late = await project.work()
    assert late.code == 4
    assert "should have ended" in late.err
    assert "in_progress" in late.err
    assert states(project) == {"running": 20}
    assert (await project.batchgen("batches", "--cancel", "1")).code == 0
    assert "cancelling" in (await project.work("--no-wait")).err
    assert (await project.batchgen("batches", "--abandon", "1", "--yes")).code == 0
    said = await project.work()
    assert said.code == 0, said.err
    assert states(project) == {"done": 20}
    assert project.query("select count(*) from attempts where outcome = 'unknown'") == [(20,)]
    assert (await project.batchgen("verify")).code == 0


def thirty_hours_ago(ogx: Ogx) -> None:
    """All of its batches were made then."""
    with closing(sqlite3.connect(ogx.directory / "sql.db")) as db, db:
        for batch_id, told in db.execute("select id, batch_data from batches").fetchall():
            batch = json.loads(told)
            batch["created_at"] -= 31 * 3600
            changed = json.dumps(batch), batch_id
            db.execute("update batches set batch_data = ? where id = ?", changed)


async def test_what_a_cancelled_batch_had_answered_is_counted(project: OnOgx) -> None:
    project.words(40)
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    await project.work("--no-wait")
    await project.provider.received(9, timeout_s=60)
    project.provider.hold()
    await one_round_after_another(project, "answered > 0")
    assert (await project.batchgen("batches", "--cancel", "1")).code == 0
    said = await one_round_after_another(project, "state = 'ended'")
    assert "names no file that has these answers" in said
    change(project.database, "update provider_batches set ended_at = ended_at - 601000")
    project.provider.release()
    await one_round_after_another(project, "state = 'closed'")
    [(answered,)] = project.query("select answered from provider_batches where id = 1")
    unknown = "select count(*) from attempts where outcome = 'unknown'"
    assert project.query(unknown) == [(answered,)]
    assert (await project.work()).code == 0
    assert states(project) == {"done": 40}
    assert (await project.batchgen("verify")).code == 0


async def one_round_after_another(project: OnOgx, until: str) -> str:
    """Until that holds of the first batch; what was said on the way."""
    said = ""
    async with asyncio.timeout(100):
        while not project.query(f"select 1 from provider_batches where id = 1 and {until}"):
            ended = await project.work("--no-wait")
            assert ended.code == 0
            said += ended.err
    return said
