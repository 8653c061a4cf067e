"""Chains as lines in finishing order, for a file that is kept up to date."""

from batchgen.export.chains.lines import line_of
from batchgen.export.chains.text import chain_text
from batchgen.export.chains.walk import ItemRows
from batchgen.store import LiveChains


def live_chain_texts(page: LiveChains) -> list[str]:
    """A line for each chain that has ended."""
    plan = page.chain.plan
    item = ItemRows(plan, list(page.above.values()))
    lines = [line_of(item, plan, page.above[row_id], None) for row_id in page.rows]
    return [chain_text(line) for line in lines if line is not None]
