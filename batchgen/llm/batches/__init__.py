"""Provider batches at the model's side: files of requests that a provider answers in its own time.

This is the door. Behind it:

protocol        what a provider of batches can be asked, and what it says
openai_shape, mistral       the words of OpenAI and most others, and those of Mistral
server          what is the same at all of them
listing         the newest batches of a list, page by page
files           files there: sent up, read down line by line, deleted
lines           the lines of an answer file, split and read
transport       requests, and files in pieces, over HTTP
form            a file as a form has it
members         members of what a provider sends
replies         what a reply means
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from batchgen.config import ModelConfig
from batchgen.llm.batches.mistral import MistralBatches
from batchgen.llm.batches.openai_shape import OpenAIBatches
from batchgen.llm.batches.protocol import (
    BatchLine,
    BatchServer,
    BatchServerError,
    LineProblem,
    Refused,
    Seen,
    Standing,
    Unclear,
)
from batchgen.llm.batches.transport import open_transport
from batchgen.llm.server_address import address_of

__all__ = [
    "BatchLine", "BatchServer", "BatchServerError", "LineProblem", "Refused", "Seen", "Standing",
    "Unclear", "open_batch_server",
]  # fmt: skip

_HOST_OF_MISTRAL = "api.mistral.ai"


@asynccontextmanager
async def open_batch_server(model: ModelConfig, *, timeout_s: float) -> AsyncIterator[BatchServer]:
    """The provider of batches that the section `model` names, with its key, headers, query and
    proxy as of calls. Any number of calls may be in flight at once. To make a batch, to look at
    one or at the list (a page of it) takes at most `timeout_s`; a file goes up or down as long as
    something of it goes within `timeout_s`. Raises ConfigError when the key is missing or unusable,
    or the environment's proxy is."""
    address = await address_of(model)
    host = urlsplit(model.base_url).hostname
    is_mistral = model.provider == "mistral" or host == _HOST_OF_MISTRAL
    async with open_transport(address, timeout_s) as transport:
        yield MistralBatches(transport) if is_mistral else OpenAIBatches(transport)
