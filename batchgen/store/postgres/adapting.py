"""How values go to PostgreSQL and come back: as SQLite has them, so that whoever reads them is
written once. Whole numbers have 64 bits, yes and no are 1 and 0, a sum is a number, JSON is text.
"""

import struct
from collections.abc import Mapping, Sequence

from msgspec.json import Encoder
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrDumperUnknown, TextLoader

from batchgen.store.transactions.packed import packed

_OID_OF_BYTEA, _OID_OF_BYTEA_LIST = 17, 1001
_NUL = "\0"
_IN_ITS_PLACE = "\ufffd"  # no type of PostgreSQL takes U+0000
_encoder = Encoder()  # bytes become base64


class Json(bytes):
    """A document, as it goes out."""


class ByteaList(bytes):
    """A list of bytea as it goes out in binary; `bytea_list` makes one."""


class _ByteaListDumper(Dumper):
    format = Format.BINARY
    oid = _OID_OF_BYTEA_LIST

    def dump(self, obj: ByteaList) -> Buffer | None:
        return obj


class _JsonDumper(Dumper):
    def dump(self, obj: Json) -> Buffer | None:
        return obj


class _TextDumper(StrDumperUnknown):
    """Of no type, so that the statement decides which."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace(_NUL, _IN_ITS_PLACE) if _NUL in obj else obj)


class _BoolLoader(Loader):
    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class _NumericLoader(Loader):
    """A sum of whole numbers is one."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


def adapt(adapters: AdaptersMap) -> None:
    """An int is of one type whatever its size: of several, each would prepare a statement anew."""
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(bool, Int8BinaryDumper)
    adapters.register_dumper(str, _TextDumper)
    adapters.register_dumper(Json, _JsonDumper)
    adapters.register_dumper(ByteaList, _ByteaListDumper)
    adapters.register_loader("bool", _BoolLoader)
    adapters.register_loader("numeric", _NumericLoader)
    for kind in ("json", "jsonb"):
        adapters.register_loader(kind, TextLoader)


def bytea_list(values: Sequence[bytes]) -> ByteaList:
    """Of values of the same length. The driver's own takes a step in Python for each."""
    if not values:
        return ByteaList(struct.pack(">iii", 0, 0, _OID_OF_BYTEA))
    head = struct.pack(">iiiii", 1, 0, _OID_OF_BYTEA, len(values), 1)
    length = struct.pack(">i", len(values[0]))
    return ByteaList(head + length + length.join(values))


def as_json(rows: Sequence[Mapping[str, object]]) -> Json:
    """Rows for json_to_recordset: bytes are base64 in it, and U+0000 is replaced."""
    text = _encoder.encode(rows)
    if b"\\u0000" in text:  # perhaps only as what a text is about
        text = _encoder.encode(
            [{key: _without_nul(one) for key, one in row.items()} for row in rows]
        )
    return Json(text)


def with_spans(
    rows: Sequence[Mapping[str, object]], names: Sequence[str]
) -> tuple[list[dict[str, object]], bytes]:
    """The rows with spans in place of these texts, and the bytes in which they are. None stays."""
    short = [dict(row) for row in rows]
    places = [(row, name) for row in short for name in names if row[name] is not None]
    texts, spans = packed(str(_without_nul(row[name])) for row, name in places)
    for (row, name), span in zip(places, spans, strict=True):
        row[name] = span
    return short, texts


def _without_nul(value: object) -> object:
    return value.replace(_NUL, _IN_ITS_PLACE) if isinstance(value, str) else value
