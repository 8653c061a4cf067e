"""Templates: text in which an item's variables stand, with braces or in Jinja2.

A template is compiled once per recipe and rendered once per item.
"""

import difflib
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchgen.errors import TemplateError
from batchgen.items import Template
from batchgen.json_text import dump_json, storable

_NAMES_SHOWN = 20


def load_template(path: Path) -> Template:
    """The template in a file: Jinja2 when its name ends in `.j2`, braces otherwise.

    Exactly one newline at the file's end is dropped, since it is the editor's; line ends become
    `\\n` and a byte order mark goes, so that a Windows checkout has the same template.
    Raises TemplateError when the file cannot be read as UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise TemplateError(f"template {path} is not UTF-8 (byte {exc.start + 1})") from exc
    except FileNotFoundError as exc:
        raise TemplateError(f"template {path}: no such file (in {Path.cwd()})") from exc
    except OSError as exc:
        raise TemplateError(f"template {path} cannot be read: {exc.strerror}") from exc
    syntax = "jinja2" if path.suffix == ".j2" else "braces"
    return Template(text.removesuffix("\n"), syntax, str(path))  # type: ignore[arg-type]


def compile_template(template: Template) -> "Compiled":
    """Raises TemplateError, with name and line, when the template has a syntax error."""
    if template.syntax == "jinja2":
        return JinjaTemplate(template)
    return BraceTemplate(template)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value)


# --- braces ----------------------------------------------------------------------------------

_FORMAT_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LITERAL_TOKEN = re.compile(r"\{\{\{([^{}]+)\}\}\}|\{\{([^{}]+)\}\}|\{([^{}]+)\}")


class BraceTemplate:
    """`{name}`, name being a plain identifier, stands for a variable. A text goes in as it is,
    anything else as JSON, in one pass: braces in a value are text.

    Whether a doubled brace stands for one brace depends on the template as a whole:

    - Every brace is doubled or belongs to a `{name}`, read from the left, as in a string for
      `str.format`: then `{{` and `}}` give `{` and `}`.
    - Otherwise there is a brace of another kind, as in pasted JSON: then all braces are literal
      text, doubled or not. Only around a plain name does doubling mean the same as above:
      `{{name}}` gives `{name}`, and `{{{name}}}` the variable in braces.
    """

    def __init__(self, template: Template) -> None:
        self.name = template.name
        tokens = _format_tokens(template.text)
        # Texts and names of variables alternate; a text is first and last.
        self._parts = _literal_tokens(template.text) if tokens is None else tokens
        self.variables = frozenset(self._parts[1::2])

    def check(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when a variable is missing; renders nothing."""
        if not self.variables <= variables.keys():
            raise TemplateError(_missing(self.name, self.variables, variables))

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateError when a variable is missing."""
        self.check(variables)
        parts = list(self._parts)
        parts[1::2] = [_as_text(variables[name]) for name in parts[1::2]]
        return "".join(parts)


def _format_tokens(text: str) -> list[str] | None:
    """As `BraceTemplate` holds them; None when `text` is not a format string of plain names."""
    parts, pos = [""], 0
    for match in _FORMAT_TOKEN.finditer(text):
        name, token = match[1], match[0]
        parts[-1] += text[pos : match.start()]
        pos = match.end()
        if token in ("{{", "}}"):
            parts[-1] += token[0]
        elif name is not None and name.isidentifier():
            parts += [name, ""]
        else:
            return None
    parts[-1] += text[pos:]
    return parts


def _literal_tokens(text: str) -> list[str]:
    parts, pos = [""], 0
    for match in _LITERAL_TOKEN.finditer(text):
        braced, doubled, name = match.groups()
        parts[-1] += text[pos : match.start()]
        pos = match.end()
        if not (braced or doubled or name).isidentifier():
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


def _missing(template: str, needed: Iterable[str], variables: Mapping[str, Any]) -> str:
    """Which variables the item lacks, which it has, and the nearest name."""
    missing = sorted(set(needed) - variables.keys())
    names = ", ".join(f"{{{name}}}" for name in missing)
    has = [*list(variables)[:_NAMES_SHOWN], *(["..."] if len(variables) > _NAMES_SHOWN else [])]
    near = difflib.get_close_matches(missing[0], list(variables), n=1)
    hint = f"; did you mean {{{near[0]}}}?" if near else ""
    return (
        f"template {template} needs {names}, which the item does not have "
        f"(it has: {', '.join(has) or 'nothing'}){hint}"
    )


# --- Jinja2 ----------------------------------------------------------------------------------


class JinjaTemplate:
    """Jinja2 in its sandbox: it reaches nothing but the item, and what is undefined is an error.
    What `{{ }}` prints is JSON unless it is text, as with braces. `variables` are all the names
    that the template may ask for; one that has a default may be missing."""

    def __init__(self, template: Template) -> None:
        import jinja2
        import jinja2.meta
        import jinja2.sandbox

        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
            finalize=_printed,
        )
        self.name = template.name
        try:
            tree = environment.parse(template.text)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"template {template.name}:{exc.lineno}: {exc.message}") from exc
        except RecursionError as exc:
            raise TemplateError(f"template {template.name}: nested too deep") from exc

    def check(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when it cannot be rendered; only rendering can tell."""
        self.render(variables)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Text that can be sent and stored. Raises TemplateError, whatever went wrong."""
        import jinja2

        try:
            return storable("".join(self._template.generate(variables)))
        except jinja2.UndefinedError as exc:
            missing = self.variables - variables.keys()
            names = [name for name in missing if exc.message == f"{name!r} is undefined"]
            message = _missing(self.name, names, variables) if names else self._failure(exc)
            raise TemplateError(message) from exc
        except Exception as exc:  # a template is a program: anything may happen in it
            raise TemplateError(self._failure(exc)) from exc

    def _failure(self, exc: Exception) -> str:
        """The error, with the template's line where there is one."""
        lines = [
            line
            for frame, line in traceback.walk_tb(exc.__traceback__)
            if frame.f_code.co_filename == "<template>"
        ]
        place = f"{self.name}:{lines[-1]}" if lines else self.name
        return f"template {place}: {type(exc).__name__}: {exc}"


def _printed(value: Any) -> Any:
    """What a template prints: plain values other than text as JSON, the rest (Jinja's own values,
    such as an undefined one, which raises) as Jinja prints it."""
    is_plain = isinstance(value, bool | int | float | dict | list | tuple | None)
    return dump_json(value) if is_plain else value


Compiled = BraceTemplate | JinjaTemplate
