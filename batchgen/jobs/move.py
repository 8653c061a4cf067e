"""The whole work table brought from one database into another one."""

from batchgen.database_address import DatabaseAddress
from batchgen.errors import Remedy, UsageError
from batchgen.store import Moved, WorkerRow, move_tables, open_store

__all__ = ["Moved", "make_ready", "move_tables"]


async def make_ready(address: DatabaseAddress) -> None:
    """Bring a database into the state in which it can be moved: what dead workers had goes back.
    Raises UsageError where a worker lives."""
    async with open_store(address) as store:
        await store.take_over_from_dead()
        refuse_the_living(str(address), await store.workers())


def refuse_the_living(name: str, workers: list[WorkerRow]) -> None:
    living = [f"{one.id} (pid {one.pid} on {one.host})" for one in workers if one.alive]
    if living:
        word = "worker" if len(living) == 1 else "workers"
        raise UsageError(
            f"{name}: is at work: {word} {', '.join(living[:5])}"
            f"{' and others' if len(living) > 5 else ''}.", Remedy.STOP_WORKERS,
        )  # fmt: skip
