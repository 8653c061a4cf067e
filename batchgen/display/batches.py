"""Provider batches as text: `batches`, and what it did about some."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.display.batch_words import state_text
from batchgen.display.commands import Commands
from batchgen.display.times import duration
from batchgen.display.visible import visible_line
from batchgen.jobs.batches import BatchList, ListedBatch
from batchgen.store import BatchState, ProviderBatch

if TYPE_CHECKING:  # to list them takes less
    from batchgen.jobs.batch_orders import Adopted, Cancelled, Loss

_HEADS = ("batch", "experiment", "model", "answered", "failed", "age", "expires in",
          "provider's id", "state")  # fmt: skip
_RIGHT = frozenset({"batch", "answered", "failed"})


def batches_text(found: BatchList, commands: Commands) -> str:
    """`batches`."""
    if not found.batches:
        return (
            f"There are no provider batches. {commands.work_in_batches} sends what is pending in "
            "some, at their price; what is answered within a day is collected by the same command."
        )
    rows = [_cells(one, found) for one in found.batches]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if head in _RIGHT else cell.ljust(width)
            for head, cell, width in zip(_HEADS, cells, widths, strict=True)
        ).rstrip()
        for cells in (_HEADS, *rows)
    ]
    return "\n".join([*lines, *_notes(found, commands)])


def _cells(listed: ListedBatch, found: BatchList) -> tuple[str, ...]:
    batch = listed.batch
    return (
        str(batch.number),
        visible_line(listed.experiment),
        visible_line(batch.model),
        f"{batch.answered:,}/{batch.requests:,}",
        f"{batch.failed:,}",
        duration((found.at_ms - batch.sealed_at) / 1000),
        expires_text(batch, found.at_ms),
        visible_line(batch.batch_id or "-"),
        state_text(batch, is_collecting=found.sender is not None),
    )


def _notes(found: BatchList, commands: Commands) -> list[str]:
    unfinished = [one.batch for one in found.batches if one.batch.state is not BatchState.CLOSED]
    notes = []
    if unfinished and found.sender is None:
        notes.append(
            f"No sender is at work: {commands.work_in_batches} goes on with those that are not "
            "closed."
        )
    if any(one.state is BatchState.CREATING and not one.absent for one in unfinished):
        notes.append(
            "Whether the provider has one is looked for by the sender. If it has no list to look "
            f"in: {commands.batches} --adopt NUMBER ITS-ID, or --create NUMBER."
        )
    if found.has_more:
        notes.append(f"Others are closed: {commands.batches} --all")
    return ["", *notes] if notes else []


def expires_text(batch: ProviderBatch, at_ms: int) -> str:
    """When its time at the provider is over; a dash where that is of no interest any more."""
    if batch.expires_at is None or batch.state is not BatchState.OPEN:
        return "-"
    left_s = (batch.expires_at - at_ms) / 1000
    return duration(left_s) if left_s >= 0 else f"{duration(-left_s)} ago"


def cancelled_text(result: "Cancelled", commands: Commands) -> str:
    """What `--cancel` and `--cancel-all` have come to."""
    lines = [f"{_called(one)}: the provider was asked to cancel it; {_so_far(one)}"
             for one in result.asked]  # fmt: skip
    if not result.asked and not result.failed:
        lines.append("No batch is open: there is nothing to cancel.")
    lines += [
        f"{_called(one)}: was sent to {visible_line(one.base_url)}, which is no server of this "
        "config: not cancelled."
        for one in result.elsewhere
    ]
    if result.unknown:
        lines.append(
            f"{_numbers(result.unknown)}: not known yet whether the provider has it: not "
            f"cancelled. {commands.work_in_batches} finds out."
        )
    if result.asked and result.sender is not None:
        lines.append(
            f"Worker {result.sender} collects what is done. The rest is pending again then, and it "
            "sends that in new batches, unless it is stopped."
        )
    elif result.asked:
        lines.append(
            f"What is done is collected by {commands.work_in_batches} --no-wait, and is paid for; "
            "the rest is pending again then."
        )
    return "\n".join(lines)


def loss_text(losses: Sequence["Loss"], commands: Commands) -> str:
    """What it means, in rows and money, to give these up."""
    lines = []
    for loss in losses:
        rows = "1 row" if loss.rows == 1 else f"{loss.rows:,} rows"
        if loss.batch.absent:
            lines.append(
                f"{_called(loss.batch)}, {state_text(loss.batch, is_collecting=False)}: {rows} "
                "would be pending again, untouched."
            )
            continue
        cost = "" if loss.cost_usd is None else f", for about ${loss.cost_usd:,.4f} once more"
        lines.append(
            f"{_called(loss.batch)}, {state_text(loss.batch, is_collecting=False)}: {rows} would "
            "be pending again, each counted as sent, answer unknown. What the provider has "
            f"answered, or answers yet, it charges for; it is lost, and asked again{cost}."
        )
    kept = [one.batch for one in losses if one.batch.state is not BatchState.CREATING]
    if any(one.state is BatchState.ENDED for one in kept):
        lines.append(f"What has ended may still be collected: {commands.work_in_batches}")
    elif kept:
        lines.append(
            f"To keep what is answered: {commands.batches} --cancel {kept[0].number}, then "
            f"{commands.work_in_batches} --no-wait"
        )
    return "\n".join(lines)


def abandoned_text(batch: ProviderBatch, rows: int) -> str:
    went = "1 row is" if rows == 1 else f"{rows:,} rows are"
    as_what = "untouched" if batch.absent else "counted as sent, answer unknown"
    return f"{_called(batch)} is given up: {went} pending again, {as_what}."


def adopted_text(adopted: "Adopted", commands: Commands) -> str:
    batch = adopted.batch
    unproven = "" if adopted.is_proven else " The provider does not tell of which file it was made."
    return (
        f"batch {batch.number} is {visible_line(batch.batch_id or '')} ({_so_far(batch)}); "
        f"{commands.work_in_batches} goes on with it.{unproven}"
    )


def to_create_text(batch: ProviderBatch, commands: Commands) -> str:
    return (
        f"batch {batch.number}: {commands.work_in_batches} makes it, of the file that the provider "
        f"has ({visible_line(batch.input_file)}), without looking for it again."
    )


def _called(batch: ProviderBatch) -> str:
    name = f"batch {batch.number}"
    return f"{name} ({visible_line(batch.batch_id)})" if batch.batch_id else name


def _so_far(batch: ProviderBatch) -> str:
    status = f"{visible_line(batch.status)}, " if batch.status else ""
    return f"{status}{batch.answered:,} of {batch.requests:,} answered so far"


def _numbers(batches: Sequence[ProviderBatch]) -> str:
    numbers = ", ".join(str(one.number) for one in batches)
    return f"batch {numbers}" if len(batches) == 1 else f"batches {numbers}"
