"""Work in provider batches that is to be done whatever happens, and the moments at which it may be
ended: each is reached exactly, and what stands there is the command in a process of its own.

A moment is either a request that the provider has done and does not reply to (`Simulator.hold`), or
the middle of a transaction (`stuck`), when all before it is durable, and nothing of it is.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.simulate import Simulator
from tests.kits.crashes import contradictions, exported, until
from tests.kits.processes import Process
from tests.kits.project import Project
from tests.kits.provided import Provided
from tests.kits.stuck import stuck
from tests.kits.typist import Ended, Typist

FEW = 12  # rows, in two batches
MOST = 8  # requests of a batch
MANY = 520  # rows in one: more than are claimed, or collected, in a transaction
# In tokens the most that a request can use, by the estimate: of all rows together no more is there.
MOST_OF_ONE = 172
FOREVER = "late_list=86400"  # until `list_batches`
FILES = {
    "batchgen.db", "batchgen.db-gate", "config.yaml", "pool.jsonl", "prompts", "output", "logs",
}  # fmt: skip
_MODEL: dict[str, Any] = {"max_tokens": 60}

Line = dict[str, Any]


class Job:
    """`faults` are the provider's, by name."""

    def __init__(self, project: Provided) -> None:
        self.project = project
        self.provider: Simulator = project.provider
        self.rows = FEW
        self.faults = ""
        self.options: tuple[str, ...] = ()  # of the senders

    async def begin(self, rows: int = FEW, text: str = "", **batch: Any) -> None:
        self.rows = rows
        self.project.in_batches(text, _MODEL, **{"max_requests": MOST, **batch})
        self.project.words(rows)
        self.provider.fail_batches(self.faults)
        said = await self.project.batchgen("enqueue", "pool.jsonl")
        assert said.code == 0, said.err

    def fail(self, *more: str) -> None:
        """The provider has these faults too."""
        self.provider.fail_batches(",".join(filter(None, (*more, self.faults))))

    @property
    def command(self) -> tuple[str, ...]:
        return "work", "--batch", "--max-tokens-total", str(self.rows * MOST_OF_ONE)

    async def sender(self) -> Process:
        return await self.project.start(*self.command, *self.options)

    async def again(self, code: int = 0) -> Ended:
        """The same command, to its end."""
        rest = await self.project.process(*self.command)
        assert rest.code == code, rest.err
        return rest

    @property
    def states(self) -> list[str]:
        """Of the batches, the oldest first."""
        found = self.project.query("select state from provider_batches order by id")
        return [state for (state,) in found]

    async def assert_whole(self, calm: list[Line]) -> None:
        """All is done and closed, exported as by a `calm` run, and charged for once."""
        project, bill = self.project, self.provider.bill
        type_ = Typist(project.path, project.env)
        wrong = contradictions(project, await type_("verify"))
        assert not wrong, wrong
        rows = project.query("select state, count(*) from work group by 1")
        calls = project.query("select outcome, count(*) from attempts group by 1")
        assert (rows, calls) == ([("done", self.rows)], [("answered", self.rows)])
        assert set(self.states) <= {"closed"}
        assert (bill.twice, bill.answers) == (0, self.rows)
        assert (await type_("export")).code == 0
        assert list(map(without_cost, exported(project))) == calm[: self.rows]
        assert {one.name for one in project.path.iterdir()} <= FILES


def without_cost(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != "cost_usd"}


async def calm_run(directory: Path) -> list[Line]:
    """What a run online exports that nobody disturbs."""
    async with Simulator().running() as base_url:
        online = Project(directory, base_url)
        online.env["BATCHGEN_DATABASE"] = "batchgen.db"
        online.config(**_MODEL)
        online.write("prompts/user_prompts/default.txt", "Say {word}\n")
        online.pool({"word": f"w{number:03}"} for number in range(MANY))
        assert (await online.batchgen("run", "pool.jsonl", "-c", "50")).code == 0
        return list(map(without_cost, exported(online)))


@asynccontextmanager
async def job_in(directory: Path, server: Any, host: str = "127.0.0.1") -> AsyncIterator[Job]:
    """Its provider is at that host. No process outlives it."""
    provider = Simulator(host=host)
    async with provider.running():
        project = Provided(directory, provider, server)
        try:
            yield Job(project)
        finally:
            provider.release()
            for process in project.running:
                if process.returncode is None:
                    process.kill()
                await process.communicate()


# --- the moments --------------------------------------------------------------------------------
# What is yielded is a sender that cannot go on. On leaving, whatever held it lets go.


@asynccontextmanager
async def in_transaction(job: Job, event: str, when: str) -> AsyncIterator[Process]:
    """In the middle of the first one that does such a thing; see `stuck`."""
    with stuck(job.project.database, event, when) as reached:
        process = await job.sender()
        await reached(process.pid)
        yield process


@asynccontextmanager
async def without_reply(job: Job, route: str) -> AsyncIterator[Process]:
    """The provider has done what it was asked."""
    job.provider.hold(route)
    process = await job.sender()
    await job.provider.asked(1, route)
    yield process
    job.provider.release(route)


@asynccontextmanager
async def filling(job: Job) -> AsyncIterator[Process]:
    """The first 500 rows are in the file, and the others are being claimed."""
    await job.begin(MANY, max_requests=MANY)
    when = "new.state = 'running' and new.item_id > 500"
    async with in_transaction(job, "update of state on work", when) as process:
        yield process


@asynccontextmanager
async def uploaded(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    async with without_reply(job, "POST /files") as process:
        yield process


@asynccontextmanager
async def about_to_seal(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    async with in_transaction(job, "insert on provider_batches", "new.requests > 0") as process:
        yield process


@asynccontextmanager
async def about_to_ask(job: Job) -> AsyncIterator[Process]:
    """For a batch that is sealed: the request does not come to the provider."""
    await job.begin()
    job.fail("dropped_create=1")
    async with without_reply(job, "POST /batches") as process:
        yield process


@asynccontextmanager
async def made(job: Job) -> AsyncIterator[Process]:
    """And nothing was heard of it."""
    await job.begin()
    async with without_reply(job, "POST /batches") as process:
        yield process


@asynccontextmanager
async def made_and_not_noted(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    when = "new.state = 'open'"
    async with in_transaction(job, "update of state on provider_batches", when) as process:
        yield process


@asynccontextmanager
async def looking(job: Job) -> AsyncIterator[Process]:
    """For a batch, as nothing was heard of it."""
    await job.begin()
    job.faults = job.faults.replace("lost_create=1", "")
    job.fail("lost_create=1")
    async with without_reply(job, "GET /batches") as process:
        yield process


@asynccontextmanager
async def under_way(job: Job) -> AsyncIterator[Process]:
    """Both batches, and no line is answered yet."""
    await job.begin()
    job.provider.hold()
    process = await job.sender()
    is_open = "select count(*) from provider_batches where state = 'open'"
    await until(job.project.database, is_open, 2)
    yield process
    job.provider.release()


@asynccontextmanager
async def downloading(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    async with without_reply(job, "GET /files/ID/content") as process:
        yield process


@asynccontextmanager
async def in_the_first_chunk(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    event = "update of settled on provider_batches"
    async with in_transaction(job, event, "new.settled > 0") as process:
        yield process


@asynccontextmanager
async def in_the_second_chunk(job: Job) -> AsyncIterator[Process]:
    await job.begin(MANY, max_requests=MANY)
    event = "update of settled on provider_batches"
    async with in_transaction(job, event, "old.settled > 0") as process:
        yield process


@asynccontextmanager
async def about_to_close(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    when = "new.state = 'closed'"
    async with in_transaction(job, "update of state on provider_batches", when) as process:
        yield process


@asynccontextmanager
async def deleting_files(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    async with without_reply(job, "DELETE /files/ID") as process:
        yield process


@asynccontextmanager
async def deleted_and_not_noted(job: Job) -> AsyncIterator[Process]:
    await job.begin()
    event = "update of files_gone on provider_batches"
    async with in_transaction(job, event, "new.files_gone = 1") as process:
        yield process


Reach = Callable[[Job], AbstractAsyncContextManager[Process]]


class Moment(NamedTuple):
    """By its `number` in tests/crash/test_batch_kills.py. `left`: how far a batch is then; None:
    there is none."""

    number: int
    reach: Reach
    left: str | None

    @property
    def name(self) -> str:
        return f"{self.number}-{self.reach.__name__}"


MOMENTS = (
    Moment(1, filling, None),
    Moment(2, uploaded, None),
    Moment(2, about_to_seal, None),
    Moment(3, about_to_ask, "creating"),
    Moment(4, made, "creating"),
    Moment(4, made_and_not_noted, "creating"),
    Moment(4, looking, "creating"),
    Moment(7, under_way, "open"),
    Moment(8, downloading, "ended"),
    Moment(8, in_the_first_chunk, "ended"),
    Moment(8, in_the_second_chunk, "ended"),
    Moment(10, about_to_close, "ended"),
    Moment(11, deleting_files, "closed"),
    Moment(11, deleted_and_not_noted, "closed"),
)
