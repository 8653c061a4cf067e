"""A simulated model: an OpenAI-compatible server on loopback, for rehearsals, the demo and tests.

What a call gets is decided when it arrives, in this order: 404, 401 or 400 for a request that no
server would accept, the next scripted `Behaviour`, 429 over a rate limit, an error from the mix, or
an answer. Error and latency are drawn by a hash of (seed, request, number of its try), the answer
by a hash of the request alone: the same run meets the same errors, and a retry may succeed where
the first try failed.

A call's line in the ledger is written when it arrives, before anything is answered, so that the
call is on record whichever side is killed afterwards. A line of a batch gets what a call with the
same body would get; what both would cost is on the bill.
"""

from batchgen.simulate.batch_faults import BATCH_FAULTS
from batchgen.simulate.behaviours import Behaviour, ErrorMix, Latency
from batchgen.simulate.server import Simulator, serve
from batchgen.simulate.vendor_replies import VENDOR_REPLIES

__all__ = [
    "BATCH_FAULTS",
    "VENDOR_REPLIES",
    "Behaviour",
    "ErrorMix",
    "Latency",
    "Simulator",
    "serve",
]
