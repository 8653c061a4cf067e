"""Who is compared, where each is installed, and the commands that do the job with it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.job import TEMPLATE, write_pool

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEY = "sk-bench-0123456789"


@dataclass(frozen=True)
class Job:
    """What is to be done: the items of a pool, by the model at `base_url`."""

    items: int
    concurrency: int
    base_url: str


@dataclass(frozen=True)
class Installed:
    """A peer's own virtual environment; `script` is the file that its user had to fetch."""

    venv: Path
    script: Path | None = None

    def bin(self, name: str) -> str:
        return str(self.venv / "bin" / name)


@dataclass(frozen=True)
class Peer:
    """`commands` do the whole job, and go on with it after a crash; `part` is the one among them
    that makes the calls, when there are several. `packages` are told with their versions."""

    name: str
    requirements: str
    packages: tuple[str, ...]
    commands: Callable[[Job, Installed], tuple[list[str], ...]]
    setting: str
    part: str = ""

    @property
    def venv_name(self) -> str:
        return self.requirements or "batchgen"


def _driver(script: str) -> Callable[[Job, Installed], tuple[list[str], ...]]:
    def commands(job: Job, at: Installed) -> tuple[list[str], ...]:
        driver = str(HERE / "drivers" / script)
        return ([at.bin("python"), driver, job.base_url, str(job.concurrency)],)

    return commands


def _cookbook(job: Job, at: Installed) -> tuple[list[str], ...]:
    driver = str(HERE / "drivers" / "run_cookbook.py")
    return ([at.bin("python"), driver, job.base_url, str(at.script)],)


def _enqueue_work_export(job: Job, at: Installed) -> tuple[list[str], ...]:
    batchgen = at.bin("batchgen")
    return (
        [batchgen, "enqueue", "pool.jsonl"],
        [batchgen, "work", "-c", str(job.concurrency)],
        [batchgen, "export", "-o", "results.jsonl"],
    )


def _run(job: Job, at: Installed) -> tuple[list[str], ...]:
    options = ["-c", str(job.concurrency), "-o", "results.jsonl"]
    return ([at.bin("batchgen"), "run", "pool.jsonl", *options],)


PEERS = (
    Peer(
        "batchgen", "", ("batchgen-llm", "openai"), _enqueue_work_export,
        "enqueue + work + export, three processes; retries as by default (5 attempts)", "work",
    ),
    Peer(
        "batchgen-run", "", ("batchgen-llm", "openai"), _run,
        "`batchgen run`: the same three in one process",
    ),
    Peer(
        "loop", "loop", ("openai",), _driver("run_loop.py"),
        "AsyncOpenAI, semaphore, gather; retries as by default (2, by the SDK)",
    ),
    Peer(
        "cookbook", "cookbook", ("aiohttp", "tiktoken"), _cookbook,
        "rate limits set far above what is reached; no setting for concurrency, at most one "
        "request a millisecond; 5 attempts",
    ),
    Peer(
        "async-batch-llm", "async-batch-llm", ("async-batch-llm", "openai"),
        _driver("run_async_batch_llm.py"),
        "process_stream, SqliteArtifactStore (BALANCED, its default: no fsync a commit), "
        "REUSE_SUCCESSES; retries as by default (3 attempts)",
    ),
    Peer(
        "curator", "curator", ("bespokelabs-curator", "litellm", "aiohttp"),
        _driver("run_curator.py"),
        "backend openai, rate limits set far above what is reached; retries as by default (10)",
    ),
    Peer(
        "litellm", "litellm", ("litellm", "openai"), _driver("run_litellm.py"),
        "batch_completion, max_workers = concurrency; retries as by default (2, by the SDK)",
    ),
)  # fmt: skip


def install(peer: Peer, venvs: Path, checkout: Path) -> Installed:
    """Into a virtual environment of its own, unless it is there; batchgen always anew. Raises
    RuntimeError with what pip says."""
    venv = venvs / peer.venv_name
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if peer.requirements:
        pinned = HERE / f"requirements-{peer.requirements}.txt"
        wanted = ["--requirement", str(pinned)]
    else:
        pinned = checkout / "constraints.txt"
        wanted = ["--constraint", str(pinned), str(checkout)]
    stamp = venv / ".installed"
    fingerprint = hashlib.sha256(sys.version.encode() + pinned.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != fingerprint:
        _must([sys.executable, "-m", "venv", "--clear", str(venv)])
        _must([*pip, *wanted])
        stamp.write_text(fingerprint)
    if not peer.requirements:
        _must([*pip, "--force-reinstall", "--no-deps", str(checkout)])
    return Installed(venv)


def versions(peer: Peer, installed: Installed) -> dict[str, str]:
    """Of the packages that matter."""
    ask = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    told = _must([installed.bin("python"), "-c", ask, *peer.packages])
    found = dict(zip(peer.packages, told.split(), strict=True))
    if installed.script:
        text = installed.script.read_bytes()
        blob = hashlib.sha1(b"blob %d\0%b" % (len(text), text), usedforsecurity=False)
        found["script, git blob"] = blob.hexdigest()[:12]
    return found


def environment(installed: Installed, work_dir: Path) -> dict[str, str]:
    """Nothing of the user's own. The home directory stays from run to run, so that caches of
    libraries are warm; what a peer goes on from after a crash is in `work_dir`. Nobody reports to
    its makers or fetches price lists."""
    home = installed.venv / "home"
    home.mkdir(exist_ok=True)
    found = {
        "PATH": f"{installed.venv / 'bin'}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": KEY,
        "CURATOR_CACHE_DIR": str(work_dir / "curator"),
        "TELEMETRY_ENABLED": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    if vocabularies := _vocabularies(installed.venv.parent):
        found["TIKTOKEN_CACHE_DIR"] = str(vocabularies)
    return found


def _vocabularies(venvs: Path) -> Path | None:
    """tiktoken's files, as litellm ships them: tiktoken would fetch them at its first start."""
    shipped = "*/lib/python*/site-packages/litellm/litellm_core_utils/tokenizers"
    return next(venvs.glob(shipped), None)


def prepare(work_dir: Path, job: Job) -> None:
    """The files that the commands find where they are run; batchgen's config among them."""
    work_dir.mkdir(parents=True)
    write_pool(work_dir / "pool.jsonl", job.items)
    (work_dir / "template.txt").write_text(TEMPLATE)
    (work_dir / "config.yaml").write_text(
        f"model: {{base_url: {job.base_url}, api_key: {KEY}, model: gpt-4o-mini}}\n"
        "prompts: {system_prompt_path: null, user_prompt_path: template.txt}\n"
        "parser: raw\n"
    )


def revision(checkout: Path) -> str:
    """The commit, and whether the code differs from it; empty without git."""
    git = ["git", "-C", str(checkout)]
    code = ["batchgen", "migrations", "pyproject.toml", "constraints.txt"]
    try:
        commit = _must([*git, "rev-parse", "--short", "HEAD"]).strip()
        changed = _must([*git, "status", "--porcelain", "--", *code])
    except (OSError, RuntimeError):
        return ""
    return f"{commit}, with changes" if changed else commit


def _must(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise RuntimeError(" ".join(errors)[:500])
    return done.stdout
