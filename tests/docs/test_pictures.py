"""The pictures of the README: they show a run, and load nothing from elsewhere."""

import asyncio
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kits.project import ended

ROOT = Path(__file__).parents[2]
PAGES = ("page-overview", "page-overview-dark", "page-items")
MOST_BYTES = 150_000
SHOWN = {
    "live": ("batchgen run", "in flight", "items/s", "latency p50", "so far"),
    "dashboard": ("batchgen status --watch", "tickets", "trial", "per hour", "worker", "under way"),
}


def shows_a_run(directory: Path, name: str) -> None:
    svg = (directory / f"{name}.svg").read_text()
    said = " ".join("".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ").split())
    assert [words for words in SHOWN[name] if words not in said] == []
    assert set(re.findall(r"https?://[^\s\"]+", svg)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", svg)


def is_small_picture(directory: Path, name: str) -> None:
    picture = (directory / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(picture[16:20], "big") == 1280  # pixels wide
    assert 20_000 < len(picture) <= MOST_BYTES


@pytest.mark.parametrize("name", SHOWN)
def test_the_pictures_show_a_run_and_load_nothing(name: str) -> None:
    shows_a_run(ROOT / "docs", name)


@pytest.mark.parametrize("name", PAGES)
def test_the_pictures_of_the_page_are_small(name: str) -> None:
    is_small_picture(ROOT / "docs", name)


@pytest.mark.slow
async def test_they_can_be_taken_anew(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no browser: apt install chromium")
    taking = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "docs/page_pictures.py"), str(tmp_path), "0.2",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    taken = await ended(taking)
    assert taken.code == 0, taken.err
    for name in PAGES:
        is_small_picture(tmp_path, name)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_they_can_be_drawn_anew(tmp_path: Path) -> None:
    drawing = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "docs/pictures.py"), str(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    drawn = await ended(drawing)
    assert drawn.code == 0, drawn.err
    for name in SHOWN:
        shows_a_run(tmp_path, name)
