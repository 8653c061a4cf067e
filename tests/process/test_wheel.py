"""The wheel: what pip installs elsewhere works without the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from batchgen import __version__

ROOT = Path(__file__).parents[2]
STARTER = (
    "config.yaml",
    "data_pool.jsonl",
    "prompts/system_prompts/default.txt",
    "prompts/user_prompts/default.txt",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as `python -m build` does it."""
    place = tmp_path_factory.mktemp("dist")
    run(ROOT, sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT))
    [built] = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtualenv with the wheel in it. It borrows the dependencies from the environment of the
    tests, but not its editable batchgen: a .pth file there is not read from here."""
    made = tmp_path_factory.mktemp("venv")
    venv.create(made, symlinks=True, with_pip=False)
    python = str(made / "bin/python")
    run(
        made, sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check",
        "install", "--quiet", "--no-deps", "--no-index", str(wheel),
    )  # fmt: skip
    site = Path(run(made, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(paths)))
    return made


def run(where: Path, *command: str) -> str:
    """What it printed; fails when it fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


def batchgen(home: Path, where: Path, *arguments: str) -> str:
    return run(where, str(home / "bin/batchgen"), *arguments)


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_what_ships_with_it(wheel: Path) -> None:
    files = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "batchgen").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {
        f"batchgen/shipped_files/{path.relative_to(ROOT)}"
        for folder in ("migrations", "prompts", "starters")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    shipped |= {f"batchgen/shipped_files/{name}" for name in ("config.yaml", "data_pool.jsonl")}
    assert files == package | shipped


@pytest.mark.slow
def test_the_installed_package_is_not_the_checkout(home: Path, tmp_path: Path) -> None:
    code = "import batchgen.installed as s; print(s.__file__); print(s.shipped_path('migrations'))"
    for path in run(tmp_path, str(home / "bin/python"), "-c", code).splitlines():
        assert path.startswith(str(home))


@pytest.mark.slow
def test_the_command_tells_its_version(home: Path, tmp_path: Path) -> None:
    assert batchgen(home, tmp_path, "--version") == f"batchgen {__version__}"


@pytest.mark.slow
def test_pip_names_the_version_and_the_licence(home: Path, tmp_path: Path) -> None:
    shown = run(
        tmp_path, sys.executable, "-m", "pip", "--python", str(home / "bin/python"),
        "--disable-pip-version-check", "show", "batchgen-llm",
    )  # fmt: skip
    assert {f"Version: {__version__}", "License: Apache-2.0"} <= set(shown.splitlines())


@pytest.mark.slow
def test_init_writes_the_shipped_files(home: Path, tmp_path: Path) -> None:
    batchgen(home, tmp_path, "init", "x")
    for name in STARTER:
        assert (tmp_path / "x" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_the_demo_does_the_whole_job(home: Path, tmp_path: Path) -> None:
    batchgen(home, tmp_path, "demo", "--samples", "2")
    assert "10 done" in batchgen(home, tmp_path, "--db", "batchgen-demo/batchgen.db", "verify")
    [export] = (tmp_path / "batchgen-demo/output").iterdir()
    assert len(export.read_text().splitlines()) == 10


@pytest.mark.slow
def test_a_python_script_finds_the_pipeline_and_its_types(home: Path, tmp_path: Path) -> None:
    code = "from batchgen import DataGenerationPipeline as P; print(P().config.directory)"
    assert run(tmp_path, str(home / "bin/python"), "-c", code) == str(tmp_path)
    assert list(home.rglob("site-packages/batchgen/py.typed"))
