"""The store: every item, every answer, and who is at work, in one database.

This is the door; other modules use nothing else of this folder. Each method is one transaction, or
one snapshot, and its docstring is its promise. Behind it:

    reading   the side of it that only reads       store     all of it
    values    what it is asked with, and what it answers      records   what is only read of it
    chain_records   what is read of experiments with steps          page_records   of pages of rows
    review_records  what people said of answers      batch_records   what is at providers
    keys      by what an item is known again
    failure_groups   which failures are of one kind
    trial     whose fault it is that nobody has been answered yet
    server_wants     what the servers have room for, and how a claim is shared out among them
    plan      what an exchange writes, decided before: outcomes become rows, and deltas
    plan_removal     what becomes of the claims of who is gone
    grants    which calls a budget lets a worker send
    chain     which steps belong together, and what a row of a later one was made of
    plan_follow   what becomes of rows when what they were made of has a result
    plan_links    what rows are made of that are claimed as they are made
    minutes   what is counted by the minute, and in which buckets
    returned  what calls have used, and what they give back to the limits
    moving    all of it brought into another database; tables, how it goes there
    transactions/   what is read and written, once for all engines
    transaction     what each of these is given by the engine
    database        what the store needs of an engine besides
    sqlite/   the engine that keeps it in one SQLite file
    postgres/ the engine that keeps it on a server, for workers on many machines
"""

from typing import TYPE_CHECKING

from batchgen.on_demand import names_on_demand

__all__ = [
    "Acquitted", "Added", "AnswerChoice", "AnswerDetails", "AskedServer", "AttemptText",
    "BatchState", "Budget", "Call", "CallFailure", "CallTotals", "Chain", "ChainIntake", "ChainRow",
    "ChainStep", "Claim", "ClaimRequest", "Condemned", "CountNew", "Counts", "EndedAnswer",
    "EndedItem", "Exchange", "Experiment", "ExportRecord", "Failed", "FailedCalls", "FailureGroup",
    "FailureLimit", "FileUse", "FollowRow", "FormerResult", "Grant", "Intake", "Listing",
    "LiveChains", "LiveFileRecord", "LivePage", "MadeOf", "MadePage", "Minutes", "Moved",
    "NewBatch", "NewRows", "Order", "OrderChange", "Orders", "Origin", "OtherRecipe", "Pace",
    "PackedItems", "PageRow", "ParseWatch", "ParserCount", "Parsers", "Point", "ProviderBatch",
    "RandomRows", "ReadStore", "RecipeChoice", "Reparsed", "Reservation", "Reserved", "ResultRow",
    "ResultValue", "Review", "ReviewChange", "ReviewCounts", "ReviewFilter", "ReviewedItem",
    "Reviews", "Sample", "Seat", "Selection", "Series", "ServerWant", "ShownAttempt", "Slowest",
    "Spent", "StaleRow", "StepIntake", "Store", "StoredAttempt", "StoredItem", "StoredParser",
    "Stretch", "Trial", "Twin", "UnknownCall", "Verdict", "WorkerKind", "WorkerRow", "claim_of",
    "key_of_content", "key_of_id", "keys_of_contents", "literal_parts", "move_tables", "open_store",
    "open_store_if_there", "percentiles", "read_now", "read_store", "server_key", "server_keys",
    "start_of_bucket",
]  # fmt: skip

if TYPE_CHECKING:
    from batchgen.store.batch_records import BatchState, NewBatch, ProviderBatch
    from batchgen.store.chain_records import (
        Chain,
        ChainRow,
        ChainStep,
        FollowRow,
        LiveChains,
        MadeOf,
        StaleRow,
    )
    from batchgen.store.failure_groups import literal_parts
    from batchgen.store.keys import key_of_content, key_of_id, keys_of_contents
    from batchgen.store.minutes import percentiles, start_of_bucket
    from batchgen.store.moving import Moved, move_tables
    from batchgen.store.page_records import (
        AttemptText,
        Call,
        FormerResult,
        Listing,
        Order,
        Origin,
        PageRow,
        RandomRows,
        ResultValue,
        Sample,
        ShownAttempt,
        Slowest,
        Stretch,
    )
    from batchgen.store.plan import Claim, Reserved, claim_of
    from batchgen.store.reading import ReadStore, read_now, read_store
    from batchgen.store.records import (
        AnswerDetails,
        CallFailure,
        CallTotals,
        Counts,
        Experiment,
        ExportRecord,
        FailedCalls,
        FailureGroup,
        FileUse,
        LiveFileRecord,
        LivePage,
        MadePage,
        Pace,
        ParserCount,
        ResultRow,
        StoredAttempt,
        StoredItem,
        StoredParser,
        UnknownCall,
        WorkerKind,
        WorkerRow,
    )
    from batchgen.store.review_records import (
        Review,
        ReviewChange,
        ReviewCounts,
        ReviewedItem,
        ReviewFilter,
        Verdict,
    )
    from batchgen.store.server_wants import (
        AskedServer,
        ServerWant,
        Trial,
        server_key,
        server_keys,
    )
    from batchgen.store.store import CountNew, Store, open_store, open_store_if_there
    from batchgen.store.transactions.packed import PackedItems
    from batchgen.store.transactions.parsers import Parsers
    from batchgen.store.transactions.reviews import Reviews
    from batchgen.store.transactions.seat import Seat
    from batchgen.store.transactions.series import Minutes, Point, Series
    from batchgen.store.transactions.watch import ParseWatch
    from batchgen.store.values import (
        Acquitted,
        Added,
        AnswerChoice,
        Budget,
        ChainIntake,
        ClaimRequest,
        Condemned,
        EndedAnswer,
        EndedItem,
        Exchange,
        Failed,
        FailureLimit,
        Grant,
        Intake,
        NewRows,
        OrderChange,
        Orders,
        OtherRecipe,
        RecipeChoice,
        Reparsed,
        Reservation,
        Selection,
        Spent,
        StepIntake,
        Twin,
    )
else:
    __getattr__ = names_on_demand(
        __name__, __all__, "records", "reading", "batch_records", "values", "server_wants", "keys",
        "failure_groups", "chain_records", "page_records", "review_records", "plan", "store",
        "transactions.packed", "transactions.watch", "moving", "minutes", "transactions.series",
    )  # fmt: skip
