"""The engine that keeps the store in one SQLite file.

    connection   a database opened by one process; how a transaction runs
    place        where the file may be, and that it goes by one name
    gate         one writer at a time among processes; which workers are alive
    problems     what SQLite and the system say, as errors of ours
    migrate      the schema, from migrations/sqlite/*.sql
    sql          queries.sql by name

and the transactions, each file by who runs them. What each promises is said where it is asked for,
at the door (store/__init__.py) or by the seat; here, only how SQLite keeps it.

    intake       enqueueing
    seat         a worker's place: lease, lock, exchanges; who is dead
    queue        exchange, take over         claims    which items a worker gets
    finish       how claims end, as planned  trials    recipes that nobody has been answered to
    fencing      which claims hold           deltas    counters and totals
    budget       what may be spent           limiter   what all may send
    steering     orders for workers          repair    retry and reparse
    admin        experiments, exported files look      how it goes
    results      what export reads           live      files that follow
    verify       the proof
"""
