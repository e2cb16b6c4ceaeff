"""Saving an artifact on this machine."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from app import receipts
from app.errors import IncompleteArtifact, WaybillError
from app.models.artifact import Artifact
from app.storage import Storage


class NotSaved(WaybillError):
    """The file could not be written here."""

    code = "not_saved"


def check_place(output: Path | None) -> None:
    """Before anybody waits for the file: raises NotSaved if there is no folder for it."""
    if output is None:
        return
    try:
        folder = output if output.is_dir() else output.parent
    except OSError as error:
        raise NotSaved(f"{output} could not be written: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        why = "the folder may not be written to" if folder.is_dir() else "there is no such folder"
        raise NotSaved(f"{output} could not be written: {why}.")


def save(storage: Storage, artifact: Artifact, output: Path) -> Path:
    """Copy an artifact's bytes to `output`, or into it if it is a folder; returns where they are.

    Its receipt is put beside it. The file appears whole or not at all: a temporary one beside it is checked,
    synced and renamed. Raises IncompleteArtifact when the bytes are not those of the receipt, and NotSaved.
    """
    path = output / artifact.filename if output.is_dir() else output
    partial = path.with_name(f".{path.name[:100]}.{uuid4().hex[:8]}")
    try:
        _copy(storage, artifact, partial)
        receipt_of(path).write_bytes(receipts.as_bytes(artifact.receipt))
        partial.replace(path)
    except OSError as error:
        raise NotSaved(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        # Where nothing can be written, nothing is left, either.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def receipt_of(path: Path) -> Path:
    """Where a saved file's receipt is."""
    return path.with_name(path.name + receipts.SUFFIX)


def _copy(storage: Storage, artifact: Artifact, path: Path) -> None:
    sha = hashlib.sha256()
    with path.open("xb") as file, storage.open(artifact.key) as blocks:
        for block in blocks:
            sha.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if sha.hexdigest() != artifact.sha256:
        raise IncompleteArtifact(
            f"The bytes of {artifact.filename} are not those that were published; nothing was saved. "
            "Export the report again."
        )
