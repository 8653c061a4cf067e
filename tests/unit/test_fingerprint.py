"""A parser whose code changes is another one; one that is only moved, or commented, is not."""

import functools
import importlib
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.parsers import Parser, load_parser, parser_from_callable

CODE = """
import json
import re
from functools import cache

LABELS = {"a": 1, "b": [2, 3]}
PATTERN = re.compile("x+")

class Score:
    limit = 3
    def of(self, text):
        return min(len(text), self.limit)

def clean(text):
    return text.strip()

@cache
def cached(text):
    return text + "!"

def parse(text, item=None, *, strict=True):
    found = [clean(part) for part in text.split(",")]
    return [LABELS.get(one) for one in found], Score().of(text), cached(text), PATTERN.findall(text)

def other(text):
    return json.loads(text)
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[[str], types.ModuleType]]:
    """A user's module with this code, each time in another file."""
    made: list[str] = []

    def make(code: str) -> types.ModuleType:
        path = tmp_path / f"mine{len(made)}.py"
        path.write_text(code)
        created = types.ModuleType(f"mine_{len(made)}")
        created.__file__ = str(path)
        made.append(created.__name__)
        sys.modules[created.__name__] = created
        exec(compile(code, str(path), "exec"), vars(created))
        return created

    yield make
    for name in made:
        del sys.modules[name]


Module = Callable[[str], types.ModuleType]


def prints(function: Any) -> str:
    parser = parser_from_callable(function)
    assert parser.unknown == ()
    return parser.fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\nimport json", "\n\n\n# a comment\nimport json"),
        ('    return text.strip()\n', '    return text.strip()  # of white space\n'),
        ("def other(text):\n    return json", "def other(text):\n    # else\n    return not json"),
        ("def parse(", "class Unused: ...\n\n\ndef parse("),
    ],
)  # fmt: skip
def test_it_stays_the_same_parser(module: Module, old: str, new: str) -> None:
    assert old in CODE
    assert prints(module(CODE).parse) == prints(module(CODE.replace(old, new)).parse)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('text.split(",")', 'text.split(";")'),
        ("text.strip()", "text.lower()"),
        ('"a": 1', '"a": 2'),
        ("[2, 3]", "[3, 2]"),
        ('"x+"', '"x*"'),
        ('re.compile("x+")', 're.compile("x+", re.I)'),
        ("limit = 3", "limit = 4"),
        ("min(len(text)", "max(len(text)"),
        ("strict=True", "strict=False"),
        ('text + "!"', 'text + "?"'),
        ("[clean(part)", "[(lambda one: clean(one))(part)"),
    ],
)  # fmt: skip
def test_it_is_another_parser(module: Module, old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert prints(module(CODE).parse) != prints(module(CODE.replace(old, new)).parse)


def made_with(label: str) -> Callable[[str], Any]:
    return lambda text: {label: text}


class Reader:
    def __init__(self, label: str) -> None:
        self.label = label
        self.calls: list[str] = []

    def parse(self, text: str) -> Any:
        return {self.label: text}

    def __call__(self, text: str) -> Any:
        return self.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        made_with,
        lambda label: Reader(label),
        lambda label: Reader(label).parse,
        lambda label: functools.partial(lambda key, text: {key: text}, label),
        lambda label: re.compile(label).findall,
    ],
)
def test_what_a_function_carries_along_belongs_to_it(make: Callable[[str], Any]) -> None:
    def fingerprint(label: str) -> str:
        return parser_from_callable(make(label)).fingerprint

    assert fingerprint("a") == fingerprint("a")
    assert fingerprint("a") != fingerprint("b")


def test_the_same_cell_of_a_notebook_twice_is_the_same_parser() -> None:
    def cell(number: int, code: str) -> str:
        space = {"__name__": "__main__"}
        exec(compile(code, f"/tmp/ipykernel_1/{number}.py", "exec"), space)
        return prints(space["parse"])

    code = (
        "def parse(text):\n    def inner(one):\n        return one.upper()\n    return inner(text)"
    )
    assert cell(1, code) == cell(2, f"\n\n{code}")
    assert cell(1, code) != cell(2, code.replace("upper", "lower"))


def test_functions_that_call_each_other_have_an_end(module: Module) -> None:
    code = "def parse(text):\n    return odd(text)\ndef odd(text):\n    return parse(text[{}:])\n"
    assert prints(module(code.format(1)).parse) != prints(module(code.format(2)).parse)


OBJECTS = """
class Settings: pass
settings = Settings()
settings.unused = object()
settings.limits = Settings()
settings.limits.longest = {}
settings.limits.itself = settings
def parse(text):
    return text[:settings.limits.longest]
def made(settings):
    return lambda text: text[:settings.limits.longest]
closed = made(settings)
"""


@pytest.mark.parametrize("name", ["parse", "closed"])
def test_what_a_function_names_of_the_user_s_objects_belongs_to_it(
    module: Module, name: str
) -> None:
    def fingerprint(longest: int) -> str:
        return prints(getattr(module(OBJECTS.replace("{}", str(longest))), name))

    assert fingerprint(3) == fingerprint(3)
    assert fingerprint(3) != fingerprint(4)


def test_a_helper_in_another_file_of_the_user_s_is_followed(module: Module) -> None:
    def fingerprint(helper: str) -> str:
        made = module(helper)
        code = "import {0}\ndef parse(text):\n    return {0}.clean(text)"
        parse = module(code.format(made.__name__)).parse
        vars(sys.modules[parse.__module__])["helper"] = made
        return prints(parse)

    one = fingerprint("def clean(text):\n    return text.strip()\n")
    assert one != fingerprint("def clean(text):\n    return text.lower()\n")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: len, "len (no Python code)"),
        (lambda: [].append, "list.append (no Python code)"),
    ],
)
def test_what_has_no_python_code_is_said(made: Callable[[], Any], said: str) -> None:
    assert parser_from_callable(made()).unknown == (said,)


def test_an_object_whose_changes_cannot_be_seen_is_said() -> None:
    opened = iter(())

    def parse(text: str) -> Any:
        return [text, *opened]

    assert parser_from_callable(parse).unknown == ("opened (tuple_iterator)",)


MODEL = """
from typing import Annotated
from pydantic import AfterValidator, BaseModel, Field, field_validator

def small(value):
    return min(value, 9)

class Part(BaseModel):
    n: Annotated[int, AfterValidator(small)] = 1

class Page(BaseModel):
    title: str = Field(max_length=10)
    parts: list[Part] = []

    @field_validator("title")
    @classmethod
    def trimmed(cls, title):
        return title.strip()
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title.strip()", "title.lower()"),
        ("max_length=10", "max_length=11"),
        ("min(value, 9)", "min(value, 8)"),
        ("list[Part] = []", "list[Part] | None = None"),
        ("= 1", "= 2"),
    ],
)
def test_a_model_is_known_by_its_fields_and_validators(module: Module, old: str, new: str) -> None:
    assert prints(module(MODEL).Page) == prints(module(f"# moved\n{MODEL}").Page)
    assert MODEL.count(old) == 1
    assert prints(module(MODEL).Page) != prints(module(MODEL.replace(old, new)).Page)


def test_a_file_that_changed_is_loaded_anew(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"

    def load(code: str) -> Parser:
        file.write_text(code)
        return load_parser(f"{file}:f")

    one = load("def f(text):\n    return 1\n")
    assert list(one.sources) == [str(file)]
    same, other = load("# 1\ndef f(text):\n    return 1\n"), load("def f(text):\n    return 2\n")
    assert (same.fingerprint == one.fingerprint, other.fingerprint == one.fingerprint) == (
        True, False,
    )  # fmt: skip
    assert other.parse("", {}, None) == 2


def test_built_in_parsers_are_known_by_their_names() -> None:
    for spec in ("raw", "json", "tag:a", "regex:a+", 'json_schema:{"type":"object"}'):
        parser = load_parser(spec)
        assert (parser.fingerprint, parser.unknown, parser.sources) == ("", (), {})


@pytest.fixture
def load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[dict[str, str]], Parser]]:
    """The parser `p.py:f` among these files, as a new process would load it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def loaded(files: dict[str, str]) -> Parser:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
            os.utime(tmp_path / name, (1e9, 1e9))  # all of it within the same second
        importlib.invalidate_caches()
        return load_parser(f"{tmp_path}/p.py:f")

    yield loaded
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path[:] = [one for one in sys.path if one != str(tmp_path)]


@pytest.mark.parametrize(
    "code",
    [
        "def f(text):\n    from pack.clean import g\n    return g(text)\n",
        "def f(text):\n    from pack import clean\n    return clean.g(text)\n",
        "def f(text):\n    import pack.clean\n    return pack.clean.g(text)\n",
        "import pack.clean\ndef f(text):\n    return pack.clean.g(text)\n",
        "def h(text):\n    from pack.clean import g\n    return g(text)\nf = lambda t: h(t)\n",
    ],
)
def test_what_it_imports_when_it_is_called_is_followed(
    load: Callable[[dict[str, str]], Parser], code: str
) -> None:
    old = load({"p.py": code, "pack/clean.py": "def g(text):\n    return text.strip()\n"})
    assert old.unknown == ()
    assert {Path(file).name for file in old.sources} == {"p.py", "clean.py"}
    new = load({"pack/clean.py": "def g(text):\n    return text.upper()\n"})
    assert new.fingerprint != old.fingerprint


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("import not_there", ("not_there (cannot be imported yet)",)),
        ("from . import sister", ("a relative import (cannot be imported yet)",)),
        ("import json", ()),
        ("open('labels.json')", ("the files that f opens",)),
        ("Path('labels.json').read_text()", ("the files that f opens",)),
    ],
)
def test_what_it_reads_when_it_is_called_is_said(
    load: Callable[[dict[str, str]], Parser], statement: str, said: tuple[str, ...]
) -> None:
    code = f"from pathlib import Path\ndef f(text):\n    {statement}\n    return text\n"
    assert load({"p.py": code}).unknown == said


def test_a_data_file_that_was_read_at_import_is_a_source(
    load: Callable[[dict[str, str]], Parser], tmp_path: Path
) -> None:
    code = (
        f"import json\nwith open({str(tmp_path / 'labels.json')!r}) as file:\n"
        "    LABELS = json.load(file)\ndef f(text):\n    return LABELS\n"
    )
    old = load({"p.py": code, "labels.json": "[1]"})
    assert [Path(file).name for file in old.sources] == ["labels.json", "p.py"]
    assert old.unknown == ()
    new = load({"labels.json": "[2]"})
    assert (new.fingerprint != old.fingerprint, new.sources != old.sources) == (True, True)


def test_files_of_too_much_data_are_said(
    load: Callable[[dict[str, str]], Parser], tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(17 << 20)
    code = f"with open({str(tmp_path / 'large')!r}): pass\ndef f(text):\n    return 1\n"
    parser = load({"p.py": code})
    assert [Path(file).name for file in parser.sources] == ["p.py"]
    assert parser.unknown == ("files that are read as it is imported (too many, or too large)",)


def test_a_file_that_was_edited_within_the_second_is_another_one(
    load: Callable[[dict[str, str]], Parser],
) -> None:
    files = {"p.py": "from sister import g\ndef f(text):\n    return g(1)\n"}
    files["sister.py"] = "def g(n):\n    return n\n"
    one = load(files)
    assert load({"p.py": files["p.py"].replace("1", "2")}).fingerprint != one.fingerprint
    other = load({**files, "sister.py": files["sister.py"].replace("return n", "return 7")})
    assert other.parse("", {}, None) == 7
