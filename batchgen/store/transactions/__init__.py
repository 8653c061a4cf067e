"""The transactions, each file by who runs them; written once, for whatever engine: what they are
given is in store/transaction.py. What each promises is said where it is asked for, at the door
(store/__init__.py), or by `Seat`, `Parsers`, `Files` and `Chains`, which ask for them here.

    intake       enqueueing              twins         pools known but for their ids
    additions    new items, in packed lists             new_rows      told from known ones
    seat         a worker's place: lease, exchanges    living        which workers there are
    queue        exchange, take over     claims, quota which items a worker gets
    finish       how claims end, as planned            follow        rows of later steps
    trials       recipes that nobody has been answered to            suspects      and their ends
    fencing      which claims hold       deltas        counters and totals
    budget       what may be spent       limiter       what all may send, capacities
    steering     orders for workers      selections    items that a run chose
    repair       retry and reparse       replaced      what was made of these
    plans        chains as a whole       refollow      rows followed by another plan
    admin        whole experiments       files         live files, exports
    look         how it goes             results, chain_rows         what export reads
    verify       the proof
    rows         rows of statements as values
    sql          statements in files, by name; common.sql has those that all engines take
"""
