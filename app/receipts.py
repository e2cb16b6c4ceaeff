"""Receipts: what proves a file. One is kept with the artifact's row, and as a small file beside its bytes.

Whoever downloads both can check one against the other without Waybill: `sha256` is that of the file as it
is. The row keeps it after the file has expired.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app import formats, storage
from app.errors import WaybillError

SUFFIX = ".receipt.json"
BLOCK = 1024 * 1024
# What every receipt says.
PROOF = {"rows": int, "bytes": int, "sha256": str}
# How many files of an archive are told to be wrong.
TOLD = 10


class NoReceipt(WaybillError):
    """There is no receipt to check a file against."""

    code = "no_receipt"


def key_of(artifact_key: str) -> str:
    """Where the receipt of an artifact is in the storage."""
    return artifact_key + SUFFIX


def as_bytes(receipt: Mapping[str, Any]) -> bytes:
    return json.dumps(receipt, ensure_ascii=False, indent=2).encode() + b"\n"


def put(artifact_key: str, receipt: Mapping[str, Any]) -> None:
    """Write the file beside the artifact."""
    key = key_of(artifact_key)
    name = f"{receipt['filename']}{SUFFIX}"
    with storage.current().writer(key, content_type="application/json", filename=name) as writer:
        writer.write(as_bytes(receipt))
        writer.commit()


def delete(artifact_key: str) -> None:
    """Take an artifact's bytes away, and its receipt's; the row's receipt stays."""
    storage.current().delete(key_of(artifact_key))
    storage.current().delete(artifact_key)


def read(path: Path) -> dict[str, Any]:
    """The receipt in a file; raises NoReceipt."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NoReceipt(
            f"There is no receipt {path}. Name one with --receipt, or its job with --job."
        ) from None
    except OSError as error:
        raise NoReceipt(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), PROOF[name]) for name in PROOF):
        raise NoReceipt(f"{path} is no receipt of Waybill.")
    return found


def differences(path: Path, receipt: Mapping[str, Any]) -> list[str]:
    """What of the file is not as the receipt says, one sentence each; reads it once, in blocks.

    Raises NoReceipt if the file can't be read.
    """
    try:
        found = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        if found["sha256"] != receipt["sha256"]:
            return _told(found, receipt) + _rows_told(path, receipt)
    except OSError as error:
        raise NoReceipt(f"{path} can't be read: {error.strerror or error}.") from error
    return []


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


def _told(found: Mapping[str, Any], receipt: Mapping[str, Any]) -> list[str]:
    size, wanted = found["bytes"], receipt["bytes"]
    told = []
    if size < wanted:
        told.append(f"The file is cut short: it has {size:,} bytes, the receipt says {wanted:,}.")
    elif size > wanted:
        told.append(f"Something was added: the file has {size:,} bytes, the receipt says {wanted:,}.")
    else:
        told.append(f"The file has the right size, {size:,} bytes, but other content.")
    return [*told, f"Its SHA-256 is {found['sha256']}, the receipt says {receipt['sha256']}."]


def _rows_told(path: Path, receipt: Mapping[str, Any]) -> list[str]:
    """How many rows are left in a file that is not what it was."""
    if receipt.get("members"):
        return _members_told(path, receipt["members"])
    try:
        counter = formats.find(str(receipt.get("format")))[0].counter()
        for block in _content(path, str(receipt.get("compression", "none"))):
            counter.feed(block)
    except WaybillError:
        return []
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return ["Its rows can't be counted: the compression is broken."]
    rows, wanted = counter.rows, receipt["rows"]
    return [f"It has {rows:,} rows, the receipt says {wanted:,}."] if rows != wanted else []


def _members_told(path: Path, members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which files of an archive are not what they were."""
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            told = [_member_told(archive, member, there) for member in members]
    except (OSError, zipfile.BadZipFile):
        return ["Its files can't be looked at: the archive is broken."]
    found = [text for text in told if text]
    more = [f"And so are {len(found) - TOLD:,} more files."] if len(found) > TOLD else []
    return found[:TOLD] + more


def _member_told(archive: zipfile.ZipFile, member: Mapping[str, Any], there: Collection[str]) -> str:
    name, sha = str(member["name"]), hashlib.sha256()
    if name not in there:
        return f"{name} is missing."
    try:
        with archive.open(name) as file:
            while block := file.read(BLOCK):
                sha.update(block)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return f"{name} is damaged."
    return "" if sha.hexdigest() == member["sha256"] else f"{name} is not what it was."


def _content(path: Path, compression: str) -> Iterator[bytes]:
    match compression:
        case "gzip":
            with gzip.open(path, "rb") as file:
                yield from iter(lambda: file.read(BLOCK), b"")
        case "zip":
            with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as entry:
                yield from iter(lambda: entry.read(BLOCK), b"")
        case _:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(BLOCK), b"")
