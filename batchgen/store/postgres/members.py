"""Which workers live: each has a lease, by the server's clock, and renews it while it lives."""

from batchgen.clock import now_ms
from batchgen.store.postgres.processes import has_ended, this_machine
from batchgen.store.records import WorkerRow


class Members:
    """Those of any database."""

    def machine(self) -> tuple[str, str]:
        """(host name, where its pids count)."""
        return this_machine()

    def is_dead(self, row: WorkerRow, *, leases_count: bool = True) -> bool:
        """Any worker whose lease ran out, and one of this machine whose process has ended."""
        has_run_out = leases_count and row.lease_until < now_ms()
        return has_run_out or has_ended(row.boot_id, row.pid)

    def lock_of(self, worker_id: int) -> "NoLock":  # noqa: ARG002  as of every engine
        return NoLock()


class NoLock:
    """A lease needs none."""

    def acquire(self) -> bool:
        return True

    def holder(self) -> str:
        return ""

    def release(self, *, keep_file: bool = False) -> None: ...

    def remove(self) -> None: ...
