"""What each page is drawn in: navigation, language, and the command that does the same."""

import secrets
import shlex
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web
from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from batchgen.web import shown
from batchgen.web.assets import Asset, read_assets
from batchgen.web.language import LANGUAGES, Text, preferred, read_texts

if TYPE_CHECKING:
    from types import CodeType

# Key of its name, and its URL.
PAGES = (
    ("experiments", "/"),
    ("workers", "/workers"),
    ("batches", "/batches"),
    ("recipes", "/recipes"),
)
# Of an experiment: key of its name, and the last part of its URL.
EXPERIMENT_PAGES = (
    ("overview", None),
    ("items", "items"),
    ("review", "review"),
    ("failures", "failures"),
    ("fields", "fields"),
)

HAS_BATCHES = web.RequestKey("has_batches", bool)  # there is something on the page of batches
VERSION = web.RequestKey("version", str)  # of what the database has, which a live page goes by
STYLE = "/assets/view.css"  # the same for everybody
_LANGUAGE_COOKIE = "batchgen-language"
_FILTERS = (
    "cost", "duration", "ends", "in_bytes", "line", "marked", "moment", "number", "seconds",
    "size", "utc", "with_code",
)  # fmt: skip
_NOTICES_KEPT = 100


class Notice(NamedTuple):
    """What came of an order, and the command that would have done the same."""

    text: str
    command: str


class _Compiled(BytecodeCache):
    """What was compiled in this process, for all that it serves and reports: to compile a template
    takes far longer than to draw a page with it."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


def environment(**names: object) -> Environment:
    """The templates, with what all of them may use, and these `names`."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True, undefined=StrictUndefined, finalize=shown.finalize,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False, bytecode_cache=_COMPILED,
    )  # fmt: skip
    made.filters |= {name: getattr(shown, name) for name in _FILTERS}
    made.filters["exact"] = shown.exact
    made.globals |= {"path": shown.path, "percent": shown.percent, **names}
    return made


class Frame:
    """`called` is how batchgen is called for this database, as a shell takes it; `database` is what
    that is called, without a password."""

    def __init__(
        self,
        database: str,
        called: str,
        *,
        read_only: bool,
        hide: Callable[[str], str] = str,
        tab: str = "",
    ) -> None:
        """`hide` takes what is a secret out of a page, though none should be in it; `tab` is what a
        page asks for itself with."""
        self._hide = hide
        self.assets: dict[str, Asset] = dict(read_assets())
        self._called = called
        self._notices: OrderedDict[str, Notice] = OrderedDict()
        texts = read_texts()
        self._texts = {language: Text(language, texts) for language in LANGUAGES}
        self._environment = environment(
            asset=lambda name: self.assets[name].url, database=database, languages=LANGUAGES,
            read_only=read_only, tab=tab,
            enqueue=self.command("enqueue", "POOL"), work=self.command("work"),
        )  # fmt: skip

    def text(self, request: web.Request) -> Text:
        """The texts in the reader's language."""
        return self._texts[self.language(request)]

    def language(self, request: web.Request) -> str:
        for wish in (request.query.get("lang"), request.cookies.get(_LANGUAGE_COOKIE)):
            if wish in LANGUAGES:
                return wish
        return preferred(request.headers.get("Accept-Language", ""))

    def command(self, *words: object) -> str:
        """How the command line says it: `frame.command("status", "--experiment", name)`."""
        return shlex.join(["batchgen", *map(str, words)]).replace("batchgen", self._called, 1)

    def lead(self, place: str, text: str, *, command: Sequence[object] = ()) -> web.Response:
        """After an order: to a page that says what came of it, also when it is loaded again. The
        address has a name for the text and not the text, which any link could bring then."""
        name = secrets.token_hex(4)
        self._notices[name] = Notice(text, self.command(*command) if command else "")
        while len(self._notices) > _NOTICES_KEPT:
            self._notices.popitem(last=False)
        mark = "&" if "?" in place else "?"
        return web.Response(status=303, headers={"Location": f"{place}{mark}notice={name}"})

    def page(
        self,
        request: web.Request,
        template: str,
        *,
        title: str,
        command: Sequence[object] | None = None,
        experiment: str | None = None,
        section: str | None = None,
        status: int = 200,
        **values: object,
    ) -> web.Response:
        """The template, which extends base.html, with these values.

        `title` is shown as the heading too; `command` are the words after `batchgen` of the command
        that does the same; `experiment` is the one that the page is about, and `section` the key of
        this page in the navigation.
        """
        language = self.language(request)
        text = self._environment.get_template(template).render(
            t=self._texts[language],
            language=language,
            here=str(request.rel_url),
            other_languages={
                name: str(request.rel_url.update_query(lang=name))
                for name in LANGUAGES
                if name != language
            },
            version=request.get(VERSION, ""),
            title=title,
            notice=self._notices.get(request.query.get("notice", "")),
            command=None if command is None else self.command(*command),
            experiment=experiment,
            section=section,
            pages=[
                (key, url, key == section)
                for key, url in PAGES
                if key != "batches" or request.get(HAS_BATCHES, False)
            ],
            experiment_pages=[
                (key, shown.path("e", experiment, *filter(None, [last])), key == section)
                for key, last in EXPERIMENT_PAGES
                if experiment is not None
            ],
            **values,
        )
        response = web.Response(
            # Of a character that is only half there, what stands for it.
            body=self._hide(text).encode("utf-8", "replace"),
            status=status,
            content_type="text/html",
            charset="utf-8",
        )
        if request.query.get("lang") == language:
            response.set_cookie(
                _LANGUAGE_COOKIE, language, max_age=10**8, path="/", httponly=True, samesite="Lax"
            )
        return response

    def refusal(self, request: web.Request, status: int, text: str) -> web.Response:
        """A page for who may see nothing: it knows no database. `text` is the key of its words."""
        t = self.text(request)
        body = self._environment.get_template("refusal.html").render(
            t=t, language=self.language(request), text=t(text), status=status
        )
        return web.Response(text=body, status=status, content_type="text/html", charset="utf-8")
