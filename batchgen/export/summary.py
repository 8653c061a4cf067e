"""The summary of an export, as JSON in a file beside it: counts, tokens, cost, recipes, hashes."""

from typing import Any

from batchgen.clock import timestamp
from batchgen.export.convert import Converted
from batchgen.export.request import Exported, ExportRequest
from batchgen.items import Recipe
from batchgen.store import Counts, Experiment
from batchgen.text.json_text import dump_json


def summary_text(
    experiment: Experiment, request: ExportRequest, exported: Exported, converted: Converted,
    counts: Counts, now: int,
) -> str:  # fmt: skip
    """In it, `counts` and `spent` are of the whole experiment, `usage` and `cost_usd` of the rows;
    of chains, of all rows in them, each once."""
    tally = converted.tally
    of_step = {} if experiment.step is None else {"step": request.step}
    of_chains = {} if experiment.step is None else {"stale": counts.stale, "ended": counts.ended}
    summary = {
        "experiment": experiment.name,
        **of_step,
        "exported_at": timestamp(now),
        "format": request.format.name,
        "state": request.only_state or "done or failed",
        "where": request.where.text if request.where else None,
        **({} if request.reviewed is None else {"reviewed": request.reviewed.value}),
        "rows": exported.rows,
        "files": [
            {"path": str(file.path), "rows": file.rows, "sha256": file.sha256}
            for file in exported.files
        ],
        "usage": {
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "cached_tokens": tally.cached_tokens,
            "reasoning_tokens": tally.reasoning_tokens,
        },
        "cost_usd": tally.cost_usd,
        "recipes": [
            _recipe(converted.recipes[number], rows)
            for number, rows in sorted(tally.recipes.items())
        ],
        "counts": {
            "done": counts.done, "failed": counts.failed,
            "pending": counts.pending, "running": counts.running, **of_chains,
        },
        "spent": {
            "calls": counts.calls,
            "unknown_calls": counts.unknown_calls,
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "cost_usd": counts.cost_usd,
        },
    }  # fmt: skip
    return f"{dump_json(summary)}\n"


def _recipe(recipe: Recipe, rows: int) -> dict[str, Any]:
    return {
        "digest": recipe.digest().hex(),
        "rows": rows,
        "model": recipe.model,
        "endpoint": recipe.endpoint,
        "params": recipe.params,
    }
