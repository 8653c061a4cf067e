"""A template from its file, and the two kinds of them: braces, and Jinja2.

A template is compiled once per recipe and rendered once per item.
"""

import traceback
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from batchgen.errors import TemplateError
from batchgen.items import Template
from batchgen.prompts.braces import BraceTemplate, missing_variables
from batchgen.text.encoding import utf8_problem
from batchgen.text.json_text import dump_json, storable

_JINJA_SUFFIXES = (".j2", ".jinja", ".jinja2")


def load_template(path: Path) -> Template:
    """The template in a file: Jinja2 when its name ends in `.j2`, `.jinja` or `.jinja2`, braces
    otherwise.

    Exactly one newline at the file's end is dropped, since it is the editor's; line ends become
    `\\n` and a byte order mark goes, so that a Windows checkout has the same template.
    Raises TemplateError when the file cannot be read as UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise TemplateError(f"template {path}: {utf8_problem(exc)}") from exc
    except FileNotFoundError as exc:
        raise TemplateError(f"template {path}: no such file (in {Path.cwd()})") from exc
    except OSError as exc:
        raise TemplateError(f"template {path} cannot be read: {exc.strerror}") from exc
    syntax = "jinja2" if path.suffix.lower() in _JINJA_SUFFIXES else "braces"
    return Template(text.removesuffix("\n"), syntax, str(path))  # type: ignore[arg-type]


def text_template(text: str, name: str) -> Template | None:
    """The template that is given as text, with braces; None for an empty one. `name` is what
    messages call it."""
    return Template(text.replace("\r\n", "\n"), "braces", name) if text.strip() else None


def compile_template(template: Template, names: AbstractSet[str] = frozenset()) -> "Compiled":
    """Raises TemplateError, with name and line, when the template has a syntax error. A path from
    one of the `names` is never text."""
    if template.syntax == "jinja2":
        return JinjaTemplate(template)
    return BraceTemplate(template, names)


class JinjaTemplate:
    """Jinja2 in its sandbox: it reaches nothing but the item, and what is undefined is an error.
    What `{{ }}` prints is JSON unless it is text, as with braces. `variables` are all the names
    that the template may ask for; one that has a default may be missing. `item` is the whole item,
    unless it has a variable of that name: `item["product name"]`."""

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
            self.variables: AbstractSet[str] = frozenset(
                jinja2.meta.find_undeclared_variables(tree)
            )
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"template {template.name}:{exc.lineno}: {exc.message}") from exc
        except RecursionError as exc:
            raise TemplateError(f"template {template.name}: nested too deep") from exc

    def suits(self, names: AbstractSet[str]) -> bool:  # noqa: ARG002  as a BraceTemplate has it
        """Whether to have variables of these names is enough: it never is."""
        return False

    def has_all(self, names: AbstractSet[str]) -> bool:  # noqa: ARG002
        """The same for `check_names`."""
        return False

    def check(self, variables: Mapping[str, Any]) -> bool:
        """Whether there is anything in what it renders. Raises TemplateError when it cannot be
        rendered; only rendering can tell."""
        if "item" in self.variables:  # it reaches every one of them
            self.variables |= variables.keys()
        return bool(self.render(variables).strip())

    def check_names(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when a variable is missing, as far as rendering comes upon it. The
        values may be stand-ins, of which nothing else can be told."""
        import jinja2

        try:
            self._text(variables)
        except jinja2.UndefinedError as exc:
            if names := self._missing(exc, variables):
                message = missing_variables(self.name, names, variables, jinja=True)
                raise TemplateError(message) from exc
        except Exception:  # the values may be of other kinds than it needs
            return

    def render(self, variables: Mapping[str, Any]) -> str:
        """Text that can be sent and stored. Raises TemplateError, whatever went wrong."""
        import jinja2

        try:
            return self._text(variables)
        except jinja2.UndefinedError as exc:
            names = self._missing(exc, variables)
            message = (
                missing_variables(self.name, names, variables, jinja=True)
                if names
                else self._failure(exc)
            )
            raise TemplateError(message) from exc
        except Exception as exc:  # a template is a program: anything may happen in it
            raise TemplateError(self._failure(exc)) from exc

    def _text(self, variables: Mapping[str, Any]) -> str:
        return storable("".join(self._template.generate({"item": variables, **variables})))

    def _missing(self, exc: Exception, variables: Mapping[str, Any]) -> list[str]:
        """The variables that it is about."""
        missing = self.variables - variables.keys()
        return [name for name in missing if str(exc) == f"{name!r} is undefined"]

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
