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
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

T = TypeVar("T")

# Rows are joined to blocks of this size, in bytes; each ends with the row that fills it.
BLOCK = 1024 * 1024
# How much is looked at once, in bytes.
LOOK = 512 * 1024
# What has come in before we look at it: bytes, and the milliseconds after which fewer will do.
ENOUGH, PATIENCE = 256 * 1024, 5
# Linux takes what was seen of TCP without copying it again.
TAKE = socket.MSG_TRUNC if sys.platform == "linux" else 0
# The first bytes of a row's message: its kind, and the upper half of its length, which counts itself. As
# text has no NUL, this is nowhere else; a message of 64 KiB or more begins differently.
ROW = b"d\0\0"
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


class _Plain:
    """Rows from a socket without encryption.

    It looks first and takes later: bytes that are not a row's stay in the socket.
    """

    def __init__(self, sock: socket.socket, poll: select.poll) -> None:
        self._sock, self._poll = sock, poll
        self._taken = bytearray(LOOK)

    def begins(self) -> bool:
        """Wait for the answer; whether it is one that can be read here."""
        with suppress(OSError):
            return self._look()[0] in (COPY_DATA, *ASIDE)
        return False

    def rows(self, line_end: bytes) -> Iterator[list[bytes]]:
        """The rows, many at a time, up to what is neither a row nor an aside.

        A connection that is lost ends them, too: what became of it, libpq finds out.
        """
        size, least = 0, 1
        with suppress(OSError):
            while (seen := self._look(least))[0] in (COPY_DATA, *ASIDE):
                if rows := _rows(seen):
                    self._take(sum(map(len, rows)) + 5 * len(rows))
                else:
                    rows = self._message()
                size += len(seen)
                # What is short, or comes message by message, does not wait for more.
                least = ENOUGH if size > ENOUGH and len(rows) > 1 else 1
                if line_end != b"\n":
                    rows = [row[:-1] + line_end for row in rows]
                yield rows

    def _look(self, least: int = 1) -> bytes:
        """Up to `LOOK` bytes of what is there, waiting a little for `least`. Raises OSError."""
        self._wake_for(least)
        self._poll.poll(PATIENCE)
        return self._received(lambda: self._sock.recv(LOOK, socket.MSG_PEEK))

    def _message(self) -> list[bytes]:
        """The next message, however long, taken: its row, or none of an aside."""
        header = bytearray(5)
        self._fill(memoryview(header))
        content = bytearray(int.from_bytes(header[1:], "big") - 4)
        self._fill(memoryview(content))
        return [bytes(content)] if header[0] == COPY_DATA else []

    def _take(self, size: int) -> None:
        """Take bytes that were seen."""
        self._fill(memoryview(self._taken)[:size], TAKE)

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


def _blocks(lists: Iterable[list[bytes]]) -> Iterator[tuple[bytes, int]]:
    """Blocks, and how many rows are in each: always the same ones, however the rows came in."""
    held: list[bytes] = []
    size = 0
    for rows in lists:
        held += rows
        size += sum(map(len, rows))
        while size >= BLOCK:
            sizes = list(accumulate(map(len, held)))
            at = bisect_left(sizes, BLOCK) + 1
            yield b"".join(held[:at]), at
            size -= sizes[at - 1]
            del held[:at]
    yield b"".join(held), len(held)


def _rows(seen: bytes) -> list[bytes]:
    """The rows whose messages `seen` begins with, as far as they are whole and shorter than 64 KiB."""
    first, *messages = seen.split(ROW)
    if first or not messages:
        return []
    last = messages[-1]
    if len(last) < 2 or int.from_bytes(last[:2], "big") - 2 != len(last):
        messages.pop()
    rows = [message[2:] for message in messages]
    # A NUL belongs to another message than a short row's: to that one, and not to the row before it.
    if b"\0" in b"".join(rows):
        del rows[next(at for at, row in enumerate(rows) if b"\0" in row) :]
    return rows
