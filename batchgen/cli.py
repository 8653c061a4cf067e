"""The command line: reads the arguments, runs one job, prints, and says how it ended.

The only place that prints, exits, or starts an event loop. What a command needs is imported when it
runs, so that `batchgen --help` is there at once.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchgen import __version__
from batchgen.errors import BatchgenError, UsageError

if TYPE_CHECKING:
    from batchgen.committer import Scope
    from batchgen.config import Config
    from batchgen.items import Recipe
    from batchgen.jobs import WorkResult
    from batchgen.store import Experiment, Store
    from batchgen.worker import Stats

REASONS = (
    "rate_limit", "server", "connection", "timeout", "bad_response",
    "refusal", "truncated", "parse", "rejected", "crash",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """What the options before the command say."""

    config_path: Path | None
    database: Path | None
    verbose: bool
    quiet: bool

    def config(self, **flags: Any) -> "Config":
        """The settings, with the flags that were given on top. Raises ConfigError."""
        from batchgen.config import load

        given = {name: value for name, value in flags.items() if value is not None}
        if self.database is not None:
            given["database"] = str(self.database)
        return load(self.config_path, env=os.environ, overrides=given, cwd=Path.cwd())

    def say(self, message: str) -> None:
        """Talk: to stderr, not when quiet."""
        if not self.quiet:
            click.echo(message, err=True)

    def warn(self, message: str) -> None:
        """What the user must know even when quiet."""
        click.echo(f"warning: {message}", err=True)


class _Group(click.Group):
    """Lists the commands in the order of a run, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


def _epilog(*examples: str) -> str:
    """Examples as the last lines of a help text."""
    return "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)


@click.group(cls=_Group, epilog=_epilog("batchgen demo", "batchgen run data_pool.jsonl -c 20"))
@click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Settings; default: config.yaml in the current directory.")  # fmt: skip
@click.option("--db", "database", type=click.Path(path_type=Path), metavar="PATH",
              help="The work database; default: batchgen.db beside the config.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Tell of every failed attempt.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only results and problems.")
@click.version_option(__version__, message="batchgen %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, config_path: Path | None, database: Path | None, verbose: bool, quiet: bool
) -> None:
    """Run a pool of prompts through an OpenAI-compatible model.

    All state is in one SQLite file: stop it any way you like, run the same command again, and it
    goes on where it stopped. Nothing is lost, and nothing is paid for twice.
    """
    ctx.obj = Session(config_path, database, verbose, quiet)


# --- getting started --------------------------------------------------------------------------

_STARTER = (
    "config.yaml",
    "data_pool.jsonl",
    "prompts/system_prompts/default.txt",
    "prompts/user_prompts/default.txt",
)


@cli.command(epilog=_epilog("batchgen init my_project"))
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


@cli.command(epilog=_epilog("batchgen demo", "batchgen demo -c 5"))
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
    return _run(_demo(session, directory, slots))


async def _demo(session: Session, directory: Path, slots: int) -> int:
    from batchgen.config import load
    from batchgen.simulate import Simulator

    async with Simulator(latency="lognormal:0.4:0.5").running() as url:
        overrides = {"base_url": url, "api_key": "simulated", "experiment_name": "demo"}
        config = load(directory / "config.yaml", env={}, overrides=overrides, cwd=Path.cwd())
        pool = str(directory / "data_pool.jsonl")
        code = await _run_job(session, config, _RunJob(pool, slots=slots))
    session.say(f"\nLook around:  batchgen --db {config.database} status")
    return code


@cli.command(epilog=_epilog(
    "batchgen simulate --latency lognormal:1.0:0.5 --errors 429=0.05,500=0.02",
    "BATCHGEN_MODEL_BASE_URL=http://127.0.0.1:8000/v1 batchgen work",
))  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="0: any free one.")  # fmt: skip
@click.option("--latency", default="0.2", show_default=True,
              help="Seconds, or uniform:LOW:HIGH, or lognormal:MEDIAN:SIGMA.")  # fmt: skip
@click.option("--errors", default="", metavar="MIX",
              help="Shares of KIND=P: a status such as 429 or 500, reset, hang, trickle, html, "
                   "cut, bad_json, no_choices, empty, refusal, content_filter, length.")  # fmt: skip
@click.option("--rpm", type=click.FloatRange(0), default=0, help="Rate limit; 0: none.")
@click.option("--retry-after", "retry_after_s", type=click.FloatRange(0), default=1.0,
              show_default=True, help="Seconds that a simulated 429 asks for.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--ledger", "ledger_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Append a JSON line for each call.")  # fmt: skip
@click.pass_obj
def simulate(
    session: Session, port: int, latency: str, errors: str, rpm: float, retry_after_s: float,
    seed: int, ledger_path: Path | None,
) -> int:  # fmt: skip
    """Serve a simulated model on loopback, for rehearsing a run.

    OpenAI-compatible, with the latency, errors and rate limit of your choice. Answers depend on
    the request alone. GET /ledger tells how many calls came.
    """
    from batchgen.simulate import Simulator, serve

    simulator = Simulator(
        latency=latency, errors=errors, rpm=rpm or None, seed=seed, retry_after_s=retry_after_s,
        ledger_path=ledger_path, keep_ledger=False, port=port,
    )  # fmt: skip

    async def job() -> int:
        from batchgen.shutdown import Stop, stop_on_signal

        stop = Stop()
        with stop_on_signal(stop, lambda: None):
            await serve(simulator, lambda url: click.echo(f"serving on {url}"), stop.drain)
        session.say(f"{simulator.calls} calls")
        return 0

    return _run(job())


# --- the job ----------------------------------------------------------------------------------

_experiment_option = click.option(
    "--experiment", metavar="NAME", help="Default: output_data.experiment_name of the config."
)
_slots_option = click.option(
    "-c", "--concurrency", "slots", type=click.IntRange(1, 10_000),
    help="Calls in flight at once; default: work.concurrency of the config.",
)  # fmt: skip
_rpm_option = click.option(
    "--rpm", type=click.IntRange(0),
    help="Requests a minute, of all workers together; 0: no limit. Default: model.rate_limit.",
)  # fmt: skip
_grace_option = click.option(
    "--grace", "grace_s", type=click.FloatRange(0), metavar="SECONDS",
    help="How long a stop waits for calls in flight; default: work.grace_s of the config.",
)  # fmt: skip
_recipe_option = click.option(
    "--recipe", "other_recipe", type=click.Choice(["add", "replace"]),
    help="When the experiment has another recipe: mix both, or drop the old one's unfinished items.",
)  # fmt: skip
_skip_option = click.option(
    "--skip-invalid", "skip_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Append bad lines to FILE and go on.",
)  # fmt: skip
_limit_option = click.option(
    "--limit", type=click.IntRange(0), metavar="N", help="Read only the first N items."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@cli.command(epilog=_epilog(
    "batchgen enqueue data_pool.jsonl",
    "batchgen enqueue data.csv --experiment labels --limit 100 --dry-run",
    "batchgen enqueue my_pool.py:make_items",
))  # fmt: skip
@click.argument("source")
@_experiment_option
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, show_default=True,
              help="A higher one is claimed first.")  # fmt: skip
@_limit_option
@_recipe_option
@_skip_option
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show the first prompt, write nothing."
)
@_json_option
@click.pass_obj
def enqueue(
    session: Session, source: str, experiment: str | None, priority: int, limit: int | None,
    other_recipe: str | None, skip_path: Path | None, dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Turn the items of a data pool into pending rows.

    SOURCE is a .jsonl, .json or .csv file, - for JSON lines on stdin, or a Python function that
    yields items, as module:function or path.py:function. Enqueueing the same pool again adds
    nothing; a pool that grew adds what is new.
    """
    config = session.config(experiment_name=experiment)
    job = _RunJob(
        source, priority=priority, limit=limit, other_recipe=other_recipe, skip_path=skip_path,
        as_json=as_json,
    )  # fmt: skip
    if dry_run:
        return _dry_run(session, config, job)

    async def enqueue_only() -> int:
        from batchgen.store import open_store

        recipe = _recipe(config)
        with _pool(job) as pool:
            async with open_store(config.database, create=True) as store:
                await _enqueue(session, store, config, recipe, pool, job)
        return 0

    return _run(enqueue_only())


@cli.command(epilog=_epilog("batchgen work -c 20", "batchgen work --rpm 500 --max-items 100"))
@_slots_option
@_rpm_option
@click.option("--experiment", metavar="NAME", help="Only this one; default: all in the database.")
@click.option("--max-items", type=click.IntRange(1), metavar="N", help="Stop after N items.")
@click.option("--watch", is_flag=True, help="When nothing is left, wait for more.")
@_grace_option
@click.pass_obj
def work(
    session: Session, slots: int | None, rpm: int | None, experiment: str | None,
    max_items: int | None, watch: bool, grace_s: float | None,
) -> int:  # fmt: skip
    """Answer the pending items: claim, call, parse, store.

    Any number of workers may run on one database. Ctrl-C finishes the calls in flight and stops;
    a second one stops at once. Run it again to go on.
    """
    config = session.config(concurrency=slots, rate_limit=rpm)

    async def job() -> int:
        from batchgen.committer import Scope
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            chosen = (await _experiment(store, experiment)).id if experiment else None
            scope = Scope(
                experiments=None if chosen is None else (chosen,),
                requests_per_minute=config.model.rate_limit,
                max_items=max_items,
                wait_for_more=watch,
            )
            result = await _work(session, store, config, scope, grace_s)
        return result.exit_code

    return _run(job())


@cli.command(epilog=_epilog("batchgen run data_pool.jsonl -c 20"))
@click.argument("source")
@_experiment_option
@_slots_option
@_rpm_option
@_limit_option
@_recipe_option
@_skip_option
@_grace_option
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Default: as export.")  # fmt: skip
@click.pass_obj
def run(
    session: Session, source: str, experiment: str | None, slots: int | None, rpm: int | None,
    limit: int | None, other_recipe: str | None, skip_path: Path | None, grace_s: float | None,
    output: Path | None,
) -> int:  # fmt: skip
    """Enqueue a pool, answer it and export: all in one.

    The same as enqueue, work and export one after another; run it again to go on.
    """
    config = session.config(concurrency=slots, rate_limit=rpm, experiment_name=experiment)
    job = _RunJob(
        source, limit=limit, other_recipe=other_recipe, skip_path=skip_path, grace_s=grace_s,
        output=output, slots=config.work.concurrency,
    )  # fmt: skip
    return _run(_run_job(session, config, job))


# --- looking ----------------------------------------------------------------------------------


@cli.command(epilog=_epilog("batchgen status", "batchgen status --json | jq .total.done"))
@_json_option
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.pass_obj
def status(session: Session, as_json: bool, watch: bool) -> int:
    """Show counts, speed, failures and workers."""
    from batchgen.views import foreign_writer_warning, status_object, status_text

    config = session.config()

    async def look(store: "Store") -> dict[str, Any]:
        rows = [(e, await store.counts([e.id])) for e in await store.experiments()]
        return status_object(rows, await store.counts(), await store.pace(), await store.workers())

    async def job() -> int:
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            while True:
                seen = await look(store)
                if watch and not as_json:
                    click.clear()
                click.echo(json.dumps(seen, ensure_ascii=False) if as_json else status_text(seen))
                if not watch:
                    break
                await asyncio.sleep(2)
        if session.verbose and (warning := foreign_writer_warning()):
            session.warn(warning)
        return 0

    return _run(job())


@cli.command(epilog=_epilog("batchgen failures", "batchgen failures --reason parse --json"))
@click.option("--reason", type=click.Choice(REASONS))
@click.option("--experiment", metavar="NAME", help="Only this one; default: all.")
@_json_option
@click.pass_obj
def failures(session: Session, reason: str | None, experiment: str | None, as_json: bool) -> int:
    """Group the failed items by reason and message.

    Each group with its count and the number of an example to show.
    """
    from batchgen.views import failures_text

    config = session.config()

    async def job() -> int:
        async with _reading(config, experiment) as (store, chosen):
            groups = [(e.name, await store.failures(e.id, reason)) for e in chosen]
        if as_json:
            rows = [
                {"experiment": name, "reason": g.reason, "error": g.error, "count": g.n,
                 "example": g.example}
                for name, found in groups for g in found
            ]  # fmt: skip
            click.echo(json.dumps(rows, ensure_ascii=False))
        else:
            click.echo("\n".join(failures_text(name, found) for name, found in groups))
        return 0

    return _run(job())


@cli.command(epilog=_epilog("batchgen show 17", "batchgen show my-own-id --json"))
@click.argument("item_id", metavar="ID")
@click.option("--experiment", metavar="NAME", help="Where to look; default: in all.")
@_json_option
@click.pass_obj
def show(session: Session, item_id: str, experiment: str | None, as_json: bool) -> int:
    """Show one item with all that was sent and came back.

    The messages, every attempt with its raw answer or error, and what was parsed. ID is your own
    id of the item, or its number.
    """
    from batchgen.views import item_object, item_text

    config = session.config()

    async def job() -> int:
        async with _reading(config, experiment) as (store, chosen):
            only = chosen[0].id if experiment else None
            shown = [
                item_object(found, await _messages(store, found))
                for number in await _found_items(store, item_id, only)
                if (found := await store.item(number))
            ]
        if as_json:
            click.echo(json.dumps(shown[0] if len(shown) == 1 else shown, ensure_ascii=False))
        else:
            click.echo("\n\n".join(item_text(one) for one in shown))
        return 0

    return _run(job())


# --- after the run ----------------------------------------------------------------------------


@cli.command(epilog=_epilog(
    "batchgen retry", "batchgen retry --reason timeout --reason server", "batchgen retry --id 17"
))  # fmt: skip
@click.option("--reason", "reasons", type=click.Choice(REASONS), multiple=True)
@click.option("--id", "item_ids", metavar="ID", multiple=True)
@click.option("--experiment", metavar="NAME", help="Only this one; default: all.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@_json_option
@click.pass_obj
def retry(
    session: Session, reasons: tuple[str, ...], item_ids: tuple[str, ...], experiment: str | None,
    dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Put failed items back to pending, to ask again.

    They get all their tries back; what came of the old ones is kept. Without options, all failed
    ones. `batchgen work` then asks for them again.
    """
    config = session.config()

    async def job() -> int:
        async with _reading(config, experiment) as (store, chosen):
            if item_ids:
                only = chosen[0].id if experiment else None
                n = await _retry_ids(store, item_ids, reasons, only, dry_run)
            else:
                n = sum([await _retry_all(store, e.id, reasons, dry_run) for e in chosen])
        if as_json:
            click.echo(json.dumps({"retried": n, "dry_run": dry_run}))
        else:
            would = "would go" if dry_run else "are"
            click.echo(f"{n} failed items {would} back to pending.")
        return 0

    return _run(job())


@cli.command(epilog=_epilog("batchgen export", "batchgen export -o - | jq .parsed"))
@_experiment_option
@click.option(
    "-o", "--output", metavar="FILE", help="Default: in output_data.output_dir; - is stdout."
)
@click.option("--failed", is_flag=True, help="The failed items instead, with reason and error.")
@_json_option
@click.pass_obj
def export(
    session: Session, experiment: str | None, output: str | None, failed: bool, as_json: bool
) -> int:
    """Write the finished rows as JSON lines.

    In the order of the pool. The file appears whole or not at all.
    """
    from batchgen.items import State

    config = session.config(experiment_name=experiment)
    state = State.FAILED if failed else State.DONE

    async def job() -> int:
        from batchgen.export import export_stream

        async with _reading(config, config.output_data.experiment_name) as (store, chosen):
            if output == "-":
                await export_stream(store, chosen[0], sys.stdout.buffer, state)
                return 0
            path = Path(output) if output else None
            await _export(session, store, config, chosen[0], path, state, as_json=as_json)
        return 0

    return _run(job())


@cli.command(epilog=_epilog("batchgen verify"))
@_json_option
@click.pass_obj
def verify(session: Session, as_json: bool) -> int:
    """Prove that the database is whole.

    Counts add up, no id is there twice, every done item has its answer. Exported files that are
    still there are compared too. Exit 1, and the list, if something is wrong.
    """
    config = session.config()

    async def job() -> int:
        from batchgen.export import check_export
        from batchgen.store import open_store

        async with open_store(config.database) as store:
            problems = await store.verify()
            if not problems:
                checks = [await check_export(store, record) for record in await store.exports()]
                problems = [problem for problem in checks if problem]
            counts = await store.counts()
        if as_json:
            click.echo(json.dumps({"ok": not problems, "problems": problems}, ensure_ascii=False))
        elif problems:
            click.echo("\n".join(problems))
        else:
            click.echo(
                f"All is well: {counts.total} items, {counts.done} done, each with its answer."
            )
        return 1 if problems else 0

    return _run(job())


@cli.group(
    invoke_without_command=True, cls=_Group,
    epilog=_epilog("batchgen experiments", "batchgen experiments rename old new"),
)  # fmt: skip
@_json_option
@click.pass_context
def experiments(ctx: click.Context, as_json: bool) -> int:
    """List the experiments in the database; rename or delete one."""
    from batchgen.export import timestamp
    from batchgen.views import experiments_text

    if ctx.invoked_subcommand is not None:
        return 0
    config = ctx.obj.config()

    async def job() -> int:
        async with _reading(config, None) as (store, chosen):
            rows = [(e, await store.counts([e.id])) for e in chosen]
        if as_json:
            listed = [
                {"name": e.name, "created_at": timestamp(e.created_at), "total": counts.total,
                 "done": counts.done, "failed": counts.failed}
                for e, counts in rows
            ]  # fmt: skip
            click.echo(json.dumps(listed, ensure_ascii=False))
        else:
            click.echo(experiments_text(rows))
        return 0

    return _run(job())


@experiments.command(epilog=_epilog("batchgen experiments rename initial_test labels"))
@click.argument("name")
@click.argument("new_name")
@click.pass_obj
def rename(session: Session, name: str, new_name: str) -> int:
    """Give an experiment another name. Its export gets that name too, from now on."""
    new_name = session.config(experiment_name=new_name).output_data.experiment_name
    config = session.config()

    async def job() -> int:
        async with _reading(config, name) as (store, chosen):
            await store.rename_experiment(chosen[0].id, new_name)
        click.echo(f"{name} is now {new_name}.")
        return 0

    return _run(job())


@experiments.command(epilog=_epilog("batchgen experiments delete old_test"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(session: Session, name: str, yes: bool) -> int:
    """Delete an experiment with all its items and answers. Asks first."""
    config = session.config()

    async def job() -> int:
        async with _reading(config, name) as (store, chosen):
            counts = await store.counts([chosen[0].id])
            what = f"{name}: {counts.total} items, {counts.done} of them answered"
            if not yes:
                click.confirm(f"Delete {what}? This cannot be undone.", abort=True, err=True)
            await store.delete_experiment(chosen[0].id)
        click.echo(f"Deleted {what}.")
        return 0

    return _run(job())


# --- the parts of the jobs --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RunJob:
    """What `enqueue` and `run` were asked for."""

    source: str
    priority: int = 0
    limit: int | None = None
    other_recipe: str | None = None
    skip_path: Path | None = None
    grace_s: float | None = None
    output: Path | None = None
    slots: int = 0
    as_json: bool = False


def _recipe(config: "Config") -> "Recipe":
    from batchgen.jobs import recipe_of

    return recipe_of(config)


@contextmanager
def _pool(job: _RunJob) -> Iterator[Iterator[Any]]:
    """The items to enqueue. Opened before the database, so that a wrong name makes none."""
    from itertools import islice

    from batchgen.pool import open_pool

    with closing(open_pool(job.source)) as entries:
        yield islice(entries, job.limit)


@contextmanager
def _skipping(path: Path | None) -> Iterator[Callable[[Any], None] | None]:
    """Where bad lines go, or None when they stop the job."""
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise UsageError(f"{path}: cannot write it ({exc.strerror}).") from exc
    with file:

        def skip(bad: Any) -> None:
            click.echo(f"skipped  {bad.where}: {bad.problem}", err=True)
            file.write(bad.text.rstrip("\n") + "\n")

        yield skip


async def _enqueue(
    session: Session, store: "Store", config: "Config", recipe: "Recipe", pool: Iterator[Any],
    job: _RunJob,
) -> None:  # fmt: skip
    from batchgen.enqueue import Enqueued, enqueue
    from batchgen.store import OtherRecipe

    done = Enqueued()
    name = config.output_data.experiment_name
    mode = OtherRecipe(job.other_recipe or "stop")
    try:
        with _skipping(job.skip_path) as skip:
            await enqueue(
                store, pool, recipe, name,
                other_recipe=mode, priority=job.priority, skip_invalid=skip, done=done,
            )  # fmt: skip
    except (UsageError, asyncio.CancelledError):
        if done.new:
            session.say(f"{name}: {done.new} items before that were enqueued and are kept.")
        raise
    if done.unused:
        names = ", ".join(sorted(done.unused))
        session.warn(f"no template uses these variables: {names}")
    if job.as_json:
        click.echo(json.dumps({"experiment": name, "read": done.read, "new": done.new,
                               "skipped": done.skipped, "dropped": done.dropped}))  # fmt: skip
    else:
        session.say(_enqueued_line(name, done))


def _enqueued_line(name: str, done: Any) -> str:
    line = f"{name}: {done.read} items read, {done.new} new"
    if done.skipped:
        line += f", {done.skipped} invalid ones skipped"
    if done.dropped:
        line += f", {done.dropped} unfinished ones of the old recipe dropped"
    return line


def _dry_run(session: Session, config: "Config", job: _RunJob) -> int:
    from batchgen.enqueue import dry_run

    with _pool(job) as pool, _skipping(job.skip_path) as skip:
        done, first = dry_run(pool, _recipe(config), skip)
    if job.as_json:
        click.echo(json.dumps({"read": done.read, "first_messages": first}, ensure_ascii=False))
        return 0
    click.echo(f"{done.read} items would be enqueued into {config.output_data.experiment_name}; "
               "nothing was written.")  # fmt: skip
    for message in first or []:
        click.echo(f"\n{message.get('role')}:\n{message.get('content')}")
    if done.unused:
        session.warn(f"no template uses these variables: {', '.join(sorted(done.unused))}")
    return 0


async def _work(
    session: Session,
    store: "Store",
    config: "Config",
    scope: "Scope",
    grace_s: float | None,
) -> "WorkResult":
    from batchgen.jobs import WorkRequest, work
    from batchgen.log import RunLog
    from batchgen.shutdown import Stop, stop_on_signal

    display = _Display(session)
    log = RunLog(config.log_dir, display.warn, display.say if session.verbose else None)
    stop = Stop()
    grace_s = config.work.grace_s if grace_s is None else grace_s
    request = WorkRequest(scope, config.work.concurrency, grace_s, watch=display.show)

    def announce() -> None:
        display.say(_stopping(stop.now.is_set(), display.in_flight(), grace_s))

    log.event("run_started", version=__version__, slots=request.slots, pid=os.getpid())
    try:
        with stop_on_signal(stop, announce):
            result = await work(store, config, request, stop=stop, log=log)
        log.event("run_ended", exit_code=result.exit_code, calls=result.stats.calls)
    finally:
        log.close()
    _say_result(session, result)
    return result


class _Display:
    """The live display or the plain lines, and messages that do not tear them."""

    def __init__(self, session: Session) -> None:
        from rich.console import Console

        self._session = session
        self._console = Console(stderr=True)
        self._stats: Stats | None = None

    async def show(self, store: "Store", scope: "Scope", stats: "Stats") -> None:
        from batchgen.progress import show_live, show_plain

        self._stats = stats
        if not self._session.quiet:
            show = show_live if self._console.is_terminal else show_plain
            await show(store, scope, stats, self._console)

    def in_flight(self) -> int:
        return self._stats.in_flight if self._stats else 0

    def say(self, message: str) -> None:
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")


def _stopping(now: bool, in_flight: int, grace_s: float) -> str:
    if now:
        return f"stopping now; {in_flight} calls in flight are left, their items go back"
    return (
        f"stopping: {in_flight} calls in flight, waiting up to {grace_s:g} s for them. "
        "Ctrl-C again stops at once."
    )


def _say_result(session: Session, result: "WorkResult") -> None:
    counts, stats = result.counts, result.stats
    left = counts.pending + counts.running
    line = (
        f"{counts.done} done, {counts.failed} failed, {left} left; {stats.calls} calls in this run"
    )
    session.say(line)
    if stats.halted:
        click.echo(
            f"halted: {stats.halted}\n"
            f"Nothing is lost: {left} items wait. Mend it, then run the same command again.",
            err=True,
        )
    elif counts.failed:
        reasons = ", ".join(f"{reason} {n}" for reason, n in counts.reasons.most_common())
        session.say(f"failed because of: {reasons}. See them: batchgen failures. "
                    "Ask again: batchgen retry, then work.")  # fmt: skip
    elif left and result.signum is not None:
        session.say("Run the same command to go on.")


async def _run_job(session: Session, config: "Config", job: _RunJob) -> int:
    from batchgen.store import open_store

    recipe = _recipe(config)
    with _pool(job) as pool:
        async with open_store(config.database, create=True) as store:
            await _enqueue(session, store, config, recipe, pool, job)
            return await _work_and_export(session, store, config, job)


async def _work_and_export(session: Session, store: "Store", config: "Config", job: _RunJob) -> int:
    from batchgen.committer import Scope

    experiment = await _experiment(store, config.output_data.experiment_name)
    scope = Scope((experiment.id,), config.model.rate_limit)
    slots_config = replace(config, work=replace(config.work, concurrency=job.slots))
    result = await _work(session, store, slots_config, scope, job.grace_s)
    if result.exit_code in (0, 3):
        await _export(session, store, config, experiment, job.output)
    return result.exit_code


async def _export(
    session: Session, store: "Store", config: "Config", experiment: "Experiment",
    path: Path | None, state: Any = None, *, as_json: bool = False,
) -> None:  # fmt: skip
    from batchgen.export import export_file, output_path
    from batchgen.items import State

    state = state or State.DONE
    if path is None:
        path = output_path(config.output_data, experiment)
        if state is State.FAILED:
            path = path.with_name(f"{path.stem}.failed.jsonl")
    exported = await export_file(store, experiment, path, state)
    if as_json:
        click.echo(json.dumps({"path": str(path), "rows": exported.rows}, ensure_ascii=False))
    else:
        session.say(f"{exported.rows} rows -> {path}")


@asynccontextmanager
async def _reading(
    config: "Config", experiment: str | None
) -> AsyncIterator[tuple["Store", list["Experiment"]]]:
    """The store, and the experiments chosen: the named one, or all."""
    from batchgen.store import open_store

    async with open_store(config.database) as store:
        if experiment is None:
            yield store, await store.experiments()
        else:
            yield store, [await _experiment(store, experiment)]


async def _experiment(store: "Store", name: str) -> "Experiment":
    found = await store.experiments()
    for experiment in found:
        if experiment.name == name:
            return experiment
    known = ", ".join(experiment.name for experiment in found) or "none yet"
    raise UsageError(
        f"{store.path}: no experiment {name!r}; there is: {known}. Choose with --experiment."
    )


async def _found_items(store: "Store", given: str, experiment_id: int | None) -> list[int]:
    found = await store.find_items(given, experiment_id)
    if not found:
        raise UsageError(f"no item has the id or number {given!r}.")
    return found


async def _messages(store: "Store", item: dict[str, Any]) -> list[dict[str, Any]] | None:
    from batchgen.pool import read_item
    from batchgen.prompts import Renderer

    renderer = Renderer(await store.recipe(item["recipe_id"]))
    return renderer.messages(read_item(json.loads(item["input"]), f"item {item['id']}"))


async def _retry_all(
    store: "Store", experiment_id: int, reasons: tuple[str, ...], dry_run: bool
) -> int:
    n = 0
    for reason in reasons or (None,):
        after = 0
        while page := await store.failed_page(experiment_id, reason, after):
            after = page[-1][0]
            n += len(page) if dry_run else await store.reopen(page)
    return n


async def _retry_ids(
    store: "Store", item_ids: tuple[str, ...], reasons: tuple[str, ...],
    experiment_id: int | None, dry_run: bool,
) -> int:  # fmt: skip
    failed = []
    for given in item_ids:
        for number in await _found_items(store, given, experiment_id):
            found = await store.failed_item(number)
            if found is None:
                raise UsageError(f"item {given} is not failed, so there is nothing to retry.")
            if not reasons or found[2] in reasons:
                failed.append(found)
    return len(failed) if dry_run else await store.reopen(failed)


# --- the edge ---------------------------------------------------------------------------------


def _run(job: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(job)
    except KeyboardInterrupt:  # Ctrl-C in a job that has nothing to drain
        return 130


def main() -> NoReturn:
    """The command; ends the process with the exit code of the contract."""
    sys.exit(_main())


def _said(exc: click.ClickException) -> str:
    """A wrong command line, in one line that ends with where to look."""
    message = exc.format_message()
    message = message[0].lower() + message[1:] if message else "wrong usage"
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    stop = "" if message.endswith(("?", ".")) else "."
    return f"{message}{stop} See: {ctx.command_path if ctx else 'batchgen'} --help"


def _main() -> int:
    try:
        code = cli.main(prog_name="batchgen", standalone_mode=False)
    except click.ClickException as exc:
        click.echo(f"error: {_said(exc)}", err=True)
        return exc.exit_code
    except click.Abort as exc:
        if isinstance(exc.__cause__, KeyboardInterrupt):  # click makes this of it
            return 130
        click.echo("\naborted: nothing was changed.", err=True)
        return 1
    except BatchgenError as exc:
        click.echo(f"error: {exc}", err=True)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); do not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:  # a bug: the one case for a traceback
        traceback.print_exc()
        click.echo("error: internal error, please report it with the lines above.", err=True)
        return 1
    return code if isinstance(code, int) else 0
