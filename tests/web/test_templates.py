"""The templates themselves: nothing in them lets a text become part of the page, and nothing needs
what the policy forbids."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from batchgen.web import frame
from batchgen.web.frame import Frame

WEB = Path(frame.__file__).parent
TEMPLATES = sorted((WEB / "templates").iterdir())
SCRIPTS = sorted((WEB / "assets").glob("*.js"))
each_template = pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
_NOT_OURS = {"uplot.min.js"}
_MOST_LINES = 400  # of scripts of our own


class _Tags(HTMLParser):
    """Collects the attributes of a template, whose expressions are texts to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value) for name, value in attrs]


@each_template
def test_no_text_is_taken_for_markup(file: Path) -> None:
    text = file.read_text()
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape" not in text
    assert not re.search(r"=\s*\{\{", text), "an attribute without quotes"


@each_template
def test_nothing_is_there_that_the_policy_forbids(file: Path) -> None:
    tags = _Tags()
    text = re.sub(r"\{[%#].*?[%#]\}", "", file.read_text(), flags=re.DOTALL)
    tags.feed(re.sub(r"\{\{.*?\}\}", "{{}}", text, flags=re.DOTALL))
    for tag, name, value in tags.found:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("style", "srcdoc", "background", "ping"), (tag, name)
        if name in ("src", "href", "action", "formaction", "data", "poster"):
            assert value is not None
            assert value.startswith(("{{", "/", "#")), (tag, name, value)
            assert not value.startswith("//"), (tag, name, value)
    assert not re.search(r"<(style|iframe|object|embed|base|img|audio|video)\b", file.read_text())
    assert not re.search(r"<script(?! src=)", file.read_text())


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_no_script_makes_markup_or_code_of_a_text(file: Path) -> None:
    if file.name not in _NOT_OURS:
        text = file.read_text()
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\.style"
        )
        assert not re.search(forbidden, text)
        assert not re.search(r"https?://", text)


def test_our_own_scripts_are_short() -> None:
    own = [file for file in SCRIPTS if file.name not in _NOT_OURS]
    assert sum(len(file.read_text().splitlines()) for file in own) <= _MOST_LINES


def test_a_value_that_a_template_does_not_get_is_an_error() -> None:
    environment = Frame("x.db", "batchgen", read_only=True)._environment
    with pytest.raises(UndefinedError):
        environment.from_string("{{ nothing }}").render()


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("x", "&lt;b&gt;&amp;&lt;U+202E&gt;"),
        ("x | marked", '&lt;b&gt;&amp;<span class="mark">U+202E</span>'),
        ("x | exact", "&lt;b&gt;&amp;\u202e"),
        ("x | line(2)", "&lt;b…"),
        ("y", ""),
        ("[x] | join", "&lt;b&gt;&amp;&lt;U+202E&gt;"),
    ],
)  # fmt: skip
def test_texts_are_shown_as_texts(expression: str, shown: str) -> None:
    environment = Frame("x.db", "batchgen", read_only=True)._environment
    assert (
        environment.from_string("{{ " + expression + " }}").render(x="<b>&\u202e", y=None) == shown
    )
