"""The groups of the command line, and how their help texts look."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import click


class OrderedGroup(click.Group):
    """Lists its commands in the order in which they were added, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


class LazyGroup(OrderedGroup):
    """Knows the name and the short help of each command, and loads a command when it is called.

    The command `name` is in the module `package.name`. So the group's own help is there at once,
    whatever the commands import.
    """

    def __init__(self, *, package: str, short_helps: Mapping[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._short_helps = short_helps
        self.commands = _Commands(package, short_helps)  # type: ignore[assignment]  # only read

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(self._short_helps.items()))


class _Commands(Mapping[str, click.Command]):
    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        self._package = package
        self._names = names

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        found = vars(import_module(f"{self._package}.{name}")).values()
        return next(one for one in found if isinstance(one, click.Command) and one.name == name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def epilog(*examples: str) -> str:
    """Examples as the last lines of a help text."""
    return "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)
