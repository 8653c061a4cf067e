"""The command line: reads the arguments, runs one job, prints, and says how it ended.

This is the door: `main`, and the group of the commands. Behind it:

    start            init, demo, simulate
    job              enqueue, work, run
    look             status, failures, show
    steer            pause, resume, set, stop
    redo             retry, reparse
    after            export, verify
    experiments      experiments, and its rename and delete
    steps            what enqueue, work, export, run and demo are made of
    display          the live display, and the closing lines
    lookup           from a name or number to the experiment or item
    options          what the help texts share
    session          the options before the command; talk

The only place that prints, exits, or starts an event loop. What a command needs is imported when it
runs, so that `batchgen --help` is there at once.
"""

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import click

from batchgen import __version__
from batchgen.cli import after, experiments, job, look, redo, start, steer
from batchgen.cli.options import OrderedGroup, epilog
from batchgen.cli.session import Session
from batchgen.errors import BatchgenError


@click.group(cls=OrderedGroup, epilog=epilog("batchgen demo", "batchgen run data_pool.jsonl -c 20"))
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
    goes on where it stopped. No answer that arrived is lost or paid for again.
    """
    ctx.obj = Session(config_path, database, verbose, quiet)


# In the order of a run, in which --help lists them.
for _command in (
    start.init, start.demo, start.simulate,
    job.enqueue, job.work, job.run,
    look.status, look.failures, look.show,
    steer.pause, steer.resume, steer.set_, steer.stop,
    redo.retry, redo.reparse,
    after.export, after.verify,
    experiments.experiments,
):  # fmt: skip
    cli.add_command(_command)


def main() -> NoReturn:
    """The command; ends the process with the exit code of the contract."""
    # A quarter of a worker's CPU went into looking for cycles, of which there are hardly any.
    gc.set_threshold(20_000, 20, 100)
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
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
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
