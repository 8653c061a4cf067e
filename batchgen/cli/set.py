"""set: change the slots and the limits of running workers."""

import click

from batchgen.cli.group import epilog
from batchgen.cli.options import LIMIT, json_option
from batchgen.cli.session import Session, counted
from batchgen.cli.steering import steer, worker_option
from batchgen.jobs.steer import SteerResult, set_limits


@click.command("set", epilog=epilog(
    "batchgen set -c 50",
    "batchgen set --rpm 500 --tpm 200000",
    "batchgen set --rpm 0",
))  # fmt: skip
@click.option("-c", "--concurrency", "slots", type=click.IntRange(1, 10_000),
              help="Calls in flight at once, of all these workers together.")  # fmt: skip
@click.option("--rpm", type=LIMIT, help="Requests a minute; 0: no limit.")
@click.option("--tpm", type=LIMIT, help="Tokens a minute; 0: no limit.")
@worker_option
@json_option
@click.pass_obj
def set_(
    session: Session, slots: int | None, rpm: int | None, tpm: int | None,
    worker_id: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Change the slots and the limits of running workers.

    No call is cut off: where there are too many, fewer are claimed. A worker that is started later
    goes by its own options, and so do these when they are started again.
    """
    if slots is None and rpm is None and tpm is None:
        raise click.UsageError("nothing to set; give -c, --rpm or --tpm")

    return steer(
        session,
        as_json,
        lambda store: set_limits(store, worker_id, slots=slots, rpm=rpm, tpm=tpm),
        lambda result: f"set: {_settings(result, slots, rpm, tpm)}",
    )


def _settings(result: SteerResult, slots: int | None, rpm: int | None, tpm: int | None) -> str:
    words = []
    if slots is not None:
        changes = ", ".join(
            f"worker {worker.id}: {worker.slots} -> {now}"
            for worker, now in zip(result.workers, result.slots, strict=True)
        )
        words.append(f"{counted(slots, 'slot')} in all ({changes})")
    for limit, unit in ((rpm, "request"), (tpm, "token")):
        if limit is not None:
            words.append(f"{limit:,} {unit}s/min" if limit else f"no limit of {unit}s")
    return ", ".join(words)
