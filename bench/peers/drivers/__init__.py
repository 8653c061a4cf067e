"""How each of the others is used: a script per peer, run by the Python of the peer's own virtual
environment, in a directory with `pool.jsonl` and `template.txt`. Each ends with a line
`results: N`: how many answers its user has in hand.
"""
