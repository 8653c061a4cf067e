"""Settings: which source wins, what is refused and in which words, and where the key never is."""

import json
import pickle
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from batchgen import config, installed
from batchgen.config import (
    Config,
    ModelConfig,
    OutputConfig,
    PromptsConfig,
    SentValue,
    SentValues,
    WorkConfig,
)
from batchgen.config.settings import leaf_path
from batchgen.config.sources import nest
from batchgen.database_address import PostgresAddress
from batchgen.errors import ConfigError
from batchgen.installed import shipped_path
from batchgen.parameters import OPENAI_NAMES

KEY = "sk-secret-0123456789"

TEMPLATE = """\
model:
  provider: openai
  api_key: ${OPENAI_API_KEY}
  base_url: https://api.openai.com/v1
  model: "gpt-4o-2024-11-20"
  rate_limit: 20
  max_tokens: 5012
  temperature: 0.7
prompts:
  system_prompt_path: "prompts/system_prompts/default.txt"
  user_prompt_path: "prompts/user_prompts/default.txt"
output_data:
  output_dir: "output"
  experiment_name: "initial_test"
  need_time_stamp: true
"""


def load(
    directory: Path,
    text: str | bytes | None = None,
    *,
    env: Mapping[str, str] = {},
    overrides: Mapping[str, Any] = {},
    cwd: Path | None = None,
) -> Config:
    """What `text`, as the config file in `directory`, is read as."""
    file = directory / "config.yaml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    named = file if cwd else None
    return config.load(named, env=env, overrides=overrides, cwd=cwd or directory)


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


def test_the_template_s_three_sections_load_unchanged(tmp_path: Path) -> None:
    assert load(tmp_path, TEMPLATE, env={"OPENAI_API_KEY": KEY}) == Config(
        model=ModelConfig(
            api_key=KEY,
            model="gpt-4o-2024-11-20",
            rate_limit=20,
            params={"max_tokens": 5012, "temperature": 0.7},
        ),
        prompts=PromptsConfig(
            system_prompt_path=tmp_path / "prompts/system_prompts/default.txt",
            user_prompt_path=tmp_path / "prompts/user_prompts/default.txt",
        ),
        output_data=OutputConfig(
            output_dir=tmp_path / "output", experiment_name="initial_test", need_time_stamp=True
        ),
        database=tmp_path / "batchgen.db",
        parser="raw",
        work=WorkConfig(),
        log_dir=tmp_path / "logs",
        directory=tmp_path,
        file=tmp_path / "config.yaml",
    )


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "prompts:\nwork:\n", "\ufeff{}"])
def test_without_settings_there_are_defaults(tmp_path: Path, text: str | None) -> None:
    assert load(tmp_path, text) == Config(
        output_data=OutputConfig(output_dir=tmp_path / "output"),
        database=tmp_path / "batchgen.db",
        log_dir=tmp_path / "logs",
        directory=tmp_path,
        file=None if text is None else tmp_path / "config.yaml",
    )


WRONG = [
    # unknown keys
    (
        "work: {concurency: 5}",
        "config.yaml: work.concurency: unknown key; did you mean work.concurrency?",
    ),
    ("promts: {}", "config.yaml: promts: unknown key; did you mean prompts?"),
    ("databse: x.db", "config.yaml: databse: unknown key; did you mean database?"),
    ("concurrency: 5", "config.yaml: concurrency: unknown key; did you mean work.concurrency?"),
    (
        "output_data: {Experiment-Name: x}",
        "config.yaml: output_data.Experiment-Name: unknown key;"
        " did you mean output_data.experiment_name?",
    ),
    (
        "work: {output_dir: x}",
        "config.yaml: work.output_dir: unknown key; did you mean output_data.output_dir?",
    ),
    (
        "model: {temprature: 1}",
        "config.yaml: model.temprature: unknown key; did you mean model.temperature?"
        " A parameter that only your server knows goes under model.extra_body",
    ),
    (
        "model: {guided_choices: [a]}",
        "config.yaml: model.guided_choices: unknown key; did you mean model.guided_choice?"
        " A parameter that only your server knows goes under model.extra_body",
    ),
    (
        "model: {stream_options: {}}",
        "config.yaml: model.stream_options: cannot be set; batchgen decides it for every request",
    ),
    (
        "model: {stream: 1}",
        "config.yaml: model.stream: must be true or false, not 1",
    ),
    # types
    ("work: 5", "config.yaml: work: must be a mapping, lines of `key: value`"),
    ("- work", "config.yaml: must be a mapping, lines of `key: value`"),
    (
        "work: {concurrency: '20'}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not the text '20'",
    ),
    (
        "work: {concurrency: true}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not true",
    ),
    (
        "work: {concurrency: 2.0}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not 2.0",
    ),
    (
        "work: {concurrency:}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not null",
    ),
    (
        "work: {concurrency: [1]}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not a list",
    ),
    ("model: {model: 4}", "config.yaml: model.model: must be text, not 4; put it in quotes"),
    (
        "output_data: {experiment_name: 2026-01-02}",
        "config.yaml: output_data.experiment_name: must be text, not 2026-01-02; put it in quotes",
    ),
    (
        "output_data: {experiment_name: no}",
        "config.yaml: output_data.experiment_name: must be text, not false; put it in quotes",
    ),
    ("parser: {tag: draft}", "config.yaml: parser: must be text, not a mapping"),
    ("parser: 'json_schema:'", "config.yaml: parser: names no file; write json_schema:FILE"),
    (
        "structured_output: 1",
        "config.yaml: structured_output: must be true or false, not 1",
    ),
    (
        "output_data: {need_time_stamp: 1}",
        "config.yaml: output_data.need_time_stamp: must be true or false, not 1",
    ),
    (
        "model: {temperature: true}",
        "config.yaml: model.temperature: must be a finite number or null, not true",
    ),
    (
        "model: {temperature: .nan}",
        "config.yaml: model.temperature: must be a finite number or null, not nan",
    ),
    (
        "model: {stop: [1]}",
        "config.yaml: model.stop: must be text or a list of texts or null, not a list",
    ),
    (
        "model: {extra_body: 1}",
        "config.yaml: model.extra_body: must be a mapping or null, not 1",
    ),
    (
        "model: {extra_body: {since: 2026-01-02}}",
        "config.yaml: model.extra_body: cannot be sent as JSON:"
        " Object of type date is not JSON serializable",
    ),
    # ranges
    (
        "work: {concurrency: 0}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not 0",
    ),
    (
        "work: {concurrency: 10001}",
        "config.yaml: work.concurrency: must be an integer from 1 to 10000, not 10001",
    ),
    (
        "work: {timeout_s: 0}",
        "config.yaml: work.timeout_s: must be a number > 0 and <= 100000000, not 0",
    ),
    (
        "work: {lease_s: .inf}",
        "config.yaml: work.lease_s: must be a number > 0 and <= 100000000, not inf",
    ),
    (
        "work: {max_attempts: 0}",
        "config.yaml: work.max_attempts: must be an integer >= 1, not 0",
    ),
    (
        "model: {rate_limit: -1}",
        "config.yaml: model.rate_limit: must be an integer >= 0 or null, not -1",
    ),
    (
        "model: {max_tokens: 0}",
        "config.yaml: model.max_tokens: must be an integer from 1 to 1000000000 or null, not 0",
    ),
    (
        f"model: {{seed: 0x{'f' * 5000}}}",
        "config.yaml: model.seed: must be an integer or null, not a huge number",
    ),
    # what would be paid for and thrown away
    (
        "model: {n: 3}",
        "config.yaml: model.n: must be 1, not 3:"
        " of several answers to a call all are paid for, but only the first is kept",
    ),
    (
        "model: {n: true}",
        "config.yaml: model.n: must be 1, not true:"
        " of several answers to a call all are paid for, but only the first is kept",
    ),
    (
        "model: {extra_body: {n: 2}}",
        "config.yaml: model.extra_body: n must be 1, not 2:"
        " of several answers to a call all are paid for, but only the first is kept",
    ),
    (
        "model: {extra_body: {stream: true}}",
        "config.yaml: model.extra_body: stream does not belong here; set model.stream",
    ),
    (
        "model: {extra_body: {background: true}}",
        "config.yaml: model.extra_body: background must not be set: answers are not fetched later",
    ),
    # names
    ("model: {model: ' '}", "config.yaml: model.model: must not be empty"),
    ("database: ''", "config.yaml: database: must not be empty"),
    (
        "database: 'postgresql://me:${WORD}@host/x'",
        "config.yaml: database: the environment variable WORD is not set",
    ),
    ('database: "a\\0b"', "config.yaml: database: must not contain NUL"),
    *(
        (
            f"database: '{given}'",
            f"config.yaml: database: {shown} is no address of a database{why}. One is "
            "postgresql://user:password@host:5432/name; in a password, %40 stands for @, %3A for :,"
            " %2F for /, %23 for #, %3F for ? and %25 for %. A file is named by its path alone",
        )
        for given, shown, why in [
            (f"mysql://me:{KEY}@host/x", "mysql://me:***@host/x", ""),
            (f"postgresql+psycopg://me:{KEY}@host", "postgresql+psycopg://me:***@host", ""),
            ("sqlite:///x.db", "sqlite:///x.db", ""),
            (
                f"postgresql://me:{KEY}/@host/x",
                "postgresql://me:***@host/x",
                " (its port is no number)",
            ),
            (f"postgresql://me:{KEY}@@host/x", "postgresql://me:***@host/x", " (it has two @)"),
            (f"host=here password={KEY}", "this", ""),
        ]
    ),
    ('parser: "\\ud800"', "config.yaml: parser: must be valid Unicode"),
    *(
        (
            f'output_data: {{experiment_name: "{name}"}}',
            f"config.yaml: output_data.experiment_name: {problem}",
        )
        for name, problem in [
            ("", "must not be empty"),
            ("a/b", "must not contain / or \\ or control characters"),
            ("a\\\\b", "must not contain / or \\ or control characters"),
            ("a\\0b", "must not contain / or \\ or control characters"),
            ("a\\nb", "must not contain / or \\ or control characters"),
            ("..", 'must not be "." or ".." or start with "-"'),
            ("-rf", 'must not be "." or ".." or start with "-"'),
            ("x" * 201, "must not be longer than 200 bytes in UTF-8"),
        ]
    ),
    # the server
    (
        "model: {provider: azure}",
        'config.yaml: model.provider: must be "openai", which means any OpenAI-compatible server:'
        " set model.base_url",
    ),
    *(
        (f"model: {{base_url: '{url}'}}", f"config.yaml: model.base_url: {problem}")
        for url, problem in [
            ("", "must be http://host... or https://host..."),
            ("api.openai.com/v1", "must be http://host... or https://host..."),
            ("ftp://host/v1", "must be http://host... or https://host..."),
            ("http:///v1", "must be http://host... or https://host..."),
            ("http://host:99999/v1", "must be http://host... or https://host..."),
            ("http://[::1/v1", "must be http://host... or https://host..."),
            (
                f"https://me:{KEY}@host/v1",
                "must not have a user or password; the key belongs in model.api_key",
            ),
            ("https://host/v1#a", "must not have a part after #"),
            (
                "https://host/v1/chat/completions/",
                "leave off /chat/completions, it is added to every request",
            ),
            ("https://${HOST}/v1", "the environment variable HOST is not set"),
        ]
    ),
    # what is sent besides; no value is quoted
    *(
        (f"model: {{headers: {given}}}", f"config.yaml: model.headers{problem}")
        for given, problem in [
            (f"'api-key: {KEY}'", ": must be a mapping, lines of `name: value`"),
            (f"[api-key, {KEY}]", ": must be a mapping, lines of `name: value`"),
            (
                f"{{api-key:{KEY}}}",
                ".api-key...: is not like the name of a header (letters, digits and -)",
            ),
            (
                f"{{'X-Ü': {KEY}}}",
                ".X-Ü: is not like the name of a header (letters, digits and -)",
            ),
            (
                f'{{api-key: "{KEY}\\nX: y"}}',
                ".api-key: has characters that no header can carry (a line break, or not ASCII)",
            ),
            (
                f"{{api-key: {KEY}-ü}}",
                ".api-key: has characters that no header can carry (a line break, or not ASCII)",
            ),
            *(
                (f"{{{name}: x}}", f".{name}: cannot be set; it is made for every request")
                for name in ("Host", "content-length", "Transfer-Encoding", "Connection")
            ),
            (
                "{Content-Type: text/plain}",
                ".Content-Type: must be application/json, which is what is sent",
            ),
            ("{X-A: 1, x-a: 2}", ".x-a: is there twice"),
            ("{X-A: ''}", ".X-A: must not be empty; null: not sent"),
            (f"{{X-A: [{KEY}]}}", ".X-A: must be text, a number, or null, which means not sent"),
            ("{X-A: '${MY-KEY}'}", ".X-A: must be the value itself, or have variables as ${NAME}"),
        ]
    ),
    (
        f'model: {{query: {{key: "{KEY}\\0"}}}}',
        "config.yaml: model.query.key: has a line break or another control character",
    ),
    (
        "model: {base_url: 'http://h/v1?api-version=1', query: {api-version: 2}}",
        "config.yaml: model.query.api-version: is in base_url too; give it once",
    ),
    *(
        (f"model: {{servers: {given}}}", f"config.yaml: model.servers{problem}")
        for given, problem in [
            ("http://a/v1", ": must be a list of mappings, each with a base_url"),
            ("[http://a/v1]", "[0]: must be a mapping, such as {base_url: ..., api_key: ...}"),
            ("[{base_url: 'http://a/v1'}, {api_key: x}]", "[1]: has no base_url"),
            ("[{base_url: a}]", "[0].base_url: must be http://host... or https://host..."),
            (
                "[{base_url: 'http://a/v1', concurency: 3}]",
                "[0].concurency: unknown key; a server has no such setting of its own; did you mean"
                " concurrency?",
            ),
            (
                "[{base_url: 'http://a/v1', concurrency: 0}]",
                "[0].concurrency: must be an integer from 1 to 10000 or null, not 0",
            ),
            (
                f"[{{base_url: 'http://a/v1', api_key: '{KEY} x'}}]",
                "[0].api_key: has characters that a key cannot have (spaces, control, not ASCII)",
            ),
            (
                "[{base_url: 'http://a/v1', headers: {Host: b}}]",
                "[0].headers.Host: cannot be set; it is made for every request",
            ),
            (
                "[{base_url: 'http://a/v1?b=1', query: {b: 2}}]",
                "[0].query.b: is in base_url too; give it once",
            ),
            (
                "[{base_url: 'http://a/v1'}, {base_url: 'http://a/v1/'}]",
                "[1]: is the same as [0]; raise its concurrency instead",
            ),
        ]
    ),
    *(
        (
            f"model: {{{one}, servers: [{{base_url: 'http://a/v1'}}]}}",
            f"config.yaml: model.{one.split(':')[0]}: stands beside model.servers; it goes into"
            " each of them that it is for",
        )
        for one in ("base_url: 'http://b/v1'", f"api_key: {KEY}")
    ),
    # the key is never quoted
    (f"model: {{api_key: [{KEY}]}}", "config.yaml: model.api_key: must be text"),
    (f"model: {{base_url: [{KEY}]}}", "config.yaml: model.base_url: must be text"),
    (
        f"model: {{base_url: {KEY}}}",
        "config.yaml: model.base_url: must be http://host... or https://host...",
    ),
    (
        f"model: {{api_key: '{KEY} x'}}",
        "config.yaml: model.api_key: has characters that a key cannot have"
        " (spaces, control, not ASCII)",
    ),
    (
        "model: {api_key: '${OPENAI-KEY}'}",
        "config.yaml: model.api_key: must be the key itself, ${NAME} or $NAME",
    ),
    (
        f"model: {{api_key:{KEY}}}",
        "config.yaml: model.api_key...: unknown key; did you mean model.api_key?"
        " A parameter that only your server knows goes under model.extra_body",
    ),
    (f"model:\n  api_key:{KEY}", "config.yaml: model: must be a mapping, lines of `key: value`"),
    # YAML
    (
        "work: {concurrency: 5",
        "config.yaml:1:22: while parsing a flow mapping: expected ',' or '}', but got"
        " '<stream end>'; a bracket is not closed",
    ),
    (
        "work:\n\tconcurrency: 5",
        "config.yaml:2:1: while scanning for the next token: found character '\\t' that cannot"
        " start any token; indent with spaces, not with tabs",
    ),
    (
        "parser: @mine",
        "config.yaml:1:9: while scanning for the next token: found character '@' that cannot"
        " start any token; put the text in quotes",
    ),
    (
        "parser: tag: draft",
        "config.yaml:1:12: mapping values are not allowed here; put a text with a colon in quotes,"
        " or mend the indentation",
    ),
    (
        "model:\n  seed: 1\n top_p: 1",
        "config.yaml:3:2: while parsing a block mapping: expected <block end>, but found"
        " '<block mapping start>'; check the indentation, the quotes and the brackets here",
    ),
    (
        "parser: 'tag:draft",
        "config.yaml:1:19: while scanning a quoted scalar: found unexpected end of stream;"
        " a quote is not closed",
    ),
    ("parser: raw\nparser: json\n", "config.yaml:2:1: the key parser is there twice"),
    (
        "work:\n  grace_s: 1\n  lease_s: 2\n  'grace_s': 3\n",
        "config.yaml:4:3: the key grace_s is there twice",
    ),
    (
        "parser: &a raw\ndatabase: *a\n",
        "config.yaml:2:11: an alias (*name) is not supported; write the value out",
    ),
    (
        "parser: !!python/object/apply:os.getcwd []",
        "config.yaml:1:9: a YAML tag (such as !!python/object) is not allowed",
    ),
    ("parser: 2026-13-45", "config.yaml:1:9: not a valid value"),
    ("parser: !!bool maybe", "config.yaml:1:9: not a valid value"),
    (
        "parser: raw\n---\nparser: raw",
        "config.yaml:2:1: expected a single document in the stream: but found another document",
    ),
    ("parser: raw\ndatabase: \x07", "config.yaml:2: has a control character"),
    (f"model: {'[' * 2_000}", "config.yaml: nested too deep"),
    (
        b"parser: raw\ndatabase: \xff.db",
        "config.yaml:2: not UTF-8: byte 0xff at column 11; save the file as UTF-8 (in Excel: CSV "
        "UTF-8)",
    ),
    (b"#" * 1_000_001, "config.yaml: larger than 1 MB, too much for a config"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line[:70] for _, line in WRONG])
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert refusal(tmp_path, text) == line
    assert KEY not in line
    assert "\n" not in line


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, directory = tmp_path / "missing.yaml", tmp_path / "config.yaml"
    directory.mkdir()
    with pytest.raises(ConfigError) as caught:
        config.load(missing, env={}, cwd=tmp_path)
    assert str(caught.value) == f"missing.yaml: no such file: {missing}"
    assert refusal(tmp_path) == f"config.yaml: cannot be read: Is a directory: {directory}"


def test_overrides_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "work: {concurrency: 1, max_attempts: 1, parse_attempts: 1, grace_s: 7}",
        env={"BATCHGEN_WORK_CONCURRENCY": "2", "BATCHGEN_WORK_MAX_ATTEMPTS": "2"},
        overrides={"concurrency": 3},
    )
    assert loaded.work == WorkConfig(concurrency=3, max_attempts=2, parse_attempts=1, grace_s=7.0)


def test_only_the_value_that_wins_is_checked(tmp_path: Path) -> None:
    text = "model: {base_url: 'https://${HOST}/v1'}"
    loaded = load(tmp_path, text, overrides={"base_url": "http://localhost:1/v1/"})
    assert loaded.model.base_url == "http://localhost:1/v1"


def test_a_relative_path_starts_where_it_was_written(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    loaded = load(
        home,
        "database: a.db\nlog_dir: /var/log\noutput_data: {output_dir: out}",
        env={"BATCHGEN_DATABASE": "b.db"},
        overrides={"system_prompt_path": Path("s.txt")},
        cwd=cwd,
    )
    assert loaded.directory == home
    assert loaded.output_data.output_dir == home / "out"
    assert loaded.database == cwd / "b.db"
    assert loaded.log_dir == Path("/var/log")
    assert loaded.prompts == PromptsConfig(system_prompt_path=cwd / "s.txt")


@pytest.mark.parametrize("source", ["file", "environment", "override"])
def test_a_database_may_be_a_server_s(tmp_path: Path, source: str) -> None:
    url = f"postgresql://me:{KEY}@host/name"
    loaded = load(
        tmp_path,
        f"database: {url}" if source == "file" else "",
        env={"BATCHGEN_DATABASE": url} if source == "environment" else {},
        overrides={"database": f" {url}"} if source == "override" else {},
    )
    assert isinstance(loaded.database, PostgresAddress)
    assert loaded.database.url == url
    assert str(loaded.database) == f"{loaded.database}" == "postgresql://me:***@host/name"
    assert KEY not in repr(loaded.database)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://${ME}:${WORD}@${HOST}/name", "postgresql://me:a%2Fb%40c%25@db:5432/name"),
        ("postgresql://db/name?user=me&password=${WORD}",
         "postgresql://db/name?user=me&password=a%2Fb%40c%25"),
        ("${URL}", "postgresql://me:x@db/name"),
    ],
)  # fmt: skip
def test_a_database_s_address_may_have_variables(tmp_path: Path, given: str, url: str) -> None:
    env = {"ME": "me", "WORD": "a/b@c%", "HOST": "db:5432", "URL": "postgresql://me:x@db/name"}
    loaded = load(tmp_path, f"database: {given}", env=env)
    assert isinstance(loaded.database, PostgresAddress)
    assert loaded.database.url == url
    assert "a%2Fb" not in str(loaded.database)


def test_a_file_s_path_may_have_variables(tmp_path: Path) -> None:
    loaded = load(tmp_path, "database: ${RUN}/b.db", env={"RUN": "night"})
    assert loaded.database == tmp_path / "night/b.db"


def test_a_parser_s_file_starts_where_it_was_written_and_other_parsers_are_untouched(
    tmp_path: Path,
) -> None:
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    text = "parser: json_schema:page.json"
    assert load(tmp_path, text, cwd=cwd).parser == f"json_schema:{tmp_path / 'page.json'}"
    env = {"BATCHGEN_PARSER": "json_schema:page.json"}
    assert load(tmp_path, text, cwd=cwd, env=env).parser == f"json_schema:{cwd / 'page.json'}"
    made = load(tmp_path, "parser: mine/pp.py:Page", cwd=cwd)
    assert made.parser == f"{tmp_path / 'mine/pp.py'}:Page"
    assert tmp_path / "mine/pp.py" in made.own_files
    made = load(tmp_path, "parser: pp.py", cwd=cwd)
    assert made.parser == f"{tmp_path / 'pp.py'}"
    assert tmp_path / "pp.py" in made.own_files
    named_alike = load(tmp_path, "parser: json_schema:json_schema", cwd=cwd)
    assert named_alike.parser == f"json_schema:{tmp_path / 'json_schema'}"
    untouched = ('json_schema:{"type": "object"}', "regex:json_schema:a", "regex:a.py:b", "m:f")
    for parser in untouched:
        assert load(tmp_path, cwd=cwd, overrides={"parser": parser}).parser == parser


def test_the_environment_gives_text_as_it_is_and_the_rest_as_yaml(tmp_path: Path) -> None:
    env = {
        "BATCHGEN_MODEL_MODEL": "4",
        "BATCHGEN_MODEL_BASE_URL": "http://host/v1",
        "BATCHGEN_MODEL_TEMPERATURE": "1",
        "BATCHGEN_MODEL_STOP": "[a, b]",
        "BATCHGEN_MODEL_EXTRA_BODY": '{"top_k": 40}',
        "BATCHGEN_MODEL_RATE_LIMIT": "0",
        "BATCHGEN_MODEL_USER": "true",
        "BATCHGEN_OUTPUT_DATA_EXPERIMENT_NAME": "2026-01-02",
        "BATCHGEN_OUTPUT_DATA_NEED_TIME_STAMP": "true",
        "BATCHGEN_PARSER": "tag:draft",
        "BATCHGEN_WORK_GRACE_S": "",
        "HOME": "/nowhere",
    }
    loaded = load(tmp_path, "work: {grace_s: 5}", env=env)
    params = {"temperature": 1.0, "stop": ["a", "b"], "extra_body": {"top_k": 40}, "user": "true"}
    assert loaded.model == ModelConfig(model="4", base_url="http://host/v1", params=params)
    assert loaded.output_data.experiment_name == "2026-01-02"
    assert loaded.output_data.need_time_stamp is True
    assert loaded.parser == "tag:draft"
    assert loaded.work == WorkConfig(grace_s=5.0)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "BATCHGEN_WORK_CONCURENCY",
            "5",
            "BATCHGEN_WORK_CONCURENCY: unknown variable; did you mean BATCHGEN_WORK_CONCURRENCY?",
        ),
        (
            "BATCHGEN_API_KEY",
            KEY,
            "BATCHGEN_API_KEY: unknown variable; did you mean BATCHGEN_MODEL_API_KEY?",
        ),
        (
            "BATCHGEN_WORK_CONCURRENCY",
            "many",
            "BATCHGEN_WORK_CONCURRENCY: must be an integer from 1 to 10000, not the text 'many'",
        ),
        (
            "BATCHGEN_MODEL_STOP",
            "[a",
            "BATCHGEN_MODEL_STOP:1:3: while parsing a flow sequence: expected ',' or ']', but got"
            " '<stream end>'; a bracket is not closed",
        ),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, line: str) -> None:
    assert refusal(tmp_path, env={name: value}) == line


@pytest.mark.parametrize(
    ("written", "env", "key"),
    [
        ("literal", {"OPENAI_API_KEY": "other"}, "literal"),
        ("${MY_KEY}", {"MY_KEY": "mine", "OPENAI_API_KEY": "other"}, "mine"),
        ("$MY_KEY", {"MY_KEY": " mine\n", "OPENAI_API_KEY": "other"}, "mine"),
        ("${MY_KEY}", {"MY_KEY": "", "OPENAI_API_KEY": "other"}, "other"),
        ("${MY_KEY}", {"OPENAI_API_KEY": "other"}, "other"),
        ("${MY_KEY}", {}, None),
        ("", {"OPENAI_API_KEY": "other"}, "other"),
        (None, {"OPENAI_API_KEY": "other"}, "other"),
        (None, {"OPENAI_API_KEY": ""}, None),
        ("literal", {"BATCHGEN_MODEL_API_KEY": "$MY_KEY", "MY_KEY": "mine"}, "mine"),
    ],
)
def test_where_the_key_comes_from(
    tmp_path: Path, written: str | None, env: dict[str, str], key: str | None
) -> None:
    text = "model: {}" if written is None else f'model: {{api_key: "{written}"}}'
    assert load(tmp_path, text, env=env).model.api_key == key


def test_a_variable_in_base_url_is_read_from_the_environment(tmp_path: Path) -> None:
    text = 'model: {base_url: "http://${HOST}:${PORT}/v1"}'
    loaded = load(tmp_path, text, env={"HOST": "localhost", "PORT": "8000"})
    assert loaded.model.base_url == "http://localhost:8000/v1"


def sent(values: SentValues) -> dict[str, str | None]:
    return {name: value.text if value else None for name, value in values.items()}


def test_what_is_sent_besides_is_read_with_its_variables(tmp_path: Path) -> None:
    text = """\
model:
  base_url: https://x.openai.azure.com/openai/deployments/mine/?feature=a%20b
  query: {api-version: 2024-10-21}
  headers:
    api-key: $AZURE_KEY
    cf-aig-authorization: Bearer ${TOKEN}
    x-litellm-timeout: 30
    cf-aig-skip-cache: true
    User-Agent: null
"""
    model = load(tmp_path, text, env={"AZURE_KEY": f"{KEY}\n", "TOKEN": "t-1"}).model
    assert model.base_url == "https://x.openai.azure.com/openai/deployments/mine"
    assert sent(model.query) == {"feature": "a b", "api-version": "2024-10-21"}
    assert sent(model.headers) == {
        "api-key": KEY, "cf-aig-authorization": "Bearer t-1", "x-litellm-timeout": "30",
        "cf-aig-skip-cache": "true", "User-Agent": None,
    }  # fmt: skip
    assert KEY not in f"{model!r}"


def test_a_variable_of_what_is_sent_may_be_missing_until_something_is(tmp_path: Path) -> None:
    loaded = load(tmp_path, "model: {headers: {api-key: '${AZURE_KEY}'}}", env={"AZURE_KEY": ""})
    assert loaded.model.headers == {"api-key": SentValue("", {"AZURE_KEY": ""}, "AZURE_KEY")}


def test_headers_of_the_environment_and_of_python_take_the_place_of_the_files(
    tmp_path: Path,
) -> None:
    file, env = "model: {headers: {a: file}}", {"BATCHGEN_MODEL_HEADERS": "{b: environment}"}
    assert sent(load(tmp_path, file, env=env).model.headers) == {"b": "environment"}
    given = {"headers": {"c": "keyword"}, "query": {"d": 1}}
    model = load(tmp_path, file, env=env, overrides=given).model
    assert (sent(model.headers), sent(model.query)) == ({"c": "keyword"}, {"d": "1"})


SERVERS = """\
model:
  headers: {x-team: ours, X-Title: all}
  rate_limit: 60
  servers:
    - {base_url: "http://gpu-1:8000/v1", concurrency: 200, headers: {x-title: mine}}
    - {base_url: "http://gpu-2:8000/v1?a=b", api_key: $OTHER, rate_limit: 0, token_limit: 9}
"""


def test_each_of_several_servers_has_its_own_settings_and_those_for_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, SERVERS, env={"OPENAI_API_KEY": KEY, "OTHER": "other-key"})
    first, second = loaded.model.of_each_server()
    assert (first.place, second.place) == ("model.servers[0]", "model.servers[1]")
    assert (first.base_url, second.base_url) == ("http://gpu-1:8000/v1", "http://gpu-2:8000/v1")
    assert (first.api_key, second.api_key) == (KEY, "other-key")
    assert (first.concurrency, second.concurrency) == (200, None)
    assert (first.rate_limit, second.rate_limit) == (60, None)
    assert (first.token_limit, second.token_limit) == (None, 9)
    assert sent(first.headers) == {"x-team": "ours", "x-title": "mine"}
    assert sent(second.headers) == {"x-team": "ours", "X-Title": "all"}
    assert (sent(first.query), sent(second.query)) == ({}, {"a": "b"})
    assert loaded.work.concurrency == 220  # 20 for the one that has none of its own
    assert KEY not in f"{loaded!r}"
    assert "other-key" not in f"{loaded!r}"


def test_one_server_is_asked_by_the_section_itself(tmp_path: Path) -> None:
    model = load(tmp_path, TEMPLATE, env={"OPENAI_API_KEY": KEY}).model
    assert model.of_each_server() == (model,)


def test_the_slots_of_all_servers_may_be_fewer_than_those_of_each(tmp_path: Path) -> None:
    assert load(tmp_path, f"{SERVERS}work: {{concurrency: 50}}\n").work.concurrency == 50


def test_a_server_of_an_upper_layer_takes_the_place_of_several(tmp_path: Path) -> None:
    url = "http://one/v1"
    model = load(tmp_path, SERVERS, env={"BATCHGEN_MODEL_BASE_URL": url}).model
    assert (model.base_url, model.servers) == (url, ())
    model = load(tmp_path, SERVERS, overrides={"base_url": url, "api_key": KEY}).model
    assert [(one.base_url, one.api_key) for one in model.of_each_server()] == [(url, KEY)]
    given = {"servers": [{"base_url": "http://a/v1"}, {"base_url": "http://b/v1"}]}
    model = load(tmp_path, TEMPLATE, overrides=given).model
    assert [one.base_url for one in model.of_each_server()] == ["http://a/v1", "http://b/v1"]


def test_a_key_alone_does_not_say_which_of_several_servers_it_is_for(tmp_path: Path) -> None:
    assert refusal(tmp_path, SERVERS, env={"BATCHGEN_MODEL_API_KEY": KEY}) == (
        "BATCHGEN_MODEL_API_KEY: stands beside model.servers; it goes into each of them that it is"
        " for"
    )


def test_servers_are_called_by_their_hosts(tmp_path: Path) -> None:
    urls = ["http://gpu:1/v1", "https://a.example/x", "https://a.example/y", "${HOST}/v1"]
    assert config.server_names(urls) == [
        "gpu:1", "a.example #1", "a.example #2", "${HOST}/v1"
    ]  # fmt: skip


def test_the_key_is_in_no_text_of_a_config(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEMPLATE, env={"OPENAI_API_KEY": KEY})
    assert loaded.model.api_key == KEY
    assert KEY not in f"{loaded!r} {loaded} {loaded.model!r} {loaded.model}"


@pytest.mark.parametrize(
    "env",
    [
        {"OPENAI_API_KEY": f"{KEY} and more"},
        {"BATCHGEN_MODEL_API_KEY": f"{KEY}\x00"},
        {"BATCHGEN_MODEL_BASE_URL": f"https://x:{KEY}@host"},
        {"BATCHGEN_MODEL_BASE_URL": f"https://x:{KEY}@ho\u2100st"},
    ],
)
def test_the_key_is_in_no_error(tmp_path: Path, env: dict[str, str]) -> None:
    assert KEY not in refusal(tmp_path, env=env)


def test_templates_beside_the_config_are_found_unless_named_or_null(tmp_path: Path) -> None:
    system = tmp_path / "prompts/system_prompts/default.txt"
    user = tmp_path / "prompts/user_prompts/default.txt"
    for file in (system, user):
        file.parent.mkdir(parents=True)
        file.touch()
    both = PromptsConfig(system_prompt_path=system, user_prompt_path=user)
    assert load(tmp_path).prompts == both
    assert load(tmp_path, "prompts: {}").prompts == both
    for nothing in ("null", "''"):
        text = f"prompts: {{system_prompt_path: {nothing}}}"
        assert load(tmp_path, text).prompts == PromptsConfig(user_prompt_path=user)


def test_a_template_that_is_not_there_is_named_when_it_is_needed(tmp_path: Path) -> None:
    loaded = load(tmp_path, "prompts: {user_prompt_path: mine.txt}")
    with pytest.raises(ConfigError) as caught:
        loaded.check_prompt_files()
    assert str(caught.value) == f"prompts.user_prompt_path: no such file: {tmp_path / 'mine.txt'}"
    (tmp_path / "mine.txt").touch()
    loaded.check_prompt_files()


def test_parameters_are_kept_as_json_and_null_is_not_sent(tmp_path: Path) -> None:
    text = "model: {seed: 1, top_p: 1, max_tokens: null, logit_bias: {50256: -100}, temperature: 2}"
    loaded = load(tmp_path, text, overrides={"temperature": None, "stop": ("a",)})
    expected = {"seed": 1, "top_p": 1.0, "logit_bias": {"50256": -100}, "stop": ["a"]}
    assert loaded.model.params == expected
    assert isinstance(loaded.model.params["top_p"], float)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("model: {n: 1}", {"n": 1}),
        ("model: {n: null}", {}),
        ("model: {extra_body: {n: 1, top_k: 5}}", {"extra_body": {"n": 1, "top_k": 5}}),
    ],
)
def test_one_answer_to_a_call_may_be_asked_for(
    tmp_path: Path, text: str, params: dict[str, Any]
) -> None:
    assert load(tmp_path, text).model.params == params


def test_a_leaf_by_name_wins_over_its_section_wherever_it_stands() -> None:
    section = {"output_dir": "o", "need_time_stamp": True}
    merged = {"output_data": {"output_dir": "o", "need_time_stamp": False}}
    assert nest({"output_data": section, "need_time_stamp": False}) == merged
    assert nest({"need_time_stamp": False, "output_data": section}) == merged
    assert nest(merged) == merged
    assert section == {"output_dir": "o", "need_time_stamp": True}
    assert nest({"model": "m", "parser": "raw"}) == {
        "model": {"model": "m"},
        "parser": "raw",
    }
    assert nest({"temperature": 0, "model": "m"}) == {"model": {"temperature": 0, "model": "m"}}
    assert nest({"model": {"seed": 1}, "temperature": 0}) == {
        "model": {"seed": 1, "temperature": 0}
    }


def test_a_section_given_is_merged_over_the_file_s(tmp_path: Path) -> None:
    text = "output_data: {experiment_name: one, need_time_stamp: true}"
    loaded = load(tmp_path, text, overrides={"output_data": {"experiment_name": "two"}})
    assert loaded.output_data == OutputConfig(
        output_dir=tmp_path / "output", experiment_name="two", need_time_stamp=True
    )


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"temprature": 1}, "temprature: unknown key; did you mean model.temperature?"),
        ({"work": 5}, "work: must be a mapping, lines of `key: value`"),
        (
            {"output_data": {"outputdir": "x"}},
            "output_data.outputdir: unknown key; did you mean output_data.output_dir?",
        ),
        (
            {"concurrency": "5"},
            "work.concurrency: must be an integer from 1 to 10000, not the text '5'",
        ),
        ({"api_key": 5}, "model.api_key: must be text"),
        ({"model": None}, "model.model: must be text, not null"),
    ],
)
def test_a_wrong_override_is_named_by_its_path(
    tmp_path: Path, overrides: dict[str, Any], line: str
) -> None:
    assert refusal(tmp_path, overrides=overrides) == line


def test_every_leaf_has_a_name_of_its_own_and_a_default_that_holds(tmp_path: Path) -> None:
    table = config.leaf_table()
    assert len({leaf.path[-1] for leaf in table}) == len(table)
    assert all(leaf_path(leaf.path[-1]) == leaf.path for leaf in table)
    assert all(leaf.help and "\n" not in leaf.help for leaf in table)
    assert leaf_path("model") == ("model", "model")
    assert leaf_path("database") == ("database",)
    assert pickle.loads(pickle.dumps(load(tmp_path))) == load(tmp_path)


def test_the_chat_parameters_are_those_of_the_installed_openai() -> None:
    theirs = set(get_type_hints(CompletionCreateParamsNonStreaming))
    ours = theirs - {"messages", "model", "stream", "stream_options"} | {"extra_body"}
    assert ours == OPENAI_NAMES


def test_importing_config_loads_neither_yaml_nor_openai() -> None:
    code = "import sys, batchgen.config; print({'yaml', 'openai'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_starter_config_loads_with_its_templates() -> None:
    file = shipped_path("config.yaml")
    loaded = config.load(file, env={}, cwd=Path("/"))
    loaded.check_prompt_files()
    assert loaded.prompts.system_prompt_path == shipped_path("prompts/system_prompts/default.txt")
    assert loaded.parser == "tag:draft"
    assert loaded.work == WorkConfig()


def test_a_shipped_file_that_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"^nothing\.txt is missing from the installation"):
        shipped_path("nothing.txt")


def test_a_shipped_file_is_taken_from_the_wheel_first(tmp_path: Path) -> None:
    package = tmp_path / "batchgen"
    (package / "shipped_files").mkdir(parents=True)
    find = runpy.run_path(shutil.copy(installed.__file__, str(package)))["shipped_path"]
    for home in (tmp_path, package / "shipped_files"):
        (home / "config.yaml").touch()
        assert find("config.yaml") == home / "config.yaml"


def test_the_starter_pool_has_the_variables_of_the_starter_templates() -> None:
    lines = shipped_path("data_pool.jsonl").read_text("utf-8").splitlines()
    system = shipped_path("prompts/system_prompts/default.txt").read_text("utf-8")
    user = shipped_path("prompts/user_prompts/default.txt").read_text("utf-8")
    assert len(lines) == 5
    for item in map(json.loads, lines):
        assert item["system_prompt_kwargs"]["tone"] in system.format(**item["system_prompt_kwargs"])
        assert item["user_prompt_kwargs"]["topic"] in user.format(**item["user_prompt_kwargs"])
