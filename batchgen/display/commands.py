"""What the reader can type about what is shown: in the words of the command line, which hands them
in, since a display names no command."""

from msgspec import Struct


class Commands(Struct, frozen=True):
    """Each as it is typed; `show` goes before an item's id."""

    enqueue: str
    work: str
    reparse: str
    failures: str
    show: str
    resume: str
    retry_stale: str
    batches: str
    work_in_batches: str
