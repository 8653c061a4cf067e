"""The jobs: what the command line and the Python API do. Values in, a result value out.

recipe         what the config asks
asked          what the config asks of them: a recipe, or the steps of a chain
enqueue        the items of a pool become rows
dry_run        what enqueueing a pool would come to
work           one worker, until nothing is left
processes      several worker processes under one command
worker_process   one of them, seen from inside
retry          items that ended go back to pending; retry_stale: rows of steps, too
reparse        stored answers parsed once more
status         how it stands: what is shown of a run and of the whole database
failures       what failed, grouped
show           one item, with all that was sent and came back; item_page: as a page has it
browse         rows of an experiment page by page: filtered, searched
compare        what is different between two answers, or two values
export         the finished rows as a file, also one that follows the work
verify         the proof that a database is whole
experiments    listed, renamed, deleted
steer          running workers: pause, resume, set, stop
lookup         from a name, an id or a number to the experiment or the items
step_changes   what differs where the config has other steps, and what each way costs
follow         what is done is followed by rules that were not there then; missing_lists: what had
               failed for want of a list, too
unknown_cost   the most that calls with unknown outcome can have cost
"""
