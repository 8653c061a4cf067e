"""A simulated model: an OpenAI-compatible server on loopback, for rehearsals, the demo and tests.

What a call gets is decided when it arrives, in this order: 404, 401 or 400 for a request that no
server would take, the next scripted `Behaviour`, 429 over a rate limit, an error from the mix,
or an answer. Error and latency are drawn by hash from (seed, request, try number of that request)
and the answer from the request alone: the same run meets the same errors, and a retry may pass
where the first try failed.

The ledger line is written on arrival, before anything is answered, so that a call is on record
whichever side is killed afterwards.
"""

from batchgen.simulate.behaviours import Behaviour, ErrorMix, Latency
from batchgen.simulate.server import Received, Simulator, serve

__all__ = ["Behaviour", "ErrorMix", "Latency", "Received", "Simulator", "serve"]
