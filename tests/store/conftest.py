"""What holds for the store holds on every engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.table import Table, open_table


@pytest.fixture(params=["sqlite", "postgres"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """Without rows; in the end it must be free of contradictions."""
    is_file = request.param == "sqlite"
    where = tmp_path / "batchgen.db" if is_file else request.getfixturevalue("postgres")
    with open_table(where) as opened:
        yield opened
