"""The benchmarks run: real processes, the smallest sizes, and no word about how fast."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bench import adaptive, client, plots, report
from bench.measure import Figure, Options, Table, spend, start
from bench.project import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured by what Linux tells")


@pytest.mark.slow
def test_the_client_benchmark_measures_whole_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SLOTS", 5)
    monkeypatch.setattr(client, "LATENCIES_MS", (0,))
    monkeypatch.setattr(client, "CONTESTANTS", ("batchgen", "wire"))
    table = client.compare(Options(quick=True, large=False, work_dir=tmp_path), items=20, rounds=1)
    assert [row[1] for row in table.rows] == ["batchgen", "wire"]
    assert all(figure.value > 0 for figure in table.figures if "without" not in figure.what)


@pytest.mark.slow
def test_the_adaptive_benchmark_reads_the_ledger_of_each_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = (adaptive.Load(300, 5), adaptive.Load(60, 5, burst=60))
    monkeypatch.setattr(adaptive, "LOADS", (loads,))
    monkeypatch.setattr(adaptive, "_QUICK_SECONDS", 2)
    table = adaptive.run(Options(quick=True, large=False, work_dir=tmp_path))
    assert [row[0] for row in table.rows] == [load.name for load in loads]
    assert all(figure.value > 0 for figure in table.figures if "share" in figure.what)


@pytest.mark.slow
def test_a_wrong_name_is_told_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--results", str(tmp_path), "nonsense"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "client, throughput" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_what_the_benchmarks_import_is_installed_for_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["bench"]]
    installed = {re.match(r"[\w-]+", line).group().lower() for line in wanted}  # type: ignore[union-attr]
    distributions = packages_distributions()
    modules = [*ROOT.glob("bench/*.py"), ROOT / "tests/kits/postgres.py"]
    imported = {name for module in modules for name in _imports_of(module)}
    assert {"openai", "psycopg"} <= imported
    for name in imported - set(sys.stdlib_module_names) - {"batchgen", "bench", "tests"}:
        assert installed & {each.lower() for each in distributions[name]}, name


def _imports_of(module: Path) -> set[str]:
    """The packages that are imported wherever the module is."""
    nodes = ast.parse(module.read_text()).body
    names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_a_process_is_measured_with_what_it_printed() -> None:
    text = "import sys, time; x = b'x' * (60 << 20); print('out'); print('err', file=sys.stderr)"
    spent = spend([sys.executable, "-c", f"{text}; time.sleep(0.2); sys.exit(3)"], cpu=0)
    assert spent.exit_code == 3
    assert spent.wall_s > 0.2
    assert sorted(spent.output.split()) == ["err", "out"]
    assert spent.cpu_s > 0
    assert spent.peak_rss_mb > 60


def test_a_process_may_believe_to_be_on_a_terminal() -> None:
    running = start(
        [sys.executable, "-c", "import sys; print(sys.stderr.isatty(), file=sys.stderr)"],
        terminal=True,
    )
    assert running.wait(timeout_s=60).output.strip() == "True"


def test_results_of_one_benchmark_leave_the_others(tmp_path: Path) -> None:
    def result(value: float) -> report.Result:
        figure = Figure("speed", value, "x", ">= 2", value >= 2)
        table = Table("A table", ("a", "b"), (("1", "22"),), (figure,), ("a note",))
        return report.result_of(table, None, "full", 1.0)

    report.keep(tmp_path, {"one": result(1), "two": result(2)}, ["one", "two"])
    kept = report.keep(tmp_path, {"one": result(3)}, ["one", "two"])
    assert kept == json.loads((tmp_path / report.RESULTS_FILE).read_text())
    assert [kept[name]["table"]["figures"][0]["value"] for name in kept] == [3, 2]
    page = (tmp_path / report.REPORT_FILE).read_text()
    assert "| one       | speed | 3 x   | >= 2 | yes |" in page
    assert "- a note" in page


def test_without_matplotlib_there_are_no_plots_but_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plots.draw({}, tmp_path)
    assert "matplotlib is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
