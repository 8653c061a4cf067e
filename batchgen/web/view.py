"""What a page is given."""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from batchgen.config import Config
from batchgen.display.commands import Commands
from batchgen.jobs.failures import FailedLike
from batchgen.store import Store
from batchgen.web.frame import Frame
from batchgen.web.reader import Reader

HintOf = Callable[[FailedLike, str | None], str]


class View(Struct, frozen=True):
    """`pages` reads what is there at once; `scans` what may take a while, and holds up no page. The
    `store` writes; None: nothing may be written. `config` has secrets: none of `config.model` is
    shown. `commands` are what its notes suggest, and `hint_of` what helps a group of failures, by
    the name of their experiment, with commands in backticks; `say` is the terminal that it was
    started in."""

    config: Config
    pages: Reader
    scans: Reader
    store: Store | None
    frame: Frame
    commands: Commands
    hint_of: HintOf
    say: Callable[[str], None]

    def writing(self) -> Store:
        """For an order. With --read-only the answer is that nothing may be changed."""
        if self.store is None:
            raise web.HTTPForbidden
        return self.store
