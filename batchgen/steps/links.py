"""The rows that another was made of, and those that are to be made of one."""

from msgspec import Struct


class Link(Struct, frozen=True):
    """One row that another was made of, with the very result that it was made of. `number` is that
    of its step, from 0. `parsed_json` is None when parsed is the answer itself; of an embedding it
    is the vector. `response` is None where the user's function ended it, without a call.
    `passed_on` is the hash of that result (see `Followed`). `gathered`: of a gathering step's row,
    the rows that it gathered, each with those that it was made of, from the chain's first one.
    `custom_id` is the user's own id, of a chain's first row."""

    item_id: int
    experiment_id: int
    number: int
    recipe_id: int
    result_seq: int
    input_json: str
    parsed_json: str | None = None
    response: str | None = None
    passed_on: bytes | None = None
    sample: int | None = None
    custom_id: str | None = None
    gathered: tuple[tuple["Link", ...], ...] = ()


class Child(Struct, frozen=True):
    """A row to be made: of step `number`, for the `element` of its parent's list, from 0; `input`
    is that element by its name, or empty."""

    number: int
    element: int = 0
    input_json: str = "{}"


class Followed(Struct, frozen=True):
    """What follows a row that is done, by the plan with the number `plan_id`. `passed_over` is how
    many steps after it were. `passed_on` is the same, 8 bytes, as long as all that rows made of it
    see is."""

    plan_id: int
    children: tuple[Child, ...]
    passed_over: int
    passed_on: bytes
