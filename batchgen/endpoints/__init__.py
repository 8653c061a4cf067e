"""The kinds of request that a server answers, and what an answer to each holds.

chat      chat completions
message   what the model says in one, and what it thinks
usage     the tokens that a call used
"""
