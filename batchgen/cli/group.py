"""The groups of the command line, the options that all commands take, and how help texts look."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # what --help can do without is imported where it is used
    from click.shell_completion import CompletionItem

_GIVEN = f"{__name__}.given"


class _PathType(click.Path):
    """As `click.Path(path_type=Path)`, but --help does without the module of Path."""

    def coerce_path_result(self, value: Any) -> Any:
        from pathlib import Path

        return Path(value)


_PATH = _PathType()


class GlobalOption(click.Option):
    """An option of batchgen itself. It is taken before the command and after it, and the last one
    counts; what was given is a field of its name in the context's object, the `Session`."""

    def __init__(self, *names: str, **settings: Any) -> None:
        super().__init__(names, expose_value=False, callback=_take_global_option, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """After a command they are one line."""
        if ctx.parent is None:
            return super().get_help_record(ctx)
        if self is not GLOBAL_OPTIONS[0]:
            return None
        names = ", ".join(option.opts[0] for option in GLOBAL_OPTIONS)
        return names, "As before the command; see batchgen --help."


def _take_global_option(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value is None or value is False:  # not given here
        return
    global_options(ctx)[option.name or ""] = value
    if ctx.obj is not None:
        from msgspec.structs import replace  # here: --help does without

        ctx.obj = replace(ctx.obj, **{option.name or "": value})


def global_options(ctx: click.Context) -> dict[str, Any]:
    """Those that were given so far, by the names of their fields in a `Session`."""
    given: dict[str, Any] = ctx.meta.setdefault(_GIVEN, {})
    return given


GLOBAL_OPTIONS = (
    GlobalOption(
        "--config", "config_path", type=_PATH, metavar="FILE",
        help="Settings; default: config.yaml in the current directory.",
    ),
    GlobalOption(
        "--db", "database", type=click.Path(), metavar="PATH|URL",
        help="The work database, or postgresql://USER@HOST/NAME; default: batchgen.db beside the "
        "config.",
    ),
    GlobalOption("-v", "--verbose", is_flag=True, help="Tell of every failed attempt."),
    GlobalOption("-q", "--quiet", is_flag=True, help="No progress, only results and problems."),
)  # fmt: skip


def with_global_options(command: click.Command) -> click.Command:
    """The command, and those of its group, so that they take them."""
    if GLOBAL_OPTIONS[0] not in command.params:
        command.params += GLOBAL_OPTIONS
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                with_global_options(inner)
    return command


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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """The names of commands, or the options, that begin so."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text)
            for name, text in self._short_helps.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


class _Commands(Mapping[str, click.Command]):
    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        self._package = package
        self._names = names

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        found = vars(import_module(f"{self._package}.{name}")).values()
        commands = (one for one in found if isinstance(one, click.Command))
        return with_global_options(next(one for one in commands if one.name == name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def epilog(*examples: str) -> str:
    """Examples as the last lines of a help text."""
    return "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)
