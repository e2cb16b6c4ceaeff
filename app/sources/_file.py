"""What sources have in common that are one file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.errors import BadSettings, SourceDown
from app.sources import Source


def path_of(name: str, url: str, example: str) -> Path:
    """The file that the URL of this source names; raises BadSettings, with a URL as an example."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if not path or parts.netloc:
        raise BadSettings(f"SOURCE_{name.upper()}_URL names no file; write {example}.")
    return Path(path)


class FileSource(Source):
    """Opened so that nothing can write to it, so there is nothing to warn of."""

    def __init__(self, name: str, path: Path, timeout: timedelta) -> None:
        self.name = name
        self._path, self._timeout = path, timeout

    def warnings(self) -> Sequence[str]:
        with self.reading():
            return ()

    def _check(self) -> None:
        """Raises SourceDown if there is no file."""
        if not self._path.is_file():
            # Its name is the operator's business, and told where operators look.
            raise SourceDown(f"The source {self.name!r} does not answer: there is no such file.")
