"""The results as pictures, SVG and PNG, when matplotlib is there (the extra `bench`)."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import median

OURS, WIRE, LOOP, GOAL = "#1f6f8b", "#8fb8c4", "#c9c9c9", "#c0392b"


def draw(results: dict[str, dict[str, Any]], directory: Path) -> None:
    """One picture for each result that has one, beside the others; says so when it cannot."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plots: matplotlib is missing (pip install '.[bench]')", file=sys.stderr)
        return
    mpl.use("Agg")
    mpl.rcParams.update({
        "svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False,
    })  # fmt: skip
    from matplotlib import pyplot as plt

    for name, picture in PICTURES.items():
        raw = results.get(name, {}).get("raw")
        if not raw:
            continue
        figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        picture(axes, raw)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        figure.savefig(directory / f"{name}.png", dpi=150)
        plt.close(figure)


def client(axes: Any, raw: dict[str, Any]) -> None:
    colours = {"batchgen": OURS, "wire": WIRE, "loop": LOOP}
    latencies = list(raw)
    for index, who in enumerate(colours):
        places = [at + 0.25 * (index - 1) for at in range(len(latencies))]
        heights = [median(raw[latency][who]) for latency in latencies]
        bars = axes.bar(places, heights, 0.23, color=colours[who], label=who)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(latencies)), [f"latency {latency} ms" for latency in latencies])
    axes.set_ylabel("CPU ms per item")
    axes.set_title("CPU of the whole process per item, c = 100")
    axes.legend()


def throughput(axes: Any, raw: dict[str, Any]) -> None:
    slots = [int(c) for c in raw]
    for who, colour in (("batchgen", OURS), ("wire", WIRE)):
        shares = [median(found[who]) for found in raw.values()]
        axes.plot(slots, shares, marker="o", color=colour, label=who)
    axes.axhline(0.97, color=GOAL, linewidth=1, linestyle="--", label="goal")
    axes.set_xscale("log")
    axes.set_ylim(min(0.9, *axes.get_ylim()), 1.02)
    axes.set_xlabel("c, calls in flight at once")
    axes.set_ylabel("share of c / L")
    axes.set_title("Items per second, as a share of what c slots can do")
    axes.legend()


def table(axes: Any, raw: dict[str, Any]) -> None:
    for what, colour in (("wall_ms", OURS), ("cpu_ms", WIRE)):
        label = {"wall_ms": "time", "cpu_ms": "CPU"}[what]
        middles = [median(found) for found in raw[what]]
        axes.plot(raw["sizes"], middles, marker="o", color=colour, label=label)
    axes.axhline(1.2 * median(raw["wall_ms"][0]), color=GOAL, linewidth=1, linestyle="--",
                 label="goal for the time")  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows in the table")
    axes.set_ylabel("ms per item")
    axes.set_title("Claim and finish, batches of 100")
    axes.legend()


def memory(axes: Any, raw: dict[str, Any]) -> None:
    for (slots, samples), colour in zip(raw.items(), (OURS, LOOP), strict=False):
        axes.plot(samples["at_s"], samples["rss_mb"], color=colour, label=f"c = {slots}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("resident memory, MB")
    axes.set_title("A worker's memory over its run")
    axes.legend()


def lag(axes: Any, raw: dict[str, Any]) -> None:
    for (name, lags), colour in zip(raw.items(), (OURS, LOOP), strict=False):
        ordered = sorted(late_ms for _, late_ms in lags)
        shares = [1 - (index + 1) / (len(ordered) + 1) for index in range(len(ordered))]
        axes.plot([max(0.1, late_ms) for late_ms in ordered], shares, color=colour, label=name)
    axes.axhline(0.01, color=GOAL, linewidth=1, linestyle="--", label="p99")
    axes.axvline(20, color=GOAL, linewidth=1, linestyle=":", label="goal, 20 ms")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("event loop lag, ms")
    axes.set_ylabel("share of the time that is later")
    axes.set_title("Event loop lag, c = 1000")
    axes.legend(fontsize=7)


PICTURES: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "client": client, "throughput": throughput, "table": table, "memory": memory, "lag": lag,
}  # fmt: skip
