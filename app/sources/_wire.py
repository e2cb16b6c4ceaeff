"""COPY TO STDOUT read off the connection's socket, in blocks of many rows.

PostgreSQL sends a message for each row, and hands them to the system eight kilobytes at a time. libpq gives
them out one by one, which costs more CPU than all that Waybill does with them afterwards; and a reader
that wakes for each eight kilobytes slows the server down, too. So the socket is asked to wake us for a
quarter of a megabyte, and the rows are cut from it many at a time. What is no row is left in the socket for
libpq, which knows what it means and is in step when the copy has ended. Rows that come encrypted (TLS,
GSSAPI) take the way through libpq.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

T = TypeVar("T")
Octets = np.ndarray[tuple[int], np.dtype[np.uint8]]
Places = np.ndarray[tuple[int], np.dtype[np.intp]]

# Rows are joined to blocks of this size, in bytes; each ends with the row that fills it.
BLOCK = 1024 * 1024
# How much is looked at once, in bytes: it and what is made of it stay in a core's cache.
LOOK = 384 * 1024
# What has come in before we look at it: bytes, and the milliseconds after which fewer will do.
ENOUGH, PATIENCE = 256 * 1024, 20
# Linux takes what was seen of TCP without copying it again.
TAKE = socket.MSG_TRUNC if sys.platform == "linux" else 0
# A message begins with its kind and its length, which counts itself: four bytes, the highest first. The upper
# two are zero in a row's message shorter than 64 KiB.
HEADER = 5
# Kinds of messages: a row, and those that may come before or between rows and tell us nothing: the copy's
# beginning, notices, changed settings, notifications.
COPY_DATA, ASIDE = ord("d"), frozenset(b"HNSA")


class Wire:
    """After an error the connection is good only for closing; after an early end, for `drain`."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._poll = select.poll()
        self._poll.register(pgconn.socket, select.POLLIN)
        # Rows copied so far; at the end, as the server counted them.
        self.rows = 0

    def copy_out(self, query: bytes, line_end: bytes) -> Iterator[bytes]:
        """The copied rows in blocks of about `BLOCK` bytes, each row ended by `line_end`.

        Raises psycopg's errors.
        """
        self.rows = 0
        self._pgconn.send_query(query)
        self._flush()
        with self._socket() as sock:
            plain = _Plain(sock, self._poll)
            if plain.begins():
                yield from self._counted(_blocks(plain.rows(line_end)))
            else:
                self._expect(ExecStatus.COPY_OUT)
                yield from self._counted(self._given_out(line_end))
        self.rows = self._expect(ExecStatus.COMMAND_OK).command_tuples or 0
        # The answer's end: only then the connection takes the next query.
        while self._result() is not None:
            pass

    def drain(self) -> None:
        """Take what is left of a copy that was broken off."""
        while (result := self._result()) is not None:
            while result.status == ExecStatus.COPY_OUT:
                try:
                    length, _ = self._pgconn.get_copy_data(1)
                except psycopg.OperationalError:
                    break
                if length == 0:
                    self._wait()
                if length < 0:
                    break

    def _counted(self, blocks: Iterator[tuple[bytes, int]]) -> Iterator[bytes]:
        for block, rows in blocks:
            self.rows += rows
            yield block

    def _given_out(self, line_end: bytes) -> Iterator[tuple[bytes, int]]:
        """The rows as libpq gives them out, one by one."""
        receive, as_it_is = self._pgconn.get_copy_data, line_end == b"\n"
        # Rows are views of libpq's memory, used at once: thousands of them alive send Python's garbage
        # collector round and round through the whole process, four times as long as the copy takes.
        block, rows = bytearray(), 0
        while True:
            length, row = receive(1)
            if length > 0:
                block += row if as_it_is else row[:-1]
                if not as_it_is:
                    block += line_end
                rows += 1
                if len(block) >= BLOCK:
                    yield bytes(block), rows
                    block, rows = bytearray(), 0
            elif length == 0:
                self._wait()
            else:
                break
        yield bytes(block), rows

    @contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        """The connection's socket by a descriptor of our own: libpq may close its at any time."""
        with socket.socket(fileno=os.dup(self._pgconn.socket)) as sock:
            try:
                yield sock
            finally:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _flush(self) -> None:
        """Send all of the query. Nothing of its answer is read yet: it comes when the query is whole."""
        while self._pgconn.flush():
            self._poll.modify(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            self._wait()
        self._poll.modify(self._pgconn.socket, select.POLLIN)

    def _expect(self, status: ExecStatus) -> PGresult:
        result = self._result()
        if result is None:
            raise psycopg.OperationalError("the server closed the copy without an answer")
        if result.status != status:
            raise errors.error_from_result(result, encoding="utf-8")
        return result

    def _result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._wait()
        return self._pgconn.get_result()

    def _wait(self) -> None:
        self._poll.poll(1000)
        self._pgconn.consume_input()


@dataclass(frozen=True)
class _Rows:
    """Rows one after another, and where each ends."""

    data: memoryview
    ends: Places


class _Plain:
    """Rows from a socket without encryption.

    It looks first and takes later: bytes that are not a row's stay in the socket.
    """

    def __init__(self, sock: socket.socket, poll: select.poll) -> None:
        self._sock, self._poll = sock, poll
        # The last row's end may become longer.
        self._room = memoryview(bytearray(LOOK + HEADER))
        self._seen = np.frombuffer(self._room, np.uint8)

    def begins(self) -> bool:
        """Wait for the answer; whether it is one that can be read here."""
        with suppress(OSError):
            self._look()
            return self._readable()
        return False

    def rows(self, line_end: bytes) -> Iterator[_Rows]:
        """The rows, many at a time, up to what is neither a row nor an aside.

        A connection that is lost ends them, too: what became of it, libpq finds out.
        """
        size, least = 0, 1
        with suppress(OSError):
            while (seen := self._look(least)) and self._readable():
                starts, ends = _messages(self._seen[:seen])
                if len(ends):
                    self._take(ends[-1])
                    yield _contents(self._seen, starts, ends, line_end)
                else:
                    yield from self._message(line_end)
                size += seen
                # What is short, or comes message by message, does not wait for more.
                least = ENOUGH if size > ENOUGH and len(ends) > 1 else 1

    def _look(self, least: int = 1) -> int:
        """See up to `LOOK` bytes of what is there, waiting a little for `least`. Raises OSError."""
        self._wake_for(least)
        self._poll.poll(PATIENCE)
        return self._received(lambda: self._sock.recv_into(self._room, LOOK, socket.MSG_PEEK))

    def _readable(self) -> bool:
        return self._seen[0] in (COPY_DATA, *ASIDE)

    def _message(self, line_end: bytes) -> Iterator[_Rows]:
        """Take the next message, however long: its row, or none of an aside."""
        header = bytearray(HEADER)
        self._fill(memoryview(header))
        content = bytearray(int.from_bytes(header[1:], "big") - 4)
        self._fill(memoryview(content))
        if header[0] == COPY_DATA:
            row = bytes(content[:-1]) + line_end
            yield _Rows(memoryview(row), np.array([len(row)]))

    def _take(self, size: int) -> None:
        """Take bytes that were seen. Where they are copied again, they come to where they were."""
        self._fill(self._room[:size], TAKE)

    def _fill(self, rest: memoryview, flags: int = 0) -> None:
        while rest:
            rest = rest[self._received(partial(self._sock.recv_into, rest, len(rest), flags)) :]

    def _received(self, receive: Callable[[], T]) -> T:
        while True:
            with suppress(BlockingIOError):
                if received := receive():
                    return received
                raise ConnectionError("the server closed the connection")
            # Nothing is there at all: any byte is news.
            self._wake_for(1)
            self._poll.poll(1000)

    def _wake_for(self, size: int) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _messages(seen: Octets) -> tuple[Places, Places]:
    """Where the messages of rows start and end that `seen` begins with: the whole ones, below 64 KiB.

    Text has no NUL, so groups of NULs are where messages may start. What proves a start is that the message
    before it ends there.
    """
    zeros = np.flatnonzero(seen == 0)
    # In a header NULs are at most two apart, and at least a line end and a kind are between headers.
    firsts = np.ones(len(zeros), np.bool_)
    np.greater(zeros[1:] - zeros[:-1], 2, out=firsts[1:])
    starts = zeros[firsts] - 1
    starts = starts[(starts >= 0) & (starts <= len(seen) - HEADER)]
    ends: Places = starts + 1 + seen[starts + 3] * np.intp(256) + seen[starts + 4].astype(np.intp)
    sound = (seen[starts] == COPY_DATA) & (seen[starts + 1] == 0) & (seen[starts + 2] == 0)
    sound &= (np.concatenate(([0], ends[:-1])) == starts) & (ends <= len(seen))
    count = len(sound) if sound.all() else int(sound.argmin())
    return starts[:count], ends[:count]


def _contents(seen: Octets, starts: Places, ends: Places, line_end: bytes) -> _Rows:
    """What is in messages of rows, each ended by `line_end`; it takes the room of the next one's header."""
    longer = len(line_end) - 1
    kept = np.ones(ends[-1] + longer, np.bool_)
    for at in range(HEADER):
        kept[starts + at] = False
    if longer:
        for at, octet in enumerate(line_end, start=-1):
            seen[ends + at] = octet
            kept[ends + at] = True
    return _Rows(seen[: len(kept)][kept].data, np.cumsum(ends - starts - HEADER + longer))


def _blocks(found: Iterable[_Rows]) -> Iterator[tuple[bytes, int]]:
    """Blocks, and how many rows are in each: always the same ones, however the rows came in."""
    held: list[memoryview] = []
    size = count = 0
    for rows in found:
        data, first, begin = rows.data, 0, 0
        while size + len(data) - begin >= BLOCK:
            last = int(np.searchsorted(rows.ends, BLOCK - size + begin))
            end = int(rows.ends[last])
            yield b"".join([*held, data[begin:end]]), count + last + 1 - first
            held, size, count = [], 0, 0
            first, begin = last + 1, end
        held.append(data[begin:])
        size += len(data) - begin
        count += len(rows.ends) - first
    yield b"".join(held), count
