"""The options of batchgen itself are taken before the command and after it; help by -h; what a
shell completes."""

import re
from pathlib import Path

import pytest

from batchgen.cli import cli
from batchgen.cli.group import GLOBAL_OPTIONS
from batchgen.simulate import Behaviour, Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project
from tests.kits.typist import Typist


@pytest.fixture
async def elsewhere(project: Project, batchgen: Typist) -> Project:
    """A project of which the config and the database have other names."""
    (project.path / "config.yaml").rename(project.path / "c.yaml")
    project.pool([{"word": "a"}])
    ran = await batchgen("--config", "c.yaml", "--db", "x.db", "run", "pool.jsonl")
    assert ran.code == 0, ran.err
    return project


@pytest.mark.quick("command1", "command7", "command4")
@pytest.mark.parametrize(
    "command",
    [
        ["status", "--db", "x.db"],
        ["status", "--json", "--db", "x.db", "--config", "c.yaml"],
        ["--db", "y.db", "status", "--db", "x.db"],
        ["--config", "c.yaml", "show", "1", "--db", "x.db"],
        ["experiments", "--db", "x.db"],
        ["experiments", "rename", "default", "other", "--db", "x.db"],
        ["experiments", "--db", "x.db", "rename", "default", "other"],
        ["verify", "-v", "--db=x.db"],
        ["export", "-o", "-", "--db", "x.db", "-q"],
        ["failures", "-q", "--db", "x.db", "-v"],
    ],
)
async def test_they_are_taken_after_the_command_too(
    elsewhere: Project, batchgen: Typist, command: list[str]
) -> None:
    ran = await batchgen(*command)
    assert ran.code == 0, ran.err
    assert ran.out
    assert not (elsewhere.path / "y.db").exists()
    assert is_untouched(elsewhere.database)


async def test_a_database_without_a_name_is_not_the_default_one(
    elsewhere: Project, batchgen: Typist
) -> None:
    """As of a shell's variable that is not set."""
    ran = await batchgen("--config", "c.yaml", "--db", "", "enqueue", "pool.jsonl")
    assert (ran.code, ran.err) == (
        2, "error: --db: is empty. Name a file or postgresql://..., or leave it out.\n",
    )  # fmt: skip
    assert not (elsewhere.path / "batchgen.db").exists()


async def test_quiet_and_verbose_after_the_command_are_heeded(
    elsewhere: Project, batchgen: Typist
) -> None:
    quiet = await batchgen("run", "pool.jsonl", "-q", "--config", "c.yaml", "--db", "x.db")
    assert (quiet.code, quiet.err) == (0, "")


@pytest.mark.quick("run", "view", "set")
@pytest.mark.parametrize("name", cli.list_commands(None))  # type: ignore[arg-type]  # not used
async def test_every_command_has_help_by_h_with_them_in_one_line(
    batchgen: Typist, name: str
) -> None:
    short, long = await batchgen(name, "-h"), await batchgen(name, "--help")
    assert (short.code, short.out) == (0, long.out)
    assert "--config, --db, -v, -q" in short.out
    assert "-h, --help" in short.out


def test_no_command_has_an_option_of_the_same_name() -> None:
    names = {name for option in GLOBAL_OPTIONS for name in option.opts}
    for command in cli.commands.values():
        own = [
            name for param in command.params if param not in GLOBAL_OPTIONS for name in param.opts
        ]
        assert names.isdisjoint(own)


async def complete(typist: Typist, *words: str) -> list[str]:
    env = {
        "_BATCHGEN_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("batchgen", *words)),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    return (await Typist(typist.directory, {**typist.env, **env})(*words)).out.split()


async def test_a_shell_completes_commands_options_and_experiments(
    elsewhere: Project, batchgen: Typist
) -> None:
    more = ("--config", "c.yaml", "--db", "x.db")
    await batchgen("enqueue", "pool.jsonl", "--experiment", "labels", *more)
    assert await complete(batchgen, "ret") == ["plain,retry"]
    assert await complete(batchgen, "res") == ["plain,resume"]
    assert "plain,--until" in await complete(batchgen, "run", "--")
    named = await complete(batchgen, "--db", "x.db", "export", "--experiment", "")
    assert named == ["plain,default", "plain,labels"]
    assert await complete(batchgen, "status", "--db", "x.db", "--experiment", "l") == [
        "plain,labels"
    ]
    assert await complete(batchgen, "experiments", "delete", "--db", "x.db", "d") == [
        "plain,default"
    ]
    assert await complete(batchgen, "--db", "no.db", "status", "--experiment", "") == []
    assert await complete(batchgen, "run", "po") == ["file,po"]
    assert not Path(elsewhere.path / "no.db").exists()


async def test_a_shell_completes_steps(project: Project, batchgen: Typist) -> None:
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        "  - {name: draft, user: {text: 'Say {word}'}}\n"
        "  - {name: judge, user: {text: 'Judge {draft}'}}\n"
    )
    project.pool([{"word": "a"}])
    await batchgen("enqueue", "pool.jsonl")
    assert await complete(batchgen, "retry", "--step", "") == ["plain,draft", "plain,judge"]
    assert await complete(batchgen, "work", "--experiment", "demo", "--step", "j") == [
        "plain,judge"
    ]
    assert await complete(batchgen, "status", "--experiment", "demo/") == [
        "plain,demo/draft", "plain,demo/judge",
    ]  # fmt: skip


@pytest.mark.quick("status", "run pool.jsonl", "retry --id 1")
@pytest.mark.parametrize(
    "command",
    [
        ["run", "pool.jsonl"],
        ["work"],
        ["failures"],
        ["failures", "--json"],
        ["export", "-o", "out.jsonl"],
        ["status"],
        ["stop"],
        ["retry", "--id", "1"],
        ["experiments", "rename", "default", "other"],
    ],
    ids=" ".join,
)
async def test_what_is_proposed_is_about_the_same_config_and_database(
    project: Project, simulator: Simulator, command: list[str]
) -> None:
    simulator.script("Say bad", Behaviour.error(400))
    (project.path / "config.yaml").rename(project.path / "my c.yaml")
    project.pool([{"word": word} for word in ("a", "bad")])
    named = ["--config", "my c.yaml", "--db", "x.db"]
    assert (await project.batchgen("run", "pool.jsonl", *named)).code == 3
    done = await project.batchgen(*command, *named)
    typed = re.findall(r"\bbatchgen( \S.*)", done.out + done.err)
    assert all(one.startswith(" --config 'my c.yaml' --db x.db ") for one in typed), typed
    assert typed or command[0] in ("status", "retry", "experiments")


@pytest.mark.quick("experiments rename nothing x")
@pytest.mark.parametrize(
    "command",
    [
        ["experiments", "rename", "nothing", "x"],
        ["experiments", "delete", "nothing"],
        ["enqueue", "results:nothing", "--experiment", "x"],
    ],
    ids=" ".join,
)
async def test_an_experiment_that_no_option_names_is_not_to_be_chosen_by_one(
    elsewhere: Project, command: list[str]
) -> None:
    done = await elsewhere.batchgen(*command, "--config", "c.yaml", "--db", "x.db")
    problem = f"{elsewhere.path}/x.db: no experiment 'nothing'; there is: default."
    assert (done.code, done.err) == (2, f"error: {problem}\n")


@pytest.mark.quick("reparse", "failures")
@pytest.mark.parametrize(
    ("command", "proposed"),
    [
        (["run", "pool.jsonl"], "export --failed"),
        (["export", "-o", "out.jsonl"], "export --failed"),
        (["failures"], "retry --reason parse"),
        (["reparse"], "failures"),
        (["run", "pool.jsonl"], "failures"),
        (["run", "pool.jsonl", "--until", "9"], "retry"),
    ],
    ids=["run", "export", "failures", "reparse", "run-failures", "until"],
)
async def test_what_is_proposed_is_about_the_experiment_that_was_named(
    project: Project, simulator: Simulator, command: list[str], proposed: str
) -> None:
    project.config("parser: json\n")
    simulator.script("Say bad", Behaviour.ok("no JSON"))
    project.pool([{"word": "bad"}])
    named = ["--experiment", "my labels"]
    await project.batchgen("run", "pool.jsonl", *named)
    done = await project.batchgen(*command, *named)
    assert f"batchgen {proposed} --experiment 'my labels'" in done.out + done.err
