"""What people see: pure functions of values, as text and drawings.

run         how a run goes: a display on a terminal, plain lines elsewhere
live        the drawing of that display
dashboard   `status --watch` on a terminal
history     what changed between looks: the rates
drawing     what both displays are drawn of
status      `status` as text, and what both displays say in words
held        what holds workers back, in words
batches     `batches` as text; batch_words, what others say of provider batches
times       times in words
parsed      what came of answers that were parsed again
items       `failures`, `show` and `experiments` as text
visible     texts from outside, so that they cannot steer a terminal
commands    what the reader can type, as the command line says it
"""
