"""The token: kept where nobody else reads it, and made anew where somebody could have."""

import os
import stat
from pathlib import Path

import pytest

from batchgen.database_address import address_of
from batchgen.web.tokens import kept_token, reading_token, token_place


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


def test_it_stays_the_same_and_is_nobody_elses(database: Path) -> None:
    token = kept_token(database)
    assert len(bytes.fromhex(token)) == 16
    assert kept_token(database) == token
    place = database.with_name("work.db-view")
    assert place.read_text() == token
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [file.name for file in database.parent.iterdir()] == ["work.db-view"]


def test_who_may_only_read_has_one_that_says_nothing_of_the_other(database: Path) -> None:
    token = kept_token(database)
    reading = reading_token(token)
    assert reading == reading_token(kept_token(database)) != token
    assert len(bytes.fromhex(reading)) == 16


def test_it_is_beside_the_file_that_a_link_leads_to(database: Path, tmp_path: Path) -> None:
    database.touch()
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "link.db").symlink_to(database)
    assert kept_token(other / "link.db") == kept_token(database)
    assert [file.name for file in other.iterdir()] == ["link.db"]


@pytest.mark.parametrize("content", ["", "abc", "0" * 31 + "G", "0" * 33, "0" * 32 + "\n"])
def test_what_is_no_token_is_replaced(database: Path, content: str) -> None:
    place = token_place(database)
    place.write_text(content)
    place.chmod(0o600)
    assert kept_token(database) == place.read_text() != content


def test_one_that_others_can_read_is_replaced(database: Path) -> None:
    token = kept_token(database)
    token_place(database).chmod(0o644)
    assert kept_token(database) not in (token, None)
    assert stat.S_IMODE(token_place(database).stat().st_mode) == 0o600


def test_a_link_is_not_followed(database: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("0" * 32)
    foreign.chmod(0o600)
    token_place(database).symlink_to(foreign)
    assert kept_token(database) != "0" * 32
    assert foreign.read_text() == "0" * 32
    assert not token_place(database).is_symlink()


def test_where_none_can_be_kept_it_is_good_for_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "work.db"
    assert kept_token(nowhere) != kept_token(nowhere)


def test_that_of_a_server_is_in_the_users_own_directory(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with_password = address_of("postgresql://me:secret@box:5432/work")
    without = address_of("postgresql://me@box:5432/work")
    token = kept_token(with_password, environment)
    assert kept_token(without, environment) == token
    assert kept_token(address_of("postgresql://me@box:5432/other"), environment) != token
    place = token_place(without, environment)
    assert place.parent == tmp_path / "state" / "batchgen"
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert "secret" not in place.name
    assert token_place(without, {"XDG_STATE_HOME": "relative"}).is_relative_to(Path.home())


@pytest.mark.slow
def test_many_viewers_at_once_have_one(database: Path) -> None:
    """Each a process: whoever was first has made it."""
    readers = []
    for _ in range(8):
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, kept_token(database).encode())
            os._exit(0)
        os.close(write_end)
        readers.append(read_end)
    tokens = set()
    for read_end in readers:
        with os.fdopen(read_end) as pipe:
            tokens.add(pipe.read())
        os.wait()
    assert tokens == {kept_token(database)}
