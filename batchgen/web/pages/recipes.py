"""What is asked: the recipes, one of them, and what two of them differ in."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import chain
from typing import Any

from aiohttp import web
from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.items import Recipe, Template
from batchgen.jobs.recipes import RecipeUse, recipes_of
from batchgen.web.view import View

_MOST_LINES = 5_000  # to compare, of both together
_PART_LINES = 3  # that are the same, before and after what differs
# Whose value may be one: a recipe has no connection settings, but `extra_body` takes anything.
_SECRET = re.compile(r"(?i)(header|authorization|api.?key|password|secret|bearer|(^|_)token$)")
_MASK = "***"


class Part(Struct, frozen=True):
    """A part of a recipe, as text; `name` is the key of what it is called."""

    name: str
    text: str


class Change(Struct, frozen=True):
    """Lines that both have (`kind` same), the first alone (old) or the second (new); or that some
    were left out (gap)."""

    kind: str
    text: str = ""


async def recipes(view: View, request: web.Request) -> web.StreamResponse:
    """All of them, the newest first."""
    found = await view.pages.read(recipes_of)
    return view.frame.page(
        request, "recipes.html", title=view.frame.text(request)("recipes"), section="recipes",
        found=found,
    )  # fmt: skip


async def recipe(view: View, request: web.Request) -> web.StreamResponse:
    one = await _recipe(view, request.match_info["id"])
    return view.frame.page(
        request, "recipe.html", title=view.frame.text(request)("recipe_n", number=str(one.id)),
        section="recipes", one=one, parts_of_it=parts_of(one.recipe),
    )  # fmt: skip


async def compared(view: View, request: web.Request) -> web.StreamResponse:
    """`?a=1&b=2`: part by part, line by line."""
    first = await _recipe(view, request.query.get("a", ""))
    second = await _recipe(view, request.query.get("b", ""))
    parts = zip(parts_of(first.recipe), parts_of(second.recipe), strict=True)
    return view.frame.page(
        request, "recipes_compared.html", section="recipes",
        title=view.frame.text(request)("recipes_compared", a=str(first.id), b=str(second.id)),
        parts_of_it=[(one.name, list(changes(one.text, other.text))) for one, other in parts],
    )  # fmt: skip


async def _recipe(view: View, number: str) -> RecipeUse:
    """Raises UsageError for one that is not there."""
    found = {str(one.id): one for one in await view.pages.read(recipes_of)}
    if number not in found:
        raise UsageError(f"there is no recipe {number:.40}.")
    return found[number]


def parts_of(recipe: Recipe) -> list[Part]:
    """The same parts of each, so that two can be compared."""
    settings = {"model": recipe.model, "endpoint": recipe.endpoint, **masked(recipe.params)}
    return [
        Part("system_template", _text_of(recipe.system)),
        Part("user_template", _text_of(recipe.user)),
        Part("parameters", "" if recipe.runs_code else _lines_of(settings)),
    ]


def masked(params: Mapping[str, Any]) -> dict[str, Any]:
    """With the values hidden that may be secrets, however deep."""
    return {
        name: _MASK if _SECRET.search(name) and value is not None else _masked_value(value)
        for name, value in params.items()
    }


def changes(old: str, new: str) -> Iterator[Change]:
    """What differs, with a few lines around it; nothing where both are the same."""
    if old == new:
        return
    a, b = old.splitlines(), new.splitlines()
    if len(a) + len(b) > _MOST_LINES:
        yield from (Change("old", old), Change("new", new))
        return
    end = 0
    for group in SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(_PART_LINES):
        if group[0][1] > end:
            yield Change("gap")
        yield from chain.from_iterable(
            [Change("same", line) for line in a[i1:i2]] if tag == "equal"
            else [Change("old", line) for line in a[i1:i2]]
            + [Change("new", line) for line in b[j1:j2]]
            for tag, i1, i2, j1, j2 in group
        )  # fmt: skip
        end = group[-1][2]
    if end < len(a):
        yield Change("gap")


def _masked_value(value: Any) -> Any:
    if isinstance(value, dict):
        return masked(value)
    return [_masked_value(one) for one in value] if isinstance(value, list) else value


def _text_of(template: Template | None) -> str:
    return "" if template is None else template.text


def _lines_of(settings: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{name}: {json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)}"
        for name, value in settings.items()
    )
