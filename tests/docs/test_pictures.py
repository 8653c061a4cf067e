"""The pictures of the README: they show a run, and load nothing from elsewhere."""

import asyncio
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kits.project import ended

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("name", SHOWN)
def test_the_pictures_show_a_run_and_load_nothing(name: str) -> None:
    shows_a_run(ROOT / "docs", name)


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
