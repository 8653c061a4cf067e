"""The shell around a worker, in deploy/: what it makes of signals and exit codes."""

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.crashes import said
from tests.kits.project import ended

DEPLOY = Path(__file__).parents[2] / "deploy"
JOBS = sorted(DEPLOY.glob("kubernetes*.yaml"))
SCRIPTS = sorted(DEPLOY.glob("slurm*.sh"))

# A worker that says when it runs, drains for a while when it is told to, and ends as it is to.
WORKER = """#!/bin/sh
echo "batchgen $*" >> "$FAKES/log"
trap 'echo draining >> "$FAKES/log"; exit 143' TERM
echo $$ > "$FAKES/step"
echo working >&2
[ -n "$CODE" ] && exit "$CODE"
while :; do sleep 0.05; done
"""
FAKES = {
    "batchgen": WORKER,
    # As srun does: a SIGTERM to it ends the step by force.
    "srun": """#!/bin/bash
while [ "${1#-}" != "$1" ]; do shift; done
"$@" & step=$!
trap 'kill -KILL "$step"; exit 137' TERM
wait "$step"
""",
    "scancel": '#!/bin/sh\necho "scancel $*" >> "$FAKES/log"; kill -TERM "$(cat "$FAKES/step")"\n',
    "scontrol": '#!/bin/sh\necho "scontrol $*" >> "$FAKES/log"\n',
    "vllm": '#!/bin/sh\necho "vllm $*" >> "$FAKES/log"; exec sleep 60\n',
    "curl": "#!/bin/sh\nexit 0\n",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FAKES.items():
        file = tmp_path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKES", str(tmp_path))
    monkeypatch.setenv("BATCHGEN_DATABASE", "postgresql://user@host/name")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    monkeypatch.delenv("CODE", raising=False)
    return tmp_path


def log(fakes: Path) -> list[str]:
    return (fakes / "log").read_text().splitlines()


def container(job: Path) -> dict[str, Any]:
    found = yaml.safe_load(job.read_text())["spec"]["template"]["spec"]["containers"]
    return next(one for one in found if one["name"] == "worker")


def command(file: Path) -> list[str]:
    return ["bash", str(file)] if file in SCRIPTS else container(file)["command"]


async def start(file: Path, cwd: Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command(file), cwd=cwd, stdout=pipe, stderr=pipe, start_new_session=True
    )


@pytest.mark.parametrize("file", [*JOBS, *SCRIPTS], ids=lambda file: file.name)
@pytest.mark.parametrize(("code", "of_job"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 4)])
async def test_a_job_ends_as_its_worker_but_failed_items_are_no_failure(
    file: Path, code: int, of_job: int, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", str(code))
    assert (await ended(await start(file, fakes))).code == of_job
    assert not any(line.startswith("scontrol") for line in log(fakes))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
async def test_a_pod_that_is_to_go_lets_its_worker_finish(job: Path, fakes: Path) -> None:
    process = await start(job, fakes)
    await said(process, "working")
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 143
    assert log(fakes)[-1] == "draining"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
async def test_a_worker_that_was_told_to_stop_in_the_table_ends_the_job(
    job: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "143")  # nobody signalled the pod
    code = (await ended(await start(job, fakes))).code
    rules = yaml.safe_load(job.read_text())["spec"]["podFailurePolicy"]["rules"]
    fatal = next(rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob")
    assert code in fatal["values"]
    assert 143 not in fatal["values"]  # a pod that is moved elsewhere


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
async def test_a_slurm_job_whose_time_is_over_drains_and_waits_for_more(
    script: Path, fakes: Path
) -> None:
    process = await start(script, fakes)
    await said(process, "working")
    process.send_signal(signal.SIGUSR1)
    assert (await ended(process)).code == 143
    assert log(fakes)[-3:] == ["scancel --signal=TERM 17_4.0", "draining", "scontrol requeue 17_4"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
async def test_a_slurm_job_that_somebody_stops_is_not_begun_again(
    script: Path, fakes: Path
) -> None:
    process = await start(script, fakes)
    await said(process, "working")
    process.send_signal(signal.SIGTERM)  # Slurm's, to all that belongs to the job
    os.kill(int((fakes / "step").read_text()), signal.SIGTERM)
    assert (await ended(process)).code == 143
    assert log(fakes)[-1] == "draining"


@pytest.mark.parametrize(
    ("sent", "then"), [(signal.SIGUSR1, ["scontrol requeue 17_4"]), (signal.SIGTERM, [])]
)
async def test_a_slurm_job_whose_model_still_loads_can_be_stopped(
    sent: signal.Signals, then: list[str], fakes: Path
) -> None:
    (fakes / "curl").write_text("#!/bin/sh\necho loading >&2; exit 7\n")
    (fakes / "log").touch()
    process = await start(DEPLOY / "slurm-vllm.sh", fakes)
    await said(process, "loading")
    process.send_signal(sent)
    assert (await ended(process)).code == 143
    assert [line for line in log(fakes) if not line.startswith("vllm")] == then


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
async def test_without_a_database_nothing_is_begun(
    script: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCHGEN_DATABASE")
    done = await ended(await start(script, fakes))
    assert done.code != 0
    assert "say where the work table is" in done.err
    assert not (fakes / "log").exists()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_pod_has_the_time_to_drain_and_no_secret_in_its_file(job: Path) -> None:
    spec = yaml.safe_load(job.read_text())["spec"]
    pod = spec["template"]["spec"]
    grace_s = int(container(job)["command"][-1].split("--grace ")[1].split()[0])
    assert pod["terminationGracePeriodSeconds"] > grace_s
    assert (pod["restartPolicy"], spec["podReplacementPolicy"]) == ("Never", "Failed")
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", spec["parallelism"])
    secret = {one["name"] for one in container(job)["env"] if "secretKeyRef" in str(one)}
    assert "BATCHGEN_DATABASE" in secret
    assert not any(one.get("value") for one in container(job)["env"] if one["name"] in secret)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_file(job: Path, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    validate.validate(yaml.safe_load(job.read_text()), version, strict=True)
