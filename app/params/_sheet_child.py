"""A process of its own that unpacks a workbook; see `lists`.

Apart, because a sheet of two cells in opposite corners asks for all of the cells between, and a small archive
may unpack to gigabytes: here the system says no, and nobody else dies of it. It needs nothing of the app.

Standard input is the workbook, a file. Standard output has one line of JSON for each row of its first sheet
that is not empty: the row's number and its cells as text. If it ends with an error, the last line of standard
error is `refused: ` and a sentence for people.
"""

from __future__ import annotations

import json
import resource
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

MEMORY, SECONDS = 1024 * 1024 * 1024, 60
# What all of the archive may unpack to, and what may be written, in bytes.
UNPACKED, WRITTEN = 512 * 1024 * 1024, 128 * 1024 * 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN, WRITTEN))
    try:
        check()
        write()
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    except MemoryError:
        sys.exit("refused: The workbook is too large when it is unpacked. Save it as CSV.")


class Refused(Exception):
    """Why the workbook is not read, in words for people."""


def check() -> None:
    """What the archive says of itself; the limits are for those that lie."""
    try:
        with zipfile.ZipFile(sys.stdin.buffer) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        raise Refused("The workbook is damaged. Save it anew, or save it as CSV.") from None
    if size > UNPACKED:
        raise Refused(f"The workbook unpacks to {size:,} bytes, and that is too much. Save it as CSV.")
    sys.stdin.buffer.seek(0)


def write() -> None:
    for number, cells in rows():
        if any(cells):
            sys.stdout.write(json.dumps([number, cells]) + "\n")


def rows() -> Iterator[tuple[int, list[str]]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        sheet = CalamineWorkbook.from_filelike(sys.stdin.buffer).get_sheet_by_index(0)
    except (CalamineError, IndexError, OSError) as error:
        raise Refused(f"This is no Excel workbook (.xlsx), or it is damaged ({error}).") from None
    for number, cells in enumerate(sheet.iter_rows(), 1):
        yield number, [text(cell) for cell in cells]


def text(cell: Any) -> str:
    """As a person would type it: a sheet has no whole numbers, so 42.0 is 42."""
    match cell:
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer():
            return str(int(cell))
        case datetime():
            return cell.isoformat(sep=" ")
        case date():
            return cell.isoformat()
        case _:
            return str(cell)


if __name__ == "__main__":
    main()
