"""One of the worker processes of `--processes`: `python -m batchgen.cli.worker_process`."""

import asyncio
from typing import NoReturn

from batchgen.cli.process import run_process, tune_for_work
from batchgen.jobs.worker_process import Parent, work_for_parent


def main() -> NoReturn:
    parent = Parent()
    tune_for_work()
    run_process(lambda: asyncio.run(work_for_parent(parent)))


if __name__ == "__main__":
    main()
