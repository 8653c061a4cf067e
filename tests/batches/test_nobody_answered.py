"""Batches of which no request is answered: that says more of the server than of the rows."""

import pytest

from tests.batches.conftest import Provide

pytestmark = pytest.mark.on_both_engines
STATES = "select state, count(*) from work group by 1 order by 1"


def work(**settings: object) -> str:
    return f"parser: raw\nwork: {{{', '.join(f'{name}: {of}' for name, of in settings.items())}}}"


async def test_an_outage_costs_no_row_a_try(provide: Provide) -> None:
    project = await provide("server_error=1:2")
    project.in_batches(work(max_attempts=1))
    said = await project.run()
    assert said.code == 0, said.err
    assert "none of the 20 requests of batch 2 was answered: 500" in said.err
    assert project.query("select count(*) from attempts where reason = 'server'") == [(40,)]
    await project.assert_sound()


async def test_an_outage_that_lasts_halts(provide: Provide) -> None:
    project = await provide("server_error=1")
    project.in_batches(work(max_attempts=1, stall_s=0.2))
    said = await project.run()
    assert said.code == 4, said.err
    assert "work.stall_s" in said.err
    assert project.query(STATES) == [("pending", 20)]
    await project.assert_sound()


async def test_rows_that_fail_while_others_are_answered_come_to_an_end(provide: Provide) -> None:
    project = await provide(item_errors=["w00=500"])
    project.in_batches(work(max_attempts=3))
    said = await project.run()
    assert said.code == 3, said.err
    assert project.query(STATES) == [("done", 10), ("failed", 10)]
    assert project.query("select count(*) from provider_batches") == [(3,)]
    await project.assert_sound()


async def test_a_recipe_that_is_refused_from_the_first_on_fails_no_row(provide: Provide) -> None:
    project = await provide(item_errors=["w0=400"])
    said = await project.run()
    assert said.code == 4, said.err
    assert "20 different items failed alike" in said.err
    assert project.query(STATES) == [("pending", 20)]
    await project.assert_sound()


async def test_what_is_left_is_refused_for_itself(provide: Provide) -> None:
    project = await provide(item_errors=["w00=400"])
    project.in_batches(max_requests=10)
    project.pool({"word": f"w{n:03}"} for n in reversed(range(20)))
    said = await project.run()
    assert said.code == 3, said.err
    assert project.query(STATES) == [("done", 10), ("failed", 10)]


@pytest.mark.parametrize("few", [1, 4])
async def test_a_few_rows_tell_nothing_of_the_server(provide: Provide, few: int) -> None:
    project = await provide("server_error=1", items=few)
    project.in_batches(work(max_attempts=2))
    said = await project.run()
    assert said.code == 3, said.err
    assert project.query(STATES) == [("failed", few)]
