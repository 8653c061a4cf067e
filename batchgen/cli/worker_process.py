"""One of the worker processes of `--processes`: `python -m batchgen.cli.worker_process`."""

import asyncio
import sys
from typing import NoReturn

from batchgen.cli.process import run_process, tune_for_work
from batchgen.jobs.worker_process import Parent, work_for_parent

# -P: a file of the user's beside the config is no module of ours.
COMMAND = (sys.executable, "-P", "-m", __name__)


def main() -> NoReturn:
    parent = Parent()
    run_process(lambda: asyncio.run(work_for_parent(parent, begun=tune_for_work)))


if __name__ == "__main__":
    main()
