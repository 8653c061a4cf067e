"""What a page is given."""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from batchgen.config import Config
from batchgen.display.commands import Commands
from batchgen.store import Store
from batchgen.web.frame import Frame
from batchgen.web.reader import Reader


class View(Struct, frozen=True):
    """`pages` reads what is there at once; `scans` what may take a while, and holds up no page. The
    `store` writes; None: nothing may be written. `config` has secrets: none of `config.model` is
    shown. `commands` are what its notes suggest, `say` is
    the terminal that it was started in."""

    config: Config
    pages: Reader
    scans: Reader
    store: Store | None
    frame: Frame
    commands: Commands
    say: Callable[[str], None]

    def writing(self) -> Store:
        """For an order. With --read-only the answer is that nothing may be changed."""
        if self.store is None:
            raise web.HTTPForbidden
        return self.store
