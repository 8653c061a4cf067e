"""What users get wrong: one line that says what, where and what to do, exit 2, nothing
half-written.

Here are a few of each kind, on their whole way to the terminal; what every single message says is
tested where it is made: tests/unit/test_pool.py, test_config.py, test_parsers.py, test_schema.py.
Most of it runs in this process, for speed; a part of the same cases through the real command.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchgen.store.sqlite.migrate import migrations
from tests.kits.database import ask, change, database_in
from tests.kits.processes import start
from tests.kits.project import ended
from tests.kits.typist import Ended, Typist

CONFIG = 'model: {base_url: "http://127.0.0.1:9/v1", api_key: k, model: m}\n'
TEMPLATE = "prompts/user_prompts/default.txt"
GOOD = '{"word": "good"}\n'
JINJA = CONFIG + "prompts: {user_prompt_path: t.j2}\n"


@dataclass(frozen=True)
class Case:
    """`files` are beside a config, a template "Say {word}" and a good pool.jsonl. `<dir>` in `line`
    is the project's directory."""

    id: str
    line: str
    command: str = "enqueue pool.jsonl"
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    kept: int = 0


def pool(id: str, text: str | bytes, line: str, *, name: str = "pool.jsonl", kept: int = 0) -> Case:  # noqa: A002
    return Case(id, line, f"enqueue {name}", {name: text}, kept=kept)


def settings(id: str, text: str, line: str, **files: str) -> Case:  # noqa: A002
    return Case(id, line, files={"config.yaml": text, **files})


def function(id: str, text: str, line: str, *, kept: int = 0) -> Case:  # noqa: A002
    return Case(id, line, "enqueue made.py:items", {"made.py": text}, kept=kept)


# Refused before anything is read of the pool: not a file is made or changed.
REFUSED = [
    # the data pool as a whole
    Case("missing-pool", "nothere.jsonl: no such data pool", "enqueue nothere.jsonl"),
    Case("missing-pool-run", "nothere.jsonl: no such data pool", "run nothere.jsonl"),
    Case("missing-pool-dry", "nothere.jsonl: no such data pool", "enqueue nothere.jsonl --dry-run"),
    # a function as data pool
    function("function-is-none", "items = [1]", "made.py: items is a list, not a function"),
    function(
        "function-syntax",
        "def items(:\n",
        "cannot import made.py: SyntaxError: invalid syntax (<dir>/made.py:1)",
    ),
    function(
        "function-import",
        "\nimport no_such_thing\n",
        "cannot import made.py: ModuleNotFoundError: No module named 'no_such_thing'"
        " (<dir>/made.py:2)",
    ),
    # templates
    settings(
        "template-missing",
        CONFIG + "prompts: {user_prompt_path: nope.txt}\n",
        "prompts.user_prompt_path: no such file: <dir>/nope.txt",
    ),
    settings(
        "template-directory",
        CONFIG + "prompts: {user_prompt_path: prompts}\n",
        "prompts.user_prompt_path: is a directory: <dir>/prompts",
    ),
    Case(
        "template-not-utf8",
        f"template <dir>/{TEMPLATE}: not UTF-8: byte 0xe9 at column 4; in WINDOWS-1252 it would be "
        '"café": save the file as UTF-8 (in Excel: CSV UTF-8), or run iconv -f WINDOWS-1252 -t '
        "UTF-8",
        files={TEMPLATE: b"caf\xe9"},
    ),
    # the config
    settings(
        "config-unknown-key",
        "modell: {}\n",
        "config.yaml: modell: unknown key; did you mean model.model?",
    ),
    settings(
        "config-typo",
        "work: {max_atempts: 2}\n",
        "config.yaml: work.max_atempts: unknown key; did you mean work.max_attempts?",
    ),
    Case(
        "flag-experiment",
        "--experiment: must not contain / or \\ or control characters",
        "enqueue pool.jsonl --experiment a/b",
    ),
    Case(
        "config-missing", "other.yaml: no such file: <dir>/other.yaml", "--config other.yaml run x"
    ),
    Case(
        "environment-value",
        "BATCHGEN_WORK_CONCURRENCY: must be an integer from 1 to 10000, not the text 'lots'",
        env={"BATCHGEN_WORK_CONCURRENCY": "lots"},
    ),
    # parsers
    settings(
        "parser-module",
        "parser: 'no_such_module:parse'\n",
        "parser 'no_such_module:parse': no module named 'no_such_module',"
        " neither installed nor in <dir>",
    ),
    settings(
        "parser-schema-wrong",
        CONFIG + "parser: json_schema:page.json\n",
        "parser 'json_schema:<dir>/page.json': not a valid JSON Schema:"
        " properties.a: 5 is not of type 'object', 'boolean'",
        **{"page.json": '{"properties": {"a": 5}}'},
    ),
    settings(
        "structured-output-of-no-schema",
        CONFIG + "parser: json\nstructured_output: true\n",
        "structured_output: parser 'json' has no schema; it takes json_schema:FILE or a pydantic"
        " model",
    ),
    # the command line
    Case(
        "no-source",
        "missing argument 'SOURCE'. See: batchgen enqueue --help",
        "enqueue",
    ),
    Case(
        "command-unknown",
        "no such command 'enque'. Did you mean 'enqueue'? See: batchgen --help",
        "enque pool.jsonl",
    ),
    Case(
        "option-unknown",
        "no such option '--skip-invalide'. Did you mean '--skip-invalid'? See: batchgen run --help",
        "run pool.jsonl --skip-invalide x",
    ),
    Case(
        "option-range",
        "invalid value for '-c' / '--concurrency': 0 is not in the range 1<=x<=10000."
        " See: batchgen work --help",
        "work -c 0",
    ),
    Case(
        "option-negative",
        "invalid value for '--limit': -1 is not in the range x>=0. See: batchgen enqueue --help",
        "enqueue pool.jsonl --limit -1",
    ),
    Case(
        "option-choice",
        "invalid value for '--recipe': 'mix' is not one of 'replace', 'again', 'add'."
        " See: batchgen enqueue --help",
        "enqueue pool.jsonl --recipe mix",
    ),
    Case("option-empty", "option '--db' requires an argument. See: batchgen --help", "--db"),
    Case(
        "simulate-latency",
        "latency 'fast' is not understood; write seconds (0.2), uniform:LOW:HIGH (uniform:0.1:0.5)"
        " or lognormal:MEDIAN:SIGMA (lognormal:1.0:0.5), none of them negative",
        "simulate --latency fast",
    ),
    # the database
    *(
        Case(
            f"no-database-{command.split()[0]}",
            "<dir>/batchgen.db: no such database. Enqueue a data pool first (batchgen enqueue), or"
            " name the database with --db.",
            command,
        )
        for command in ["work", "status", "export", "retry", "show 1", "verify", "failures"]
    ),
    Case(
        "database-directory",
        "<dir>/prompts: is a directory, not a database. Name another database with --db.",
        "--db prompts enqueue pool.jsonl",
    ),
    Case(
        "database-nowhere",
        "<dir>/no/x.db: there is no directory <dir>/no.",
        "--db no/x.db enqueue pool.jsonl",
    ),
]

# Refused at a line of the pool: what came before it is kept.
BAD_LINES = [
    pool(
        "json",
        GOOD + '{"word": b}\n',
        "pool.jsonl:2: not JSON: Expecting value at column 10",
        kept=1,
    ),
    pool(
        "csv-ragged",
        "word,tone\na,b\nc\n",
        "pool.csv:3: the row has 1 cells, the header 2",
        name="pool.csv",
        kept=1,
    ),
    pool(
        "list-cut-behind-item",
        '[{"word": "a"},\n{"word": "b"}',
        "pool.json:2: not JSON: the list's end, ], is missing",
        name="pool.json",
        kept=2,
    ),
    Case(
        "stdin",
        "stdin:2: not JSON: Expecting value at column 1",
        "enqueue -",
        stdin=GOOD + "nope\n",
        kept=1,
    ),
    function(
        "function-raises",
        "def items():\n    yield {'word': 'a'}\n    raise ValueError('no more')\n",
        "made.py:items[1]: the function raised ValueError: no more (<dir>/made.py:3)",
        kept=1,
    ),
    # variables
    Case(
        "variable",
        f"pool.jsonl:1: template <dir>/{TEMPLATE} needs {{wrod}}, which the item does not have"
        " (it has: word); did you mean {word}?",
        files={TEMPLATE: "Say {wrod}"},
    ),
    Case(
        "variable-jinja",
        "pool.jsonl:1: template <dir>/t.j2 needs {tone}, which the item does not have"
        " (it has: word)",
        files={"config.yaml": JINJA, "t.j2": "Say {{ word }} in a {{ tone }} tone"},
    ),
    Case(
        "jinja-syntax",
        "template <dir>/t.j2:2: Expected an expression, got 'end of statement block'",
        files={"config.yaml": JINJA, "t.j2": "Say\n{% if %}"},
    ),
    settings(
        "no-user-template",
        CONFIG + "prompts: {user_prompt_path: null}\n",
        "pool.jsonl:1: the item has variables, but there is no user template;"
        " set prompts.user_prompt, or prompts.user_prompt_path. Or give it here: --prompt"
        " 'Translate into French: {text}'",
    ),
    settings(
        "no-user-template-of-a-step",
        CONFIG + "steps: [{name: draft, system: {text: You write.}}]\n",
        "pool.jsonl:1: the item has variables, but the first step has no user template; set"
        " steps[0].user to a file, or to {text: ...}.",
    ),
    # the shapes of an item
    pool(
        "id-twice",
        '{"id": "a", "word": "x"}\n{"id": "b", "word": "y"}\n{"id": "a", "word": "z"}\n',
        "pool.jsonl:3: id 'a' belongs to item 1 already, which has other content; give this one"
        " another id. See: batchgen show 1",
        kept=2,
    ),
    pool(
        "params",
        '{"params": [1], "word": "x"}\n',
        "pool.jsonl:1: params must be an object, not a list",
    ),
]

# Refused on a database with one experiment, "default", whose only item is done.
ON_A_DATABASE = [
    Case(
        "experiment-unknown-work",
        "<dir>/batchgen.db: no experiment 'labels'; default has 1 open. Choose with --experiment,"
        " or take --all.",
        "work --experiment labels",
    ),
    Case(
        "experiment-unknown-export",
        "<dir>/batchgen.db: no experiment 'labels'; there is: default. Choose with --experiment.",
        "export --experiment labels",
    ),
    Case(
        "show-unknown",
        "no item has the id or number 'seven'. An item's id is what its pool has as `id`.",
        "show seven",
    ),
    Case("retry-unknown", "no item has the id or number '7'.", "retry --id 7"),
    Case("retry-done", "item 1 has not ended yet, so there is nothing to retry.", "retry --id 1"),
    Case(
        "rename-slash",
        "output_data.experiment_name: must not contain / or \\ or control characters",
        "experiments rename default a/b",
    ),
    Case(
        "other-recipe",
        "experiment 'default' was enqueued with another recipe: the user template changed;"
        " model 'm' -> 'n'; seed null -> 1. Nothing was enqueued."
        " Say which, or choose another --experiment:\n"
        "  --recipe replace   rows not done are asked with the new one, done ones stay: 1 call\n"
        "  --recipe again     all are asked again; old answers stay stored, the export takes the "
        "new ones: 1 call\n"
        "  --recipe add       each once more, beside the old: 1 call, 2 rows",
        files={
            TEMPLATE: "Shout {word}",
            "config.yaml": CONFIG.replace("model: m", "model: n, seed: 1"),
        },
    ),
    Case(
        "no-key",
        "model.api_key: no key. Set the environment variable OPENAI_API_KEY, or point"
        " model.base_url at a server that needs none.",
        "work",
        {"config.yaml": "model: {model: m}\n"},
    ),
]

THROUGH_THE_COMMAND = {
    "missing-pool", "template-missing", "config-typo", "environment-value", "parser-module",
    "command-unknown", "option-range", "no-database-work", "json", "csv-ragged", "stdin",
    "function-raises", "variable-jinja",
}  # fmt: skip

Run = Callable[..., Ended]


@pytest.fixture
def directory(tmp_path: Path, server: object) -> Path:
    """A project whose server does not exist: nothing here gets as far as a call."""
    write(tmp_path, {"config.yaml": CONFIG, TEMPLATE: "Say {word}\n", "pool.jsonl": GOOD})
    return tmp_path


@pytest.fixture
def run(directory: Path) -> Run:
    """Type a command, in this process."""

    def typed(command: str, stdin: str = "", env: Mapping[str, str] = {}) -> Ended:
        return Typist(directory, env).type(*arguments(command), stdin=stdin.encode())

    return typed


def arguments(command: str) -> list[str]:
    return ["" if argument == "''" else argument for argument in command.split()]


def write(directory: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def tree(directory: Path) -> dict[str, bytes]:
    """Every file, but for what Python makes of modules."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def query(directory: Path, sql: str) -> list[tuple[object, ...]]:
    return ask(database_in(directory), sql)


def expected(case: Case, directory: Path) -> Ended:
    items = "1 item" if case.kept == 1 else f"{case.kept} items"
    kept = f"default: enqueued and kept {items} before that.\n"
    database = str(database_in(directory))
    said = case.line.replace("<dir>/batchgen.db", database).replace("<dir>", str(directory))
    line = f"error: {said}\n"
    return Ended(2, "", (kept if case.kept else "") + line)


def ids(case: Case) -> str:
    return case.id


def on_engines(cases: list[Case]) -> list[Any]:
    there = pytest.mark.only_sqlite("the tests' databases on a server have their tables already")
    return [
        pytest.param(case, marks=there if case.id.startswith("no-database") else ())
        for case in cases
    ]


@pytest.mark.parametrize("case", on_engines(REFUSED), ids=ids)
def test_what_is_refused_is_said_in_one_line_and_writes_nothing(
    directory: Path, run: Run, case: Case
) -> None:
    write(directory, case.files)
    before = tree(directory)
    assert run(case.command, case.stdin, case.env) == expected(case, directory)
    assert tree(directory) == before


@pytest.mark.parametrize("case", BAD_LINES, ids=ids)
def test_a_bad_line_is_named_and_the_good_ones_before_it_are_kept(
    directory: Path, run: Run, case: Case
) -> None:
    write(directory, case.files)
    before = tree(directory)
    assert run(case.command, case.stdin, case.env) == expected(case, directory)
    if case.kept:
        assert query(directory, "select count(*) from work") == [(case.kept,)]
    else:  # a pool that is wrong from its start leaves nothing behind
        assert tree(directory) == before


@pytest.mark.parametrize("case", ON_A_DATABASE, ids=ids)
def test_on_a_database_it_is_one_line_too(directory: Path, run: Run, case: Case) -> None:
    assert run("enqueue pool.jsonl").code == 0
    before = query(directory, "select * from work, experiments, variants")
    write(directory, case.files)
    assert run(case.command, case.stdin, case.env) == expected(case, directory)
    assert query(directory, "select * from work, experiments, variants") == before
    assert not (directory / "output").exists()


@pytest.mark.quick("stdin", "json", "command-unknown")
@pytest.mark.parametrize(
    "case",
    on_engines([case for case in REFUSED + BAD_LINES if case.id in THROUGH_THE_COMMAND]),
    ids=ids,
)
async def test_the_real_command_says_the_same(directory: Path, case: Case) -> None:
    write(directory, case.files)
    process = await start(arguments(case.command), directory, case.env, stdin=True)
    assert await ended(process, case.stdin.encode()) == expected(case, directory)


def test_each_case_for_the_real_command_is_one_of_them() -> None:
    assert {case.id for case in REFUSED + BAD_LINES} >= THROUGH_THE_COMMAND


@pytest.mark.parametrize(
    ("name", "broken", "mended"),
    [
        ("pool.jsonl", GOOD + GOOD + "{\n" + GOOD, GOOD + GOOD + '{"word": "b"}\n' + GOOD),
        ("pool.json", f"[{GOOD}, {GOOD}, 7, {GOOD}]", f'[{GOOD}, {GOOD}, {{"word": "b"}}, {GOOD}]'),
        ("pool.csv", "word\ngood\ngood\nb,b\ngood\n", "word\ngood\ngood\nb\ngood\n"),
    ],
)
def test_of_the_mended_pool_only_the_new_is_added(
    directory: Path, run: Run, name: str, broken: str, mended: str
) -> None:
    write(directory, {name: broken})
    assert run(f"enqueue {name}").err.startswith("default: enqueued and kept 2 items")
    write(directory, {name: mended})
    assert run(f"enqueue {name}") == Ended(0, "", "default: 4 items read, 2 new\n")
    found = query(directory, "select input from items order by id")
    assert [json.loads(str(text))["word"] for (text,) in found] == ["good", "good", "b", "good"]


def test_a_template_mended_after_the_first_line_failed_is_no_other_recipe(
    directory: Path, run: Run
) -> None:
    write(directory, {TEMPLATE: "Say {wrod}"})
    assert run("enqueue pool.jsonl").code == 2
    write(directory, {TEMPLATE: "Say {word}"})
    assert run("enqueue pool.jsonl") == Ended(0, "", "default: 1 item read, 1 new\n")


def test_replacing_by_a_pool_that_is_wrong_from_its_start_drops_nothing(
    directory: Path, run: Run
) -> None:
    assert run("enqueue pool.jsonl").code == 0
    write(directory, {TEMPLATE: "Shout {wrod}"})
    assert run("enqueue pool.jsonl --recipe replace").code == 2
    assert query(directory, "select state from work") == [("pending",)]


def test_an_id_of_an_earlier_pool_with_other_content_names_both(directory: Path, run: Run) -> None:
    write(directory, {"pool.jsonl": '{"id": "a", "word": "x"}\n'})
    assert run("enqueue pool.jsonl").code == 0
    write(directory, {"other.jsonl": '{"id": "a", "word": "y"}\n'})
    assert run("enqueue other.jsonl") == Ended(
        2, "",
        "error: other.jsonl:1: id 'a' belongs to item 1 already, which has other content"
        "; give this one another id. See: batchgen show 1\n",
    )  # fmt: skip


def test_a_run_without_a_key_keeps_what_it_enqueued(directory: Path, run: Run) -> None:
    write(directory, {"config.yaml": "model: {model: m}\n"})
    assert run("run pool.jsonl") == Ended(
        2, "",
        "default: 1 item read, 1 new\n"
        "error: model.api_key: no key. Set the environment variable OPENAI_API_KEY, or point"
        " model.base_url at a server that needs none.\n",
    )  # fmt: skip
    assert not (directory / "output").exists()
    assert not (directory / "logs").exists()


@pytest.mark.parametrize("written", ["$MY_KEY", "${MY_KEY}"])
def test_a_missing_key_is_called_by_the_name_that_the_config_has_for_it(
    directory: Path, run: Run, written: str
) -> None:
    write(directory, {"config.yaml": f'model: {{model: m, api_key: "{written}"}}\n'})
    run("enqueue pool.jsonl")
    refused = run("work")
    assert refused.err.startswith(
        "error: model.api_key: no key. Set the environment variable MY_KEY,"
    )
    assert (refused.code, (directory / "logs").exists()) == (2, False)


@pytest.mark.parametrize("command", ["enqueue pool.jsonl", "work", "status"])
def test_a_file_that_is_no_database_stays_as_it_is(directory: Path, run: Run, command: str) -> None:
    write(directory, {"notes.txt": "Buy milk.\n" * 100})
    before = set(tree(directory))
    assert run(f"--db notes.txt {command}") == Ended(
        1, "",
        f"error: {directory}/notes.txt: damaged, or not a database (file is not a database).\n",
    )  # fmt: skip
    assert (directory / "notes.txt").read_text() == "Buy milk.\n" * 100
    assert set(tree(directory)) == before


@pytest.mark.only_sqlite("it is about its file")
@pytest.mark.parametrize("command", ["enqueue pool.jsonl", "work", "status"])
def test_the_database_of_a_newer_batchgen_stays_as_it_is(
    directory: Path, run: Run, command: str
) -> None:
    run("enqueue pool.jsonl")
    change(directory / "batchgen.db", "pragma user_version = 999")
    before = (directory / "batchgen.db").read_bytes()
    assert run(command) == Ended(
        1, "",
        f"error: {directory}/batchgen.db: made by a newer batchgen (schema 999; this one knows"
        f" {len(migrations())}). Upgrade batchgen: pip install -U batchgen-llm\n",
    )  # fmt: skip
    assert (directory / "batchgen.db").read_bytes() == before


@pytest.mark.parametrize(
    ("output", "code", "problem"),
    [
        ("prompts", 2, "is a directory; name a file for the export."),
        ("config.yaml/x.jsonl", 1, "cannot write the export (File exists)."),
    ],
)
def test_an_export_that_cannot_be_written_leaves_nothing(
    directory: Path, run: Run, output: str, code: int, problem: str
) -> None:
    run("enqueue pool.jsonl")
    before = set(tree(directory))
    assert run(f"export -o {output}") == Ended(code, "", f"error: {output}: {problem}\n")
    assert set(tree(directory)) == before


def test_a_delete_that_nobody_confirms_deletes_nothing(directory: Path, run: Run) -> None:
    run("enqueue pool.jsonl")
    refused = run("experiments delete default")
    assert (refused.code, refused.out) == (1, "")
    assert re.fullmatch(
        r"Delete default: 1 item, 0 answered\? This cannot be undone\. \[y/N\]: "
        r"\naborted: nothing was changed\.\n",
        refused.err,
    )
    assert query(directory, "select state from work") == [("pending",)]


def test_bad_lines_are_put_away_as_they_were_and_the_rest_goes_in(
    directory: Path, run: Run
) -> None:
    write(directory, {"pool.jsonl": GOOD + "{nope\n" + '{"wrod": 1}\n' + '{"word": "b"}\n'})
    assert run("enqueue pool.jsonl --skip-invalid bad.jsonl") == Ended(
        0, "",
        "skipped  pool.jsonl:2: not JSON: Expecting property name enclosed in double quotes"
        " at column 2\n"
        f"skipped  pool.jsonl:3: template {directory}/{TEMPLATE} needs {{word}}, which the item"
        " does not have (it has: wrod); did you mean {wrod}?\n"
        "default: 2 items read, 2 new, 2 invalid skipped\n",
    )  # fmt: skip
    assert (directory / "bad.jsonl").read_text() == '{nope\n{"wrod": 1}\n'


def test_a_place_for_bad_lines_that_cannot_be_written_makes_no_database(
    directory: Path, run: Run
) -> None:
    before = tree(directory)
    for way in ("", " --dry-run"):
        assert run(f"enqueue pool.jsonl --skip-invalid no/bad.jsonl{way}") == Ended(
            2, "", "error: no/bad.jsonl: cannot write it (No such file or directory).\n"
        )
    assert tree(directory) == before
    assert run("enqueue pool.jsonl --skip-invalid bad.jsonl").code == 0
    assert not (directory / "bad.jsonl").exists()


def test_of_many_bad_lines_ten_are_told_and_the_rest_counted(directory: Path, run: Run) -> None:
    write(directory, {"pool.jsonl": GOOD + "{\n" * 25})
    told = run("enqueue pool.jsonl --skip-invalid bad.jsonl").err.splitlines()
    assert [line.partition(": ")[0] for line in told[:10]] == [
        f"skipped  pool.jsonl:{number}" for number in range(2, 12)
    ]
    assert told[10:] == [
        "skipped  15 more lines, all of them in bad.jsonl",
        "default: 1 item read, 1 new, 25 invalid skipped",
    ]
    assert (directory / "bad.jsonl").read_text() == "{\n" * 25


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.csv", "word,note\nok,1\n,\n , \n,\n"),
        ("pool.tsv", "word\tnote\nok\t1\n\t\n\t\n\t\n"),
        ("pool.txt", "ok\n \n\t\n  \n"),
    ],
)
def test_blank_rows_are_passed_over_and_counted(
    directory: Path, run: Run, name: str, content: str
) -> None:
    write(
        directory, {name: content, TEMPLATE: "Say {text}" if name == "pool.txt" else "Say {word}"}
    )
    done = run(f"enqueue {name} --json")
    assert done.json == {
        "experiment": "default", "read": 1, "new": 1, "skipped": 0, "blank": 3, "asked_anew": 0,
    }  # fmt: skip
    assert run(f"enqueue {name}").err.endswith("1 item read, 0 new, 3 blank lines passed over\n")


def test_a_limit_does_not_count_blank_rows(directory: Path, run: Run) -> None:
    write(directory, {"pool.csv": "word,note\n,\na,\n,\nb,\nc,\n"})
    assert run("enqueue pool.csv --limit 2 --json").json["read"] == 2


def test_prompts_that_would_all_be_equal_stop(directory: Path, run: Run) -> None:
    write(directory, {TEMPLATE: "About {{word}} please"})
    before = tree(directory)
    assert run("enqueue pool.jsonl") == Ended(
        2, "",
        "error: pool.jsonl:1: no variable of the item (word) goes into any template, so all prompts"
        f" would be equal: in template {directory}/{TEMPLATE}, {{{{word}}}} is text;"
        " write {word}, or let the file's name end in .j2 for Jinja2\n",
    )  # fmt: skip
    assert tree(directory) == before
    write(directory, {TEMPLATE: "Say something", "pool.jsonl": '{"id": 1}\n{"id": 2}\n'})
    assert run("enqueue pool.jsonl") == Ended(0, "", "default: 2 items read, 2 new\n")


def test_a_variable_in_other_braces_is_told_of(directory: Path, run: Run) -> None:
    write(directory, {TEMPLATE: "{{tone}}: {word}", "pool.jsonl": '{"word": "a", "tone": "dry"}\n'})
    assert run("enqueue pool.jsonl").err.startswith(
        "warning: no template uses these variables: tone; "
        f"in template {directory}/{TEMPLATE}, {{{{tone}}}} is text; write {{tone}}\n"
    )


@pytest.mark.quick("{{ tone }}")
@pytest.mark.parametrize("written", ["{ tone }", "{tone!r}", "{tone:>9}", "{{ tone }}"])
def test_a_variable_as_other_languages_write_it_is_told_of(
    directory: Path, run: Run, written: str
) -> None:
    def dry_run(template: str) -> Ended:
        write(directory, {TEMPLATE: template})
        return run("enqueue pool.jsonl --dry-run")

    write(directory, {"pool.jsonl": '{"word": "a", "tone": "dry"}\n'})
    told = f"in template {directory}/{TEMPLATE}, {written} is text; write {{tone}}"
    assert f"variables: tone; {told}\n" in dry_run(f"{written}: {{word}}").err
    assert (dry_run(written).code, told in dry_run(written).err) == (2, True)
    both = dry_run(f"{written}: {{tone}}")
    assert both.err == "warning: no template uses these variables: word\n"


@pytest.mark.quick("new")
@pytest.mark.parametrize("experiment", ["default", "new"])
def test_a_dry_run_refuses_what_enqueue_refuses(directory: Path, run: Run, experiment: str) -> None:
    write(directory, {"pool.jsonl": '{"id": "a", "word": "x"}\n'})
    assert run("enqueue pool.jsonl").code == 0
    before = query(directory, "select * from work, experiments")
    twice = '{"id": "b", "word": "x"}\n{"id": "b", "word": "x"}\n{"id": "b", "word": "y"}\n'
    known = '{"id": "a", "word": "y"}\n{"word": "z"}\n'
    write(directory, {"twice.jsonl": twice, "known.jsonl": known})
    line = f"--experiment {experiment} --dry-run"
    assert run(f"enqueue twice.jsonl {line}") == Ended(
        2, "",
        "error: twice.jsonl:3: id 'b' belongs to an item before it already, which has other"
        " content; give this one another id.\n",
    )  # fmt: skip
    done = run(f"enqueue known.jsonl {line}")
    skipped = run(f"enqueue known.jsonl {line} --skip-invalid bad.jsonl --json")
    if experiment == "default":
        assert done == Ended(
            2, "",
            "error: known.jsonl:1: id 'a' belongs to item 1 already, which has other content; give"
            " this one another id. See: batchgen show 1\n",
        )  # fmt: skip
    assert skipped.json["read"] == (1 if experiment == "default" else 2)
    assert not (directory / "bad.jsonl").exists()
    assert query(directory, "select * from work, experiments") == before


def test_a_dry_run_says_of_another_recipe_what_enqueue_says(directory: Path, run: Run) -> None:
    assert run("enqueue pool.jsonl").code == 0
    before = query(directory, "select * from work, variants, experiments")
    write(directory, {TEMPLATE: "Shout {word}", "more.jsonl": GOOD + '{"word": "b"}\n'})
    refused = run("enqueue more.jsonl --dry-run")
    assert refused == run("enqueue more.jsonl")
    assert "the user template changed" in refused.err
    assert refused.code == 2
    for way, new, asked_anew in (("replace", 1, 1), ("again", 1, 1), ("add", 2, 0)):
        allowed = run(f"enqueue more.jsonl --dry-run --recipe {way} --json")
        assert (allowed.code, allowed.json["read"]) == (0, 2)
        assert (allowed.json["new"], allowed.json["asked_anew"]) == (new, asked_anew)
    said = run("enqueue more.jsonl --dry-run --recipe replace").out.splitlines()
    assert said[0] == (
        "2 items read, 1 new to default, 1 to be asked with the new recipe; nothing was written."
    )
    assert said[1].startswith("Estimated for 2 calls: ")
    assert query(directory, "select * from work, variants, experiments") == before


def test_an_empty_prompt_is_a_bad_line(directory: Path, run: Run) -> None:
    write(directory, {TEMPLATE: "{word}\n", "pool.jsonl": '{"word": " "}\n'})
    assert run("enqueue pool.jsonl").err == (
        f"error: pool.jsonl:1: the prompt is empty: template {directory}/{TEMPLATE} makes nothing"
        " of it\n"
    )


@pytest.mark.parametrize(
    "command",
    ["status --db {}", "enqueue {}", "enqueue pool.jsonl --skip-invalid {}", "--config {} status"],
)
def test_a_name_that_is_too_long_for_a_file_is_one_line(run: Run, command: str) -> None:
    done = run(command.format("long" * 100))
    assert done.code == 2
    assert re.fullmatch(r"error: .*(too long).*\n", done.err, re.IGNORECASE), done.err
