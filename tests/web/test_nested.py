"""Values that are nested as deep as they can be stored: each is shown, as text where no more can be
made of it, and so is one that is typed."""

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.page import Viewer, viewing
from tests.kits.project import Project

DEPTHS = (100, 330, 900, 940, 970, 990, 3000)
FEW = (100, 330, 990, 3000)
OF_A_ROW = (
    "/items/{n}", "/items/{n}/diff?a=s{n}&b=s1", "/items/{n}/raw/value", "/items/{n}/raw/input",
    "/e/default/review?n=20&item={n}",
)  # fmt: skip
OF_ALL = (
    "/e/default", "/e/default/items", "/e/default/fields", "/e/default/failures",
    "/e/default/items?where=parsed.a+==+1", "/e/default/items?where=input.deep.a+==+1",
    "/e/default/items?q=nothing", "/e/default/review?where=parsed.a+==+1",
)  # fmt: skip


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.fixture
async def deep(project: Project, simulator: Simulator) -> Project:
    project.config("parser: json\nwork: {max_attempts: 1}\n")
    lines = []
    for depth in DEPTHS:
        for kind, value in (("lists", lists(depth)), ("objects", objects(depth))):
            simulator.script(f"Say {kind}-{depth}", Behaviour.ok(value))
            given = value if depth < 900 else "1"
            lines.append(f'{{"word": "{kind}-{depth}", "deep": {given}}}\n')
    (project.path / "pool.jsonl").write_text("".join(lines))
    assert (await project.batchgen("run", "pool.jsonl", "-c", "1")).code in (0, 3)
    return project


async def test_each_page_shows_them(deep: Project) -> None:
    async with viewing(deep) as viewer:
        for number in range(1, 2 * len(DEPTHS) + 1):
            for place in OF_A_ROW:
                answer = await viewer.get(place.format(n=number))
                assert answer.status in (200, 404), (place, number, viewer.said)
        for place in OF_ALL:
            answer = await viewer.get(place)
            assert answer.status in (200, 302), (place, viewer.said)
        assert viewer.said == []


async def test_one_that_is_typed_is_kept_or_refused_in_words(viewer: Viewer) -> None:
    place = "/e/default/review?n=3"
    for depth in DEPTHS:
        for value in (lists(depth), objects(depth), lists(depth)[:depth]):
            form = {"item": "1", "result": "1", "say": "accepted", "edited": value}
            assert (await viewer.post(place, form)).status == 303  # a text is a text
    assert viewer.said == []


async def test_one_that_is_typed_for_a_value_is_kept_or_refused_in_words(
    deep: Project, *, slow: bool
) -> None:
    place, kept = "/e/default/review?n=30", 0
    async with viewing(deep) as viewer:
        for depth in DEPTHS if slow else FEW:
            for value in (lists(depth), objects(depth), lists(depth)[:depth]):
                form = {"item": "1", "result": "1", "say": "accepted", "edited": value}
                answer = await viewer.post(place, form)
                assert answer.status in (303, 400), (depth, viewer.said)
                assert answer.status == 303 or "edit: is n" in answer.text
                kept += answer.status == 303
                for shown in OF_A_ROW:
                    answer = await viewer.get(shown.format(n=1))
                    assert answer.status == 200, (shown, depth, viewer.said)
                answer = await viewer.get("/items/1/diff?a=s1&b=e1")
                assert answer.status in (200, 404), (depth, viewer.said)
        assert viewer.said == []
        assert kept > 3
    exported = await deep.batchgen("export", "-o", "-", "--reviewed", "accepted")
    assert exported.code == 0, exported.err
