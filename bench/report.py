"""Keeps what was measured: results.json with every number, and results.md for people."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.measure import Table

RESULTS_FILE, REPORT_FILE = "results.json", "results.md"
Result = dict[str, Any]


def result_of(table: Table, raw: Any, mode: str, took_s: float) -> Result:
    """A table as it is kept, with the machine it was measured on."""
    result = {
        "table": asdict(table), "raw": raw, "mode": mode, "took_s": round(took_s, 1),
        "machine": described(),
    }  # fmt: skip
    as_kept: Result = json.loads(json.dumps(result))
    return as_kept


def keep(directory: Path, results: dict[str, Result], order: list[str]) -> dict[str, Result]:
    """Put these results in the place of older ones of the same benchmarks; returns all."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / RESULTS_FILE
    known: dict[str, Result] = json.loads(file.read_text()) if file.exists() else {}
    known |= results
    known = {name: known[name] for name in order if name in known}
    lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in known.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    (directory / REPORT_FILE).write_text(markdown(known))
    return known


def markdown(results: dict[str, Result]) -> str:
    """All as one page: the goals first, then a table a benchmark."""
    lines = ["# Results", "", "Written by `python3 dev.py bench`; see [how](../README.md).", ""]
    lines += _machines(results)
    lines += ["## Goals", ""]
    figures = [
        (name, *_figure_cells(figure))
        for name, result in results.items()
        for figure in result["table"]["figures"]
    ]
    lines += rows_of(("benchmark", "what", "value", "goal", "met"), figures)
    for name, result in results.items():
        table = result["table"]
        lines += ["", f"## {name}", "", table["title"] + ".", ""]
        lines += rows_of(table["columns"], table["rows"])
        lines += ["", *(f"- {note}" for note in table["notes"])] if table["notes"] else []
    return "\n".join(lines) + "\n"


def _machines(results: dict[str, Result]) -> list[str]:
    """Which machine and code; one line when all are of the same."""
    lines = []
    of: dict[str, list[str]] = {}
    for name, result in results.items():
        machine = ", ".join(f"{what} {value}" for what, value in result["machine"].items()
                            if what != "measured")  # fmt: skip
        of.setdefault(f"{machine}; {result['mode']} run", []).append(name)
    for machine, names in of.items():
        days = sorted({results[name]["machine"]["measured"] for name in names})
        lines.append(f"- {', '.join(names)}: {machine}; {days[0]} to {days[-1]}")
    return [*lines, ""]


def _figure_cells(figure: dict[str, Any]) -> tuple[str, ...]:
    met = {True: "yes", False: "**no**", None: "-"}[figure["met"]]
    value = figure["value"]
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return figure["what"], f"{number} {figure['unit']}", figure["goal"] or "-", met


def rows_of(columns: Any, rows: Any) -> list[str]:
    """A markdown table, its columns lined up."""
    cells = [list(map(str, columns)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(len(columns))]
    texts = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        texts.append(f"| {' | '.join(padded)} |")
    return [texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]]


def text(table: Table) -> str:
    """A table and its figures for the terminal."""
    figures = [_figure_cells(asdict(figure)) for figure in table.figures]
    lines = [f"{table.title}", "", *rows_of(table.columns, table.rows)]
    if figures:
        lines += ["", *rows_of(("what", "value", "goal", "met"), figures)]
    return "\n".join(lines)
