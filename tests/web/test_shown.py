"""How values look."""

import pytest

from batchgen.web.shown import (
    cost,
    ends,
    line,
    marked,
    moment,
    number,
    path,
    percent,
    seconds,
    size,
)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(1234567), "1,234,567"), (number(0.523), "0.52"), (number(3.14), "3.1"),
        (number(123.4), "123"), (number(0), "0"),
        (cost(0.0123), "$0.0123"), (cost(1234.5), "$1,234.50"),
        (seconds(0.5), "0.50 s"), (seconds(12.34), "12.3 s"), (seconds(200), "3 min 20 s"),
        (percent(0, 0), "0 %"), (percent(0, 9), "0 %"), (percent(1, 3), "33.3 %"),
        (percent(9_999_999, 10_000_000), "99.9 %"), (percent(1, 10_000_000), "< 0.1 %"),
        (percent(9, 9), "100 %"),
        (size(999), "999"), (size(12_345), "12.3 k"), (size(12_345_678), "12.3 M"),
        (line("a\nb\tc"), "a b c"), (line("x" * 300, 3), "xxx…"), (line("x\u202ey"), "x<U+202E>y"),
        (ends("t-1"), "t-1"), (ends("ticket-2026-11-28-0017"), "ticket-2026-11-28-0017"),
        (ends("ticket-2026-11-28-00017"), "ticket-202…11-28-00017"),
        (ends("\u202e" + "x" * 30), "<U+202E>xxxxxxxxx…xxxxxxxxxxx"),
        (path("e", "a/b ?#%"), "/e/a%2Fb%20%3F%23%25"),
        (path("e", "草稿", state="a b", q=None), "/e/%E8%8D%89%E7%A8%BF?state=a%20b"),
        (path("items", 17), "/items/17"),
        (marked("a\r\nb"), "a\nb"), (marked(""), ""),
        (marked("\x00\ud800"), '<span class="mark">U+0000</span><span class="mark">U+D800</span>'),
    ],
)  # fmt: skip
def test_a_value_as_people_read_it(shown: str, text: str) -> None:
    assert shown == text


def test_a_moment_is_by_the_clock_of_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = moment(1_764_072_000_123)
    assert shown.startswith('<time datetime="2025-11-25T12:00:00.123Z">2025-11-2')
