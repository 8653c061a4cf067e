"""batchgen: run a pool of prompts through an OpenAI-compatible model.

    from batchgen import DataGenerationPipeline

    pipeline = DataGenerationPipeline(user_prompt="Translate into French: {text}")
    results = pipeline.run_sync([{"text": "Good morning"}, {"text": "Good night"}])

What was answered is kept: run the same script again after a crash, and it goes on where it was.
"""

TYPE_CHECKING = False  # as a type checker knows it, without the import: it takes longer than ours

if TYPE_CHECKING:
    from batchgen.api import DataGenerationPipeline, Results, Step, StoppedError
    from batchgen.errors import BatchgenError

__version__ = "0.1.0"
__all__ = [
    "BatchgenError", "DataGenerationPipeline", "Results", "Step", "StoppedError", "__version__",
]  # fmt: skip


if not TYPE_CHECKING:  # or else any name would be one to a type checker

    def __getattr__(name: str) -> object:
        """The API on first use: importing batchgen costs next to nothing."""
        if name in __all__:
            from importlib import import_module

            module = "batchgen.errors" if name == "BatchgenError" else "batchgen.api"
            return getattr(import_module(module), name)
        raise AttributeError(f"module 'batchgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
