"""simulate: an OpenAI-compatible server for rehearsals."""

from pathlib import Path

import click

from batchgen.cli.group import epilog
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.terminal import print_text
from batchgen.errors import UsageError
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.simulate import BATCH_FAULTS, VENDOR_REPLIES, Simulator, serve


def _written(fault: str) -> str:
    value = BATCH_FAULTS[fault].value
    is_optional = value in ("N", "LINES", "TEXT")
    return f"{fault}[={value}]" if is_optional else f"{fault}={value}"


@click.command(epilog=epilog(
    "batchgen simulate --latency lognormal:1.0:0.5 --errors 429=0.05,500=0.02",
    "batchgen simulate --rpm 600 --tpm 200000",
    "batchgen simulate --errors content_403=0.01 --item-errors 'tax law=too_large'",
    "batchgen simulate --outage 60:999999:no_credit",
    "batchgen simulate --at-once 10 --refuse-with 429 --retry-after 0 --outage 60:120",
    "batchgen simulate --batch-seconds 60 --batch-faults lost_create=1,expire=0.2:2",
    "BATCHGEN_MODEL_BASE_URL=http://127.0.0.1:8000/v1 batchgen work",
))  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="0: any free one.")  # fmt: skip
@click.option("--latency", default="0.2", show_default=True,
              help="Seconds, or uniform:LOW:HIGH, or lognormal:MEDIAN:SIGMA.")  # fmt: skip
@click.option(
    "--errors", default="", metavar="MIX",
    help="Shares of KIND=P: a status such as 429 or 500, reset, hang, trickle, html, "
         "cut, bad_json, no_choices, empty, refusal, content_filter, length, prose (text that no "
         "parser wants), unasked_stream; of streams stream_error, no_done, keep_alive (for ever); "
         f"or what vendors say: {', '.join(VENDOR_REPLIES)}.",
)  # fmt: skip
@click.option("--item-errors", "item_errors", multiple=True, metavar="TEXT=KIND",
              help="Each call with TEXT in its prompt fails so; repeatable.")  # fmt: skip
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
              show_default=True,
              help="Seconds that a simulated 429 asks for; 0: it does not say.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1), metavar="N",
              help="So many calls at a time are taken, and the rest is refused.")  # fmt: skip
@click.option("--refuse-with", type=click.Choice(["503", "429", "529"]),
              help="With --at-once: by which status.  [default: 503]")  # fmt: skip
@click.option("--outage", metavar="START:END[:KIND]",
              help="All calls fail between these seconds after the first one; KIND as in --errors, "
                   "503 if there is none.")  # fmt: skip
@click.option("--batch-seconds", type=click.FloatRange(0), default=3.0, show_default=True,
              help="How long a batch takes.")  # fmt: skip
@click.option("--batch-faults", default="", metavar="FAULTS",
              help="What goes wrong with files and batches, the first N times only if there is N, "
                   f"as in VALUE:N: {', '.join(map(_written, BATCH_FAULTS))}.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--ledger", "ledger_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Append a JSON line for each call, and for each line of a batch.")  # fmt: skip
@click.pass_obj
def simulate(
    session: Session, port: int, latency: str, errors: str, item_errors: tuple[str, ...],
    rpm: float, burst: int | None,
    tpm: float, limit_headers: bool, retry_after_s: float, at_once: int | None,
    refuse_with: str | None, outage: str | None, batch_seconds: float,
    batch_faults: str, seed: int, ledger_path: Path | None,
) -> int:  # fmt: skip
    """Serve a simulated model on loopback, for rehearsing a run.

    OpenAI-compatible (chat completions, Responses, completions, embeddings; files and batches of
    them), with the latency, errors and rate limit of your choice. Answers depend on the request
    alone; one that is asked for as a stream comes in pieces, over its latency. GET /ledger tells
    how many calls came, and how many answers would be charged for.
    """
    if burst is not None and not rpm:
        raise UsageError("--burst: there is no rate limit for it. Add --rpm.")
    if refuse_with is not None and at_once is None:
        raise UsageError("--refuse-with: nothing is refused. Add --at-once.")
    simulator = Simulator(
        latency=latency, errors=errors, item_errors=item_errors,
        rpm=rpm or None, burst=burst, tpm=tpm or None,
        limit_headers=limit_headers, retry_after_s=retry_after_s or None,
        at_once=at_once, refuse_with=int(refuse_with or 503), outage=outage,
        batch_seconds=batch_seconds, batch_faults=batch_faults, seed=seed,
        ledger_path=ledger_path, keep_ledger=False, port=port,
    )  # fmt: skip

    async def job() -> int:
        stop = Stop()
        with stop_on_signal(stop, lambda: None):
            await serve(simulator, lambda url: print_text(f"serving on {url}"), stop.drain)
        session.say(counted(simulator.calls, "call"))
        return 0

    return run_async(job())
