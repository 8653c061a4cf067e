"""One browser for all tests of a runner: it takes a second to start."""

from collections.abc import Iterator

import pytest

from tests.kits.browser import Browser, chromium


@pytest.fixture(scope="session")
def started_browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
async def browser(started_browser: Browser) -> Browser:
    """As new."""
    await started_browser.forget()
    return started_browser
