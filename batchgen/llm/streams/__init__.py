"""A streamed answer becomes the body that the server would have sent without a stream, so that
nothing that reads a body knows of streams. Pure.

events    server-sent events out of bytes, as they come
body      what events say, put together
response  the same for the Responses API
pieces    objects that come in pieces: their texts joined, their lists continued
"""

from batchgen.llm.streams.body import StreamedBody
from batchgen.llm.streams.events import Event, EventReader, begins_as_stream

__all__ = ["Event", "EventReader", "StreamedBody", "begins_as_stream"]
