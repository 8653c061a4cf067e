"""What people see: pure functions of values, as text and drawings.

live        a run that goes on: a display on a terminal, plain lines elsewhere
dashboard   `status --watch` on a terminal
texts       status, failures, show and experiments as text
"""
