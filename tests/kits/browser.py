"""A real Chromium without a window: the one of the system, driven by the chromedriver that was made
with it. Nothing is fetched from anywhere."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

# A name of an attacker's that leads to this machine; no other name leads anywhere, so that a page
# which asks for anything outside is seen to fail.
EVIL = "evil.example"
_HOSTS = f"MAP {EVIL} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it may be root who tests, as in a container
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--disable-background-networking",
    "--no-first-run",
    f"--host-resolver-rules={_HOSTS}",
)
_PATIENCE_S = 60

# Calls back as soon as the condition is true, and looks again after each change of the page: what
# it is about may not be there yet.
_UNTIL = """
const [done] = arguments;
const look = () => {
  let found;
  try { found = CONDITION; } catch (error) { if (!(error instanceof TypeError)) throw error; }
  if (found) { observer.disconnect(); done(found); }
};
const observer = new MutationObserver(look);
observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
look();
"""


class Browser:
    """One tab at a time; the tests' event loop goes on while it is driven."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    async def open(self, url: str) -> None:
        """Until the page has loaded."""
        await asyncio.to_thread(self._driver.get, url)

    async def run(self, script: str, *arguments: object) -> Any:
        """What JavaScript returns."""
        return await asyncio.to_thread(self._driver.execute_script, script, *arguments)

    async def until(self, condition: str) -> Any:
        """What a JavaScript expression comes to, as soon as that is true; on one page."""
        script = _UNTIL.replace("CONDITION", condition)
        return await asyncio.to_thread(self._driver.execute_async_script, script)

    async def text(self, css: str = "body") -> str:
        """What is seen of the first element."""
        return str(await self.run("return document.querySelector(arguments[0]).innerText", css))

    async def click(self, css: str) -> None:
        """As a mouse does, where the element is; a page that it leads to has loaded then."""
        element = await asyncio.to_thread(self._driver.find_element, "css selector", css)
        await asyncio.to_thread(element.click)

    async def type(self, css: str, text: str) -> None:
        element = await asyncio.to_thread(self._driver.find_element, "css selector", css)
        await asyncio.to_thread(element.send_keys, text)

    async def back(self) -> None:
        await asyncio.to_thread(self._driver.back)

    async def new_tab(self) -> None:
        await asyncio.to_thread(self._driver.switch_to.new_window, "tab")

    @property
    def url(self) -> str:
        return str(self._driver.current_url)

    async def complaints(self) -> list[str]:
        """What stands in its console since this was asked before: what a policy has forbidden, what
        failed to load, what a script raised."""
        log = await asyncio.to_thread(self._driver.get_log, "browser")
        return [str(entry["message"]) for entry in log]

    async def look(self, width: int = 1280, *, dark: bool = False) -> None:
        """From now on as on such a screen."""
        await self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    async def picture(self, file: Path) -> None:
        """The whole page, as PNG."""
        await asyncio.to_thread(self._driver.save_screenshot, file)

    async def command(self, name: str, **parameters: Any) -> Any:
        """One of the browser's own, as its developer tools have them."""
        return await asyncio.to_thread(self._driver.execute_cdp_cmd, name, parameters)

    async def forget(self) -> None:
        """Be as new: one empty tab, no cookies, nothing kept."""
        first, *others = self._driver.window_handles
        for other in others:
            self._driver.switch_to.window(other)
            self._driver.close()
        self._driver.switch_to.window(first)
        await self.open("about:blank")
        await self.command("Network.clearBrowserCookies")
        await self.command("Network.clearBrowserCache")
        await self.look(dark=False)
        await self.complaints()


@contextmanager
def chromium(language: Literal["en", "zh"] = "en") -> Iterator[Browser]:
    """Where there is none, what needs one is skipped; but it fails where all is to be proven."""
    found = shutil.which("chromedriver")
    if found is None:
        missing = "no browser: apt install chromium chromium-driver"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    os.environ.setdefault("SE_OFFLINE", "true")
    options = ChromeOptions()
    for flag in (*_FLAGS, f"--lang={language}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(found))
    try:
        driver.set_script_timeout(_PATIENCE_S)
        driver.set_page_load_timeout(_PATIENCE_S)
        yield Browser(driver)
    finally:
        driver.quit()
