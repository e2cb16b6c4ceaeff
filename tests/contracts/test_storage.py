"""One suite over every storage: a local folder, and S3 as SeaweedFS speaks it."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from app.dev.child import free_port
from app.dev.seaweedfs import SeaweedFS
from app.errors import (
    BadSettings,
    ObjectMissing,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    WaybillError,
)
from app.storage import Storage, Writer, artifact_key, disposition, open_storage
from tests.waiting import until

MIB = 1024 * 1024
BUCKET = "waybill"
AT_ONCE = timedelta(0)
KEY = "artifacts/9d0c/1.csv"


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    found: Storage = request.getfixturevalue(f"{request.param}_storage")
    return found


@pytest.fixture
def local_storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "a folder").as_uri())


@pytest.fixture
def s3_storage(bucket: SeaweedFS) -> Storage:
    return open_storage(f"s3://{BUCKET}/{uuid4().hex}", bucket.environ)


@pytest.fixture(scope="module")
def bucket(s3: SeaweedFS) -> SeaweedFS:
    return with_bucket(s3)


def with_bucket(server: SeaweedFS) -> SeaweedFS:
    from app.storage.s3 import connect

    connect(server.environ).create_bucket(Bucket=BUCKET)
    return server


def put(storage: Storage, key: str = KEY, content: bytes = b"id,title\r\n") -> None:
    with writer(storage, key) as open_writer:
        open_writer.write(content)
        open_writer.commit()


def writer(storage: Storage, key: str = KEY) -> Writer:
    return storage.writer(key, content_type="text/csv; charset=utf-8", filename="tasks.csv")


def content(storage: Storage, key: str = KEY, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(storage.open(key, start, end))


def keys(storage: Storage, prefix: str = "", older_than: timedelta = AT_ONCE) -> list[str]:
    return sorted(stat.key for stat in storage.list(prefix, older_than))


# --- writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
@pytest.mark.parametrize("block", [700_001, 9 * MIB])
def test_what_is_written_is_read(storage: Storage, size: int, block: int) -> None:
    given = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with writer(storage) as open_writer:
        for start in range(0, size, block):
            open_writer.write(memoryview(given)[start : start + block])
        stored = open_writer.commit()
    assert (stored.key, stored.bytes) == (KEY, size)
    assert storage.stat(KEY).bytes == size
    read = hashlib.sha256()
    for piece in storage.open(KEY):
        read.update(piece)
    assert read.digest() == hashlib.sha256(given).digest()


@pytest.mark.parametrize("size", [100, 17 * MIB])
def test_nothing_is_visible_before_the_commit(storage: Storage, size: int) -> None:
    with writer(storage) as open_writer:
        open_writer.write(bytes(size))
        with pytest.raises(ObjectMissing):
            storage.stat(KEY)
        assert keys(storage) == []
        open_writer.commit()
    assert keys(storage) == [KEY]


class Interruption(BaseException):
    """Like a worker's shutdown: no `except Exception` sees it."""


@pytest.mark.parametrize("size", [0, 100, 17 * MIB])
@pytest.mark.parametrize("error", [RuntimeError, Interruption])
def test_leaving_without_a_commit_leaves_nothing(
    storage: Storage, size: int, error: type[BaseException]
) -> None:
    def fail_half_way() -> None:
        with writer(storage) as open_writer:
            open_writer.write(bytes(size))
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert keys(storage) == []
    assert storage.abandoned(AT_ONCE) == []


def test_a_commit_replaces_what_was_there(storage: Storage) -> None:
    put(storage, content=b"old and longer")
    before = storage.stat(KEY)
    put(storage, content=b"new")
    assert content(storage) == b"new"
    assert storage.stat(KEY).etag != before.etag


def test_a_failed_overwrite_leaves_what_was_there(storage: Storage) -> None:
    put(storage, content=b"old")
    with writer(storage) as open_writer:
        open_writer.write(b"half of the n")
    assert content(storage) == b"old"


def test_a_settled_writer_takes_no_more(storage: Storage) -> None:
    with writer(storage) as open_writer:
        open_writer.write(b"x")
        open_writer.commit()
        open_writer.abort()
        with pytest.raises(ValueError, match="no more bytes"):
            open_writer.write(b"y")
        with pytest.raises(ValueError, match="before"):
            open_writer.commit()
    assert content(storage) == b"x"


def test_a_block_may_be_used_again(storage: Storage) -> None:
    block = bytearray(b"first ")
    with writer(storage) as open_writer:
        open_writer.write(block)
        block[:] = b"second"
        open_writer.write(block)
        open_writer.commit()
    assert content(storage) == b"first second"


def test_attempts_have_keys_of_their_own(storage: Storage) -> None:
    """A worker that lost its lease commits late: what the next attempt published stays."""
    job = uuid4()
    with writer(storage, artifact_key(job, 1, "csv")) as late:
        late.write(b"half of it")
        put(storage, artifact_key(job, 2, "csv"), b"all of it")
        late.commit()
    assert content(storage, artifact_key(job, 2, "csv")) == b"all of it"


def test_many_writers_at_once(storage: Storage) -> None:
    def one(number: int) -> None:
        put(storage, f"jobs/{number}", bytes([number]) * (9 * MIB))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [content(storage, f"jobs/{number}")[:: 9 * MIB - 1] for number in range(4)] == [
        bytes([number]) * 2 for number in range(4)
    ]


def test_commits_and_deletes_in_one_folder(storage: Storage) -> None:
    """Neither takes the folder away from under the other."""

    def come_and_go(name: str) -> None:
        for _ in range(40):
            put(storage, f"busy/folder/{name}")
            storage.delete(f"busy/folder/{name}")
        put(storage, f"busy/folder/{name}")

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(storage) == ["busy/folder/a", "busy/folder/b", "busy/folder/c"]


@pytest.mark.parametrize(("name", "limit"), [("local_storage", 4 * MIB), ("s3_storage", 40 * MIB)])
def test_memory_is_bounded(request: pytest.FixtureRequest, name: str, limit: int) -> None:
    storage: Storage = request.getfixturevalue(name)
    put(storage, "warm", bytes(9 * MIB))
    block = bytes(MIB)
    with traced() as peak:
        with writer(storage) as open_writer:
            for _ in range(300):
                open_writer.write(block)
            open_writer.commit()
        assert sum(len(piece) for piece in storage.open(KEY)) == 300 * MIB
    assert peak() < limit


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """The largest number of bytes that Python held at once meanwhile."""
    tracemalloc.start()
    held, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: found
        found = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 0), (0, 1), (5, None), (5, 5), (5, 7), (999_999, None), (999_999, 10**9), (10**6, None)],
)
def test_ranges(storage: Storage, start: int, end: int | None) -> None:
    given = os.urandom(1_000_000)
    put(storage, content=given)
    assert content(storage, start=start, end=end) == given[start:end]
    with storage.open(KEY, start, end) as blocks:
        assert blocks.length == len(given[start:end])


def test_a_range_beyond_the_end_is_empty(storage: Storage) -> None:
    put(storage, content=b"")
    assert content(storage) == b""
    assert content(storage, start=7) == b""


def test_a_stream_may_be_left_early(storage: Storage) -> None:
    put(storage, content=bytes(9 * MIB))
    with storage.open(KEY) as blocks:
        assert 0 < len(next(blocks)) < 9 * MIB
    put(storage, content=b"still working")
    assert content(storage) == b"still working"


def test_what_is_missing_is_said_to_be(storage: Storage) -> None:
    put(storage, "artifacts/1/1.csv")
    for key in ("artifacts/1/2.csv", "artifacts/1", "artifacts/1/1.csv/x", "nowhere"):
        for look in (storage.stat, storage.open):
            with pytest.raises(ObjectMissing, match="not in the storage"):
                look(key)


def test_a_stat_tells_when(storage: Storage) -> None:
    put(storage)
    assert abs(storage.stat(KEY).modified - datetime.now(UTC)) < timedelta(minutes=1)


# --- keeping house ----------------------------------------------------------------------------------------


def test_delete(storage: Storage) -> None:
    put(storage, "artifacts/1/1.csv")
    put(storage, "artifacts/2/1.csv")
    storage.delete("artifacts/1/1.csv")
    storage.delete("artifacts/1/1.csv")
    assert keys(storage) == ["artifacts/2/1.csv"]


def test_list(storage: Storage) -> None:
    assert keys(storage) == []
    for key in ("artifacts/1/1.csv", "artifacts/2/1.csv", "artifacts-old", "uploads/1"):
        put(storage, key)
    storage.check()
    assert keys(storage) == ["artifacts-old", "artifacts/1/1.csv", "artifacts/2/1.csv", "uploads/1"]
    assert keys(storage, "artifacts/") == ["artifacts/1/1.csv", "artifacts/2/1.csv"]
    assert keys(storage, "art") == ["artifacts-old", "artifacts/1/1.csv", "artifacts/2/1.csv"]
    assert keys(storage, "nothing/here/") == []
    assert keys(storage, older_than=timedelta(hours=1)) == []
    (found,) = storage.list("uploads/")
    assert found == storage.stat("uploads/1")


def test_abandoned_uploads_are_found_and_cleaned(storage: Storage) -> None:
    dead = writer(storage)
    dead.write(bytes(17 * MIB))
    until(lambda: storage.abandoned(AT_ONCE))
    assert storage.abandoned(timedelta(hours=1)) == []
    assert storage.clean(timedelta(hours=1)) == 0
    assert storage.clean(AT_ONCE) == 1
    assert storage.clean(AT_ONCE) == 0
    assert storage.abandoned(AT_ONCE) == []
    with pytest.raises(StorageUnavailable), dead:
        dead.commit()
    assert keys(storage) == []


def test_a_long_upload_is_not_abandoned_while_it_goes_on(storage: Storage) -> None:
    with writer(storage) as slow:
        slow.write(bytes(9 * MIB))
        time.sleep(6)
        slow.write(bytes(9 * MIB))
        until(lambda: storage.abandoned(timedelta(seconds=5)) == [], 1)
        assert storage.clean(timedelta(seconds=5)) == 0
        slow.commit()
    assert storage.stat(KEY).bytes == 18 * MIB


def test_check_is_content_where_one_can_write(storage: Storage) -> None:
    storage.check()
    assert keys(storage) == []
    assert storage.abandoned(AT_ONCE) == []


NO_KEYS = ["", "/", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", "./a", ".partial/x"]
NO_LETTERS = ["a b", "a\n", "a\0", "ä", "a\\b", "x" * 301]


@pytest.mark.parametrize("key", NO_KEYS + NO_LETTERS)
def test_a_key_cannot_lead_out_of_the_storage(storage: Storage, key: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: storage.stat(key),
        lambda: storage.open(key),
        lambda: storage.delete(key),
        lambda: writer(storage, key),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="no storage key"):
            use()


# --- what goes wrong --------------------------------------------------------------------------------------


def test_files_are_not_for_everybody(local_storage: Storage, tmp_path: Path) -> None:
    put(local_storage)
    assert (tmp_path / "a folder" / KEY).stat().st_mode & 0o007 == 0


def test_a_full_disk_is_told_in_words(local_storage: Storage) -> None:
    put(local_storage, content=b"what was there before")
    with writer(local_storage) as open_writer:
        open_writer.write(bytes(MIB))
        fill_the_disk()
        with pytest.raises(StorageFull, match=r"no room left.*after 1,048,576 bytes of tasks\.csv"):
            open_writer.write(bytes(MIB))
    assert content(local_storage) == b"what was there before"
    assert local_storage.abandoned(AT_ONCE) == []


def fill_the_disk() -> None:
    """From now on the kernel answers ENOSPC to whatever is written to the open partial file."""
    (partial,) = (
        link
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink() and ".partial" in os.readlink(link)
    )
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, int(partial.name))
    os.close(full)


def test_a_limit_on_the_size_of_files_is_told_in_words(local_storage: Storage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
    try:
        with pytest.raises(StorageFull, match="file too large"), writer(local_storage) as open_writer:
            open_writer.write(bytes(5 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert keys(local_storage) == []


def test_a_folder_that_refuses_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    # Not even root may make a folder in a file, or in /sys.
    for url in ((tmp_path / "file" / "storage").as_uri(), "file:///sys/waybill"):
        refusing = open_storage(url)
        with pytest.raises(StorageRefused, match="Ask the operator"):
            writer(refusing)
        with pytest.raises(StorageRefused):
            refusing.check()
        assert keys(refusing) == []


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_refused_credentials_are_told_in_words(bucket: SeaweedFS, wrong: str) -> None:
    refused = open_storage(f"s3://{BUCKET}/x", {**bucket.environ, wrong: "made-up"})
    for size in (1, 9 * MIB):
        with pytest.raises(StorageRefused, match="rights of its AWS_"):
            put(refused, content=bytes(size))
    for look in (refused.stat, refused.open, refused.delete, keys_of(refused)):
        with pytest.raises(StorageRefused):
            look(KEY)
    with pytest.raises(StorageRefused):
        refused.check()
    with pytest.raises(StorageRefused):
        refused.clean(AT_ONCE)


def keys_of(storage: Storage) -> Callable[[str], list[str]]:
    return lambda prefix: keys(storage, prefix)


def test_no_server_is_told_in_words(bucket: SeaweedFS) -> None:
    nowhere = {**bucket.environ, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(StorageUnavailable, match="does not answer") as caught:
        open_storage(f"s3://{BUCKET}", nowhere).check()
    assert caught.value.retryable


def test_a_server_that_goes_away_in_the_middle(session_directory: Path) -> None:
    """Neither the upload nor the download ends well; when it is back there is nothing but the leftovers."""
    server = SeaweedFS(session_directory / "s3-that-dies")
    server.start()
    try:
        storage = open_storage(f"s3://{BUCKET}", with_bucket(server).environ)
        put(storage, "there", os.urandom(20 * MIB))
        with writer(storage) as open_writer:
            open_writer.write(bytes(9 * MIB))
            until(lambda: storage.abandoned(AT_ONCE))
            blocks = storage.open("there")
            next(blocks)
            server.kill()
            with pytest.raises(StorageUnavailable) as caught:
                open_writer.write(bytes(40 * MIB))
        assert caught.value.retryable
        with pytest.raises(StorageUnavailable):
            list(blocks)
        server.start()
        assert keys(storage) == ["there"]
        assert [upload.name for upload in storage.abandoned(AT_ONCE)] == [KEY]
        assert storage.clean(AT_ONCE) == 1
        assert storage.abandoned(AT_ONCE) == []
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (507, "InsufficientStorage", StorageFull),
        (403, "QuotaExceeded", StorageFull),
        (403, "AccessDenied", StorageRefused),
        (404, "NoSuchBucket", StorageRefused),
        (400, "EntityTooLarge", StorageRefused),
        (400, "BadDigest", StorageUnavailable),
        (429, "TooManyRequests", StorageUnavailable),
        (501, "NotImplemented", StorageUnavailable),
    ],
)
def test_answers_of_other_servers(status: int, code: str, error: type[WaybillError]) -> None:
    with answering(status, code) as environ, pytest.raises(error, match=code):
        put(open_storage(f"s3://{BUCKET}", environ))


@contextmanager
def answering(status: int, code: str) -> Iterator[dict[str, str]]:
    """The environment of an S3 that has one answer to everything."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        body: ClassVar[bytes] = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(self.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }
        server.shutdown()
        thread.join()


def test_missing_credentials_are_told_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(StorageRefused, match="AWS_"):
        open_storage(f"s3://{BUCKET}", nobody).check()
    with pytest.raises(StorageRefused, match="AWS_"):
        presigned(open_storage(f"s3://{BUCKET}", nobody))


# --- presigned URLs ---------------------------------------------------------------------------------------


def presigned(storage: Storage, seconds: int = 60) -> str:
    url = storage.presign(KEY, filename='Überfällig "neu".csv', content_type="text/csv", seconds=seconds)
    assert url is not None
    return url


def test_a_presigned_url_hands_out_the_object(s3_storage: Storage) -> None:
    put(s3_storage, content=b"rows")
    with urllib.request.urlopen(presigned(s3_storage), timeout=10) as answer:
        assert answer.read() == b"rows"
        assert answer.headers["Content-Type"] == "text/csv"
        assert answer.headers["Cache-Control"] == "private, no-store"
        offered = parse_options_header(answer.headers["Content-Disposition"])
    assert offered == ("attachment", {"filename": 'Überfällig "neu".csv'})


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"1\.csv", "2.csv"),
        (r"X-Amz-Expires=60", "X-Amz-Expires=86400"),
        (r"neu", "alt"),
        (r"X-Amz-Signature=.", "X-Amz-Signature=g"),
        (r"X-Amz-Signature=[^&]*", ""),
        (r"\?.*", ""),
    ],
)
def test_a_tampered_url_is_refused(s3_storage: Storage, pattern: str, replacement: str) -> None:
    put(s3_storage)
    put(s3_storage, "artifacts/9d0c/2.csv")
    tampered = re.sub(pattern, replacement, presigned(s3_storage))
    assert refusal(tampered) in (400, 403)


def test_an_expired_url_is_refused(s3_storage: Storage) -> None:
    put(s3_storage)
    url = presigned(s3_storage, seconds=1)
    time.sleep(2.1)
    assert refusal(url) == 403


def refusal(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=10)
    caught.value.close()
    return caught.value.code


def test_a_folder_presigns_nothing(local_storage: Storage) -> None:
    assert local_storage.presign(KEY, filename="x", content_type="text/csv", seconds=60) is None


# --- names and sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/files",
        "ftp://host/x",
        "file:///",
        "file://srv/files",
        "s3://",
        "s3:///prefix",
        "s3://key:hidden@bucket",
        "file:///srv/%00",
    ],
)
def test_a_url_that_names_no_storage_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match="STORAGE_URL") as refused:
        open_storage(url)
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_endpoint_is_a_url(name: str) -> None:
    with pytest.raises(BadSettings, match="AWS_ENDPOINT_URL_S3 is 'minio:9000'"):
        open_storage(f"s3://{BUCKET}", {name: "minio:9000"})


def test_boto3_is_loaded_only_when_s3_is_used() -> None:
    program = (
        "import sys; from app.storage import open_storage; open_storage('file:///srv/x'); "
        "sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_ten_thousand_parts_hold_the_largest_object() -> None:
    from app.storage.s3 import part_size

    sizes = [part_size(number) for number in range(1, 10_001)]
    assert sum(sizes) >= 5 * 1024**4
    assert set(sizes[:1_000]) == {8 * MIB}
    assert max(sizes) <= 5 * 1024**3


@pytest.mark.parametrize("size", [1, 5 * 1024**3, 5 * 1024**3 + 1, 12 * 1024**3 + 7])
def test_no_copied_part_is_too_large_or_too_small_for_s3(size: int) -> None:
    from app.storage.s3 import copies

    found = list(copies(10, size))
    assert (found[0][0], found[-1][1]) == (10, 10 + size)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(end - begin <= 5 * 1024**3 for begin, end in found)
    assert len(found) == 1 or all(end - begin >= 5 * MIB for begin, end in found)


def test_a_key_names_job_and_attempt() -> None:
    job = UUID("12345678-1234-5678-1234-567812345678")
    assert artifact_key(job, 3, "csv.gz") == "artifacts/12345678-1234-5678-1234-567812345678/3.csv.gz"


@given(st.text(max_size=300))
@example('say "cheese".csv')
@example("a\r\nSet-Cookie: x=1.csv")
@example("../../etc/passwd")
@example("..\\boot.ini")
@example("売上 2026.csv")
@example("100% sure.csv")
@example("invoice\u202efdp.exe")
@example("")
def test_any_name_makes_a_header(filename: str) -> None:
    header = disposition(filename)
    assert header.isascii()
    assert header.isprintable()
    kind, options = parse_options_header(header)
    assert kind == "attachment"
    assert set(options) == {"filename"}
    assert not set(options["filename"]) & set("/\\\r\n\0")
    assert options["filename"].strip(" .")


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("tasks.csv", 'attachment; filename="tasks.csv"'),
        ("Größe.csv", "attachment; filename=\"Groe.csv\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe.csv"),
        ("売上.csv", "attachment; filename=\"csv\"; filename*=UTF-8''%E5%A3%B2%E4%B8%8A.csv"),
        ('a"b;c.csv', "attachment; filename=\"a_b;c.csv\"; filename*=UTF-8''a%22b%3Bc.csv"),
    ],
)
def test_names_are_offered_for_old_and_new_browsers(filename: str, header: str) -> None:
    assert disposition(filename) == header


@pytest.mark.parametrize("sizes", [(0, 3), (6 * MIB, 7 * MIB, 11), (6 * MIB, MIB, 9 * MIB), (20 * MIB,)])
def test_objects_are_joined_in_order(storage: Storage, sizes: tuple[int, ...]) -> None:
    contents = [os.urandom(size) for size in sizes]
    for number, content in enumerate(contents):
        with storage.writer(f"parts/{number}", content_type="text/csv", filename="part") as part:
            part.write(content)
            part.commit()
    with storage.writer(KEY, content_type="text/csv", filename="whole.csv") as writer:
        writer.write(b"head;")
        for number in range(len(contents)):
            writer.append(f"parts/{number}")
        writer.write(b";tail")
        stored = writer.commit()
    assert stored.bytes == storage.stat(KEY).bytes == sum(sizes) + 10
    assert b"".join(storage.open(KEY)) == b"head;" + b"".join(contents) + b";tail"


def test_a_range_of_an_object_is_joined(storage: Storage) -> None:
    content = os.urandom(16 * MIB)
    with storage.writer("parts/1", content_type="text/csv", filename="part") as part:
        part.write(content)
        part.commit()
    with storage.writer(KEY, content_type="text/csv", filename="whole.csv") as writer:
        writer.append("parts/1", 3 * MIB, 15 * MIB)
        writer.append("parts/1", 16 * MIB - 1)
        writer.append("parts/1", 5, 7)
        assert writer.commit().bytes == 12 * MIB + 3
    assert b"".join(storage.open(KEY)) == content[3 * MIB : 15 * MIB] + content[-1:] + content[5:7]


def test_an_object_of_another_file_system_is_joined(local_storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        Path(elsewhere, "1.csv").write_bytes(content)
        (tmp_path / "a folder").mkdir()
        (tmp_path / "a folder" / "linked").symlink_to(elsewhere)
        with local_storage.writer(KEY, content_type="text/csv", filename="1.csv") as writer:
            writer.append("linked/1.csv", 100)
            writer.commit()
    with local_storage.open(KEY) as blocks:
        assert b"".join(blocks) == content[100:]


def test_what_is_exposed_outlives_its_writer(storage: Storage) -> None:
    with storage.writer("parts/1", content_type="text/csv", filename="part") as part:
        part.write(b"0123456789")
        part.commit()
    with storage.writer(KEY, content_type="text/csv", filename="whole.csv") as writer:
        exposed = writer.expose("parts/whole")
        for start in (0, 5):
            writer.append("parts/1", start, start + 5)
            if exposed:
                assert b"".join(storage.open("parts/whole", 0, start + 5)) == b"0123456789"[: start + 5]
    with pytest.raises(ObjectMissing):
        storage.stat(KEY)
    if exposed:
        assert b"".join(storage.open("parts/whole")) == b"0123456789"
    else:
        with pytest.raises(ObjectMissing):
            storage.stat("parts/whole")


def test_what_was_exposed_may_go_when_the_whole_is_published(storage: Storage) -> None:
    with storage.writer(KEY, content_type="text/csv", filename="whole.csv") as writer:
        writer.expose("parts/whole")
        writer.write(b"all of it")
        writer.commit()
    storage.delete("parts/whole")
    assert b"".join(storage.open(KEY)) == b"all of it"


def test_joining_what_is_missing_publishes_nothing(storage: Storage) -> None:
    whole = storage.writer(KEY, content_type="text/csv", filename="whole.csv")
    with whole as writer, pytest.raises(ObjectMissing):
        writer.append("parts/none")
    with pytest.raises(ObjectMissing):
        storage.stat(KEY)
