"""The errors of batchgen, grouped by what happens next.

    BatchgenError                 one line on stderr, no traceback
    ├── UsageError                exit 2: the user must change something
    │   ├── ConfigError           names the key's path
    │   ├── InputError            names file:line of the data pool
    │   └── TemplateError         names template and variable
    ├── StoreError                exit 1: the database cannot be used as it is
    │   ├── SchemaError           written by a newer batchgen, or not by batchgen at all
    │   ├── MovedError            it has been moved to another place, where the work goes on
    │   ├── StoreBusyError        another process kept it locked for too long
    │   │   └── StoreAwayError    its server cannot be reached
    │   ├── StoreFullError        the disk is full, or fails
    │   └── StoreRefusedError     the database refuses a value that was to be written
    └── ParseError                a parser could not use an answer: that costs its item only

A message says what happened, and to which thing; no flag and no command, since it must be right in
Python and on a page too. What helps is a `Remedy`, which the command line says in its own words.
A call to the model that failed is not an exception but a value (`items.Failure`), since what
follows from it is decided, not raised. A worker that lost its lease learns so from a return value.
"""

from enum import Enum, auto


class Remedy(Enum):
    """What the user can do about an error or a halt; the command line's words for it are in
    `cli/hints.py`. A comment names the facts that go with it."""

    NAME_DATABASE = auto()
    NAME_NEW_DATABASE = auto()
    MOVE_AGAIN = auto()
    ONLY_LOOK = auto()
    ENQUEUE_FIRST = auto()
    MOVE_DATABASE = auto()
    STOP_WORKERS = auto()
    END_BATCHES = auto()
    RUN_AGAIN = auto()
    NAME_EXPERIMENT = auto()
    NAME_EXPERIMENTS = auto()
    SHOW_ITEM = auto()  # item
    GIVE_DONE_BY_ID = auto()
    ASK_DONE_AGAIN = auto()
    GIVE_FUNCTION = auto()
    GIVE_TEMPLATE = auto()
    LOOK_AT_STATUS = auto()
    STOP_A_WORKER = auto()
    CHOOSE_RECIPE = auto()  # replace, again, add: what each costs
    CHOOSE_STEPS = auto()  # replace, again: what each costs
    REPLACE_RECIPE = auto()
    NAME_FILE = auto()
    REPLACE_FILE = auto()
    LEAVE_OUT_ITEM = auto()
    CHOOSE_MESSAGES = auto()
    CHOOSE_IN_EXPORT = auto()
    FOLLOW_TO_STDOUT = auto()
    CLAIM_SO_MANY = auto()
    RAISE_COST_BUDGET = auto()
    RAISE_TOKEN_BUDGET = auto()
    ALLOW_MORE_FAILURES = auto()
    LET_ITEMS_FAIL = auto()
    # Of provider batches.
    LIST_BATCHES = auto()
    FIND_BATCH = auto()
    ADOPT_BATCH = auto()  # number, batch_id
    END_LATE_BATCHES = auto()
    STOP_SENDER = auto()  # worker
    # Of failed items; `which` chooses them, as options of retry.
    ASK_AGAIN = auto()  # which
    LOOK_AND_ASK_AGAIN = auto()  # which, item
    RAISE_MAX_TOKENS = auto()  # which, setting
    MEND_PARSER = auto()  # which, scope
    MEND_FUNCTION = auto()  # which
    MEND_LIST = auto()  # which
    CHANGE_STEP = auto()  # which, item
    MEND_GATHERED = auto()  # item
    ASK_ANOTHER_MODEL = auto()  # which
    CHANGE_REQUEST = auto()  # which, item


class BatchgenError(Exception):
    """What went wrong and what to do, in one line. `remedy` names what to do for a program, `facts`
    are what the words for it need; a command ends with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, remedy: Remedy | None = None, **facts: object) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.facts = facts


class UsageError(BatchgenError):
    """The command, the config or the input must be changed."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type, or points at something that is not there."""


class InputError(UsageError):
    """A line of the data pool cannot be an item."""


class TemplateError(UsageError):
    """A template cannot be read, or an item lacks a variable that it needs."""


class StoreError(BatchgenError):
    """The database cannot be used as it is."""


class SchemaError(StoreError):
    """The file was written by a newer batchgen, or is not a database of batchgen."""


class MovedError(StoreError):
    """The database has been moved to another one, and this one takes no more work."""


class StoreBusyError(StoreError):
    """The write gate stayed closed, or another program kept the file locked, until the deadline."""


class StoreAwayError(StoreBusyError):
    """The server that keeps the database cannot be reached; nothing of what was to be written is
    there."""


class StoreFullError(StoreError):
    """The disk is full, or fails; what was committed is safe."""


class StoreRefusedError(StoreError):
    """The database refuses something of what was to be written: the rest of it may be taken."""


class ParseError(BatchgenError):
    """A parser could not use an answer."""
