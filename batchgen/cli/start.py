"""Getting started: init, demo, simulate."""

from pathlib import Path

import click

from batchgen.cli.options import epilog
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.steps import PoolJob, do_whole_job
from batchgen.errors import UsageError

_STARTER = (
    "config.yaml",
    "data_pool.jsonl",
    "prompts/system_prompts/default.txt",
    "prompts/user_prompts/default.txt",
)


@click.command(epilog=epilog("batchgen init my_project"))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(directory: Path) -> None:
    """Write a config, prompts and a small pool to start from.

    Never overwrites: a file that is there already stays as it is.
    """
    for name in _STARTER:
        _copy_starter(name, directory)
    where = "" if directory == Path() else f"cd {directory} && "
    click.echo(
        f"\nNext: set OPENAI_API_KEY (or model.base_url to your own server), then\n"
        f"  {where}batchgen run data_pool.jsonl"
    )


def _copy_starter(name: str, directory: Path) -> None:
    from batchgen.shipped import shipped_path

    target = directory / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(shipped_path(name).read_bytes())
    except FileExistsError:
        click.echo(f"kept     {target}")
    except OSError as exc:
        raise UsageError(f"{target}: cannot write it ({exc.strerror}).") from exc
    else:
        click.echo(f"written  {target}")


@click.command(epilog=epilog("batchgen demo", "batchgen demo -c 5"))
@click.option("-c", "--concurrency", "slots", type=click.IntRange(1, 1000), default=5,
              show_default=True, help="Calls in flight at once.")  # fmt: skip
@click.pass_obj
def demo(session: Session, slots: int) -> int:
    """Do the whole job on a built-in simulated model.

    No key, no network. Works in the directory batchgen-demo, on the shipped data pool and
    prompts. Run it again: all items are known and done, so nothing is called.
    """
    directory = Path("batchgen-demo")
    for name in _STARTER:
        if not (directory / name).exists():
            _copy_starter(name, directory)
    session.say("This is a simulation: a built-in model on this machine answers, nothing is paid.")
    return run_async(_demo(session, directory, slots))


async def _demo(session: Session, directory: Path, slots: int) -> int:
    from batchgen.config import load
    from batchgen.simulate import Simulator

    async with Simulator(latency="lognormal:0.4:0.5").running() as url:
        overrides = {
            "base_url": url, "api_key": "simulated", "experiment_name": "demo",
            "concurrency": slots,
        }  # fmt: skip
        config = load(directory / "config.yaml", env={}, overrides=overrides, cwd=Path.cwd())
        pool = str(directory / "data_pool.jsonl")
        code = await do_whole_job(session, config, PoolJob(pool))
    session.say(f"\nLook around:  batchgen --db {config.database} status")
    return code


@click.command(epilog=epilog(
    "batchgen simulate --latency lognormal:1.0:0.5 --errors 429=0.05,500=0.02",
    "batchgen simulate --rpm 600 --tpm 200000",
    "BATCHGEN_MODEL_BASE_URL=http://127.0.0.1:8000/v1 batchgen work",
))  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="0: any free one.")  # fmt: skip
@click.option("--latency", default="0.2", show_default=True,
              help="Seconds, or uniform:LOW:HIGH, or lognormal:MEDIAN:SIGMA.")  # fmt: skip
@click.option(
    "--errors", default="", metavar="MIX",
    help="Shares of KIND=P: a status such as 429 or 500, reset, hang, trickle, html, "
         "cut, bad_json, no_choices, empty, refusal, content_filter, length.",
)  # fmt: skip
@click.option("--rpm", type=click.FloatRange(0), default=0,
              help="Requests a minute that it takes; 0: no limit.")  # fmt: skip
@click.option("--burst", type=click.IntRange(1), metavar="N",
              help="With --rpm: so many may come at once; default: a second's worth.")  # fmt: skip
@click.option("--tpm", type=click.FloatRange(0), default=0,
              help="Tokens a minute, in and out, of which a minute's worth may come at once; 0: no "
                   "limit.")  # fmt: skip
@click.option("--limit-headers/--no-limit-headers", default=True, show_default=True,
              help="Tell with every reply what is left of the limits, as OpenAI does.")  # fmt: skip
@click.option("--retry-after", "retry_after_s", type=click.FloatRange(0), default=1.0,
              show_default=True, help="Seconds that a simulated 429 asks for.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--ledger", "ledger_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Append a JSON line for each call.")  # fmt: skip
@click.pass_obj
def simulate(
    session: Session, port: int, latency: str, errors: str, rpm: float, burst: int | None,
    tpm: float, limit_headers: bool, retry_after_s: float, seed: int, ledger_path: Path | None,
) -> int:  # fmt: skip
    """Serve a simulated model on loopback, for rehearsing a run.

    OpenAI-compatible, with the latency, errors and rate limit of your choice. Answers depend on
    the request alone. GET /ledger tells how many calls came.
    """
    from batchgen.simulate import Simulator, serve

    if burst is not None and not rpm:
        raise UsageError("--burst: there is no rate limit for it. Add --rpm.")
    simulator = Simulator(
        latency=latency, errors=errors, rpm=rpm or None, burst=burst, tpm=tpm or None,
        limit_headers=limit_headers, retry_after_s=retry_after_s, seed=seed,
        ledger_path=ledger_path, keep_ledger=False, port=port,
    )  # fmt: skip

    async def job() -> int:
        from batchgen.shutdown import Stop, stop_on_signal

        stop = Stop()
        with stop_on_signal(stop, lambda: None):
            await serve(simulator, lambda url: click.echo(f"serving on {url}"), stop.drain)
        session.say(counted(simulator.calls, "call"))
        return 0

    return run_async(job())
