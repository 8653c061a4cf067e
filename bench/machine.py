"""The machine that the figures are from, and the state of the code."""

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.project import ROOT


def described() -> dict[str, str]:
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "commit": _commit(),
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def idle_s() -> float:
    """CPU time that no process of this machine wanted, since it started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    idle, waiting_for_disk = int(fields[4]), int(fields[5])
    return (idle + waiting_for_disk) / os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "batchgen")
    return (commit or "unknown") + (", with changes" if changed else "")


def _git(*arguments: str) -> str:
    try:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
