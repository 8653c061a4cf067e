"""Draw live.svg and dashboard.svg: how a run looks on a terminal, from a real one.

    python docs/pictures.py [DIRECTORY]    default: beside this file

`python3 dev.py pictures` runs it with the project's own Python. It takes about a minute: two worker
processes do a job on the simulated model, and what the displays show of it in the end is drawn. The
numbers are those of the run, so they differ a little from one time to the next.
"""

import asyncio
import io
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console, Group, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from batchgen.cli.hints import commands
from batchgen.config import Config, load
from batchgen.display.dashboard import Dashboard
from batchgen.display.history import History
from batchgen.display.live import LiveDisplay
from batchgen.jobs.status import Status, status_of, watch_run
from batchgen.simulate import Simulator
from batchgen.store import open_store

ROOT = Path(__file__).parents[1]
COLUMNS = 92
EVERY_S = 2.0
LOOKS = 30

CONFIG = """\
model:
  api_key: simulated
  base_url: {url}
  model: simulated
  rate_limit: 700
  price: {{input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}
  max_tokens: 400
prompts: {{system_prompt_path: null, user_prompt_path: prompt.txt}}
output_data: {{experiment_name: tickets, need_time_stamp: false}}
work: {{concurrency: 40}}
"""
PROMPT = "Which department should answer this ticket, and how urgent is it?\n\n{ticket}\n"
TICKETS = (
    "My order {n} arrived, but the screen has a scratch. I would like a new one.",
    "发票 {n} 上的抬头写错了, 请帮我重新开一张。",
    "I was charged twice for invoice {n}. Please send the money back.",
    "The app shows error {n} whenever I try to log in.",
)
NEVER_ANSWERED = "order 340 "

THEME = TerminalTheme(
    (22, 27, 34), (201, 209, 217),
    [(72, 79, 88), (248, 81, 73), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255),
     (57, 197, 207), (177, 186, 196)],
    [(110, 118, 129), (255, 123, 114), (86, 211, 100), (227, 179, 65), (121, 192, 255),
     (210, 168, 255), (86, 212, 221), (240, 246, 252)],
)  # fmt: skip


# As rich's own, but it loads no font: a picture in a page may not.
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix, .{unique_id}-title {{
      font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    }}
    .{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
    .{unique_id}-title {{ font-size: 18px; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""


async def main(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        simulator = Simulator(
            latency="lognormal:1.3:0.4",
            errors="500=0.02,refusal=0.006,content_filter=0.004",
            seed=3,
        )
        simulator.script(NEVER_ANSWERED, "hang")
        async with simulator.running() as url:
            (project / "config.yaml").write_text(CONFIG.format(url=url))
            (project / "prompt.txt").write_text(PROMPT)
            await draw_a_run(project, directory)


async def draw_a_run(project: Path, directory: Path) -> None:
    write_pool(project / "trial.jsonl", range(100, 160))
    write_pool(project / "tickets.jsonl", range(200, 2000))
    await batchgen(project, "enqueue", "trial.jsonl", "--experiment", "trial")
    await batchgen(project, "work", "--experiment", "trial", "--rpm", "0")
    await batchgen(project, "enqueue", "tickets.jsonl")
    config = load(project / "config.yaml", env={}, overrides={}, cwd=project)
    async with running(project, "work", "--processes", "2"):
        await look_and_draw(project, config, directory)
        await batchgen(project, "stop", "--now", "--wait")


async def look_and_draw(project: Path, config: Config, directory: Path) -> None:
    run, watch = History(), History()
    async with open_store(config.database) as store:
        tickets = next(one.id for one in await store.experiments() if one.name == "tickets")
        while not await store.workers():  # noqa: ASYNC110  others join it
            await asyncio.sleep(0.1)
        look = await watch_run(store, [tickets])
        for number in range(LOOKS):
            live = await run.observe(look)
            status = await watch.observe(lambda: status_of(store, config))
            if number == LOOKS // 3:
                await batchgen(project, "set", "--rpm", "1500")
            await asyncio.sleep(EVERY_S)
    shell = [
        Text("$ batchgen run tickets.jsonl --processes 2", style="bold"),
        Text(f"tickets: {live.total.total} items read, {live.total.total} new"),
    ]
    draw(directory, "live", "batchgen run", Group(*shell, LiveDisplay(live, run, commands())))
    dashboard = Dashboard("batchgen.db", "21:14:07", elsewhere(status), watch, commands())
    draw(directory, "dashboard", "batchgen status --watch", dashboard)


def write_pool(path: Path, numbers: range) -> None:
    items = ({"ticket": TICKETS[n % len(TICKETS)].format(n=n)} for n in numbers)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def elsewhere(status: Status) -> Status:
    """Not on this machine."""
    workers = [
        replace(worker, host="workstation", pid=41_200 + number)
        for number, worker in enumerate(status.workers)
    ]
    return replace(status, workers=tuple(workers))


def draw(directory: Path, name: str, title: str, drawing: RenderableType) -> None:
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, height=40, force_terminal=True,
        color_system="truecolor",
    )  # fmt: skip
    console.print(drawing)
    path = directory / f"{name}.svg"
    svg = console.export_svg(
        title=title, theme=THEME, unique_id=f"batchgen-{name}", code_format=SVG
    )
    path.write_text(svg, encoding="utf-8")
    print(f"written  {path}")


async def batchgen(project: Path, *arguments: str) -> None:
    async with running(project, *arguments):
        pass


@asynccontextmanager
async def running(project: Path, *arguments: str) -> AsyncIterator[None]:
    """A batchgen process, which has ended on leaving."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "batchgen", "-q", *arguments,
        cwd=project, stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    yield
    await process.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs"))
