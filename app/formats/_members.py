"""Names of the files in an archive, good wherever it is unpacked."""

from __future__ import annotations

import unicodedata

# What a name may not hold on one system or another, besides control characters.
FORBIDDEN = frozenset('<>:"/\\|?*')
# Devices of Windows: no file has such a name there, whatever its extension.
RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"]
)
# File systems take 255 bytes; this leaves room for an extension and a number.
LONGEST = 180
NAMELESS = "file"


class Names:
    """Gives each file of one archive a name that no other one has, not even in other letter case."""

    def __init__(self, extension: str) -> None:
        self._extension = extension
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """`wanted` as a safe name, with the extension; a number is added if it is taken."""
        stem = name = safe(wanted)
        while (key := _folded(name)) in self._taken:
            number = self._numbers[_folded(stem)] = self._numbers.get(_folded(stem), 1) + 1
            name = f"{stem} ({number})"
        self._taken.add(key)
        return f"{name}.{self._extension}"


def safe(wanted: str) -> str:
    """One path segment, of letters that every file system takes and that show what the name is."""
    text = unicodedata.normalize("NFC", wanted)
    text = "".join(letter if letter.isprintable() and letter not in FORBIDDEN else "_" for letter in text)
    # Windows drops spaces and dots at the end; a dot at the beginning hides the file elsewhere.
    text = text.strip(" .").encode()[:LONGEST].decode(errors="ignore").rstrip(" .")
    if text.partition(".")[0].rstrip().upper() in RESERVED:
        text = f"_{text}"
    return text or NAMELESS


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()
