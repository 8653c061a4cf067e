"""Pools as users have them: good lines, bad lines, and what the messages say."""

import gzip
import io
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchgen.errors import ConfigError, InputError, UsageError
from batchgen.items import ItemInput, PoolItem
from batchgen.pool import (
    MAX_ITEM_BYTES,
    BadLine,
    Entry,
    open_pool,
    read_item,
    read_objects,
)
from batchgen.pool.json_list import JsonList


def flat(fields: dict[str, Any], where: str, **rest: Any) -> PoolItem:
    item = ItemInput(given=fields, system_variables=fields, user_variables=fields, **rest)
    return PoolItem(item, where)


def bad(where: str, problem: str, text: str = "", *, fatal: bool = False) -> BadLine:
    return BadLine(where, problem, text, fatal)


OPEN_QUOTE = 'a cell that begins with " here is never closed with another "'
AFTER_QUOTE = 'there is more after the " that ends a cell; within one, write ""'
SAVE = "save the file as UTF-8 (in Excel: CSV UTF-8)"


def entries(found: Iterable[Entry]) -> list[Entry]:
    """But for the text of items."""
    return [replace(one, text="") if isinstance(one, PoolItem) else one for one in found]


def read(path: Path, content: str | bytes) -> list[Entry]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return entries(open_pool(str(path)))


def test_what_came_as_json_is_kept_as_it_came(tmp_path: Path) -> None:
    given = ' {"b":1.10,  "a":1E5} '
    for name, content in (("pool.jsonl", f"{given}\n"), ("pool.json", f"[{given}]")):
        (tmp_path / name).write_text(content)
        (found,) = open_pool(str(tmp_path / name))
        assert isinstance(found, PoolItem)
        assert (found.text.strip(), found.input.given) == (given.strip(), {"b": 1.1, "a": 1e5})
    (tmp_path / "pool.csv").write_text("a,b\n1,2\n")
    assert [one.text for one in open_pool(str(tmp_path / "pool.csv"))] == [""]


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.ndjson", "POOL.JSONL"])
def test_each_line_is_an_item_and_blank_lines_are_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert read(path, '\ufeff{"a": 1}\n\n  \r\n{"a": "猫"}\r\n{}') == [
        flat({"a": 1}, f"{path}:1"),
        flat({"a": "猫"}, f"{path}:4"),
        flat({}, f"{path}:5"),
    ]


@pytest.mark.parametrize(
    ("line", "problem", "text"),
    [
        (b'{"a": }', "not JSON: Expecting value at column 7", '{"a": }'),
        (b'{"a": 1} x', "not JSON: there is more after the value, from column 10 on", '{"a": 1} x'),
        (
            b"[1]",
            "an item must be an object, not a list; a JSON list must be in a .json file",
            "[1]",
        ),
        (b'"a"', "an item must be an object, not 'a'", '"a"'),
        (b"null", "an item must be an object, not null", "null"),
        (b'{"a": NaN}', "not usable JSON: NaN is not JSON", '{"a": NaN}'),
        (b'{"a": -Infinity}', "not usable JSON: -Infinity is not JSON", '{"a": -Infinity}'),
        (b'{"a": 1e999}', "not usable JSON: the number 1e999 is too large", '{"a": 1e999}'),
        (
            rb'{"a": "\ud800"}',
            "not usable JSON: it has a lone surrogate (half of a \\u pair)",
            r'{"a": "\ud800"}',
        ),
        (b'{"a": "\xff"}', f"not UTF-8: byte 0xff at column 8; {SAVE}", r'{"a": "\xff"}'),
        (b'{"a": "\0"}', "NUL byte at column 8", '{"a": "\0"}'),
        (
            b'[{"a": 1},',
            "not JSON: Expecting value at column 11; a JSON list must be in a .json file",
            '[{"a": 1},',
        ),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(
    tmp_path: Path, line: bytes, problem: str, text: str
) -> None:
    path = tmp_path / "pool.jsonl"
    entries = read(path, b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    assert entries == [
        flat({"n": 1}, f"{path}:1"),
        bad(f"{path}:2", problem, text),
        flat({"n": 3}, f"{path}:3"),
    ]


def test_lines_are_counted_however_they_lie_in_what_is_read_at_once(tmp_path: Path) -> None:
    """A file is read by the block; lines are shorter and longer than one, and one is no text."""
    lengths = [0, 10, 65_500, 1, 65_536, 200_000, 3, *[70] * 3000, 65_535]
    lines = [b'{"n": %d, "t": "%s"}' % (n, b"x" * length) for n, length in enumerate(lengths)]
    lines[2000] = b'{"n": "\xff"}'
    entries = read(tmp_path / "pool.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines))
    numbers = [int(entry.where.rpartition(":")[2]) for entry in entries]
    assert numbers == list(range(1, len(lines) + 1))
    texts = [one.input.given["t"] for one in entries if isinstance(one, PoolItem)]
    assert [len(text) for text in texts] == lengths[:2000] + lengths[2001:]


def test_json_nested_too_deep_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert read(path, deep + '\n{"n": 2}') == [
        bad(f"{path}:1", "not usable JSON: nested too deep", deep),
        flat({"n": 2}, f"{path}:2"),
    ]


def test_escaped_pairs_and_big_integers_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    assert read(path, r'{"a": "\ud83d\ude00", "b": 123456789012345678901234567890}') == [
        flat({"a": "😀", "b": 123456789012345678901234567890}, f"{path}:1")
    ]


def test_a_line_over_the_limit_is_skipped_whole(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": "')
        file.write(b"x" * (MAX_ITEM_BYTES + (3 << 20)))
        file.write(b'"}\n{"n": 2}\n')
    assert entries(open_pool(str(path))) == [
        bad(f"{path}:1", "the line is longer than 64 MB", '{"a": "' + "x" * 993),
        flat({"n": 2}, f"{path}:2"),
    ]


def test_utf16_is_recognised(tmp_path: Path) -> None:
    entry = read(tmp_path / "pool.jsonl", '{"a": 1}'.encode("utf-16"))[0]
    assert isinstance(entry, BadLine)
    assert entry.problem == (
        "not UTF-8 but UTF-16; save the file as UTF-8 (in Excel: CSV UTF-8), or run iconv -f UTF-16"
        " -t UTF-8"
    )


def test_standard_input_is_jsonl() -> None:
    assert entries(open_pool("-", stdin=io.BytesIO(b'{"a": 1}\n{'))) == [
        flat({"a": 1}, "stdin:1"),
        bad(
            "stdin:2",
            "not JSON: Expecting property name enclosed in double quotes at column 2; an object "
            "must stand on one line (jq -c . does that)",
            "{",
        ),
    ]


# --- JSON lists ------------------------------------------------------------------------------


def test_a_json_list_knows_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    assert read(path, '\ufeff[\n  {"a": 1},\n  {"a":\n 2},\n\n 7, {"a": NaN}, {"a": 3}\n]\n') == [
        flat({"a": 1}, f"{path}:2"),
        flat({"a": 2}, f"{path}:3"),
        bad(f"{path}:6", "an item must be an object, not 7", "7"),
        bad(f"{path}:6", "not usable JSON: NaN is not JSON", '{"a": NaN}'),
        flat({"a": 3}, f"{path}:6"),
    ]


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        (b"", 1, "not a JSON list; one object per line is .jsonl"),
        (b'{"a": 1}\n', 1, "not a JSON list; one object per line is .jsonl"),
        (b'[\n{"a": 1}', 2, "not JSON: the list's end, ], is missing"),
        (b'[\n{"a": 1}\n{"a": 2}]', 3, "not JSON: a comma or the list's end is missing"),
        (b'[{"a": 1},\n]', 2, "not JSON: Expecting value"),
        (b'[{"a":\n}]', 2, "not JSON: Expecting value"),
        (b'[\n{"a": "b', 2, "not JSON: the file ends within an item"),
        (b'[\n{"a":', 2, "not JSON: the file ends within an item"),
        (b'[{"a": 1}]\n[]', 2, "there is more after the list's end"),
        (b'[\n{"a": "\xff"}]', 2, f"not UTF-8: byte 0xff at column 8; {SAVE}"),
    ],
)
def test_an_error_of_syntax_ends_a_json_list(
    tmp_path: Path, content: bytes, where: int, problem: str
) -> None:
    path = tmp_path / "pool.json"
    last = read(path, content)[-1]
    assert isinstance(last, BadLine)
    assert (last.where, last.problem, last.fatal) == (f"{path}:{where}", problem, True)


def test_a_broken_json_list_is_not_read_uninterrupted() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, count: int = -1) -> bytes:
            self.taken += count
            return b'[{"a": 1} "b" ' + b" " * count

    source = Endless()
    entries = list(JsonList(lambda count: source.read(count).decode(), "x", chunk=100))
    assert [type(entry) for entry in entries] == [PoolItem, BadLine]
    assert source.taken < 10_000


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(
    objects=st.lists(st.dictionaries(st.sampled_from("abc"), json_values), max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2, 30]),
    ascii_only=st.booleans(),
)
def test_a_json_list_in_chunks_is_what_json_reads(
    objects: list[dict[str, Any]], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(objects, indent=indent, ensure_ascii=ascii_only)
    stream = io.StringIO(text, newline="")
    entries = list(JsonList(stream.read, "pool.json", chunk))
    assert [e.input.given for e in entries if isinstance(e, PoolItem)] == json.loads(text)
    assert len(entries) == len(objects)


@given(numbers=st.lists(st.integers() | st.floats(-1e300, 1e300)), chunk=st.integers(1, 9))
def test_numbers_cut_by_a_chunk_stay_whole(numbers: list[float], chunk: int) -> None:
    text = json.dumps(numbers)
    entries = list(JsonList(io.StringIO(text).read, "pool.json", chunk))
    assert [e.text for e in entries if isinstance(e, BadLine)] == [json.dumps(n) for n in numbers]


@given(text=st.text('[]{}",:0 \n\\ua.e-tN', max_size=30), chunk=st.integers(1, 5))
def test_any_text_is_a_list_exactly_when_json_says_so(text: str, chunk: int) -> None:
    entries = list(JsonList(io.StringIO(text, newline="").read, "pool.json", chunk))
    try:
        is_list = isinstance(json.loads(text), list)
    except json.JSONDecodeError:
        is_list = False
    assert any(isinstance(e, BadLine) and e.fatal for e in entries) is not is_list


# --- CSV -------------------------------------------------------------------------------------


def test_csv_rows_are_flat_items_of_text(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    content = '\ufefftopic, note\r\ncat,"a\r\nb"\r\n\r\ndog,"say ""hi"""\r\n'
    assert read(path, content) == [
        flat({"topic": "cat", "note": "a\r\nb"}, f"{path}:2"),
        flat({"topic": "dog", "note": 'say "hi"'}, f"{path}:5"),
    ]


def test_csv_id_and_params_are_optional_cells(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    content = 'id,params,topic\nx,"{""seed"": 1}",cat\n,,dog\ny,{,cow\nz,7,hen\n'
    params = {"seed": 1}
    assert read(path, content) == [
        flat({"id": "x", "params": params, "topic": "cat"}, f"{path}:2", id="x", params=params),
        flat({"topic": "dog"}, f"{path}:3"),
        bad(
            f"{path}:4",
            "params: not JSON: Expecting property name enclosed in double quotes at column 2",
            "y,{,cow",
        ),
        bad(f"{path}:5", "params must be an object, not 7", "z,7,hen"),
    ]


def test_bad_csv_rows_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    content = b'a,b\n1\n1,2,3\n"x"y,2\n\xff,2\n\0,2\n3,4\n"open,5\n'
    assert read(path, content) == [
        bad(f"{path}:2", "the row has 1 cells, the header 2", "1"),
        bad(f"{path}:3", "the row has 3 cells, the header 2", "1,2,3"),
        bad(f"{path}:4", "not CSV: " + AFTER_QUOTE, '"x"y,2'),
        bad(f"{path}:5", f"not UTF-8: byte 0xff at column 1; {SAVE}", "\\xff,2"),
        bad(f"{path}:6", "NUL byte at column 1", "\0,2"),
        flat({"a": "3", "b": "4"}, f"{path}:7"),
        bad(f"{path}:8", "not CSV: " + OPEN_QUOTE, '"open,5'),
    ]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("a,b,a", "the header has 'a' twice"),
        ("a;b", "the columns are separated by ';'; write them with commas"),
        (
            "a\tb",
            "the columns are separated by '\\t'; write them with commas, or name the file .tsv",
        ),
        ('a,"b', "not CSV: " + OPEN_QUOTE),
    ],
)
def test_a_bad_header_ends_the_file(tmp_path: Path, header: str, problem: str) -> None:
    path = tmp_path / "pool.csv"
    last = read(path, f"{header}\n")[-1]
    assert last == bad(f"{path}:1", problem, header, fatal=True)


def test_a_cell_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    assert read(path, "a\n" + "x" * 200_000) == [flat({"a": "x" * 200_000}, f"{path}:2")]


def test_tsv_has_tabs(tmp_path: Path) -> None:
    path = tmp_path / "pool.tsv"
    assert read(path, 'topic\tnote\ncat, dog\t5" long\n') == [
        flat({"topic": "cat, dog", "note": '5" long'}, f"{path}:2")
    ]
    assert read(path, "a,b\n") == [
        bad(
            f"{path}:1",
            "the columns are separated by ','; write them with tabs, or name the file .csv",
            "a,b",
            fatal=True,
        )
    ]


@pytest.mark.parametrize("name", ["pool.csv", "pool.tsv", "pool.txt", "pool.jsonl"])
def test_text_in_gbk_is_told_as_what_it_is(tmp_path: Path, name: str) -> None:
    [entry, *_] = read(tmp_path / name, "人工智能\n茶\n".encode("gbk"))
    assert isinstance(entry, BadLine)
    assert entry.problem == (
        'not UTF-8: byte 0xc8 at column 1; in GBK it would be "人工智能": save the file as UTF-8'
        " (in Excel: CSV UTF-8), or run iconv -f GBK -t UTF-8"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("café crème\n".encode("latin-1"), "byte 0xe9 at column 4; in WINDOWS-1252 it would be "
         f'"café crème": {SAVE}, or run iconv -f WINDOWS-1252 -t UTF-8'),
        ("“it’s 5 €”\n".encode("cp1252"), "byte 0x93 at column 1; in WINDOWS-1252 it would be "
         f'"“it’s 5 €”": {SAVE}, or run iconv -f WINDOWS-1252 -t UTF-8'),
        ("お茶を飲む\n".encode("shift_jis"), f"byte 0x82 at column 1; {SAVE}"),
        ("é ".encode() + b"caf\xe9\n", f"byte 0xe9 at column 6; {SAVE}"),
    ],
)  # fmt: skip
def test_text_in_other_encodings_is_told_where_it_can_be(
    tmp_path: Path, content: bytes, told: str
) -> None:
    [entry, *_] = read(tmp_path / "pool.txt", content)
    assert isinstance(entry, BadLine)
    assert entry.problem == f"not UTF-8: {told}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,2\n".encode("utf-32"), f"UTF-32; {SAVE}, or run iconv -f UTF-32 -t UTF-8"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "packed by gzip; let its name end in .gz"),
        (b"PK\x03\x04\x14\xff", "a ZIP or Excel file; save the sheet as CSV UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is(
    tmp_path: Path, content: bytes, told: str
) -> None:
    [entry, *_] = read(tmp_path / "pool.csv", content)
    assert isinstance(entry, BadLine)
    assert entry.problem == f"not UTF-8 but {told}"


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE"])
def test_utf16_without_its_mark_is_recognised(tmp_path: Path, encoding: str) -> None:
    [entry, *_] = read(tmp_path / "pool.csv", "topic,tone\n".encode(encoding))
    assert isinstance(entry, BadLine)
    told = f", as UTF-16 has them; {SAVE}, or run iconv -f {encoding} -t UTF-8"
    assert entry.problem.endswith(told)


def test_columns_without_a_name_and_without_cells_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    assert read(path, "topic,, \ntea,,\nmilk, ,x\n") == [
        flat({"topic": "tea"}, f"{path}:2"),
        bad(f"{path}:3", "'x' is in column 3, which has no name in the header; give it one, or "
            "leave the column out", "milk, ,x"),
    ]  # fmt: skip
    assert read(path, ",topic\n0,tea\n")[0] == bad(
        f"{path}:2", "'0' is in column 1, which has no name in the header; give it one, or leave "
        "the column out (pandas: to_csv(index=False))", "0,tea",
    )  # fmt: skip


def test_lines_that_end_with_cr_alone_are_told(tmp_path: Path) -> None:
    [entry, *_] = read(tmp_path / "pool.csv", "id,topic\r1,tea\r")
    assert isinstance(entry, BadLine)
    assert entry.problem == "not CSV: lines end with CR alone; save the file with LF or CR LF"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.jsonl.gz", '{"text": "a"}\n'),
        ("pool.json.gz", '[{"text": "a"}]'),
        ("pool.csv.gz", "text\na\n"),
        ("POOL.TSV.GZ", "text\na\n"),
        ("pool.txt.gz", "a\n"),
    ],
)
def test_a_file_may_be_packed(tmp_path: Path, name: str, content: str) -> None:
    [entry] = read(tmp_path / name, gzip.compress(content.encode()))
    assert isinstance(entry, PoolItem)
    assert entry.input.given == {"text": "a"}


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"{}" + data])
def test_a_packed_file_that_is_damaged_says_so(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    packed = gzip.compress("".join(f'{{"n": {n}}}\n' for n in range(99)).encode())
    last = read(tmp_path / "pool.jsonl.gz", damage(packed))[-1]
    assert isinstance(last, BadLine)
    assert last.problem.startswith("cannot be unpacked from here on: ")
    assert last.fatal


def test_a_line_of_text_is_an_item(tmp_path: Path) -> None:
    path = tmp_path / "pool.txt"
    assert read(path, "\ufeff a \r\n\n \n{}") == [
        flat({"text": " a "}, f"{path}:1"),
        BadLine(f"{path}:3", "the line is blank", " ", blank=True),
        flat({"text": "{}"}, f"{path}:4"),
    ]


def test_a_directory_of_texts_is_a_pool_in_the_order_of_its_paths(tmp_path: Path) -> None:
    files = {"b.txt": b"\xef\xbb\xbfB\nb\n", "a/2.md": b"2", "a/1": b"1\r\n", ".hidden": b"x",
             ".git/x": b"x", "c.png": b"\x89PNG", "d.gif": b"GIF\0", "empty": b"\n"}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path)

    def item(name: str, text: str) -> PoolItem:
        fields = {"id": name, "path": name, "text": text}
        return flat(fields, f"{tmp_path}/{name}", id=name)

    assert entries(open_pool(str(tmp_path))) == [
        item("a/1", "1"),
        item("a/2.md", "2"),
        item("b.txt", "B\nb"),
        bad(f"{tmp_path}/c.png", f"not UTF-8: byte 0x89 at column 1; {SAVE}", f"{tmp_path}/c.png"),
        bad(
            f"{tmp_path}/d.gif",
            "is not text: it has a NUL byte; keep it out of the directory",
            f"{tmp_path}/d.gif",
        ),
        BadLine(f"{tmp_path}/empty", "the file is blank", blank=True),
    ]


@pytest.mark.parametrize("name", ["pool.csv", "pool.jsonl"])
def test_an_empty_file_has_no_items(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, "") == []


# --- functions and Python objects ------------------------------------------------------------


def test_a_function_in_a_file_yields_items(tmp_path: Path) -> None:
    code = tmp_path / "source.py"
    code.write_text(
        textwrap.dedent("""
            def items():
                yield {"a": 1}
                yield {"a": b"1"}
                yield "text"
                raise ValueError("no more")

            def number(): return 7
            async def later(): return []
        """)
    )
    spec = f"{code}:items"
    assert entries(open_pool(spec)) == [
        flat({"a": 1}, f"{spec}[0]"),
        bad(
            f"{spec}[1]",
            "cannot be stored as JSON: a: a value of type bytes is nothing JSON has",
            "{'a': b'1'}",
        ),
        bad(f"{spec}[2]", "an item must be an object, not 'text'", '"text"'),
        bad(f"{spec}[3]", f"the function raised ValueError: no more ({code}:6)", fatal=True),
    ]
    assert entries(open_pool(f"{code}:number")) == [
        bad(f"{code}:number", "returned 7; it must return or yield items", fatal=True)
    ]
    with pytest.raises(
        UsageError, match=r"later is async; a data pool must be a plain function or generator$"
    ):
        open_pool(f"{code}:later")
    with pytest.raises(ConfigError, match=r"source\.py has no item; did you mean items\?$"):
        open_pool(f"{code}:item")


def test_a_module_is_found_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pool_module_here.py").write_text("def items(): return [{'a': 1}]")
    monkeypatch.chdir(tmp_path)
    assert entries(open_pool("pool_module_here:items")) == [
        flat({"a": 1}, "pool_module_here:items[0]")
    ]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("1 / 0", r"cannot import .*: ZeroDivisionError: division by zero \(.*broken\.py:1\)$"),
        ("def (", r"cannot import .*: SyntaxError: .* \(.*broken\.py:1\)$"),
        (
            "import nothing_like_it",
            r"ModuleNotFoundError: No module named 'nothing_like_it' \(.*:1\)$",
        ),
        ("raise SystemExit(3)", r"SystemExit: 3 \(.*broken\.py:1\)$"),
        ("items = 3", r"items is a int, not a function$"),
    ],
)
def test_user_code_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, code: str, problem: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(ConfigError, match=problem) as caught:
        open_pool(f"{path}:items")
    assert "\n" not in str(caught.value)


def test_python_objects_are_copied() -> None:
    reused: dict[str, Any] = {}

    def objects() -> Any:
        for n in range(2):
            reused["n"] = n
            yield reused

    assert entries(read_objects(objects())) == [
        flat({"n": 0}, "data_pool[0]"),
        flat({"n": 1}, "data_pool[1]"),
    ]
    assert entries(read_objects([{"a": "\ud800"}], "mine")) == [
        bad(
            "mine[0]",
            "cannot be stored as JSON: a: it has a lone surrogate (half of a \\u pair)",
            "{'a': '\\ud800'}",
        )
    ]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "the data pool's name is empty; give a file, - or module:function"),
        ("missing.jsonl", "missing.jsonl: no such data pool"),
        (
            "Say something. " * 20,
            f"{('Say something. ' * 4)}...: no such data pool (File name too long)",
        ),
        (
            "pool.xlsx",
            "pool.xlsx: unknown kind of data pool; it must end in .jsonl, .json, .csv, .tsv, .txt"
            " (each also .gz) or .parquet, be a directory of text files, - (JSONL on stdin),"
            " module:function, or results:EXPERIMENT (a sheet of Excel: save it as CSV UTF-8)",
        ),
        (
            "pool.parquet.gz",
            "pool.parquet.gz: is packed; Parquet is read from its end, so from a file",
        ),
        (
            "no_such_module:items",
            "no module named 'no_such_module', neither installed nor in <here>",
        ),
        ("missing.py:items", "missing.py: no such file"),
        (
            "missing.py",
            "'missing.py' names no function; write module:function or path/to/file.py:function",
        ),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool.xlsx").touch()
    (tmp_path / "pool.parquet.gz").touch()
    with pytest.raises(UsageError) as caught:
        open_pool(source)
    assert str(caught.value) == problem.replace("<here>", str(tmp_path))


# --- the shapes of an item -------------------------------------------------------------------

CHAT = [{"role": "user", "content": "hi"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant"}]
STREAM = (
    ": whether answers come as a stream is a setting, model.stream, for all items; what is stored "
    "is the same, so leave out stream and stream_options"
)
COUNT = "a whole number from 1 on"
BATCH = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions"}


@pytest.mark.parametrize(
    ("obj", "parts"),
    [
        ({"messages": CHAT, "id": 7, "source": "x"}, {"id": "7", "messages": CHAT}),
        ({"messages": PARTS, "metadata": [1]}, {"metadata": [1], "messages": PARTS}),
        (
            {"user_prompt_kwargs": {"a": 1}, "system_prompt_kwargs": {"b": 2}, "id": "x"},
            {"id": "x", "user_variables": {"a": 1}, "system_variables": {"b": 2}},
        ),
        ({"user_prompt_kwargs": {"a": 1}}, {"user_variables": {"a": 1}}),
        ({"system_prompt_kwargs": {"b": 1}}, {"system_variables": {"b": 1}}),
        (
            {**BATCH, "body": {"model": "m", "messages": CHAT, "seed": 1}},
            {"id": "r1", "messages": CHAT, "endpoint": "chat", "params": {"model": "m", "seed": 1}},
        ),
        ({"a": 1, "params": {"n": 1, "model": "m"}}, {"params": {"n": 1, "model": "m"}}),
        ({"url": "https://x", "body": "an e-mail"}, {}),
        # a request: what stands beside the messages is asked for too
        (
            {"model": "m", "messages": CHAT, "temperature": 0, "metadata": {"row": 1}, "odd": 1},
            {
                "messages": CHAT,
                "metadata": {"row": 1},
                "params": {"model": "m", "temperature": 0, "odd": 1},
            },
        ),
        (
            {"messages": CHAT, "tools": [], "top_k": 5, "source": "x", "user": "bob"},
            {"messages": CHAT, "params": {"tools": [], "top_k": 5}},
        ),
        (
            {"messages": CHAT, "seed": 1, "params": {"seed": 2}},
            {"messages": CHAT, "params": {"seed": 2}},
        ),
        (
            {"user_prompt_kwargs": {"a": 1}, "chat_template_kwargs": {"thinking": False}},
            {"user_variables": {"a": 1}, "params": {"chat_template_kwargs": {"thinking": False}}},
        ),
        ({"custom_id": "a", "messages": CHAT}, {"id": "a", "messages": CHAT}),
        ({"topic": "x", "temperature": 0}, {}),
    ],
)
def test_the_shapes_of_an_item_are_told_apart(obj: dict[str, Any], parts: dict[str, Any]) -> None:
    if not parts.keys() & {"messages", "prompt", "user_variables", "system_variables"}:
        parts = {**parts, "user_variables": obj, "system_variables": obj}
    assert read_item(obj, "here") == ItemInput(given=obj, **parts)


@pytest.mark.parametrize(
    ("obj", "problem"),
    [
        ([], "an item must be an object, not an empty list"),
        ({"messages": []}, "messages must be a list with at least one message, not an empty list"),
        ({"messages": "hi"}, "messages must be a list with at least one message, not 'hi'"),
        ({"messages": ["hi"]}, "messages[0] must be an object, not 'hi'"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role must be text, not null"),
        (
            {"messages": [*CHAT, {"role": "user", "content": 3}]},
            "messages[1].content must be text, a list or null, not 3",
        ),
        (
            {"messages": [{"role": "user", "content": ["hi"]}]},
            "messages[0].content[0] must be an object, not 'hi'",
        ),
        (
            {"messages": CHAT, "user_prompt_kwargs": {}},
            "has both messages and user_prompt_kwargs; an item has either messages or variables",
        ),
        ({"user_prompt_kwargs": "x"}, "user_prompt_kwargs must be an object, not 'x'"),
        ({"id": ""}, "id must be a text that is not empty, not ''"),
        ({"id": [1]}, "id must be a text that is not empty, not a list"),
        ({"id": None}, "id must be a text that is not empty, not null"),
        ({"id": True}, "id must be a text that is not empty, not true"),
        ({"id": 1.5}, "id must be a text that is not empty, not 1.5"),
        ({"params": "x"}, "params must be an object, not 'x'"),
        ({"params": {"stream_options": {"include_usage": True}}}, f"params{STREAM}"),
        ({"params": {"stream": True}}, f"params{STREAM}"),
        (
            {"params": {"n": 2}},
            "params.n must be 1: an item has one answer; for more, give it again with another id",
        ),
        ({"params": {"messages": []}}, "params must not contain messages"),
        *(
            ({"params": {"max_tokens": value}}, f"params.max_tokens must be {COUNT}, not {shown}")
            for value, shown in (
                *((-4000, "-4000"), (0, "0"), (True, "true"), (1.5, "1.5"), ("9", "'9'")),
                *((10**10, "10000000000"), ([], "an empty list")),
            )
        ),
        (
            {"params": {"extra_body": {"max_completion_tokens": -1}}},
            f"params.extra_body.max_completion_tokens must be {COUNT}, not -1",
        ),
        (
            {**BATCH, "body": {"messages": CHAT, "max_tokens": 0}},
            f"body.max_tokens must be {COUNT}, not 0",
        ),
        (
            {"params": {"extra_body": {"stream": True}}},
            f"params.extra_body{STREAM}",
        ),
        (
            {**BATCH, "body": {"messages": CHAT, "stream": True}},
            f"body{STREAM}",
        ),
        (
            {"model": "m", "messages": CHAT, "stream": True},
            f"item{STREAM}",
        ),
        (
            {"method": "POST", "url": "/v1/chat/completions", "body": {"messages": CHAT}},
            "looks like a line of an OpenAI batch, but has no custom_id",
        ),
        (
            {"id": "a", "body": {"messages": CHAT}},
            "looks like a line of an OpenAI batch, but has no custom_id; it has id in its place",
        ),
        ({**BATCH, "body": {"input": "x"}}, "body must be an object with messages"),
        ({**BATCH, "body": "x"}, "body must be an object with messages"),
        (
            {"custom_id": "a", "body": {"input": "x"}},
            "body must be an object with messages; one for another endpoint needs its url",
        ),
        (
            {**BATCH, "url": "/v1/completions", "body": {"prompt": ["a", "b"]}},
            "body.prompt must be one text: of several answers only the first is kept",
        ),
        (
            {**BATCH, "url": "/v1/responses", "body": {"input": "x", "background": True}},
            "body.background must not be set: answers are not fetched later",
        ),
        (
            {**BATCH, "url": "/v1/embeddings", "body": {"input": " "}},
            "the prompt is empty: body.input has nothing in it",
        ),
        (
            {**BATCH, "url": "/v1/moderations", "body": {"input": "x"}},
            "url must be one of /v1/chat/completions, /v1/responses, /v1/completions, "
            "/v1/embeddings, not '/v1/moderations'",
        ),
        ({**BATCH, "id": "x", "body": {"messages": CHAT}}, "has both id and custom_id"),
        (
            {**BATCH, "messages": CHAT, "body": {"messages": CHAT}},
            "has both body and messages; an item has either messages or variables",
        ),
    ],
)
def test_what_cannot_be_an_item_says_where_and_why(obj: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_item(obj, "pool.jsonl:7")
    assert str(caught.value) == f"pool.jsonl:7: {problem}"
