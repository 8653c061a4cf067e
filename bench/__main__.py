"""Runs the benchmarks.

    python3 dev.py bench                    all of them, about half an hour
    python3 dev.py bench client lag         these only; the results of the others stay
    python3 dev.py bench --quick            small sizes, a few minutes, to try it out
    python3 dev.py bench --large            also ten million rows and 200,000 items
    python3 dev.py bench profile            where the worker's time goes

Results go to bench/results; those of a quick run nowhere, unless --results says where.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from bench import plots, profiling, report
from bench.measure import RAW_FILE, Options, Table
from bench.project import ROOT

MODULES = (
    "client", "throughput", "processes", "table", "view", "tab", "chains", "pool_io", "memory",
    "start", "disk", "lag", "adaptive", "refusals", "controllers", "servers", "postgres", "minutes",
    "batches",
)  # fmt: skip
RESULTS = ROOT / "bench" / "results"


def main() -> int:
    given = _arguments()
    results_dir = given.results or (None if given.quick else RESULTS)
    if given.names == ["profile"]:
        return profile(results_dir or RESULTS, given.label)
    modules = _modules()
    unknown = set(given.names) - modules.keys()
    if unknown:
        known = ", ".join(modules)
        print(f"no such benchmark: {', '.join(sorted(unknown))}. There are: {known}, and profile.")
        return 2
    mode = "quick" if given.quick else "large" if given.large else "full"
    results, failed = {}, []
    for name in given.names or modules:
        print(f"\n{name} ...", flush=True)
        try:
            results[name] = _run(modules[name], given, mode)
        except Exception as exc:  # the others are worth having all the same
            print(f"{name} failed: {type(exc).__name__}: {exc}", file=sys.stderr)
            failed.append(name)
    if results_dir is not None:
        kept = report.keep(results_dir, results, list(modules))
        plots.draw(kept, results_dir)
        print(f"\n-> {results_dir / report.REPORT_FILE}")
    return 1 if failed else 0


def profile(results_dir: Path, label: str) -> int:
    """Write where the worker's time goes to profile.txt, or profile-LABEL.txt."""
    results_dir.mkdir(parents=True, exist_ok=True)
    file = results_dir / (f"profile-{label}.txt" if label else "profile.txt")
    with _work_dir() as work_dir:
        file.write_text(profiling.profile(Path(work_dir)))
    print(f"-> {file}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--label", default="", help="of a profile")
    return parser.parse_args()


def _modules() -> dict[str, ModuleType]:
    found = [importlib.import_module(f"bench.{name}") for name in MODULES]
    return {module.NAME: module for module in found}


def _run(module: ModuleType, given: argparse.Namespace, mode: str) -> report.Result:
    with _work_dir() as work_dir:
        options = Options(given.quick, given.large, Path(work_dir))
        start_s = time.monotonic()
        table: Table = module.run(options)
        took_s = time.monotonic() - start_s
        print(f"{report.text(table)}\n({took_s:.0f} s)", flush=True)
        raw = options.work_dir / RAW_FILE
        numbers = json.loads(raw.read_text()) if raw.exists() else None
    return report.result_of(table, numbers, mode, took_s)


def _work_dir() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="batchgen-bench-")


if __name__ == "__main__":
    sys.exit(main())
