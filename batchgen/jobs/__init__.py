"""The jobs: what the command line and the Python API do. Values in, a result value out.

enqueue        the items of a pool become rows
work           one worker, until nothing is left
processes      several worker processes under one command
reparse        stored answers parsed once more
status         how it stands: what is shown of a run and of the whole database
failures       what failed, grouped
show           one item, with all that was sent and came back
unknown_cost   the most that calls with unknown outcome can have cost
"""
