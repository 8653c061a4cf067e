"""Provider batches at the model's side: files of requests that a provider answers in its own time.

This is the door. Behind it:

protocol        what a provider of batches can be asked, and what it says
"""

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

__all__ = [
    "BatchLine", "BatchServer", "BatchServerError", "LineProblem", "Refused", "Seen", "Standing",
    "Unclear",
]  # fmt: skip
