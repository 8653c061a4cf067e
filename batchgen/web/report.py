"""A report: what a run came to, as one file for somebody who has neither the database nor batchgen.

It is drawn with the parts of the pages, and has in it all that it needs: style, scripts, numbers.
Its own policy lets nothing run but these scripts, and nothing be loaded. How large it gets does not
depend on how many rows there are.
"""

import platform
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from random import randrange

from markupsafe import Markup
from msgspec import Struct, json
from msgspec.structs import replace

from batchgen import __version__
from batchgen.clock import now_ms
from batchgen.config import Config
from batchgen.display.commands import Commands
from batchgen.display.items import prompt_parts
from batchgen.jobs.failures import Failures, last_failures_of
from batchgen.jobs.item_page import ItemPage, item_page
from batchgen.jobs.lookup import chosen_experiments
from batchgen.jobs.recipes import RecipeUse, recipes_of
from batchgen.jobs.review_queue import Target, target_of
from batchgen.jobs.series import History, history_of
from batchgen.jobs.status import Status, status_of
from batchgen.parsers import shown_spec
from batchgen.store import RandomRows, ReadStore
from batchgen.web.assets import read_assets
from batchgen.web.frame import environment
from batchgen.web.hiding import hiding
from batchgen.web.language import Text as Words
from batchgen.web.language import read_texts
from batchgen.web.pages.item import (
    OtherRow,
    Part,
    Text,
    cut,
    name_shown,
    others_of,
    pretty,
    pretty_value,
)
from batchgen.web.pages.overview import expected, expected_usd, notes
from batchgen.web.pages.recipes import parts_of
from batchgen.web.pages.series import Told, latencies_s, told_of

MARK = 'content="batchgen report"'
"""What each report has at its beginning."""

MOST_ROWS = 500
_MOST_CHARS, _MOST_OF_OTHERS, _MOST_TEMPLATE_CHARS = 4_000, 1_000, 20_000
_MOST_FAILURES = 20  # groups of an experiment or a step
_FAILURES_S = 10.0  # so long failed rows are looked at
_SEEDS = 1000
_STYLES, _SCRIPTS = ("view.css", "uplot.min.css"), ("uplot.min.js", "view.js", "plots.js")


class Row(Struct, frozen=True):
    """A row of the sample. `value` is None where it is the answer."""

    page: ItemPage
    name: str
    given: tuple[Text, ...]
    others: tuple[OtherRow, ...]
    prompt: tuple[Part, ...]
    answer: Text
    value: Text | None


class Facts(Struct, frozen=True):
    """What was found in the database. `rows` are those of the sample, of the `target`'s step."""

    status: Status
    history: History
    failures: tuple[Failures, ...]
    recipes: tuple[RecipeUse, ...]
    target: Target
    drawn: RandomRows
    rows: tuple[Row, ...]


async def facts_of(
    store: ReadStore, config: Config, name: str, rows: int, seed: int | None = None
) -> Facts:
    """Of an experiment, or a step (`demo/judge`). Without a seed one is chosen, which the report
    names. Raises UsageError for a name that is not there."""
    status = await status_of(store, config, name)
    chosen = await chosen_experiments(store, name)
    ids = {one.id for one in chosen}
    target = await target_of(store, name)
    seed = randrange(_SEEDS) if seed is None else seed
    drawn = await store.pages.random_done(target.experiment_id, rows, seed)
    return Facts(
        status,
        await history_of(store, name),
        tuple(await last_failures_of(store, chosen, _FAILURES_S)),
        tuple(
            one
            for one in reversed(await recipes_of(store))
            if any(user.experiment.id in ids for user in one.users)
        ),
        target,
        drawn,
        tuple([_row(await item_page(store, id_)) for id_ in drawn.item_ids]),
    )


def report_html(facts: Facts, config: Config, commands: Commands, language: str = "en") -> str:
    """The file's text, without a secret."""
    t, now = Words(language, read_texts()), now_ms()
    [summary] = facts.status.experiments
    told = _alone(told_of(facts.history, t, now))
    styles, scripts = _inlined()
    standing = expected(summary)
    text = environment().get_template("report.html").render(
        t=t, language=language, policy=_policy(styles, scripts),
        styles=[_element("style", one) for one in styles],
        scripts=[_element("script", one) for one in scripts],
        plots_data=_data(told), plots=told.plots, plots_note=told.note,
        latencies_s=latencies_s(facts.history.series.points),
        summary=summary, counts=summary.counts, standing=standing, status_=facts.status,
        expected_usd=expected_usd(summary), notes=list(notes(facts.status, commands)),
        began=summary.experiment.created_at, ended=_last_ms(facts.history, now), now=now,
        failures=[_fewer(one) for one in facts.failures if not one.is_clean],
        recipes=[_recipe(one, facts) for one in facts.recipes],
        rows=facts.rows, target=facts.target, drawn=facts.drawn,
        versions=f"batchgen {__version__}, Python {platform.python_version()}",
        commands=_commands(summary.name, facts.drawn, len(facts.rows)),
    )  # fmt: skip
    return hiding(config)(text)


def _row(page: ItemPage) -> Row:
    item = page.item
    has_value = item.parsed is not None
    return Row(
        page, name_shown(page.called), tuple(_cut(pretty(one)) for _, one in page.inputs),
        tuple(others_of(page, _MOST_OF_OTHERS)),
        tuple(Part(name, _cut(pretty_value(one))) for name, one in prompt_parts(page.prompt)),
        _cut(item.response or ""), _cut(pretty(item.parsed or "")) if has_value else None,
    )  # fmt: skip


def _cut(text: str) -> Text:
    return cut(text, most=_MOST_CHARS)


def _recipe(one: RecipeUse, facts: Facts) -> tuple[RecipeUse, list[tuple[str, str]], list[Part]]:
    """With the experiments or steps that ask by it, and their parsers."""
    ids = facts.history.summary.ids
    users = [
        (user.experiment.own_name, shown_spec(user.parser))
        for user in one.users
        if user.experiment.id in ids
    ]
    parts = [
        Part(part.name, cut(part.text, most=_MOST_TEMPLATE_CHARS)) for part in parts_of(one.recipe)
    ]
    return one, users, parts


def _fewer(one: Failures) -> Failures:
    groups = one.groups[:_MOST_FAILURES]
    more = sum(left.group.n for left in one.groups[_MOST_FAILURES:])
    return replace(one, groups=groups, calls=one.calls[:_MOST_FAILURES],
                   left_out=one.left_out + more)  # fmt: skip


def _last_ms(history: History, now: int) -> int | None:
    """When the newest of its calls had ended, to the minute; None: there was none."""
    series = history.series
    ended = [one.minute + series.every for one in series.points if one.calls or one.done]
    return min(now, 60_000 * ended[-1]) if ended else None


def _alone(told: Told) -> Told:
    """Those that there is something to draw of, without links to pages."""
    return replace(told, plots=[replace(one, links=None) for one in told.plots if one.x])


def _commands(name: str, drawn: RandomRows, rows: int) -> list[str]:
    """Those that show the same, and more, where the database is."""
    named = ("--experiment", name)
    found = [
        ("report", *named, "--sample", str(rows), "--seed", str(drawn.seed), "-o", "report.html"),
        ("status", *named), ("failures", *named), ("export", *named),
    ]  # fmt: skip
    return [shlex.join(["batchgen", *words]) for words in found]


def _inlined() -> tuple[Sequence[str], Sequence[str]]:
    assets = read_assets()
    styles, scripts = (
        [assets[name].content.decode() for name in names] for names in (_STYLES, _SCRIPTS)
    )
    return styles, scripts


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Only what is in the file itself, to the letter."""
    hashes: Mapping[str, str] = {
        kind: " ".join(map(_hash, texts))
        for kind, texts in (("script-src", scripts), ("style-src", styles))
    }
    rules = "; ".join(f"{kind} {known}" for kind, known in hashes.items())
    return f"default-src 'none'; {rules}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _element(name: str, text: str) -> Markup:
    """A text of ours, which no end of the element is in."""
    return Markup(f"<{name}>{text}</{name}>")  # noqa: S704  # an asset


def _data(told: Told) -> Markup:
    """The numbers for the script. Data is nothing that a browser runs, and no text in it can end
    the element."""
    text = json.encode(told).decode()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(f'<script type="application/json" id="plots-data">{text}</script>')  # noqa: S704
