"""Steps: by which rules a row of one step becomes rows of the next. Pure.

This is the door. Behind it:

    links    the rows that another was made of, and those that are to be made of one
    plan     the rules of a chain, as they are stored
    values   what each step of a chain is called by, for those after it
    follow   which rows are made of one that is done

A step is an experiment that is fed by another one, and its rows are ordinary rows. A row that is
done is the parent of those that `follow` says, which are written in the transaction that makes it
done. They see the item, and the values of all rows that they were made of, up to the chain's first.
A gathering step has one row for all rows of the step before it that an item has.
"""

from typing import TYPE_CHECKING

from batchgen.on_demand import names_on_demand

__all__ = [
    "NO_LIST", "Child", "Followed", "Link", "Lists", "Plan", "StepRule", "chain_values", "follow",
    "value_of",
]  # fmt: skip

if TYPE_CHECKING:
    from batchgen.steps.follow import follow
    from batchgen.steps.links import Child, Followed, Link
    from batchgen.steps.plan import NO_LIST, Plan, StepRule
    from batchgen.steps.values import Lists, chain_values, value_of
else:
    __getattr__ = names_on_demand(__name__, __all__, "links", "plan", "values", "follow")
