"""The process that is batchgen's own: `batchgen`, or `python -m batchgen`."""

import gc
import sys

TYPE_CHECKING = False  # so a type checker knows it

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """The command; ends the process with the exit code of the contract."""
    gc.disable()  # until `run_process`, as nearly all that is imported stays
    try:
        from batchgen.cli import main
    except KeyboardInterrupt:  # a Ctrl-C at once: there is nothing to finish
        sys.exit(130)

    main()


if __name__ == "__main__":
    main()
