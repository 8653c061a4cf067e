"""The engine that keeps the store on a PostgreSQL server, for workers on many machines.

connection   a database opened by one process: its transactions, on a thread of their own
thread       which is that thread, and who has no time to wait for it
reading      the same for who only reads
session      one connection, and transactions on it that are brought to a known end
transaction  what a transaction function is given
pipeline     how statements go out, and their answers come back
opening      how a connection is made, and what the server is
migrate      the schema, from migrations/postgres/*.sql
sql          the statements, of postgres.sql and transactions/common.sql
members      which workers live
processes    whether a process has ended, as far as can be told
additions    new items, by their keys; pool_memory, what a pass over a pool has met
leases       what one process at a time may do
adapting     values there and back
locks        what transactions lock, by number; holders, who keeps others waiting
problems     what the server says, as errors of ours
"""
