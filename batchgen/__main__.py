"""The process that is batchgen's own: `batchgen`, or `python -m batchgen`."""

import gc
from typing import NoReturn


def main() -> NoReturn:
    """The command; ends the process with the exit code of the contract."""
    gc.disable()  # until `run_process`: to look for cycles takes a twentieth of the imports' time
    from batchgen.cli import main

    main()


if __name__ == "__main__":
    main()
