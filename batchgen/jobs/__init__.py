"""The jobs: what the command line and the Python API do. Values in, a result value out.

enqueue        the items of a pool become rows
work           one worker, until nothing is left
processes      several worker processes under one command
reparse        stored answers parsed once more
unknown_cost   the most that calls with unknown outcome can have cost
"""
