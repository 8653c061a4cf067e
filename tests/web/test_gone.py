"""A database that is deleted or replaced while its page is open: nothing old is shown as if it were
there, and nothing is written where nobody would look for it."""

import re
import shutil

import pytest

from tests.kits.page import Viewer
from tests.kits.postgres import Cluster
from tests.kits.project import Project

PLACES = ("/e/default", "/e/default/items", "/items/1", "/workers", "/batches", "/recipes", "/none",
          "/series.json?experiment=default")  # fmt: skip


async def check_gone(viewer: Viewer, status: int, words: str) -> None:
    for place in PLACES:
        answer = await viewer.get(place)
        assert (answer.status, words in answer.text) == (status, True), (place, answer.text)
        assert not re.search(r"\bw1\b", answer.text)  # no row of it
    form = {"item": "1", "result": "1", "say": "accepted"}
    answer = await viewer.post("/e/default/review?n=3", form)
    assert (answer.status, words in answer.text) == (status, True)
    assert (await viewer.get("/assets/view.css")).status == 200
    assert viewer.said == []


@pytest.mark.only_sqlite("it is a file")
async def test_a_file_that_was_deleted_is_told_and_may_be_put_back(
    viewer: Viewer, answered: Project
) -> None:
    elsewhere = answered.path / "elsewhere"
    answered.file.rename(elsewhere)
    await check_gone(viewer, 503, "the database was deleted or replaced while in use")
    assert not answered.file.exists()
    elsewhere.rename(answered.file)
    for place in PLACES:
        assert (await viewer.get(place)).status == (404 if place == "/none" else 200)


@pytest.mark.only_sqlite("it is a file")
async def test_another_file_in_its_place_is_not_taken_for_it(
    viewer: Viewer, answered: Project
) -> None:
    other = answered.path / "other"
    shutil.copy(answered.file, other)
    other.replace(answered.file)
    before = answered.file.read_bytes()
    await check_gone(viewer, 503, "put it back, or start again")
    assert answered.file.read_bytes() == before


@pytest.mark.on_both_engines
async def test_one_that_is_not_there_any_more_is_told(
    viewer: Viewer, answered: Project, request: pytest.FixtureRequest
) -> None:
    if answered.server is None:
        answered.file.unlink()
        await check_gone(viewer, 503, "the database was deleted or replaced while in use")
    else:
        cluster: Cluster = request.getfixturevalue("postgres_server")
        cluster.drop(answered.server)
        await check_gone(viewer, 409, "the server has no database")
