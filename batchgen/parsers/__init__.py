"""Parsers: they turn the text of an answer into a value.

This is the door. Behind it:

    specs, loading         what a parser is called; from its name to the parser
    parser                 the type that all parsers have
    patterns, json_value   the built-in parsers
    thoughts               what they leave out: what a model thought before its answer
    json_search            where in a text JSON is
    schema                 JSON that a JSON Schema allows
    function, model        the user's own functions and pydantic models
    step_function          functions that end the rows of a step, without a call
    fingerprint            what a function does, as a hash: another one is another parser
    problems               how an error names a place in a value
    runner                 runs parsers; exits keeps the exit code when one ends the process
    schema_request         asks the server for what a parser's schema allows

A parser's `kind` says what it can do to the process, and so when it may run:

    inline     built in, and linear in the text: may run anywhere, before the answer is durable too
    regex      the user's pattern, which may backtrack for ever: it has a time limit of its own
    function   the user's code, a model or a schema: it may raise, hang or crash the process, so it
               runs only after the raw answer is durable

`ParserRunner.run` runs a parser of any kind. Whatever goes wrong is a ParseError, which costs the
item and nothing else.
"""

from typing import TYPE_CHECKING

from batchgen.on_demand import names_on_demand

__all__ = [
    "Parser", "ParserRunner", "StepFunction", "file_digest", "is_function_parser",
    "is_script_parser", "load_parser", "load_step_function", "parser_from_callable",
    "response_format", "shown_spec", "step_function_from_callable", "to_json",
]  # fmt: skip


if TYPE_CHECKING:
    from batchgen.parsers.fingerprint import file_digest
    from batchgen.parsers.function import parser_from_callable
    from batchgen.parsers.loading import load_parser
    from batchgen.parsers.parser import Parser, to_json
    from batchgen.parsers.runner import ParserRunner
    from batchgen.parsers.schema_request import response_format
    from batchgen.parsers.specs import is_function_parser, is_script_parser, shown_spec
    from batchgen.parsers.step_function import (
        StepFunction,
        load_step_function,
        step_function_from_callable,
    )
else:
    __getattr__ = names_on_demand(
        __name__, __all__,
        "specs", "parser", "fingerprint", "function", "runner", "schema_request", "loading",
        "step_function",
    )  # fmt: skip
