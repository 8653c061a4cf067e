"""view: a local web page over the database."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.hints import batchgen, commands, marked_hint
from batchgen.cli.process import tune_for_work
from batchgen.cli.session import Session, run_async
from batchgen.cli.terminal import print_text, say
from batchgen.shutdown import Stop, stop_on_signal


@click.command(epilog=epilog(
    "batchgen view",
    "batchgen view --port 9000 --read-only",
))  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535),
              help="Exactly this one; default: 8777, or the next that is free.")  # fmt: skip
@click.option("--read-only", is_flag=True, help="Nothing can be changed from the page.")
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME",
    help="Another name by which a browser may call it, as that of a proxy; repeatable.",
)  # fmt: skip
@click.pass_obj
def view(session: Session, port: int | None, read_only: bool, names: tuple[str, ...]) -> int:
    """Show the database as a local web page.

    It prints one link, with a token that lets nobody else on this machine in, and serves this
    machine only; from another one, `ssh -L 8777:127.0.0.1:8777 HOST` and open the link there.
    Ctrl-C ends it; nothing else is stopped by that.
    """
    config = session.config()
    from batchgen.web import serve  # here: --help does without

    async def job() -> int:
        stop = Stop()
        with stop_on_signal(stop, lambda: None):
            async with serve(
                config,
                called=batchgen(),
                commands=commands(),
                hint_of=marked_hint,
                port=port,
                read_only=read_only,
                names=names,
                say=say,
            ) as link:
                tune_for_work()
                print_text(link)
                await stop.drain.wait()
        return 0

    return run_async(job())
