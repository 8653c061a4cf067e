"""From a bare checkout to a result, with Python 3.11+ and nothing else.

    python3 dev.py demo     set up, and run the whole job on the built-in simulated model
    python3 dev.py test     set up, and check everything: format, lint, types, architecture, tests
    python3 dev.py fix      set up, and mend what can be mended: format and lint
    python3 dev.py chaos    set up, and kill, suspend and stop workers at random for a minute
    python3 dev.py bench    set up, and measure everything; see bench/README.md
    python3 dev.py docs     set up, and write the pages of docs/ that are made from the code
    python3 dev.py pictures set up, and draw the displays and the page anew, from real runs

It makes .venv beside this file, with the versions of constraints.txt, and makes it anew when these
change. `python3 dev.py test --slow` adds what is proven by quantity, and runs the tests of all
commands on PostgreSQL too; it takes half an hour.
Other arguments go on: `python3 dev.py test -k retry` runs only those tests, and
`python3 dev.py chaos --seconds 600 --workers 8 --seed 7` goes on for longer, and repeats a run;
`python3 dev.py chaos --postgres` does it to workers of several machines on one server.
"""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"

# All at once. The last one finds nothing out that the tests would not, but nobody else uses the
# cores while types are checked, and what Python compiles for it, each process of the tests finds.
CHECKS = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "types": ("mypy",),
    "architecture": ("lint-imports",),
    "imports of the tests": ("pytest", "--collect-only", "-qq"),
}
FIXES = {
    "lint": ("ruff", "check", "--fix", "."),
    "format": ("ruff", "format", "."),
}
# Most tests wait for something, so twice as many run at once as there are cores; a worker that has
# run all of its own takes over from the others.
TESTS = ("pytest", "-n", str(2 * (os.cpu_count() or 2)), "--dist", "worksteal")


def main() -> int:
    task, *arguments = sys.argv[1:] or ["help"]
    if task == "demo":
        set_up("")
        return run(PYTHON, "-m", "batchgen", "demo", *arguments)
    if task == "test":
        set_up("[dev]")
        if arguments in ([], ["--slow"]):
            return run_at_once(CHECKS) or run_all({"tests": (*TESTS, *arguments)})
        return run(PYTHON, "-m", "pytest", *arguments)
    if task == "fix":
        set_up("[dev]")
        return run_all(FIXES)
    if task == "chaos":
        set_up("[dev]")
        return run(PYTHON, "-m", "tests.crash.chaos", *arguments)
    if task == "bench":
        set_up("[bench]")
        return run(PYTHON, "-m", "bench", *arguments)
    if task == "docs":
        set_up("")
        return run(PYTHON, ROOT / "docs/generate.py", *arguments)
    if task == "pictures":
        set_up("")
        displays, page = ROOT / "docs/pictures.py", ROOT / "docs/page_pictures.py"
        return run(PYTHON, displays) or run(PYTHON, page)
    print(__doc__)
    return 0 if task in ("help", "-h", "--help") else 2


def set_up(extras: str) -> None:
    """Make the virtual environment unless it is there and up to date."""
    if sys.version_info < (3, 11):  # noqa: UP036  whoever runs this may have an older one
        sys.exit(f"batchgen needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    stamp = VENV / f".set-up{extras}"
    wanted = fingerprint()
    stamps = {stamp, VENV / ".set-up[dev]"}  # what the tests need includes what the demo needs
    if PYTHON.exists() and wanted in map(read, stamps):
        return
    print(f"setting up {VENV} ...", file=sys.stderr)
    if run(sys.executable, "-m", "venv", "--clear", VENV):
        sys.exit("Python's venv module does not work here; on Debian: apt install python3-venv")
    if run(
        PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-compile",  # which Python does for what is imported, a tenth of it
        "--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}{extras}",
    ):  # fmt: skip
        sys.exit("installing failed; the lines above say why.")
    stamp.write_text(wanted)


def run_all(steps: dict[str, tuple[str, ...]]) -> int:
    """Every step, even after one that failed, and what it took; 1 if any failed."""
    failed = False
    for name, (tool, *arguments) in steps.items():
        started_at = time.monotonic()
        code = run(BIN / tool, *arguments)
        failed = failed or code != 0
        tell(name, code, time.monotonic() - started_at)
    return int(failed)


def run_at_once(steps: dict[str, tuple[str, ...]]) -> int:
    """The same at the same time. What a step prints is shown when it has failed."""
    failed = False
    with ThreadPoolExecutor(len(steps)) as pool:
        running = {
            pool.submit(hear, BIN / tool, *arguments): name
            for name, (tool, *arguments) in steps.items()
        }
        for ended in as_completed(running):
            code, printed, took_s = ended.result()
            failed = failed or code != 0
            print(printed if code else "", end="", file=sys.stderr)
            tell(running[ended], code, took_s)
    return int(failed)


def tell(step: str, code: int, took_s: float) -> None:
    print(f"{step}: {'failed' if code else 'ok'}, {took_s:.1f} s", file=sys.stderr)


def fingerprint() -> str:
    """Changes with everything that decides what is installed."""
    parts = [sys.version.encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def run(*command: str | Path) -> int:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment(), check=False
    ).returncode


def hear(*command: str | Path) -> tuple[int, str, float]:
    """Its exit code, all that it printed, and the seconds it took."""
    started_at = time.monotonic()
    ended = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment(), check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return ended.returncode, ended.stdout, time.monotonic() - started_at


def environment() -> dict[str, str]:
    """With bytecode kept, whatever the caller's says: the tests start hundreds of processes, each
    of which would compile all of batchgen."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}


if __name__ == "__main__":
    sys.exit(main())
