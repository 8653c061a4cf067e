"""Templates, and the request that they make of an item.

A template is compiled once per recipe and rendered once per item. What an item lacks is found at
enqueue (`Renderer.check`), before anything is paid for.
"""

import difflib
import json
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.errors import TemplateError
from batchgen.items import ItemInput, Recipe, Template, dump_json

_FIELDS_OF_BATCHGEN = {"id", "metadata", "params"}
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
    """Raises TemplateError, with name and line, when the template has an error of syntax."""
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
      text, doubled or not. Only round a plain name does doubling mean the same as above:
      `{{name}}` gives `{name}`, and `{{{name}}}` the variable in braces.
    """

    def __init__(self, template: Template) -> None:
        self.name = template.name
        tokens = _format_tokens(template.text)
        # Text and variables' names by turns; text is first and last.
        self._parts = _literal_tokens(template.text) if tokens is None else tokens
        self.variables = frozenset(self._parts[1::2])

    def check(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when a variable is missing; renders nothing."""
        if not self.variables <= variables.keys():
            raise TemplateError(_lacks(self.name, self.variables, variables))

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateError when a variable is missing."""
        self.check(variables)
        parts = list(self._parts)
        parts[1::2] = [_as_text(variables[name]) for name in parts[1::2]]
        return "".join(parts)


def _format_tokens(text: str) -> list[str] | None:
    """None when `text` is no string for `str.format` with plain names alone."""
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


def _lacks(template: str, needed: Iterable[str], variables: Mapping[str, Any]) -> str:
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
    """Jinja2, sandboxed; undefined is an error. What `{{ }}` prints is JSON unless it is text, as
    with braces. `variables` are all the names it may ask for; one with a default may be missing."""

    def __init__(self, template: Template) -> None:
        import jinja2
        import jinja2.meta

        from batchgen.sandbox import Sandbox

        self._sandbox = Sandbox()
        self.name = template.name
        try:
            tree = self._sandbox.parse(template.text)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
            self._template = self._sandbox.compiled(tree)
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"template {template.name}:{exc.lineno}: {exc.message}") from exc
        except RecursionError as exc:
            raise TemplateError(f"template {template.name}: nested too deep") from exc

    def check(self, variables: Mapping[str, Any]) -> None:
        """Raises TemplateError when it cannot be rendered; only rendering can tell."""
        self.render(variables)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateError, whatever went wrong."""
        import jinja2

        try:
            self._sandbox.begin()
            return "".join(self._template.generate(variables))
        except jinja2.UndefinedError as exc:
            missing = self.variables - variables.keys()
            names = [name for name in missing if exc.message == f"{name!r} is undefined"]
            said = _lacks(self.name, names, variables) if names else self._failed(exc)
            raise TemplateError(said) from exc
        except Exception as exc:  # a template is a program: anything may happen in it
            raise TemplateError(self._failed(exc)) from exc

    def _failed(self, exc: Exception) -> str:
        lines = [
            line
            for frame, line in traceback.walk_tb(exc.__traceback__)
            if frame.f_code.co_filename == "<template>"
        ]
        place = f"{self.name}:{lines[-1]}" if lines else self.name
        return f"template {place}: {type(exc).__name__}: {exc}"


Compiled = BraceTemplate | JinjaTemplate


# --- requests --------------------------------------------------------------------------------


class Renderer:
    """Makes an item's request, by one recipe. Raises TemplateError when its templates are bad."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._params = _with_schema(recipe.params)
        self._system = compile_template(recipe.system) if recipe.system else None
        self._user = compile_template(recipe.user) if recipe.user else None

    def check(self, item_input: ItemInput, where: str) -> None:
        """Raises TemplateError, which begins with `where`, when the item has no request."""
        if item_input.messages is not None:
            return
        try:
            if self._system:
                self._system.check(item_input.system_variables)
            self._user_template().check(item_input.user_variables)
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}") from exc

    def messages(self, item_input: ItemInput) -> list[dict[str, Any]]:
        """Ready messages as they are; otherwise the system message, unless it is blank, and the
        user's. Raises TemplateError."""
        if item_input.messages is not None:
            return item_input.messages
        user = self._user_template().render(item_input.user_variables)
        messages = [{"role": "user", "content": user}]
        system = self._system.render(item_input.system_variables) if self._system else ""
        if system.strip():
            messages.insert(0, {"role": "system", "content": system})
        return messages

    def request_body(self, item_input: ItemInput, sample: int | None = None) -> dict[str, Any]:
        """The body of the chat completion. The item's params win over the recipe's, the model
        included; one that is None is left out. What is in `extra_body` goes in last, as it is.
        Raises TemplateError.

        Each sample of an item has a seed of its own: the one that is asked for, plus one for each
        sample before it; or else its number, but the first one none, as it is the ordinary item.
        """
        body = {
            "model": self._recipe.model,
            "messages": self.messages(item_input),
            **self._asked_params(item_input),
        }
        if sample is not None and sample > 1:
            asked = body.get("seed", 1)
            body["seed"] = asked + sample - 1 if isinstance(asked, int) else asked
        return body

    def added_params(self, item_input: ItemInput, sample: int | None = None) -> set[str]:
        """The names of what `request_body` sends though neither the config nor the item says so: a
        response_format made of the parser's schema (`structured_output`), which is stored as no
        other, and the seed of a sample. A request without it is as good, should the server not
        know it."""
        added = set()
        is_made = self._params is not self._recipe.params
        if is_made and not is_own(item_input, "response_format"):
            added.add("response_format")
        if sample is not None and sample > 1 and "seed" not in self._asked_params(item_input):
            added.add("seed")
        return added

    def place_of(self, name: str, item_input: ItemInput, sample: int | None = None) -> str:
        """Where a parameter of the request comes from, for messages."""
        if is_own(item_input, name):
            given = item_input.given  # `body`: a line of an OpenAI batch
            place = _place_in(given.get("params"), "params", name)
            return f"{place or _place_in(given.get('body'), 'body', name)} of the item"
        if name in self.added_params(item_input, sample):
            return f"the {name} of {'a sample' if name == 'seed' else 'structured_output'}"
        return _place_in(self._recipe.params, "model", name) or name

    def unused_variables(self, item_input: ItemInput) -> set[str]:
        """The variables that no template uses, for a warning."""
        if item_input.messages is not None:
            return set()
        given = {*item_input.system_variables, *item_input.user_variables}
        if item_input.given.keys().isdisjoint(("system_prompt_kwargs", "user_prompt_kwargs")):
            given -= _FIELDS_OF_BATCHGEN
        for template in (self._system, self._user):
            given -= template.variables if template else frozenset()
        return given

    def _asked_params(self, item_input: ItemInput) -> dict[str, Any]:
        params = {**self._params, **item_input.params}
        extra_body = params.pop("extra_body", None) or {}
        return {name: value for name, value in params.items() if value is not None} | extra_body

    def _user_template(self) -> Compiled:
        if self._user is None:
            raise TemplateError(
                "the item has variables, but there is no user template; set "
                "prompts.user_prompt_path"
            )
        return self._user


def is_own(item_input: ItemInput, name: str) -> bool:
    """Whether the item itself asks for this parameter."""
    return _place_in(item_input.params, "", name) is not None


def _place_in(params: Any, source: str, name: str) -> str | None:
    if not isinstance(params, Mapping):
        return None
    extra_body = params.get("extra_body")
    if isinstance(extra_body, Mapping) and name in extra_body:
        return f"{source}.extra_body.{name}"
    return f"{source}.{name}" if name in params else None


def _with_schema(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe may hold the schema of a response_format as text, to keep the order of its keys."""
    wanted: Any = params.get("response_format")
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if not isinstance(described, dict) or not isinstance(described.get("schema"), str):
        return params
    described = {**described, "schema": json.loads(described["schema"])}
    return {**params, "response_format": {**wanted, "json_schema": described}}


# Where a parser of the user's raised: of no use to a model, and nobody else's business.
_PLACE_IN_CODE = re.compile(r" \([^()]*\.py:\d+\)$")


def with_feedback(
    messages: Sequence[Mapping[str, Any]], answer_text: str, error: str
) -> list[dict[str, Any]]:
    """The conversation that asks again: `messages`, the answer that could not be used, and why.
    `messages` are left as they are."""
    error = _PLACE_IN_CODE.sub("", error).rstrip(". ")
    complaint = f"Your answer could not be used: {error}. Answer again."
    return [
        *map(dict, messages),
        {"role": "assistant", "content": answer_text},
        {"role": "user", "content": complaint},
    ]
