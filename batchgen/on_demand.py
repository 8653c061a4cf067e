"""Names of a package that are imported when they are first used.

The door of a package names all that is behind it; a command that needs one of its rooms should not
pay for the others. `python -X importtime -m batchgen status` shows what is paid for.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def names_on_demand(package: str, names: Sequence[str], *modules: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package: each of its `names` is in one of its `modules`, which are
    looked into in this order, so the cheap ones stand first."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for module in modules:
            found = vars(import_module(f"{package}.{module}"))
            if name in found:
                setattr(sys.modules[package], name, found[name])
                return found[name]
        raise AttributeError(f"{package}: {name!r} is in none of {', '.join(modules)}")

    return find
