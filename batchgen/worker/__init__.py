"""One worker: N slots that claim an item, ask the model, decide what the reply means, and hand in.

    slot:  item -> prepare -> send -> judge -> [answer durable] -> parse -> hand in -> next item

What slots finish goes through one task, the committer: what has gathered is one transaction, in
which the freed slots get their next items. A user's parser runs only after the raw answer is
durable, off the event loop and with a deadline, so that nothing it does can cost the answer. The
parsers that can neither hang nor fail the process run first and share the commit. After a crash an
item with an answer and no parse is parsed, not asked for again.

    item        the stages for one item: requests (prepare), budget, calls (send),
                judge (with rejected_parameters), parsing; fallback is kept after a bug
    chains      of experiments with steps: each of their rows is a ChainRow, with what it sees and
                what follows it; answering says which server answers which step
    slots       the tasks that work on items; stopping
    committer   what is written and claimed: demand (what to claim, and when), waiting (slots and
                others that wait), permits (calls in flight), store_retries (while the disk is full)
    membership  what others want of this worker, and what it tells them: report, by reporting
    pacer       holds back when the server wants fewer calls, or is down: controller finds how many
                it takes, blame says whether it is down or its items are bad, stall for how long,
                refused_items which are refused for ever; stragglers knows which calls are late
    spec        what it is to do; stats, what it did so far
"""
