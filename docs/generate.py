"""Write what docs/ has from the code: config.md, the table of settings; commands.md, the commands'
own help; the table of formats in exports.md, and that of faults in simulate.md.

    python docs/generate.py            write them
    python docs/generate.py --check    only name those that are out of date; exit 1 if there are any

`python3 dev.py docs` runs it with the project's own Python.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from batchgen.cli import cli
from batchgen.config import Leaf, leaf_table, step_keys
from batchgen.export import FORMATS
from batchgen.parameters import OF_OTHER_ENDPOINTS, PARAMETER_NAMES
from batchgen.simulate import BATCH_FAULTS

DOCS = Path(__file__).parent
WIDTH = 96

CONFIG = """\
# Config

<!-- Made from batchgen/config by `python3 dev.py docs`; change it there. -->

`config.yaml` in the current directory, or `--config FILE`. Order: defaults < file < environment <
flags. Every key has an environment variable: `work.concurrency` is `BATCHGEN_WORK_CONCURRENCY`. An
unknown key is an error that names the nearest one. Paths in the file start from its directory.
`batchgen init` writes a commented file to start from.
"""

PARAMETERS = """\
The parameters of a chat completion go under `model` too, those of vLLM, SGLang and other servers
among them, and are passed on as they are; null: not sent. What else only your server knows goes
under `model.extra_body`. An item's `params` may have all of them. The other
[endpoints](endpoints.md#parameters) get them by the names that they have there.
"""

STEPS = """\
Several calls for each item, each of which sees the item's variables and the value of every step
before it. What each entry of the list may have; only its `name`, and `user` or `function`, must be
there:
"""

COMMANDS = """\
# Commands

<!-- Made from batchgen/cli by `python3 dev.py docs`; change it there. -->

What `--help` prints, or `-h`. The options of `batchgen` itself (`--config`, `--db`, `-v`, `-q`)
are taken before the command and after it.

## Completion

For the commands, their options, the experiments of the database and file names; a line for your
shell's startup file:

    eval "$(_BATCHGEN_COMPLETE=bash_source batchgen)"    # ~/.bashrc; bash 4.4 or newer
    eval "$(_BATCHGEN_COMPLETE=zsh_source batchgen)"     # ~/.zshrc
    _BATCHGEN_COMPLETE=fish_source batchgen | source     # ~/.config/fish/completions/batchgen.fish
"""

FORMATS_BEGIN = (
    "<!-- Made from batchgen/export/formats.py by `python3 dev.py docs`; change it there. -->\n"
)
FAULTS_BEGIN = "<!-- Made from batchgen/simulate/batch_faults.py by `python3 dev.py docs`. -->\n"


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    outdated = {name: text for name, text in made_pages().items() if text != written(name)}
    for name, text in outdated.items():
        if check:
            print(f"docs/{name} is out of date; run: python3 dev.py docs", file=sys.stderr)
        else:
            (DOCS / name).write_text(text, encoding="utf-8")
            print(f"written  docs/{name}")
    return 1 if outdated and check else 0


def written(name: str) -> str:
    page = DOCS / name
    return page.read_text(encoding="utf-8") if page.exists() else ""


def made_pages() -> dict[str, str]:
    return {
        "config.md": "\n".join([CONFIG, *config_sections()]),
        "commands.md": "\n".join([COMMANDS, *command_sections("batchgen", cli, None)]),
        "exports.md": with_table(written("exports.md"), FORMATS_BEGIN, format_table()),
        "simulate.md": with_table(written("simulate.md"), FAULTS_BEGIN, fault_table()),
    }


def with_table(page: str, begin: str, table: str) -> str:
    """The page, with `table` in place of the one that stands after the line `begin`."""
    before, _, after = page.partition(begin)
    _, _, rest = after.removeprefix("\n").partition("\n\n")
    return f"{before}{begin}\n{table}\n{rest}"


def format_table() -> str:
    rows = ["| format | a row |", "|---|---|"]
    rows += [f"| `{spec.name}` | {spec.row} |" for spec in FORMATS.values()]
    return "\n".join(rows) + "\n"


def fault_table() -> str:
    rows = ["| fault | value | what happens |", "|---|---|---|"]
    rows += [f"| `{name}` | {one.value} | {one.says} |" for name, one in BATCH_FAULTS.items()]
    return "\n".join(rows) + "\n"


def config_sections() -> Iterator[str]:
    leaves = leaf_table()
    for section in dict.fromkeys(map(section_of, leaves)):
        settings = [leaf for leaf in leaves if section_of(leaf) == section]
        parameters = [leaf for leaf in settings if is_parameter(leaf)]
        yield f"## {section}\n"
        yield setting_table(leaf for leaf in settings if leaf not in parameters)
        if parameters:
            yield PARAMETERS
            yield parameter_table(parameters)
    yield "## steps\n"
    yield STEPS
    yield step_table()


def step_table() -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in step_keys():
        default = f"`{key.default}`" if key.default else ""
        rows.append(f"| `{key.name}` | {key.phrase} | {default} | {key.help} |")
    return "\n".join(rows) + "\n"


def section_of(leaf: Leaf) -> str:
    return leaf.path[0] if len(leaf.path) > 1 else "Outside the sections"


def is_parameter(leaf: Leaf) -> bool:
    return leaf.path[0] == "model" and leaf.path[-1] in PARAMETER_NAMES | OF_OTHER_ENDPOINTS


def setting_table(leaves: Iterable[Leaf]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{leaf.name}` | {leaf.kind.phrase} | {shown_default(leaf)} | {leaf.help} |"
        for leaf in leaves
    ]
    return "\n".join(rows) + "\n"


def shown_default(leaf: Leaf) -> str:
    if leaf.default is None:
        return ""
    shown = f"{leaf.default:g}" if isinstance(leaf.default, float) else str(leaf.default)
    shown = shown.lower() if isinstance(leaf.default, bool) else shown
    return f"`{shown}`" + (", if it exists" if leaf.if_exists else "")


def parameter_table(leaves: Iterable[Leaf]) -> str:
    rows = ["| parameter | value |", "|---|---|"]
    rows += [f"| `{leaf.path[-1]}` | {leaf.kind.phrase} |" for leaf in leaves]
    return "\n".join(rows) + "\n"


def command_sections(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[str]:
    settings = command.context_settings if parent is None else {}
    context = click.Context(command, parent, info_name=name, terminal_width=WIDTH, **settings)
    path = context.command_path
    yield f"{'#' * (1 + len(path.split()))} {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from command_sections(inner, found, context)


if __name__ == "__main__":
    sys.exit(main())
