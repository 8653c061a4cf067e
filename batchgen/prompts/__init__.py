"""Prompts: from templates and an item to the messages that are sent.

templates   text with variables, from its file: braces, or Jinja2 in a sandbox
braces      the first of these
renderer    makes the request of an item, by its recipe
chain_names by which names the rows of a chain know its item, and the steps before them
chain_row   one row of a chain: its input and its messages, and what follows it
stand_in    in place of a value that is not known yet
images      replaces local images by data URLs
"""

from typing import TYPE_CHECKING

from batchgen.on_demand import names_on_demand
from batchgen.prompts.renderer import LookAlike, Renderer, with_feedback
from batchgen.prompts.templates import compile_template, load_template, text_template

__all__ = [
    "LookAlike", "Renderer", "StandIn", "compile_template", "input_of_step", "item_names",
    "load_template", "text_template", "with_feedback",
]  # fmt: skip

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.prompts.chain_names import input_of_step, item_names
    from batchgen.prompts.stand_in import StandIn
else:
    __getattr__ = names_on_demand(__name__, __all__, "chain_names", "stand_in")
