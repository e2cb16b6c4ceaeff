"""PostgreSQL's rows off the socket: cut at any byte, of any length, between notices, plain and encrypted."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from app.errors import QueryFailed, SourceDown
from app.sources import Copy, Reading, Source, open_source
from app.sources._wire import BLOCK, HEADER, Wire, _contents, _messages, _Plain

CSV = Copy("FORMAT csv", line_end=b"\n")
# Asks for encryption; the server answers with one letter.
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
LONG = [1, 65_530, 65_531, 65_532, 70_000, 3 * BLOCK, 2, 25_600, 25_596]


@pytest.fixture(scope="module")
def url(services: Any) -> str:
    found: str = services.database("wire_suite")
    with psycopg.connect(found, autocommit=True) as conn:
        conn.execute(
            "CREATE FUNCTION told(i bigint) RETURNS bigint LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$"
        )
    return found


@pytest.fixture(params=("plain", "unix socket", "encrypted"))
def source(request: pytest.FixtureRequest, url: str, services: Any) -> Iterator[Source]:
    parts = urlsplit(url)
    match request.param:
        case "plain":
            yield opened(url)
        case "unix socket":
            there = f"{parts.username}:{parts.password}@/{parts.path[1:]}"
            yield opened(f"postgresql://{there}?host={services.postgres.sockets}&port={parts.port}")
        case _:
            with Encrypting(parts.port or 0) as front:
                yield opened(url.replace(f":{parts.port}/", f":{front.port}/") + "?sslmode=require")


def opened(url: str) -> Source:
    return open_source("shop", url, timedelta(seconds=60))


def read(reading: Reading, sql: str, copy: Copy = CSV) -> bytes:
    return b"".join(reading.copy(sql, {}, copy))


def test_every_length_of_row(source: Source) -> None:
    """Messages change their shape at 64 KiB, and are longer than what is looked at once."""
    rows = ", ".join(f"({at}, {length})" for at, length in enumerate(LONG))
    sql = f"SELECT repeat('d', length) FROM (VALUES {rows}) AS t(at, length) ORDER BY at"
    with source.reading() as reading:
        assert read(reading, sql) == b"".join(b"d" * length + b"\n" for length in LONG)
        assert reading.rows_read == len(LONG)


def test_empty_rows(source: Source) -> None:
    with source.reading() as reading:
        assert read(reading, "SELECT NULL FROM generate_series(1, 3)") == b"\n\n\n"
        assert read(reading, "SELECT 1 WHERE false") == b""
        assert reading.rows_read == 0


def test_many_rows_and_another_line_end(source: Source) -> None:
    with source.reading() as reading:
        sql = "SELECT i, 'a\nb' FROM generate_series(1, 50000) AS i"
        found = read(reading, sql, Copy("FORMAT csv", line_end=b"\r\n"))
        assert found == b"".join(b'%d,"a\nb"\r\n' % at for at in range(1, 50_001))
        assert reading.rows_read == 50_000


def test_blocks_are_the_same_however_the_rows_came(source: Source) -> None:
    """Compressed and typed files are made block by block: their bytes must not tell how fast rows were."""
    sql = "SELECT repeat('x', 1 + i * 7919 % 1000) FROM generate_series(1, 10000) AS i"
    with source.reading() as reading:
        found = [len(block) for block in reading.copy(sql, {}, CSV)]
    rows = [at * 7919 % 1000 + 2 for at in range(1, 10_001)]
    expected, size = [], 0
    for row in rows:
        size += row
        if size >= BLOCK:
            expected.append(size)
            size = 0
    assert found == [*expected, size]


def test_notices_between_rows(source: Source) -> None:
    with source.reading() as reading:
        found = read(reading, "SELECT told(i) FROM generate_series(1, 3000) AS i")
        assert found == b"".join(b"%d\n" % at for at in range(1, 3001))
        assert reading.rows_read == 3000


def test_an_error_amid_rows_is_the_databases(source: Source) -> None:
    with source.reading() as reading, pytest.raises(QueryFailed, match="division by zero"):
        read(reading, "SELECT 1 / (30000 - i) FROM generate_series(1, 50000) AS i")


def test_a_connection_that_ends_amid_rows_is_told(source: Source, url: str) -> None:
    with source.reading() as reading:
        (pid,) = next(iter(reading.rows("SELECT pg_backend_pid()", {})))
        blocks = reading.copy("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)", {}, CSV)
        next(blocks)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        with pytest.raises(SourceDown):
            for _ in blocks:
                pass


def test_a_copy_left_early_leaves_the_connection_as_it_was(source: Source) -> None:
    with source.reading() as reading:
        blocks = reading.copy("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)", {}, CSV)
        next(blocks)
        blocks.close()
        assert read(reading, "SELECT 1") == b"1\n"


def test_a_query_longer_than_what_the_socket_takes(source: Source) -> None:
    with source.reading() as reading:
        text = "x" * 20_000_000
        assert len(read(reading, f"SELECT '{text}'")) == len(text) + 1


def test_encryption_is_what_makes_the_difference(
    source: Source, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    ways = []
    for kind, name in ((Wire, "_given_out"), (_Plain, "rows")):
        kept = getattr(kind, name)

        def noted(found: Any, line_end: bytes, kept: Any = kept, name: str = name) -> Any:
            ways.append(name)
            return kept(found, line_end)

        monkeypatch.setattr(kind, name, noted)
    with source.reading() as reading:
        assert read(reading, "SELECT 1") == b"1\n"
    encrypted = "encrypted" in request.node.name
    assert ways == (["_given_out"] if encrypted else ["rows"])


contents = st.lists(
    st.text(st.sampled_from("d\n\x01\xffx"), max_size=8)
    | st.builds(lambda size: "d" * size, st.sampled_from([0, 96, 252, 25_596, 65_531, 65_532, 70_000])),
    max_size=8,
)

line_ends = st.sampled_from([b"\n", b"\r\n"])

# Messages that may follow the rows.
AFTER = [b"", b"c\0\0\0\4C\0\0\0\x0bCOPY 9\0", b"N\0\0\0\6d\0", b"E\0\0\0\5\0"]


def cut(stream: bytes, line_end: bytes) -> tuple[list[bytes], int]:
    """The rows that are cut from what is there, and the bytes they took."""
    seen = np.frombuffer(stream + bytes(HEADER), np.uint8).copy()
    starts, ends = _messages(seen[: len(stream)])
    if not len(ends):
        return [], 0
    taken = int(ends[-1])
    rows = _contents(seen, starts, ends, line_end)
    data, places = bytes(rows.data), [0, *rows.ends.tolist()]
    assert places[-1] == len(data)
    return [data[begin:end] for begin, end in itertools.pairwise(places)], taken


def message(row: bytes) -> bytes:
    return b"d" + (len(row) + 4).to_bytes(4, "big") + row


@given(contents, st.sampled_from(AFTER), st.lists(st.integers(1, 100_000), min_size=1), line_ends)
def test_rows_are_cut_from_whatever_is_there(
    texts: list[str], after: bytes, sizes: list[int], line_end: bytes
) -> None:
    """Whatever is looked at next, and by hand what no look can cut: every row comes, once and in order."""
    rows = [text.encode() for text in texts]
    stream = b"".join(message(row + b"\n") for row in rows) + after
    found: list[bytes] = []
    for size in itertools.cycle(sizes):
        if len(stream) == len(after):
            break
        some, taken = cut(stream[:size], line_end)
        if not some:
            taken = 1 + int.from_bytes(stream[1:HEADER], "big")
            some = [stream[HEADER : taken - 1] + line_end]
        found += some
        stream = stream[taken:]
    assert found == [row + line_end for row in rows]
    assert stream == after


@given(st.lists(st.text("d\n\x01x", max_size=8), min_size=1), line_ends)
def test_whole_rows_are_cut_at_once(texts: list[str], line_end: bytes) -> None:
    rows = [text.encode() for text in texts]
    stream = b"".join(message(row + b"\n") for row in rows)
    assert cut(stream, line_end) == ([row + line_end for row in rows], len(stream))


@given(st.binary(max_size=64))
def test_what_is_no_row_is_never_cut(stream: bytes) -> None:
    """Whatever bytes come: only whole messages of rows are taken, from the first byte on."""
    rows, taken = cut(stream, b"\n")
    assert b"".join(map(message, rows)) == stream[:taken]


class Encrypting:
    """Speaks TLS in front of a server that does not, byte for byte."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._context)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Encrypting:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._ended.wait()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
        writer.write(b"S")
        await writer.start_tls(self._context)
        beyond, out = await asyncio.open_connection("127.0.0.1", self._behind)
        try:
            await asyncio.gather(pump(reader, out), pump(beyond, writer))
        finally:  # when it is cancelled, too: nothing may be left open for the garbage collector to find
            out.transport.abort()
            writer.transport.abort()


async def pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
