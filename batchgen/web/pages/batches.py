"""What is at providers: the provider batches, and in words of a page how far they are."""

from aiohttp import web

from batchgen.display.batches import expires_text
from batchgen.display.times import hours_text
from batchgen.jobs.batches import InBatch, Unfinished, list_batches
from batchgen.store import BatchState, ProviderBatch
from batchgen.web.language import Text
from batchgen.web.view import View


async def batches(view: View, request: web.Request) -> web.StreamResponse:
    """Those that are not closed, and the last ones that are; with `?all=yes` all of these."""
    t, is_all = view.frame.text(request), request.query.get("all") == "yes"
    found = await view.pages.read(lambda store: list_batches(store, all_closed=is_all))
    words = {one.batch.number: state_text(t, one.batch) for one in found.batches}
    unfinished = [one.batch for one in found.batches if one.batch.state is not BatchState.CLOSED]
    return view.frame.page(
        request, "batches.html", title=t("batches"), section="batches",
        command=("batches", "--all") if is_all else ("batches",), found=found, words=words,
        expires={one.number: expires_text(one, found.at_ms)
                 for one in unfinished if one.expires_at and one.state is BatchState.OPEN},
        to_send=view.commands.work_in_batches,
        is_left_alone=bool(unfinished) and found.sender is None,
        cancel=[view.frame.command("batches", "--cancel", one.number)
                for one in unfinished if one.state is BatchState.OPEN][:1],
    )  # fmt: skip


def state_text(t: Text, batch: ProviderBatch) -> str:
    """How far it is; of one that is closed, what closed it."""
    status = batch.status or ""
    match batch.state:
        case BatchState.CREATING:
            return t("batch_absent" if batch.absent else "batch_creating")
        case BatchState.OPEN:
            return status or t("batch_open")
        case BatchState.ENDED:
            return t("batch_ended", status=status)
        case BatchState.CLOSED:
            return t("batch_closed", why=t.said(batch.error or "") or status)


def where_text(t: Text, held: InBatch) -> str:
    """Where a row is that a batch holds."""
    batch, since = held.batch, hours_text(held.at_ms - held.batch.sealed_at)
    if batch.batch_id is None:
        return t("row_in_unknown", n=batch.number, state=state_text(t, batch), since=since)
    return t(
        "row_in_batch", n=batch.number, id=batch.batch_id,
        percent=100 * batch.answered // batch.requests, since=since,
    )  # fmt: skip


def unfinished_text(t: Text, found: Unfinished, at_ms: int) -> str:
    """How far those are that are not closed, in one line."""
    counted = [
        t(f"batches_{state.value}", n=n)
        for state in (BatchState.OPEN, BatchState.ENDED, BatchState.CREATING)
        if (n := found.states.get(state))
    ]
    if found.failed:
        counted.append(t("batches_failed", n=found.failed))
    return t(
        "batches_line", counted=t("comma").join(counted), answered=found.answered,
        requests=found.requests, oldest=hours_text(at_ms - found.since),
    )  # fmt: skip
