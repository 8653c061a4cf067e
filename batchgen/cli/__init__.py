"""The command line: reads the arguments, runs one job, prints, and says how it ended.

This is the door: `main`, and the group of the commands. Each command, or group of commands, is in
the file of its name. Beside them:

    group        how a command is found, the options that all take, and how help texts look
    hints        what the user can type about an error
    options      the options that several commands share
    completion   what a shell proposes for them
    process      a process of its own: how it ends
    session      what the options of batchgen itself say; how a command talks and runs
    terminal     what is printed, made visible
    progress     how far a long command is
    enqueueing   what enqueue, run and demo say of a pool
    working      what work, run and demo show while they work
    exporting    what export, run and demo say of a file
    steering     what pause, resume, set and stop are made of
    run_messages what they say as they are stopped, and in the end
    starter      the files of init and demo

The only place that prints, exits, or starts an event loop. A command's module is loaded when it is
called, so that `batchgen --help` is there at once.
"""

from typing import Any, NoReturn

import click

from batchgen import __version__
from batchgen.cli.group import GLOBAL_OPTIONS, LazyGroup, epilog, global_options
from batchgen.cli.process import run_process, told
from batchgen.errors import BatchgenError

# In the order of a run, in which --help lists them. Each says what its own help begins with.
_SHORT_HELPS = {
    "init": "Write a config, prompts and a small pool to start from.",
    "demo": "Do the whole job on a built-in simulated model.",
    "simulate": "Serve a simulated model on loopback, for rehearsing a run.",
    "enqueue": "Turn the items of a data pool into pending rows.",
    "work": "Answer the pending items: claim, call, parse, store.",
    "run": "Enqueue a pool, answer it and export: all in one.",
    "status": "Show counts, speed, failures and workers.",
    "batches": "List provider batches; cancel, give up or find one.",
    "failures": "Group the failed items by reason and message.",
    "show": "Show one item with all that was sent and came back.",
    "view": "Show the database as a local web page.",
    "pause": "Let running workers claim no more.",
    "resume": "Let paused workers go on.",
    "set": "Change the slots and the limits of running workers.",
    "stop": "Stop running workers, as SIGTERM does.",
    "retry": "Put failed items back to pending, to ask again.",
    "reparse": "Parse stored answers again, without asking anything.",
    "review": "Accept, reject or edit answers; or list what was said.",
    "export": "Write the finished rows as lines, a table or conversations.",
    "report": "Write what a run came to as one HTML file.",
    "verify": "Prove that the database is whole.",
    "experiments": "List the experiments in the database; rename or delete one.",
    "move": "Move the database to PostgreSQL, for many machines, or back.",
}


class _Batchgen(LazyGroup):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """A command. What went wrong is told while it is known how batchgen was called: what there
        is to type about it must be about the same config and database."""
        try:
            return super().invoke(ctx)
        except BatchgenError as exc:
            return told(exc)


@click.group(
    cls=_Batchgen, package=__name__, short_helps=_SHORT_HELPS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog("batchgen demo", "batchgen run data_pool.jsonl -c 20"),
)  # fmt: skip
@click.version_option(__version__, message="batchgen %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run a pool of prompts through an OpenAI-compatible model.

    All state is in one SQLite file: stop it any way you like, run the same command again, and it
    goes on where it stopped. No answer that arrived is lost or paid for again.

    The options --config, --db, -v and -q are taken after the command too.
    """
    from batchgen.cli.session import Session  # here: --help needs neither asyncio nor YAML

    ctx.obj = Session(**global_options(ctx))


cli.params[:0] = GLOBAL_OPTIONS


def main() -> NoReturn:
    """The command; ends the process with the exit code of the contract."""
    run_process(command)


def command() -> Any:
    """What the arguments of this process say."""
    try:
        return cli.main(prog_name="batchgen", standalone_mode=False)
    except SystemExit as exc:  # so click ends when a shell asked for completions
        return exc.code
