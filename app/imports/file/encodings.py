"""Which encoding the bytes of a text are in. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from charset_normalizer import from_bytes

# UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a person may choose: the codec's name and what it is called.
CHOICES = {
    "utf-8": "UTF-8",
    "cp1252": "Western European (Windows-1252)",
    "iso8859-1": "Western European (Latin-1)",
    "iso8859-15": "Western European with € (Latin-9)",
    "cp1250": "Central European (Windows-1250)",
    "iso8859-2": "Central European (Latin-2)",
    "cp1251": "Cyrillic (Windows-1251)",
    "koi8-r": "Cyrillic (KOI8-R)",
    "cp1253": "Greek (Windows-1253)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1255": "Hebrew (Windows-1255)",
    "cp1256": "Arabic (Windows-1256)",
    "cp1257": "Baltic (Windows-1257)",
    "shift_jis": "Japanese (Shift JIS)",
    "euc_jp": "Japanese (EUC)",
    "gb18030": "Chinese (GB 18030)",
    "big5": "Chinese (Big5)",
    "euc_kr": "Korean (EUC)",
    "cp437": "DOS, American (CP 437)",
    "cp850": "DOS, Western European (CP 850)",
    "mac_roman": "Western European (Mac OS Roman)",
    "utf-16": "UTF-16 with a byte order mark",
    "utf-16-le": "UTF-16, little end first",
    "utf-16-be": "UTF-16, big end first",
    "utf-32": "UTF-32 with a byte order mark",
}
# Of the lines that are not ASCII, how many bytes are looked at.
ENOUGH = 16 * 1024
# Letters that people write by hand, by where a legacy codec of Western Europe puts them.
WESTERN = "ÄÖÜäöüßÀÁÂÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕØÙÚÛÝàáâãåæçèéêëìíîïñòóôõøùúûýÿŒœ€–—‘’“”„…°§«»©®²³µ·½£¿¡ªº"


@dataclass(frozen=True)
class Encoding:
    """A Python codec's name, why, and whether that is certain."""

    name: str
    why: str
    sure: bool = True


def detect(head: bytes) -> Encoding:
    """The encoding of a text that begins with `head`, which may end within a character."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return Encoding(name, "It begins with a byte order mark.")
    if wide := _wide(head):
        return Encoding(wide, "Every second byte is empty.")
    if _is_utf8(head):
        if head.isascii():
            return Encoding("utf-8", "Only plain ASCII so far.")
        return Encoding("utf-8", "All of its characters are right in UTF-8.")
    odd = [line for line in head.splitlines() if not line.isascii()]
    wrong = sum(not _is_utf8(line) for line in odd)
    if wrong * 2 < len(odd):
        # By chance hardly a line of another encoding is right in UTF-8.
        lines = "1 line is" if wrong == 1 else f"{wrong:,} lines are"
        return Encoding("utf-8", f"Most of it is right in UTF-8, but {lines} not.", sure=False)
    return _legacy(odd)


def decode(head: bytes, encoding: str) -> str:
    """The text of a head, however it is cut; what is no text is shown as �."""
    if encoding == "utf-8":
        encoding = "utf-8-sig"
    return codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)


def known(name: str) -> bool:
    """Whether it is one of `CHOICES`, perhaps by another name."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return any(found == codecs.lookup(choice) for choice in CHOICES)


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _wide(head: bytes) -> str | None:
    """UTF-16 without its mark: in Western text one byte of each pair is 0, and always the same one."""
    pairs = len(head) // 2
    if pairs < 4:
        return None
    first, second = head[: pairs * 2 : 2].count(0), head[1 : pairs * 2 : 2].count(0)
    if second > pairs * 0.4 and first < pairs * 0.02:
        return "utf-16-le"
    if first > pairs * 0.4 and second < pairs * 0.02:
        return "utf-16-be"
    return None


def _legacy(lines: Sequence[bytes]) -> Encoding:
    """One byte a character, or one of East Asia. Where Western letters make sense, it is Western."""
    odd = b"\n".join(lines)[:ENOUGH]
    western = decode(odd, "cp1252")
    letters = [letter for letter in western if letter > "\x7f"]
    likely = sum(letter in WESTERN for letter in letters) / len(letters)
    found = from_bytes(odd, cp_isolation=[name for name in CHOICES if not name.startswith("utf")]).best()
    named = found.encoding if found else "cp1252"
    if likely > 0.95 and _apart(western):
        named = "cp1252"
    name = next((name for name in CHOICES if codecs.lookup(name) == codecs.lookup(named)), "cp1252")
    return Encoding(name, "It is not UTF-8; this is the likeliest by its letters.", sure=False)


def _apart(text: str) -> bool:
    """Whether letters beyond ASCII stand among plain ones: whole words of them are another script."""
    high = [letter > "\x7f" for letter in text]
    runs = sum(a and b and c for a, b, c in zip(high, high[1:], high[2:], strict=False))
    return runs * 20 < sum(high)
