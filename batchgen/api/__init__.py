"""The Python API: a pool of items in, their results out.

It runs the same jobs as the command line on the same kind of database, so a script that crashed
goes on where it stopped, and `batchgen status` shows its progress. Behind this door:

    pipeline   the class that users have
    settings   its keywords, typed: every setting by name; model_settings are those of a model
    step       a step of a chain: the keywords of one, and its code as objects
    request    what one run is asked for, checked
    run        one run: enqueue, parse what is out of date, answer, export
    outcome    the results of a run, of rows or of chains
    pools      what a data pool may be
    answers    what the methods give: results, and how it stands
    own_file   the file that runs write
    operate    what is done with what is there already
    streaming  a run's results as they come
    showing    progress: on a terminal, in a notebook, as lines
    blocking   async work in a thread of its own, and what Ctrl-C does to it
    words      what an error says can be done, in Python's words
"""

from batchgen.api.answers import (
    Exported,
    Failed,
    Failures,
    Reparsed,
    Results,
    Retried,
    Status,
    StepStatus,
    Told,
)
from batchgen.api.pipeline import DataGenerationPipeline
from batchgen.api.step import Step
from batchgen.api.words import StoppedError

__all__ = [
    "DataGenerationPipeline", "Exported", "Failed", "Failures", "Reparsed", "Results", "Retried",
    "Status", "Step", "StepStatus", "StoppedError", "Told",
]  # fmt: skip
