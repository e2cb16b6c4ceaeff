"""How rows become bytes. One format a file, named by its module; knows neither Flask nor SQLAlchemy.

A new format is one new module here with a `FORMAT` in it. What formats share begins with an underscore.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import ClassVar

from app.errors import InvalidRequest
from app.formats._zip import Zipped
from app.sources import Batch, Copy, Field

__all__ = ["Counter", "Format", "Unfit", "Writing", "Zipped", "check_compression", "find", "formats"]

# What one step of a stream holds, in bytes.
BLOCK = 1024 * 1024


class Format(ABC):
    """A way of writing rows.

    `dialects` are the ways it can be spoken and what they are good for, the default first; `compressions`
    what may be done with its files beside.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    extension: ClassVar[str]
    content_type: ClassVar[str]
    dialects: ClassVar[Mapping[str, str]] = {"standard": "everybody"}
    compressions: ClassVar[tuple[str, ...]] = ("none", "gzip", "zip")
    # The dialects that write moments as the requester's clock shows them, without a zone.
    local_dialects: ClassVar[Collection[str]] = ()

    @abstractmethod
    def writing(self, dialect: str, zone: str = "UTC", texts: Collection[int] = ()) -> Writing:
        """One file to be written, for a person in this time zone (an IANA name).

        `texts` are columns, by their position from 0, that must be text: see `Unfit`.
        """

    @abstractmethod
    def counter(self) -> Counter:
        """Counts the rows in a file's bytes, knowing nothing of how they were made."""


class Writing(ABC):
    """One file being written, in one of three ways: by the source itself, by columns, or by rows."""

    def copy(self, fields: Callable[[], Sequence[Field]]) -> Copy | None:
        """How PostgreSQL's COPY writes it all by itself; None: it can't."""
        return None

    def typed(self, fields: Sequence[Field]) -> Sequence[Field]:
        """The result's fields as `batches` wants them: some may have to be text."""
        return fields

    def batches(self, fields: Sequence[Field], batches: Iterable[Batch]) -> Iterator[bytes]:
        """The file in blocks, header first. Raises Unfit."""
        rows = (row for batch in batches for row in batch.values())
        return self.rows([field.name for field in fields], rows)

    @abstractmethod
    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        """The same of Python values."""

    @property
    def notes(self) -> Sequence[str]:
        """What whoever opens the finished file should know: sentences for the job's log."""
        return ()


class Unfit(Exception):
    """A value came that its column's type can't hold: begin the file anew, with this column as text.

    Its text is a sentence for the job's log.
    """

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        # From 0.
        self.position = position


class Counter(ABC):
    """Counts rows in written bytes: the other side of the reconciliation."""

    @abstractmethod
    def feed(self, block: bytes) -> None: ...

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows seen so far, the header not among them."""


@cache
def formats() -> dict[str, Format]:
    """Every format by its name."""
    names = (module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return {module.FORMAT.name: module.FORMAT for module in modules}


def find(name: str, dialect: str | None = None) -> tuple[Format, str]:
    """The format and its dialect (the default one if None); raises InvalidRequest naming those there are."""
    found = formats().get(name)
    if found is None:
        raise InvalidRequest(f"There is no format {name!r}. Use {_either(formats())}.")
    dialect = dialect or next(iter(found.dialects))
    if dialect not in found.dialects:
        raise InvalidRequest(f"{name} has no dialect {dialect!r}. Use {_either(found.dialects)}.")
    return found, dialect


def check_compression(format: Format, compression: str) -> None:
    """Raises InvalidRequest unless the format's files may be compressed so."""
    if compression in format.compressions:
        return
    if compression in Format.compressions:
        raise InvalidRequest(f"{format.title} files are compressed already. Leave {compression} out.")
    raise InvalidRequest(f"There is no compression {compression!r}. Use {_either(format.compressions)}.")


def _either(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))
