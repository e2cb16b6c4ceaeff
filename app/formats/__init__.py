"""How rows become bytes. One format a file, named by its module; knows neither Flask nor SQLAlchemy.

A new format is one new module here with a `FORMAT` in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from app.errors import InvalidRequest

# What one step of a stream holds, in bytes.
BLOCK = 1024 * 1024


class Format(ABC):
    """A way of writing rows. `dialects` names the ways it can be spoken, the default first."""

    name: str
    title: str
    extension: str
    content_type: str
    dialects: tuple[str, ...]

    @abstractmethod
    def encode(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], dialect: str
    ) -> Iterator[bytes]:
        """The file in blocks, header first."""

    @abstractmethod
    def counter(self) -> Counter:
        """Counts the rows in a file's bytes, knowing nothing of how they were made."""

    def copy_options(self, dialect: str) -> str | None:
        """What PostgreSQL's COPY needs to write this itself; None: it can't."""
        return None


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
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {module.FORMAT.name: module.FORMAT for module in modules}


def find(name: str, dialect: str | None = None) -> tuple[Format, str]:
    """The format and its dialect (the default one if None); raises InvalidRequest naming those there are."""
    found = formats().get(name)
    if found is None:
        raise InvalidRequest(f"There is no format {name!r}. Use {_either(formats())}.")
    dialect = dialect or found.dialects[0]
    if dialect not in found.dialects:
        raise InvalidRequest(f"{name} has no dialect {dialect!r}. Use {_either(found.dialects)}.")
    return found, dialect


def _either(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))
