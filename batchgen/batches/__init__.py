"""Rows that are asked in provider batches: sent, waited for, and collected.

    Item ─render▶ a line of a file ─upload─seal─create▶ a batch at the provider ─collect▶ Outcome

The sender claims rows as any worker does. Sealing gives its claims to the batch, which holds them
until the provider has answered, whatever becomes of this process; so what is known of a batch is
durable before the provider is asked to make it, and one that was made without our knowledge is
found there again. This is the door. Behind it:

    run          one round after another: collect, send, wait
    watching     what the provider says of the batches; which of those that it made are ours
    sending      a file becomes a batch: upload, seal, create
    filling      rows become lines of files, as far as batches, budgets and orders allow
    collecting   lines become outcomes, and a batch that is over is closed
    judging      what a line means for its row
    refused      what becomes of the rows of a batch of which nothing ran
    outages      servers that answer nobody, and when the next batch goes there
    local        rows that need no call: functions of steps, and answers that wait for their parser
    sizes        how many requests the next batch may have, by what the provider refused
    purse        what is left of a budget for the next of them
    spool        the file of a batch while it is filled
    keeping      the sender's place among the workers
    place        a server at which batches are made
"""

from batchgen.batches.place import Ground, Place
from batchgen.batches.run import BatchRun, run_batches

__all__ = ["BatchRun", "Ground", "Place", "run_batches"]
