"""Uploads: received in blocks, gone on with after any cut, checked, limited, and taken away in time."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import sqlalchemy as sa
from apiflask import APIFlask

from app import uploads
from app.dev.seaweedfs import SeaweedFS
from app.errors import (
    BadFile,
    Conflict,
    DigestMismatch,
    InvalidParams,
    InvalidRequest,
    NotFound,
    StorageFull,
    StorageUnavailable,
    TooMany,
    UploadGone,
    UploadTooLarge,
    WrongOffset,
)
from app.extensions import db
from app.imports.file import plain
from app.imports.file.dialect import Dialect
from app.models import Import, Job, Upload
from app.settings import ROOT
from app.storage import open_storage
from app.storage.local import Local
from app.sweep import cleaning
from app.uploads import BLOCK

NOW = sa.func.clock_timestamp()
ROW = b"1,Ann,2026-01-31\n"
TEXT = ROW * 100


@pytest.fixture(autouse=True)
def context(app: APIFlask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def upload(member: Any) -> Upload:
    return uploads.begin(member, "people.csv")


def content(upload: Upload, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(uploads.open(upload, start, end))


def again(upload: Upload) -> Upload:
    db.session.rollback()
    return db.session.get_one(Upload, upload.id, populate_existing=True)


def objects_root(app: APIFlask) -> Path:
    return Path(urlsplit(app.config["WAYBILL"].storage_url).path)


def objects(app: APIFlask, upload: Upload) -> list[Path]:
    found = (objects_root(app) / f"uploads/{upload.id}").rglob("*")
    return sorted(path for path in found if path.is_file())


def receive(upload: Upload, data: bytes, **options: Any) -> Upload:
    return uploads.receive(upload, upload.bytes, io.BytesIO(data), **options)


class Cut:
    """A sender whose connection breaks after some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        piece = self.data.read(size)
        if not piece:
            raise ConnectionResetError("cut off")
        return piece


# --- receiving --------------------------------------------------------------------------------------------


def test_what_is_sent_is_kept(app: APIFlask, upload: Upload) -> None:
    data = bytes(range(256)) * (BLOCK // 256) + ROW
    assert upload.bytes == 0
    upload = receive(upload, data)
    assert list(upload.sizes) == [BLOCK, len(ROW)]
    assert upload.sha256 == hashlib.sha256(data).hexdigest()
    assert len(objects(app, upload)) == 2
    assert content(upload) == data
    assert content(upload, BLOCK - 3, BLOCK + 4) == data[BLOCK - 3 : BLOCK + 4]
    assert content(upload, BLOCK) == ROW
    assert content(upload, 5, 5) == b""
    assert content(upload, len(data)) == b""


def test_a_cut_off_sender_goes_on_where_it_was(upload: Upload) -> None:
    data = ROW * (2 * BLOCK // len(ROW))
    with pytest.raises(ConnectionResetError):
        uploads.receive(upload, 0, Cut(data[: BLOCK + 1000]))
    upload = again(upload)
    assert list(upload.sizes) == [BLOCK, 1000]
    upload = receive(upload, data[BLOCK + 1000 :])
    assert content(upload) == data
    # Nobody has seen all of it in one go.
    assert upload.sha256 is None


def test_another_offset_is_refused_and_the_right_one_told(upload: Upload) -> None:
    upload = receive(upload, TEXT)
    for offset in (0, len(TEXT) - 1, len(TEXT) + 1):
        with pytest.raises(WrongOffset, match="go on from offset") as told:
            uploads.receive(upload, offset, io.BytesIO(ROW))
        assert told.value.offset == len(TEXT)
    assert content(again(upload)) == TEXT


def test_of_two_senders_at_once_one_gets_through(app: APIFlask, upload: Upload) -> None:
    """Both were told the same offset, and each sends something else."""
    together = threading.Barrier(2)
    upload_id, ends, right = upload.id, [], []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            if not piece:
                together.wait(30)
            return piece

    def send(data: bytes) -> None:
        with app.app_context():
            try:
                uploads.receive(db.session.get_one(Upload, upload_id), 0, Slow(data))
                ends.append(data)
            except WrongOffset as error:
                right.append(error.offset)

    threads = [threading.Thread(target=send, args=(data,)) for data in (TEXT, TEXT.upper())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    upload = again(upload)
    assert ([content(upload)], right) == (ends, [len(TEXT)])
    assert len(objects(app, upload)) == 1


def test_a_digest_that_fits(upload: Upload) -> None:
    data = ROW * (BLOCK // len(ROW) + 10)
    for name, algorithm in (("sha-256", "sha256"), ("sha-512", "sha512")):
        digest = base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
        upload = receive(upload, data, digest=f"md5=:x:, {name}=:{digest}:")
    assert content(upload) == data * 2


def test_a_digest_that_does_not_fit_keeps_nothing(app: APIFlask, upload: Upload) -> None:
    digest = base64.b64encode(hashlib.sha256(ROW).digest()).decode()
    with pytest.raises(DigestMismatch, match="send them again"):
        receive(upload, bytes(BLOCK + 1), digest=f"sha-256=:{digest}:")
    assert again(upload).bytes == 0
    assert objects(app, upload) == []


def test_with_a_digest_a_cut_keeps_nothing(app: APIFlask, upload: Upload) -> None:
    digest = base64.b64encode(hashlib.sha256(ROW).digest()).decode()
    with pytest.raises(ConnectionResetError):
        uploads.receive(upload, 0, Cut(bytes(BLOCK + 1)), digest=f"sha-256=:{digest}:")
    assert again(upload).bytes == 0
    assert objects(app, upload) == []


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=:YQ==:", "md5=:YQ==:", "sha-256=abc", "sha-256=::"]
)
def test_a_digest_that_is_none(upload: Upload, header: str) -> None:
    with pytest.raises(InvalidRequest, match="Content-Digest"):
        receive(upload, ROW, digest=header)


@pytest.fixture
def limited(app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(app.config, "WAYBILL", replace(app.config["WAYBILL"], upload_limit_bytes=len(TEXT)))


def test_too_large_is_said_beforehand(member: Any, limited: None) -> None:
    with pytest.raises(UploadTooLarge, match=r"larger than 1\.7 KiB.*gzip"):
        uploads.begin(member, "people.csv", declared_bytes=len(TEXT) + 1)
    upload = uploads.begin(member, "people.csv", declared_bytes=len(TEXT))
    assert content(receive(upload, TEXT)) == TEXT


@pytest.mark.parametrize("told", [True, False])
def test_too_large_while_receiving(app: APIFlask, upload: Upload, limited: None, told: bool) -> None:
    upload = receive(upload, TEXT)
    with pytest.raises(UploadTooLarge):
        receive(upload, b"x", length=1 if told else None)
    upload = again(upload)
    assert (upload.status, objects(app, upload)) == ("refused", [])
    assert "larger than" in (upload.refusal or "")
    with pytest.raises(BadFile, match="larger than"):
        receive(upload, b"x")


def test_more_than_declared(member: Any) -> None:
    upload = uploads.begin(member, "people.csv", declared_bytes=len(TEXT))
    with pytest.raises(InvalidRequest, match="was to have 1,700 bytes"):
        receive(upload, TEXT + b"x")
    assert again(upload).bytes == 0


def test_tiny_pieces_have_an_end(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "BLOCKS_LIMIT", 3)
    for _ in range(3):
        upload = receive(upload, b"x")
    with pytest.raises(InvalidRequest, match="larger ones"):
        receive(upload, b"x")


def test_unfinished_uploads_are_limited(member: Any, other: Any) -> None:
    found = [uploads.begin(member, f"{number}.csv") for number in range(10)]
    with pytest.raises(TooMany, match="10 unfinished uploads"):
        uploads.begin(member, "one more.csv")
    uploads.begin(other, "another's.csv")
    uploads.complete(receive(found[3], TEXT))
    uploads.begin(member, "one more.csv")


def test_a_stale_upload_gives_way(member: Any) -> None:
    found = [uploads.begin(member, f"{number}.csv") for number in range(10)]
    db.session.execute(
        sa.update(Upload).where(Upload.id == found[4].id).values(expires_at=NOW + timedelta(hours=22))
    )
    db.session.commit()
    uploads.begin(member, "one more.csv")
    assert [bool(again(upload).removed_at) for upload in found].index(True) == 4


@pytest.mark.parametrize(
    ("given", "kept"),
    [("C:\\data\\people.csv", "people.csv"), ("/tmp/../people.csv", "people.csv"), ("a\0b\n.csv", "ab.csv")],
)
def test_a_name_is_no_path(member: Any, given: str, kept: str) -> None:
    assert uploads.begin(member, given).filename == kept


@pytest.mark.parametrize("given", ["", "/", "x" * 256, "\n"])
def test_a_name_that_is_none(member: Any, given: str) -> None:
    with pytest.raises(InvalidParams, match="filename"):
        uploads.begin(member, given)


def test_what_is_declared_makes_sense(member: Any) -> None:
    with pytest.raises(InvalidParams, match="bytes"):
        uploads.begin(member, "a.csv", declared_bytes=-1)
    with pytest.raises(InvalidParams, match="sha256"):
        uploads.begin(member, "a.csv", declared_sha256="abc")


# --- the storage in trouble -------------------------------------------------------------------------------


class Troubled(Local):
    """A folder that refuses after so many commits."""

    def __init__(self, root: Path, commits: int, error: Exception) -> None:
        super().__init__(root)
        self.left, self.error = commits, error

    def writer(self, key: str, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().writer(key, **options)


@pytest.mark.parametrize("error", [StorageFull("No room."), StorageUnavailable("It does not answer.")])
def test_storage_in_trouble(
    app: APIFlask, upload: Upload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    data = ROW * (3 * BLOCK // len(ROW))
    with monkeypatch.context() as patch:
        patch.setitem(app.extensions, "waybill.storage", Troubled(tmp_path, 1, error))
        with pytest.raises(type(error)):
            receive(upload, data)
        upload = again(upload)
        assert upload.bytes == BLOCK
        app.extensions["waybill.storage"].left = 10
        upload = receive(upload, data[BLOCK:])
        assert content(upload) == data


# --- completing -------------------------------------------------------------------------------------------


def test_complete(upload: Upload) -> None:
    upload = uploads.complete(receive(upload, TEXT))
    assert upload.status == "complete"
    assert uploads.complete(upload).status == "complete"
    with pytest.raises(Conflict, match="complete"):
        receive(upload, b"x")


def test_what_is_missing_is_told(member: Any) -> None:
    upload = receive(uploads.begin(member, "people.csv", declared_bytes=len(TEXT)), TEXT[:-1])
    with pytest.raises(WrongOffset, match=r"1,699 of 1,700 bytes") as told:
        uploads.complete(upload)
    assert told.value.offset == len(TEXT) - 1
    assert uploads.complete(receive(again(upload), TEXT[-1:])).status == "complete"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7 etc"])
def test_what_is_no_table_is_refused(app: APIFlask, upload: Upload, data: bytes) -> None:
    upload = receive(upload, data)
    with pytest.raises(BadFile, match=r"people\.csv"):
        uploads.complete(upload)
    upload = again(upload)
    assert (upload.status, objects(app, upload)) == ("refused", [])
    with pytest.raises(BadFile, match=r"people\.csv"):
        uploads.complete(upload)
    with pytest.raises(UploadGone):
        content(upload)


def test_a_declared_sha256(member: Any) -> None:
    right, wrong = hashlib.sha256(TEXT).hexdigest(), hashlib.sha256(ROW).hexdigest()
    upload = uploads.begin(member, "people.csv", declared_sha256=right.upper())
    assert uploads.complete(receive(upload, TEXT)).sha256 == right
    upload = receive(uploads.begin(member, "people.csv", declared_sha256=wrong), TEXT)
    with pytest.raises(BadFile, match="has changed on its way"):
        uploads.complete(upload)


def test_a_declared_sha256_of_what_came_in_pieces(member: Any) -> None:
    """Nobody has hashed the whole: that is done when it is read through."""
    right, wrong = hashlib.sha256(TEXT).hexdigest(), hashlib.sha256(ROW).hexdigest()
    for declared in (right, wrong):
        upload = uploads.begin(member, "people.csv", declared_sha256=declared)
        for start in range(0, len(TEXT), 1000):
            upload = receive(upload, TEXT[start : start + 1000])
        upload = uploads.complete(upload)
        assert upload.sha256 is None
        if declared == right:
            uploads.verify(upload)
            assert again(upload).sha256 == right
        else:
            with pytest.raises(BadFile, match="has changed on its way"):
                uploads.verify(upload)


# --- whose it is ------------------------------------------------------------------------------------------


def test_only_its_owner_and_administrators_find_it(
    upload: Upload, member: Any, other: Any, admin: Any
) -> None:
    assert uploads.find(member, upload.id).id == upload.id
    assert uploads.find(admin, upload.id).id == upload.id
    for user, upload_id in ((other, upload.id), (member, uuid4())):
        with pytest.raises(NotFound):
            uploads.find(user, upload_id)


# --- keeping and removing ---------------------------------------------------------------------------------


@pytest.fixture
def make_import(member: Any) -> Callable[..., None]:
    """make_import(upload, "running"): an import of it with a job of that status."""

    def make(upload: Upload, status: str | None = None, *, age: timedelta = timedelta(0)) -> None:
        made = Import(
            owner_id=member.id,
            importer="members",
            title="Members",
            upload_id=upload.id,
            dialect={},
            header=[],
            mapping={},
            mode="upsert",
            created_at=NOW - age,
        )
        db.session.add(made)
        db.session.flush()
        if status:
            finished = NOW - age if status in ("succeeded", "failed", "cancelled") else None
            db.session.add(
                Job(
                    kind="import",
                    definition="members",
                    title="Members",
                    owner_id=member.id,
                    params={},
                    status=status,
                    import_id=made.id,
                    step="apply",
                    finished_at=finished,
                )
            )
        db.session.commit()

    return make


def age(upload: Upload) -> Upload:
    db.session.execute(
        sa.update(Upload).where(Upload.id == upload.id).values(expires_at=NOW - timedelta(seconds=1))
    )
    db.session.commit()
    return again(upload)


def test_removing(app: APIFlask, upload: Upload) -> None:
    upload = uploads.complete(receive(upload, TEXT))
    uploads.remove(upload)
    upload = again(upload)
    assert upload.removed_at is not None
    assert (upload.bytes, objects(app, upload)) == (len(TEXT), [])
    with pytest.raises(UploadGone, match="Upload it once more"):
        uploads.open(upload).__next__()
    with pytest.raises(UploadGone):
        uploads.keep(upload)
    uploads.remove(upload)


def test_what_a_job_needs_is_not_removed(upload: Upload, make_import: Callable[..., None]) -> None:
    make_import(upload, "queued")
    with pytest.raises(Conflict, match="being imported"):
        uploads.remove(upload)
    assert content(receive(again(upload), TEXT)) == TEXT


DAY, HOUR = timedelta(hours=24), timedelta(hours=1)


@pytest.mark.parametrize(
    ("status", "old", "goes"),
    [
        (None, DAY, True),
        (None, HOUR, False),
        ("running", 9 * DAY, False),
        ("queued", 9 * DAY, False),
        ("succeeded", DAY, True),
        ("succeeded", HOUR, False),
    ],
)
def test_expiring(
    app: APIFlask,
    upload: Upload,
    make_import: Callable[..., None],
    status: str | None,
    old: timedelta,
    goes: bool,
) -> None:
    upload = uploads.complete(receive(upload, TEXT))
    make_import(upload, status, age=old)
    assert not uploads.expire(upload.id)
    upload = age(upload)
    assert uploads.expire(upload.id) == goes
    assert bool(objects(app, upload)) != goes


def test_whoever_keeps_it_comes_before_the_sweep(upload: Upload) -> None:
    upload = age(receive(upload, TEXT))
    uploads.keep(upload)
    db.session.commit()
    assert not uploads.expire(upload.id)
    assert content(again(upload)) == TEXT


# --- the sweep --------------------------------------------------------------------------------------------


def test_the_sweep_takes_expired_uploads(app: APIFlask, member: Any) -> None:
    found = [uploads.complete(receive(uploads.begin(member, "people.csv"), TEXT)) for _ in range(3)]
    expired, living, begun = age(found[0]), again(found[1]), age(uploads.begin(member, "never.csv"))
    assert cleaning.expired_uploads() == 2
    assert objects(app, expired) == []
    assert again(begun).removed_at is not None
    assert content(again(living)) == TEXT
    assert cleaning.expired_uploads() == 0


def test_the_sweep_takes_blocks_that_belong_to_nothing(app: APIFlask, member: Any) -> None:
    living = receive(uploads.begin(member, "people.csv"), TEXT)
    lost = receive(uploads.begin(member, "people.csv"), TEXT)
    storage = app.extensions["waybill.storage"]
    strays = [uploads.key(living.id, "1-0badcafe"), uploads.key(uuid4(), "0-0badcafe")]
    for key in (*strays, uploads.key(living.id, "plain/cafe/0-cafe"), "uploads/note.txt"):
        with storage.writer(key, content_type="text/plain", filename="x") as writer:
            writer.write(b"x")
            writer.commit()
    db.session.execute(sa.update(Upload).where(Upload.id == lost.id).values(removed_at=NOW))
    db.session.commit()
    assert cleaning.orphaned_blocks() == 0  # all are young
    root = objects_root(app)
    for path in (*objects(app, living), *objects(app, lost), *(root / key for key in strays)):
        os.utime(path, (0, 0))
    os.utime(root / "uploads/note.txt", (0, 0))
    assert cleaning.orphaned_blocks() == 3
    assert (len(objects(app, living)), objects(app, lost)) == (2, [])
    assert content(again(living)) == TEXT


# --- a local file -----------------------------------------------------------------------------------------


def test_sending_a_local_file(member: Any, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(TEXT)
    told: list[int] = []
    upload = uploads.send(member, path, told.append)
    assert (upload.status, content(upload), told[-1]) == ("complete", TEXT, len(TEXT))
    with pytest.raises(InvalidRequest, match="can't be read"):
        uploads.send(member, tmp_path / "none.csv")


def test_sending_goes_on_after_a_storage_that_failed(
    app: APIFlask, member: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shaky(Local):
        fails = 2

        def writer(self, key: str, **options: Any) -> Any:
            if key.split("/")[-1].startswith("1-") and self.fails:
                self.fails -= 1
                raise StorageUnavailable("It does not answer.")
            return super().writer(key, **options)

    path = tmp_path / "people.csv"
    path.write_bytes(ROW * (2 * BLOCK // len(ROW)))
    monkeypatch.setitem(app.extensions, "waybill.storage", Shaky(tmp_path / "storage"))
    assert content(uploads.send(member, path)) == path.read_bytes()


# --- memory, and S3 ---------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
from app import create_app, uploads
from app.extensions import db
from app.imports.file import plain
from app.imports.file.dialect import Dialect
from app.models import User

class Rows:
    '''So many MiB of text, made as they are read.'''
    def __init__(self, size):
        self.left = size * 1024 * 1024
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return ("4711,Zo\\xeb,2026-01-31\\n" * (size // 20 + 1)).encode("cp1252")[:size]

def cycle(size):
    upload = uploads.begin(db.session.get_one(User, int(sys.argv[1])), "people.csv")
    upload = uploads.complete(uploads.receive(upload, 0, Rows(size)))
    assert upload.bytes == size * 1024 * 1024
    found = plain.plain(upload, Dialect(encoding="cp1252"))
    assert sum(map(len, found.open())) == found.size > upload.bytes
    uploads.remove(upload)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

with create_app().app_context():
    before = cycle(40)
    print(cycle(300) - before)
"""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, environ: dict[str, str]) -> dict[str, str]:
    """The settings of an app on each storage."""
    if request.param == "local":
        return environ
    server: SeaweedFS = request.getfixturevalue("s3")
    found = open_storage("s3://uploads", server.environ)
    with suppress(found.client.exceptions.BucketAlreadyOwnedByYou):  # type: ignore[attr-defined]
        found.client.create_bucket(Bucket="uploads")  # type: ignore[attr-defined]
    return environ | server.environ | {"STORAGE_URL": f"s3://uploads/{uuid4().hex}"}


@pytest.mark.slow
def test_memory_stays_flat(place: dict[str, str], member: Any) -> None:
    """300 MB received, converted, read and removed: in as much memory as 40 MB."""
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(member.id)],
        env=place | {"PATH": os.environ["PATH"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 40  # MiB


def test_from_the_first_byte_to_the_last_on_each_storage(
    app: APIFlask, place: dict[str, str], member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(place["STORAGE_URL"], place)
    monkeypatch.setitem(app.extensions, "waybill.storage", storage)
    data = ROW * (2 * BLOCK // len(ROW))
    upload = uploads.begin(member, "people.csv")
    with pytest.raises(ConnectionResetError):
        uploads.receive(upload, 0, Cut(data[: BLOCK + 1000]))
    upload = uploads.complete(receive(again(upload), data[BLOCK + 1000 :]))
    assert content(upload) == data
    assert content(upload, BLOCK - 5, BLOCK + 2000) == data[BLOCK - 5 : BLOCK + 2000]
    found = plain.plain(upload, Dialect(encoding="cp1252"))
    assert b"".join(found.open(BLOCK - 5, BLOCK + 5)) == data[BLOCK - 5 : BLOCK + 5]
    prefix = uploads.prefix(upload.id)
    assert len(list(storage.list(prefix))) == 6
    uploads.remove(upload)
    assert list(storage.list(prefix)) == []
