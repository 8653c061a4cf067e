"""Prompts: from templates and an item to the messages that are sent.

templates   text with variables: braces, or Jinja2
sandbox     Jinja2 that reaches nothing but the item
renderer    a recipe and an item make a request
images      local images become data URLs
"""

from batchgen.prompts.renderer import Renderer, is_own, with_feedback
from batchgen.prompts.templates import compile_template, load_template

__all__ = ["Renderer", "compile_template", "is_own", "load_template", "with_feedback"]
