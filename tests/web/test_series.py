"""What plots are drawn from: the numbers of the minutes, in the reader's words; and the script that
draws them, which is another's, as it is."""

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchgen.clock import now_ms
from batchgen.jobs.experiments import ExperimentSummary
from batchgen.jobs.series import History
from batchgen.store import Counts, Experiment, Point, Series, open_store
from batchgen.web import assets
from batchgen.web.language import Text, read_texts
from batchgen.web.pages.series import told_of
from tests.kits.database import change
from tests.kits.page import Viewer, viewing
from tests.kits.project import Project

ASSETS = Path(assets.__file__).with_name("assets")
EXPERIMENT = ExperimentSummary(Experiment(1, "e", 0), Counts())
NOW = 60_000 * 1_000_030
EN, ZH = (Text(language, read_texts()) for language in ("en", "zh"))


def told(history: History, t: Any = EN) -> dict[str, dict[str, Any]]:
    plots = msgspec.to_builtins(told_of(history, t, NOW))["plots"]
    return {plot["key"]: plot for plot in plots}


def history(*points: Point, budget_usd: float | None = None, every: int = 10) -> History:
    return History(EXPERIMENT, Series(every, list(points)), budget_usd)


def test_the_files_of_others_are_as_they_were_published() -> None:
    text = (ASSETS / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    named = re.findall(r"^(\S+) +uPlot 1\.6\.32.*\n +SHA-256 (\w{64})$", text, re.MULTILINE)
    assert [name for name, _ in named] == ["uplot.min.js", "uplot.min.css"]
    for name, digest in named:
        assert sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert "Copyright (c) 2022 Leon Sorokin" in text


def test_nothing_done_makes_no_plots() -> None:
    assert told(history()) == {}


def test_a_rate_is_of_the_time_that_a_point_lasted() -> None:
    first = Point(1_000_000, done=600, calls=600)
    last = Point(1_000_025, done=300, failed=30, calls=330)  # it has five minutes yet to go
    rate = told(history(first, Point(1_000_010), Point(1_000_020), last))["rate"]
    assert rate["x"][0] == 60_000_000
    done, failed = rate["series"]
    assert (done["values"], failed["values"]) == ([1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.1])
    assert rate["label"] == "0.43 items a second on average, 1.0 at most."
    assert told(history(first), ZH)["rate"]["label"] == "平均每秒 1.0 个条目，最高 1.0 个。"


def test_latencies_lead_to_the_slowest_call() -> None:
    point = Point(1_000_000, calls=100, latencies={72: 90, 96: 10}, slowest=17, slowest_ms=9_500)
    latency = told(history(point, Point(1_000_010)))["latency"]
    assert [line["name"] for line in latency["series"]] == ["p50", "p95", "p99"]
    assert [line["values"] for line in latency["series"]] == [
        [pytest.approx(1.0, rel=0.05), None], [pytest.approx(9.8, rel=0.05), None],
        [pytest.approx(9.8, rel=0.05), None],
    ]  # fmt: skip
    assert latency["links"] == ["/calls/17", None]


def test_the_cost_adds_up_and_has_its_budget() -> None:
    points = [Point(1_000_000, calls=1, cost_usd=0.5), Point(1_000_010, calls=1, cost_usd=0.25)]
    assert len(told(history(*points))["cost"]["series"]) == 1
    cost = told(history(*points, budget_usd=2.0))["cost"]
    spent, budget = cost["series"]
    assert (spent["values"], budget["values"], budget["dashed"]) == ([0.5, 0.75], [2.0, 2.0], True)
    assert cost["label"] == "$0.7500 spent so far, of a budget of $2.0000."
    assert told(history(Point(1_000_000, calls=1)))["cost"]["x"] == []


def test_failures_are_by_reason_the_most_frequent_first() -> None:
    points = [
        Point(1_000_000, calls=9, reasons={"server": 1, "rate_limit": 4}),
        Point(1_000_010, calls=9, reasons={"server": 2}),
    ]
    failures = told(history(*points))["failures"]
    assert [(line["name"], line["values"]) for line in failures["series"]] == [
        ("rate_limit", [4, 0]), ("server", [1, 2])
    ]  # fmt: skip
    assert failures["label"] == "Calls that failed: rate_limit 4, server 3."


def test_lengths_are_counted_over_all_that_is_seen() -> None:
    points = [Point(1_000_000, lengths={48: 3}), Point(1_000_010, lengths={48: 1, 50: 2})]
    lengths = told(history(*points))["lengths"]
    assert (lengths["names"], lengths["series"][0]["values"]) == (["97", "107", "117"], [4, 0, 2])


async def series_of(viewer: Viewer, query: str) -> dict[str, Any]:
    answer = await viewer.get(f"/series.json?{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return {plot["key"]: plot for plot in msgspec.json.decode(answer.body)["plots"]}


async def test_it_has_what_a_worker_has_done(viewer: Viewer) -> None:
    for span in ("", "&span=1h", "&span=all", "&span=none"):
        plots = await series_of(viewer, f"experiment=default{span}")
        answers = plots["lengths"]["series"][0]["values"]
        assert (sum(answers), plots["failures"]["x"]) == (3, [])
    assert all(now_ms() / 1000 - second < 3600 for second in plots["rate"]["x"])
    assert (await viewer.get("/series.json?experiment=none")).status == 404
    link = next(filter(None, plots["latency"]["links"]))
    place = (await viewer.get(link)).place
    assert place.endswith(f"?attempt={link.removeprefix('/calls/')}#attempt-{link[7:]}")
    assert (await viewer.get("/calls/99")).status == 404


async def test_the_slowest_call_is_found_from_the_page_of_its_experiment(
    answered: Project, viewer: Viewer
) -> None:
    slowest = "select seq, item_id from attempts order by latency_ms desc, seq limit 1"
    [(seq, item)] = answered.query(slowest)
    for query in ("", "?span=1h"):
        page = await viewer.get(f"/e/default{query}")
        assert '<a href="#of-slowest">' in page.text
        link = f"/items/{item}?attempt={seq}#attempt-{seq}"
        assert f'<a href="{link}">' in page.text
    shown = await viewer.get(link.partition("#")[0])
    assert f'id="attempt-{seq}" open>' in shown.text
    assert f'id="attempt-{seq}" open>' not in (await viewer.get(f"/items/{item}")).text


async def test_before_any_call_there_is_no_slowest_one(project: Project) -> None:
    project.pool([{"word": "w"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        assert "of-slowest" not in (await viewer.get("/e/default")).text


async def test_steps_have_plots_of_their_own(project: Project) -> None:
    steps = [
        {"name": "draft", "user": {"text": "Write {word}"}},
        {"name": "judge", "user": {"text": "Judge {draft}"}},
    ]
    project.config(
        f"output_data: {{experiment_name: demo}}\nsteps: {msgspec.json.encode(steps).decode()}\n"
    )
    project.pool({"word": f"w{number}"} for number in range(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    async with viewing(project) as viewer:
        for name, answers in (("demo", 6), ("demo/draft", 3), ("demo/judge", 3)):
            plots = await series_of(viewer, f"experiment={name.replace('/', '%2F')}")
            assert sum(plots["lengths"]["series"][0]["values"]) == answers


def minutes(project: Project) -> str:
    """The table that has them."""
    return "minutes" if project.server is None else "minutes_by_worker"


async def test_a_span_in_which_nothing_was_done_says_so(answered: Project) -> None:
    change(answered.database, f"update {minutes(answered)} set minute = minute - 100")
    async with viewing(answered) as viewer:
        answer = await viewer.get("/series.json?experiment=default&span=1h")
        told = msgspec.json.decode(answer.body)
        assert told["note"] == "Nothing was done in this time."
        assert [plot["x"] for plot in told["plots"]] == 5 * [[]]
        assert len(await series_of(viewer, "experiment=default&span=1d")) == 5


async def test_plots_go_on_until_now_while_somebody_works(answered: Project) -> None:
    change(answered.database, f"update {minutes(answered)} set minute = minute - 30")
    answered.pool([{"word": "one more"}])
    assert (await answered.batchgen("enqueue", "pool.jsonl")).code == 0
    async with viewing(answered) as viewer, open_store(answered.database) as store:
        ended = (await series_of(viewer, "experiment=default"))["rate"]["x"]
        async with store.seat(slots=1, lease_s=60, max_crashes=5):
            alive = (await series_of(viewer, "experiment=default"))["rate"]["x"]
    assert now_ms() / 1000 - ended[-1] > 29 * 60
    assert now_ms() / 1000 - alive[-1] < 2 * 60
