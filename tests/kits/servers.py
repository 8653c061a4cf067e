"""A worker's servers, for tests of its parts."""

from collections.abc import Callable
from typing import cast

from batchgen.config import ModelConfig
from batchgen.limits import TokenMeter
from batchgen.llm.client import Client
from batchgen.llm.prices import Prices
from batchgen.worker.pacer import Pacer
from batchgen.worker.servers import Connection, Server, Servers
from batchgen.worker.spec import ServerSpec
from batchgen.worker.stats import Halt

SERVER = ServerSpec(key="s", name="here", shown_url="http://127.0.0.1/v1")
NO_CLIENT = cast("Client", None)  # of a part that sends nothing


def never(what: object) -> None:
    raise AssertionError(what)


def servers_of(
    *pacers: Pacer, slots: int | None = None, meter: TokenMeter | None = None,
    connection: Connection | None = None, specs: tuple[ServerSpec, ...] = (SERVER,),
    halt: Callable[[Halt], None] = never, warn: Callable[[str], None] = never,
) -> Servers:  # fmt: skip
    """One server each, as the specs say, or the only one."""
    given = connection or Connection(NO_CLIENT, Prices(ModelConfig()))
    made = [Server(spec, given, pacer) for spec, pacer in zip(specs, pacers, strict=True)]
    return Servers(
        made, pacers[0].slots if slots is None else slots, meter or TokenMeter(None),
        halt=halt, warn=warn,
    )  # fmt: skip
