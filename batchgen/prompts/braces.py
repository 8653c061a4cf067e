"""Templates with braces: `{name}` stands for a variable."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, NamedTuple

from batchgen.errors import TemplateError
from batchgen.items import Template
from batchgen.text.json_text import dump_json

_NAMES_SHOWN = 20
_FORMAT_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LITERAL_TOKEN = re.compile(r"\{\{\{([^{}]+)\}\}\}|\{\{([^{}]+)\}\}|\{([^{}]+)\}")
_BRACED = re.compile(r"\{([^{}\n]+)\}")
# What Python and other template languages write: {{name}}, { name }, {name!r}, {name:.2f}.
_LOOK_ALIKE = re.compile(r"(?<!\{)\{\{?\s*([^{}!:\n]+?)\s*(?:![rsa])?(?::[^{}\n]*)?\}\}?(?!\})")
_PATH = re.compile(r"[^\W\d]\w*(?:\.\w[\w-]*|\[\d{1,6}\])+")
_STEP = re.compile(r"[\w-]+")
_NOTHING = object()
_NO_NAMES: frozenset[str] = frozenset()


class _Reading(NamedTuple):
    """A template as texts and names of variables in turn; a text is first and last."""

    parts: list[str]
    names: list[str]
    has_text: bool

    @classmethod
    def of(cls, text: str, special: AbstractSet[str]) -> "_Reading":
        """`special` are names that are no identifiers."""
        as_format = _format_tokens(text, special)
        parts = _literal_tokens(text, special) if as_format is None else as_format
        return cls(parts, parts[1::2], any(part.strip() for part in parts[::2]))


class BraceTemplate:
    """`{name}` stands for a variable: a plain identifier always, any other text where the item has
    a field that is called so (`{product name}`), or a path into one (`{parsed.label}`,
    `{parsed[0]}`). A text goes in as it is, anything else as JSON, in one pass: braces in a value
    are text.

    Whether a doubled brace stands for one brace depends on the template as a whole:

    - Every brace is doubled or belongs to a variable, read from the left, as in a string for
      `str.format`: then `{{` and `}}` give `{` and `}`.
    - Otherwise there is a brace of another kind, as in pasted JSON: then all braces are literal
      text, doubled or not. Only around a variable's name does doubling mean the same as above:
      `{{name}}` gives `{name}`, and `{{{name}}}` the variable in braces.

    A path from one of the `names` is always one, as they are values of which nobody knows yet what
    they will be.

    `variables` are those that it uses, among them the fields and the roots of paths that the items
    checked so far had.
    """

    def __init__(self, template: Template, names: AbstractSet[str] = _NO_NAMES) -> None:
        self.name = template.name
        self._text = template.text
        braced = set(_BRACED.findall(template.text))
        # Names that are a variable only if the item has them, each with the path that it may be.
        self._special = {
            name: _STEP.findall(name) if _PATH.fullmatch(name) else []
            for name in braced
            if not name.isidentifier()
        }
        self._of_names = frozenset(
            name for name, path in self._special.items() if path and path[0] in names
        )
        self._plain = _Reading.of(template.text, frozenset())
        self._readings: dict[AbstractSet[str], _Reading] = {}
        self._found: AbstractSet[str] | None = None  # the special names that checked items had
        roots = {self._special[name][0] for name in self._of_names}
        self.variables: AbstractSet[str] = roots.union(self._plain.names)

    @cached_property
    def look_alikes(self) -> Mapping[str, str]:
        """What is text here, but a variable elsewhere: as it is written, by the variable's name."""
        found = ((match[1], match[0]) for match in _LOOK_ALIKE.finditer(self._text))
        return {name: written for name, written in found if written != f"{{{name}}}"}

    def check_names(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when a variable is missing. The values may be stand-ins."""
        self.check(variables)

    def suits(self, names: AbstractSet[str]) -> bool:
        """Whether to have variables of these names, whatever they hold, is enough."""
        return not self._special and self._plain.has_text and self.variables <= names

    def has_all(self, names: AbstractSet[str]) -> bool:
        """The same for `check_names`."""
        return self._special.keys() == self._of_names and self.variables <= names

    def check(self, variables: Mapping[str, Any]) -> bool:
        """Whether there is anything in what it renders. Raises TemplateError when a variable is
        missing, one that the items before had too; renders nothing."""
        if self.suits(variables.keys()):
            return True  # as most are
        special = self._special_of(variables)
        if self._found != special:
            self._check_special(special, variables)
        reading = self._reading(special)
        values = self._values(reading.names, variables)
        return reading.has_text or any(not isinstance(v, str) or v.strip() for v in values)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateError when a variable is missing."""
        reading = self._reading(self._special_of(variables))
        parts = list(reading.parts)
        parts[1::2] = map(_as_text, self._values(reading.names, variables))
        return "".join(parts)

    def _check_special(self, special: AbstractSet[str], variables: Mapping[str, Any]) -> None:
        """What is a variable for one item must be one for all of a pool."""
        before = special if self._found is None else self._found
        if gone := before - special:
            raise TemplateError(missing_variables(self.name, gone, variables))
        if late := special - before:
            raise TemplateError(
                f"template {self.name} has {{{min(late)}}}: this item has it, those before it do "
                "not, so that it is text in their prompts; give it to all items, or to none"
            )
        self._found = special
        roots = (name if name in variables else self._special[name][0] for name in special)
        self.variables |= frozenset(roots)

    def _special_of(self, variables: Mapping[str, Any]) -> AbstractSet[str]:
        """Which of the special names are variables of this item."""
        if not self._special:
            return _NO_NAMES
        return frozenset(
            name
            for name, path in self._special.items()
            if name in variables
            or name in self._of_names
            or (path and _has_parts(variables.get(path[0], "")))
        )

    def _values(self, names: Sequence[str], variables: Mapping[str, Any]) -> list[Any]:
        values = [
            variables[name] if name in variables else self._at_path(name, variables)
            for name in names
        ]
        if _NOTHING in values:
            lacking = [n for n, value in zip(names, values, strict=True) if value is _NOTHING]
            raise TemplateError(missing_variables(self.name, lacking, variables))
        return values

    def _at_path(self, name: str, variables: Mapping[str, Any]) -> Any:
        steps = self._special.get(name)
        if not steps:
            return _NOTHING
        value: Any = variables
        for step in steps:
            if isinstance(value, Mapping):
                value = value.get(step, _NOTHING)
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return _NOTHING
        return value

    def _reading(self, special: AbstractSet[str]) -> _Reading:
        if not special:
            return self._plain
        if special not in self._readings:
            self._readings[special] = _Reading.of(self._text, special)
        return self._readings[special]


def _has_parts(value: Any) -> bool:
    """Whether a path may lead into it; an error tells if it is null."""
    return value is None or isinstance(value, dict | list)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value)


def _format_tokens(text: str, special: AbstractSet[str]) -> list[str] | None:
    """None when `text` is not a format string of variables."""
    parts, pos = [""], 0
    for match in _FORMAT_TOKEN.finditer(text):
        name, token = match[1], match[0]
        parts[-1] += text[pos : match.start()]
        pos = match.end()
        if token in ("{{", "}}"):
            parts[-1] += token[0]
        elif name is not None and (name.isidentifier() or name in special):
            parts += [name, ""]
        else:
            return None
    parts[-1] += text[pos:]
    return parts


def _literal_tokens(text: str, special: AbstractSet[str]) -> list[str]:
    parts, pos = [""], 0
    for match in _LITERAL_TOKEN.finditer(text):
        braced, doubled, name = match.groups()
        parts[-1] += text[pos : match.start()]
        pos = match.end()
        found = braced or doubled or name
        if not found.isidentifier() and found not in special:
            parts[-1] += match[0]
        elif doubled:
            parts[-1] += f"{{{doubled}}}"
        elif braced:
            parts[-1] += "{"
            parts += [braced, "}"]
        else:
            parts += [name, ""]
    parts[-1] += text[pos:]
    return parts


def missing_variables(
    template: str, needed: Iterable[str], variables: Mapping[str, Any], *, jinja: bool = False
) -> str:
    """Which variables the item lacks, which it has, and the nearest name as it is to be written."""
    lacking = sorted(set(needed) - variables.keys())
    names = ", ".join(f"{{{name}}}" for name in lacking)
    has = [*list(variables)[:_NAMES_SHOWN], *(["..."] if len(variables) > _NAMES_SHOWN else [])]
    within = [f"{root}.{lacking[0]}" for root, value in variables.items()
              if isinstance(value, dict) and lacking[0] in value]  # fmt: skip
    near = within[:1] or difflib.get_close_matches(lacking[0], list(variables), n=1)
    by_item = jinja and near and not within and not near[0].isidentifier()
    written = f"item[{dump_json(near[0])}]" if by_item else "".join(f"{{{one}}}" for one in near)
    hint = f"; did you mean {written}?" if near else ""
    return (
        f"template {template} needs {names}, which the item does not have "
        f"(it has: {', '.join(has) or 'nothing'}){hint}"
    )
