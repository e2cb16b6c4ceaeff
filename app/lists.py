"""Long lists among the params of jobs: objects of the storage, so that no job's row has to hold them.

A list of a million values is written once, under the SHA-256 of its content, and the frozen params hold
`{"sha256", "count"}` in its place. Jobs with the same list have the same params. The sweep takes a list away
when no unfinished job has it and it is older than files become.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from app import storage
from app.errors import InvalidParams, ObjectMissing, WaybillError
from app.params import Frozen, Param, Params
from app.params import lists as files
from app.params.kinds import KINDS, Reference, Refused
from app.reports import Report

# Longer lists are kept apart: by the number of their values, and by the bytes of all.
MOST_VALUES, MOST_BYTES = 1_000, 32 * 1024
# Values written at a time.
CHUNK = 10_000
PREFIX = "lists/"


class ListGone(WaybillError):
    """A job's list is not in the storage any more, or is not what it was."""

    code = "list_gone"


def key_of(sha256: str) -> str:
    return PREFIX + sha256


def from_file(report: Report, param: Param, file: IO[bytes], column: str | None = None) -> list[Any]:
    """The values in a file somebody sent; raises InvalidParams."""
    lookup = report.lookup
    also = [lookup.column] if lookup and lookup.param == param.name else []
    try:
        return files.read(file, param, column, also)
    except Refused as refused:
        raise InvalidParams({param.name: str(refused)}) from None


def put_away(params: Params, frozen: Mapping[str, Frozen]) -> dict[str, Frozen]:
    """The frozen params with a reference for each long list, which is in the storage afterwards.

    Raises InvalidParams for a reference to what is not there.
    """
    return {name: _kept(params.get(name), value) for name, value in frozen.items()}


def keep(values: Sequence[Any]) -> Reference:
    """Put a list into the storage, as one JSON value a line."""
    sha = hashlib.sha256()
    for block in _blocks(values):
        sha.update(block)
    reference = Reference(sha.hexdigest(), len(values))
    # Written again even if it is there: from now on it counts as new.
    key = key_of(reference.sha256)
    with storage.current().writer(key, content_type="application/jsonl", filename="list.jsonl") as writer:
        for block in _blocks(values):
            writer.write(block)
        writer.commit()
    return reference


def fetch(params: Params, bound: Mapping[str, Any]) -> dict[str, Any]:
    """The bound params with the lists themselves instead of references; raises ListGone."""
    return {
        name: _fetched(params.get(name), value) if isinstance(value, Reference) else value
        for name, value in bound.items()
    }


def is_long(values: Sequence[Any]) -> bool:
    return len(values) > MOST_VALUES or sum(len(str(value)) for value in values) > MOST_BYTES


def _kept(param: Param | None, value: Frozen) -> Frozen:
    if isinstance(value, list) and is_long(value):
        return keep(value).frozen()
    if param is not None and isinstance(value, dict):
        try:
            storage.current().stat(key_of(str(value["sha256"])))
        except ObjectMissing:
            text = "This list is not kept any more. Paste it, or send its file, once more."
            raise InvalidParams({param.name: text}) from None
    return value


def _fetched(param: Param | None, reference: Reference) -> list[Any]:
    assert param is not None
    gone = f"The list of {reference.count:,} values is not kept any more. Ask again, and give it once more."
    sha, whole = hashlib.sha256(), []
    try:
        with storage.current().open(key_of(reference.sha256)) as blocks:
            for block in blocks:
                sha.update(block)
                whole.append(block)
    except ObjectMissing:
        raise ListGone(gone) from None
    if sha.hexdigest() != reference.sha256:
        raise ListGone("The list in the storage is not what it was. Ask again, and give it once more.")
    found = json.loads(b"[" + b"".join(whole).rstrip().replace(b"\n", b",") + b"]")
    values: list[Any] = KINDS["list"].parse(param, found, None)
    if len(values) != reference.count:
        raise InvalidParams({param.name: f"The list has {len(values):,} values, not {reference.count:,}."})
    return values


def _blocks(values: Sequence[Any]) -> Iterator[bytes]:
    for start in range(0, len(values), CHUNK):
        # An array without its brackets, and line breaks for commas.
        yield json.dumps(values[start : start + CHUNK], separators=("\n", ":"))[1:-1].encode() + b"\n"
