"""The engine that keeps the store in one SQLite file: what is SQLite's own. The transactions that
run on it are in transactions/.

    connection   a database opened by one process; how a transaction runs
    reading      the same for who only reads
    opening      what both begin with
    transaction  statements by name, on a connection: the common ones, and those of sqlite.sql
    place        where the file may be, and that it goes by one name
    gate         one writer at a time among processes; which workers are alive
    leftover     the log that a crash left beside the file
    problems     what SQLite and the system say, as errors of ours
    migrate      the schema, from migrations/sqlite/*.sql
    additions    new items, by the keys in item_keys
"""
