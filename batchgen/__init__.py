"""batchgen: run a pool of prompts through an OpenAI-compatible model.

from batchgen import DataGenerationPipeline
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchgen.api import DataGenerationPipeline

__version__ = "0.1.0"
__all__ = ["DataGenerationPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """The pipeline on first use: importing batchgen costs next to nothing."""
    if name == "DataGenerationPipeline":
        from batchgen.api import DataGenerationPipeline

        return DataGenerationPipeline
    raise AttributeError(f"module 'batchgen' has no attribute {name!r}")
