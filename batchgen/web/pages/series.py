"""What was done over time, as plots want it: numbers, and words in the reader's language."""

from collections import Counter
from collections.abc import Iterable, Sequence

from aiohttp import web
from msgspec import Struct, json

from batchgen.clock import now_ms
from batchgen.jobs.series import History, history_of
from batchgen.store import Point, percentiles, start_of_bucket
from batchgen.web.language import Text
from batchgen.web.pages.item import number_in
from batchgen.web.shown import cost, number, path, seconds
from batchgen.web.view import View

SPANS = {"1h": 60, "1d": 1440, "7d": 10_080, "all": None}
"""How far one looks back, in minutes."""

_KEYS = ("rate", "latency", "cost", "failures", "lengths")
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_MOST_REASONS = 6
_BUDGET_S = 0.15  # so long a request for plots reads on
_SOON_S = 5  # of a minute that has begun: before it no rate is told


class Line(Struct, frozen=True):
    """`colour` is the name of one in the style."""

    name: str
    colour: str
    values: Sequence[float | None]
    dashed: bool = False


class Plot(Struct, frozen=True):
    """`x` are times (seconds since 1970) or, with `names`, what these name. `label` says in a
    sentence what is seen, and `links` lead to the calls that took longest."""

    key: str
    label: str
    x_name: str
    x: list[int]
    series: list[Line]
    bars: bool = False
    names: list[str] | None = None
    links: list[str | None] | None = None
    link_name: str = ""


class Told(Struct, frozen=True):
    """With more to tell, if asked at once again, unless `is_whole`."""

    note: str
    plots: list[Plot]
    is_whole: bool = True


async def series(view: View, request: web.Request) -> web.StreamResponse:
    """Of an experiment, or of one of its steps."""
    name, first = request.query.get("experiment", ""), first_minute(request.query.get("span", ""))
    found = await view.scans.read(lambda store: history_of(store, name, first, _BUDGET_S))
    t = view.frame.text(request)
    told = told_of(found, t, now_ms())
    if first is not None and not told.plots:  # there may be some in another span
        told = Told(t("plots_of_nothing"), [Plot(key, "", "", [], []) for key in _KEYS])
    return web.Response(body=json.encode(told), content_type="application/json")


def first_minute(span: str) -> int | None:
    """Of how far one looks back; None: from the beginning on."""
    back = SPANS.get(span)
    return None if back is None else now_ms() // 60_000 - back


async def call(view: View, request: web.Request) -> web.StreamResponse:
    """To the item that a call was made for, where it is open."""
    seq = number_in(request, "seq")
    found = await view.pages.read(lambda store: store.pages.attempt(seq))
    if found is None:
        raise web.HTTPNotFound
    raise web.HTTPFound(url_of_call(found.item_id, seq))


def url_of_call(item_id: int, seq: int) -> str:
    return f"{path('items', item_id, attempt=seq)}#attempt-{seq}"


def told_of(history: History, t: Text, now: int) -> Told:
    found = history.series
    notes = [t("plots_sampled")] if found.sampled_until else []
    notes += [] if found.is_whole else [t("plots_still_read")]
    note = " ".join(notes)
    if not found.points:
        return Told(note, [])
    return Told(note, [
        _rates(history, t, now), _latencies(history, t), _costs(history, t), _failures(history, t),
        _lengths(found.points, t),
    ], found.is_whole)  # fmt: skip


def _times(history: History) -> list[int]:
    return [60 * point.minute for point in history.series.points]


def _rates(history: History, t: Text, now: int) -> Plot:
    times, step_s = _times(history), 60 * history.series.every
    lasted = [max(_SOON_S, min(step_s, now / 1000 - begun)) for begun in times]
    points = history.series.points
    done = [_rounded(one.done / s) for one, s in zip(points, lasted, strict=True)]
    lines = [Line(t("done"), "plot-1", done)]
    if any(point.failed for point in points):
        failed = [_rounded(one.failed / s) for one, s in zip(points, lasted, strict=True)]
        lines.append(Line(t("failed"), "plot-2", failed))
    mean = sum(point.done for point in points) / sum(lasted)
    most = max(done)
    words = {"mean": number(mean), "most": number(float(most))}
    of_rows = bool(history.summary.steps)
    label = t("rate_of_rows_said", **words) if of_rows else t("rate_said", **words)
    return Plot("rate", label, t("time"), times, lines)


def _latencies(history: History, t: Text) -> Plot:
    points = history.series.points
    found = [percentiles(point.latencies, list(_SHARES.values())) for point in points]
    lines = [
        Line(name, colour, [_in_seconds(one[place]) for one in found])
        for place, (name, colour) in enumerate(
            zip(_SHARES, ("plot-1", "plot-3", "plot-2"), strict=True)
        )
    ]
    half, most = (s and seconds(s) for s in latencies_s(points))
    label = t("latency_said", half=half or "–", most=most or "–")
    links = [None if one.slowest is None else path("calls", one.slowest) for one in points]
    return Plot("latency", label, t("time"), _times(history), lines, links=links,
                link_name=t("slowest_call"))  # fmt: skip


def latencies_s(points: Iterable[Point]) -> list[float | None]:
    """p50 and p95 of all answers in these, right to one twentieth; None: there is none."""
    all_of_them = Counter[int]()
    for point in points:
        all_of_them.update(point.latencies)
    return [ms and ms / 1000 for ms in percentiles(all_of_them, [0.5, 0.95])]


def _costs(history: History, t: Text) -> Plot:
    spent, values = history.series.before.cost_usd, list[float | None]()
    for point in history.series.points:
        spent += point.cost_usd
        values.append(_rounded(spent))
    if not spent:
        return Plot("cost", t("cost"), t("time"), [], [])
    lines = [Line(t("spent"), "plot-1", values)]
    label = t("cost_said", spent=cost(spent))
    if history.budget_usd is not None:
        budget = [history.budget_usd] * len(values)
        lines.append(Line(t("budget"), "plot-2", budget, dashed=True))
        label = t("cost_of_budget_said", spent=cost(spent), budget=cost(history.budget_usd))
    return Plot("cost", label, t("time"), _times(history), lines)


def _failures(history: History, t: Text) -> Plot:
    points, total = history.series.points, dict[str, float]()
    for point in points:
        for reason, n in point.reasons.items():
            total[reason] = total.get(reason, 0) + n
    if not total:
        return Plot("failures", "", t("time"), [], [])
    reasons = sorted(total, key=lambda reason: -total[reason])[:_MOST_REASONS]
    lines = [
        Line(
            t.reason(reason),
            f"plot-{place}",
            [_rounded(point.reasons.get(reason, 0)) for point in points],
        )
        for place, reason in enumerate(reasons, start=1)
    ]
    said = ", ".join(f"{t.reason(reason)} {number(round(total[reason]))}" for reason in reasons)
    return Plot("failures", t("failures_said", reasons=said), t("time"), _times(history), lines)


def _lengths(points: Iterable[Point], t: Text) -> Plot:
    counted = dict[int, float]()
    for point in points:
        for bucket, n in point.lengths.items():
            counted[bucket] = counted.get(bucket, 0) + n
    if not counted:
        return Plot("lengths", "", t("characters"), [], [])
    buckets = range(min(counted), max(counted) + 1)
    half, most = percentiles(counted, [0.5, 0.95])
    label = t("lengths_said", half=number(round(half or 0)), most=number(round(most or 0)))
    answers = Line(t("answers"), "plot-1", [_rounded(counted.get(one, 0)) for one in buckets])
    names = [number(round(start_of_bucket(bucket))) for bucket in buckets]
    return Plot("lengths", label, t("characters"), [*range(len(names))], [answers], bars=True,
                names=names)  # fmt: skip


def _in_seconds(ms: float | None) -> float | None:
    return None if ms is None else _rounded(ms / 1000)


def _rounded(value: float) -> float:
    """To six digits: more are not shown."""
    return float(f"{value:.6g}")
