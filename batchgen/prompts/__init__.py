"""Prompts: from templates and an item to the messages that are sent.

templates   text with variables, from its file: braces, or Jinja2 in a sandbox
braces      the first of these
renderer    makes the request of an item, by its recipe
images      replaces local images by data URLs
"""

from batchgen.prompts.renderer import LookAlike, Renderer, with_feedback
from batchgen.prompts.templates import compile_template, load_template, text_template

__all__ = [
    "LookAlike", "Renderer", "compile_template", "load_template", "text_template",
    "with_feedback",
]  # fmt: skip
