"""Take page-overview.png, page-overview-dark.png and page-items.png: the page of `batchgen view`,
of a real run.

    python docs/page_pictures.py [DIRECTORY] [MINUTES]    default: beside this file, 6

`python3 dev.py pictures` runs it with the project's own Python, where there is a Chromium: without
one it says so, and leaves the pictures as they are. The run is one of three steps on the simulated
model, of some minutes, as plots have a point a minute.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from batchgen.cli.hints import commands, marked_hint
from batchgen.config import load
from batchgen.simulate import Behaviour, Simulator
from batchgen.web import serve

ROOT = Path(__file__).parents[1]
MINUTES = 6.0
MOST_BYTES = 150_000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# A rate for each third of the run: a server that slows down, and recovers.
RATES_RPM = ("480", "240", "620")

CONFIG = """\
model:
  api_key: no-key-is-needed
  base_url: {url}
  model: simulated
  price: {{input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}
  rate_limit: 480
  max_tokens: 400
steps:
- name: sort
  parser: json
  user: {{text: "Which department should answer this, and how soon? {{ticket}}"}}
- name: answer
  user: {{text: "Answer this ticket, for {{sort.department}}. {{ticket}}"}}
- name: judge
  parser: json
  user: {{text: "How good is this answer, from 1 to 5, and why? {{answer}}"}}
output_data: {{experiment_name: tickets, need_time_stamp: false}}
work: {{concurrency: 16, max_attempts: 3}}
"""
TICKETS = (
    "My order {n} arrived, but the screen has a scratch. I would like a new one.",
    "发票 {n} 上的抬头写错了, 请帮我重新开一张。",
    "I was charged twice for invoice {n}. Please send the money back.",
    "The app shows error {n} whenever I try to log in.",
)
SORTED = (("sales", "normal"), ("accounts", "low"), ("accounts", "high"), ("support", "high"))
JUDGED = ("friendly, and says what happens next", "correct, but long", "does not name the invoice")
# What is photographed: the picture, its place, how high a window it needs, and whether in the dark.
PICTURES = (
    ("page-overview", "/e/tickets", 1192, False),
    ("page-overview-dark", "/e/tickets", 1192, True),
    ("page-items", "/e/tickets/items?step=sort", 660, False),
)


async def main(directory: Path, minutes: float) -> int:
    browser = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if browser is None:
        print("no pictures of the page: there is no Chromium here")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "tickets"
        project.mkdir()
        simulator = Simulator(
            latency="lognormal:0.9:0.5", errors="500=0.02,reset=0.01,content_filter=0.004", seed=3
        )
        sort = (json.dumps({"department": one, "urgency": two}) for one, two in SORTED * 2000)
        judge = (json.dumps({"score": 5 - n % 3, "why": JUDGED[n % 3]}) for n in range(8000))
        simulator.script("Which department", *map(Behaviour.ok, sort))
        simulator.script("How good", *map(Behaviour.ok, judge))
        async with simulator.running() as url:
            (project / "config.yaml").write_text(CONFIG.format(url=url))
            items = ({"id": f"t-{n}", "ticket": TICKETS[n % 4].format(n=n)} for n in range(2000))
            (project / "pool.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in items))
            await batchgen(project, "enqueue", "pool.jsonl")
            working = asyncio.create_task(batchgen(project, "work", "--max-cost", "5"))
            try:
                for rate in RATES_RPM:
                    await asyncio.sleep(60 * minutes / len(RATES_RPM) / 2)
                    await batchgen(project, "set", "--rpm", rate)
                    await asyncio.sleep(60 * minutes / len(RATES_RPM) / 2)
                await take(browser, project, directory)
            finally:
                await batchgen(project, "stop", "--now", "--wait")
                await working
    return 0


async def take(browser: str, project: Path, directory: Path) -> None:
    config = load(project / "config.yaml", env={}, cwd=project)
    async with serve(
        config, called="batchgen", commands=commands(), hint_of=marked_hint, say=print,
    ) as link:  # fmt: skip
        start, _, token = link.partition("/?")
        for name, place, height, is_dark in PICTURES:
            file = directory / f"{name}.png"
            mark = "&" if "?" in place else "?"
            await photograph(browser, f"{start}{place}{mark}{token}", file, height, is_dark=is_dark)
            size = file.stat().st_size
            print(f"written  {file}  {size / 1000:.0f} kB")
            assert size <= MOST_BYTES, f"{file}: more than {MOST_BYTES:,} bytes"


async def photograph(browser: str, url: str, file: Path, height: int, *, is_dark: bool) -> None:
    with tempfile.TemporaryDirectory() as profile:
        process = await asyncio.create_subprocess_exec(
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size=1280,{height}", "--lang=en",
            "--force-color-profile=srgb", "--virtual-time-budget=4000", f"--screenshot={file}",
            *(["--blink-settings=preferredColorScheme=0"] if is_dark else []), url,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()


async def batchgen(project: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "batchgen", "-q", *arguments,
        cwd=project, stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    await process.wait()


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        asyncio.run(
            main(
                Path(given[0]) if given else ROOT / "docs",
                float(given[1]) if given[1:] else MINUTES,
            )
        )
    )
