"""Chains as lines: the export of experiments with steps.

This is the door. Behind it:

    walk       from the rows of an item to its chains: where each has ended
    line       a line: what a chain went through, and its sums
    lines      the lines that an item has, and what is in them by name
    text       a line as JSON
    table      a line as a row of a table
    content    what there is about the lines of one export
    formats    how each format holds them
    source     what an export is made of, page by page
    results    chains that have ended, one by one: for Python, and for live files
"""

from batchgen.export.chains.lines import chosen_lines, names_in_lines, review_names
from batchgen.export.chains.results import EndedChain, chains_of_item, newly_ended
from batchgen.export.chains.source import ChainLines
from batchgen.export.chains.table import column_groups
from batchgen.export.chains.text import chain_text

__all__ = [
    "ChainLines", "EndedChain", "chain_text", "chains_of_item", "chosen_lines", "column_groups",
    "names_in_lines", "newly_ended", "review_names",
]  # fmt: skip
