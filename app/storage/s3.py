"""Objects in an S3 bucket, Amazon's or another's: `s3://bucket/prefix`. The only module that knows boto3."""

from __future__ import annotations

import base64
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from isal.isal_zlib import crc32

from app.errors import (
    BadSettings,
    ObjectMissing,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    WaybillError,
)
from app.storage import Abandoned, Blocks, Stat, Storage, Writer, checked_key, disposition, is_key, span

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, MultipartUploadTypeDef

log = logging.getLogger(__name__)

MIB = 1024 * 1024
PART = 8 * MIB
# What S3 takes as a part: at least 5 MiB unless it is the last; at most 5 GiB by a copy inside the bucket.
SMALLEST_PART, LARGEST_COPY = 5 * MIB, 5 * 1024 * MIB
# S3 takes 10,000 parts an object. Every 1,000 parts they double: 8 GiB go by before they cost more memory,
# and 5 TiB, the largest object, fit.
PARTS_OF_A_SIZE = 1_000
# Parts on their way while the next one is filled. With it, memory holds three parts.
IN_FLIGHT = 2
# How long an abort waits for parts on their way, in seconds; what outlasts it is left to `clean`.
PATIENCE = 2

CONFIG = Config(
    signature_version="s3v4",
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 3},
    # A bucket's own checks of what it stores; the parts carry ours.
    request_checksum_calculation="when_required",
)

FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}
PASSING = {
    "BadDigest",
    "NoSuchUpload",
    "OperationAborted",
    "PreconditionFailed",
    "RequestTimeout",
    "SlowDown",
}


def open_storage(url: str, environ: Mapping[str, str]) -> S3:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        # Not shown: it may hold a secret.
        raise BadSettings("STORAGE_URL holds a key; write s3://bucket/prefix, and put keys into AWS_*.")
    if not parts.netloc or parts.query:
        raise BadSettings(f"STORAGE_URL is {url!r}; write s3://bucket or s3://bucket/prefix.")
    endpoint = _endpoint(environ)
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise BadSettings(f"AWS_ENDPOINT_URL_S3 is {endpoint!r}; it must start with http:// or https://.")
    return S3(parts.netloc, parts.path.strip("/"), environ)


class S3(Storage):
    def __init__(self, bucket: str, prefix: str, environ: Mapping[str, str]) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._environ = environ
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> S3Client:
        """Made at the first use: it takes a quarter of a second and 20 MB."""
        with self._lock:
            self._client = self._client or connect(self._environ)
            return self._client

    def writer(self, key: str, *, content_type: str, filename: str, durable: bool = True) -> S3Writer:
        return S3Writer(self, key, content_type, filename)

    def stat(self, key: str) -> Stat:
        with translating(key):
            found = self.client.head_object(Bucket=self.bucket, Key=self.name(key))
        return Stat(key, found["ContentLength"], found["ETag"].strip('"'), found["LastModified"])

    def open(self, key: str, start: int = 0, end: int | None = None) -> Blocks:
        stat = self.stat(key)
        length = span(stat.bytes, start, end)
        if not length:
            return Blocks(key, _Nothing(), 0, lambda error: error)
        with translating(key):
            # The same bytes as those just looked at, though the object be overwritten in between.
            found = self.client.get_object(
                Bucket=self.bucket,
                Key=self.name(key),
                Range=f"bytes={start}-{start + length - 1}",
                IfMatch=f'"{stat.etag}"',
            )
        return Blocks(key, found["Body"], length, lambda error: translated(error, key))

    def delete(self, key: str) -> None:
        with translating(key):
            self.client.delete_object(Bucket=self.bucket, Key=self.name(key))

    def list(self, prefix: str, older_than: timedelta = timedelta(0)) -> Iterator[Stat]:
        with translating(prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                limit = _server_time(page["ResponseMetadata"]["HTTPHeaders"]) - older_than
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self.prefix)
                    if is_key(key) and found["LastModified"] <= limit:
                        yield Stat(key, found["Size"], found["ETag"].strip('"'), found["LastModified"])

    def abandoned(self, older_than: timedelta) -> Sequence[Abandoned]:
        with translating("unfinished uploads"):
            return [Abandoned(upload["Key"], touched) for upload, touched in self._unfinished(older_than)]

    def clean(self, older_than: timedelta) -> int:
        with translating("unfinished uploads"):
            found = [upload for upload, _ in self._unfinished(older_than)]
            for upload in found:
                self.end(upload["Key"], upload["UploadId"])
        return len(found)

    def presign(self, key: str, *, filename: str, content_type: str, seconds: int) -> str:
        with translating(key):
            return self.client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self.bucket,
                    "Key": self.name(key),
                    "ResponseContentDisposition": disposition(filename),
                    "ResponseContentType": content_type,
                    "ResponseCacheControl": "private, no-store",
                },
                ExpiresIn=seconds,
            )

    def check(self) -> None:
        with translating("check"):
            self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}.check", Body=b"")

    def name(self, key: str) -> str:
        """The key's full name in the bucket."""
        return self.prefix + checked_key(key)

    def end(self, name: str, upload_id: str) -> None:
        """Abort a multipart upload; one that has ended is no error."""
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload_id)
        except self.client.exceptions.NoSuchUpload:
            return

    def _unfinished(self, older_than: timedelta) -> Iterator[tuple[MultipartUploadTypeDef, datetime]]:
        """Multipart uploads whose last part came before; a long export that goes on isn't among them."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        for page in pages:
            limit = _server_time(page["ResponseMetadata"]["HTTPHeaders"]) - older_than
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= limit and (touched := self._last_part(upload)) <= limit:
                    yield upload, touched

    def _last_part(self, upload: MultipartUploadTypeDef) -> datetime:
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        times = [part["LastModified"] for page in pages for part in page.get("Parts", ())]
        return max(times, default=upload["Initiated"])


class S3Writer(Writer):
    """Small objects by one request; larger ones by a multipart upload whose parts are sent in the background.

    Each part carries its CRC32, which the bucket checks. boto3's own `upload_fileobj` is not used: it takes a
    short read for the end of the file and publishes what it has.
    """

    def __init__(self, storage: S3, key: str, content_type: str, filename: str) -> None:
        super().__init__(key, filename)
        self._storage = storage
        self._name = storage.name(key)
        self._type = content_type
        # The part being filled, how far it is, and the buffers of parts that have been sent: memory that is
        # at hand already, and no more of it.
        self._part = bytearray()
        self._filled = 0
        self._spare: list[bytearray] = []
        self._upload_id = ""
        self._pool: ThreadPoolExecutor | None = None
        self._flying: deque[Future[CompletedPartTypeDef]] = deque()
        self._parts: list[CompletedPartTypeDef] = []

    def _add(self, block: memoryview) -> None:
        while block:
            if self._filled == len(self._part):
                # Sent only when more follows, so that the last part is never empty.
                self._send()
                self._part = self._empty()
            end = min(len(self._part), self._filled + len(block))
            taken = end - self._filled
            self._part[self._filled : end] = block[:taken]
            self._filled, block = end, block[taken:]

    def _append(self, key: str, start: int, end: int | None) -> int:
        size = span(self._storage.stat(key).bytes, start, end)
        if self._filled or size < SMALLEST_PART:
            # S3 takes no small part but the last: these bytes go through us.
            for block in self._storage.open(key, start, start + size):
                self._add(memoryview(block))
            return size
        with translating(self.filename):
            for begin, end in copies(start, size):
                self._fly(self._copy, self._number, key, begin, end)
        return size

    def _copy(self, number: int, key: str, start: int, end: int) -> CompletedPartTypeDef:
        copied = self._storage.client.upload_part_copy(
            Bucket=self._storage.bucket,
            Key=self._name,
            UploadId=self._upload_id,
            PartNumber=number,
            CopySource={"Bucket": self._storage.bucket, "Key": self._storage.name(key)},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )["CopyPartResult"]
        done: CompletedPartTypeDef = {"PartNumber": number, "ETag": copied["ETag"]}
        if "ChecksumCRC32" in copied:
            done["ChecksumCRC32"] = copied["ChecksumCRC32"]
        return done

    @property
    def _number(self) -> int:
        """The number of the part being filled, from 1."""
        return len(self._parts) + len(self._flying) + 1

    def _empty(self) -> bytearray:
        """A buffer for the next part."""
        size = part_size(self._number)
        while self._spare:
            part = self._spare.pop()
            if len(part) == size:
                return part
        return bytearray(size)

    def _send(self) -> None:
        if not self._filled:
            return
        with translating(self.filename):
            part, size = self._part, self._filled
            self._part, self._filled = bytearray(), 0
            self._fly(self._upload, self._number, part, size)

    def _fly(self, work: Callable[..., CompletedPartTypeDef], *args: Any) -> None:
        """Do a part's work in the background, once there is room for it."""
        if self._pool is None:
            self._begin()
        assert self._pool is not None
        while len(self._flying) >= IN_FLIGHT:
            self._land()
        self._flying.append(self._pool.submit(work, *args))

    def _begin(self) -> None:
        begun = self._storage.client.create_multipart_upload(
            Bucket=self._storage.bucket,
            Key=self._name,
            ContentType=self._type,
            ContentDisposition=disposition(self.filename),
            ChecksumAlgorithm="CRC32",
        )
        self._upload_id = begun["UploadId"]
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="s3-part")

    def _land(self) -> None:
        """Wait for the oldest part; raises what went wrong with it.

        In short steps: an interruption from another thread comes through only between them.
        """
        while not wait(islice(self._flying, 1), timeout=0.5).done:
            continue
        self._parts.append(self._flying[0].result())
        self._flying.popleft()

    def _upload(self, number: int, part: bytearray, size: int) -> CompletedPartTypeDef:
        body = part if size == len(part) else part[:size]
        checksum = checksum_of(body)
        sent = self._storage.client.upload_part(
            Bucket=self._storage.bucket,
            Key=self._name,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=body,  # type: ignore[arg-type]  # boto3 takes it, its stubs don't know
            ChecksumCRC32=checksum,
        )
        self._spare.append(part)
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": checksum}

    def _publish(self) -> None:
        with translating(self.filename):
            if self._pool is None:
                self._put()
            else:
                self._send()
                while self._flying:
                    self._land()
                self._complete()
                self._pool.shutdown()

    def _put(self) -> None:
        body = self._part[: self._filled]
        self._storage.client.put_object(
            Bucket=self._storage.bucket,
            Key=self._name,
            Body=body,  # type: ignore[arg-type]  # see above
            ContentType=self._type,
            ContentDisposition=disposition(self.filename),
            ChecksumCRC32=checksum_of(body),
        )

    def _complete(self) -> None:
        client = self._storage.client
        try:
            client.complete_multipart_upload(
                Bucket=self._storage.bucket,
                Key=self._name,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )
        except client.exceptions.NoSuchUpload:
            # boto3 asks again when an answer was lost: then the upload may be complete already.
            if self._storage.stat(self.key).bytes != self.bytes:
                raise

    def _discard(self) -> None:
        self._part, self._spare = bytearray(), []
        if self._pool is None:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._flying, timeout=PATIENCE)
        try:
            self._storage.end(self._name, self._upload_id)
        except (BotoCoreError, ClientError) as error:
            log.warning("Parts of %s stay until the next sweep: %s", self._name, error)


def connect(environ: Mapping[str, str]) -> S3Client:
    """A client; what `environ` leaves out (keys, profile, region), boto3 looks for in its usual places."""
    session = boto3.session.Session(
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environ.get("AWS_SESSION_TOKEN"),
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
    )
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=_endpoint(environ),
        config=CONFIG,
    )


def _endpoint(environ: Mapping[str, str]) -> str | None:
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")


def part_size(number: int) -> int:
    """Bytes of the part of this number, counted from 1."""
    return PART << ((number - 1) // PARTS_OF_A_SIZE)


def copies(start: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of an object, equal in size but for a byte, that S3 copies as one part each.

    Not as large as may be: of those the last could be too small to have another part behind it.
    """
    count = -(-size // LARGEST_COPY)
    edges = [start + size * number // count for number in range(count + 1)]
    return pairwise(edges)


def checksum_of(part: bytearray) -> str:
    """CRC32 as S3 writes it."""
    return base64.b64encode(crc32(part).to_bytes(4, "big")).decode()


@contextmanager
def translating(name: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise translated(error, name) from error


def translated(error: Exception, name: str) -> Exception:
    """What boto3's error about `name` means to a person."""
    if isinstance(error, ClientError):
        return _answered(error, name)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageRefused(
            f"The S3 storage can't be asked for {name} without keys. Ask the operator to set AWS_*."
        )
    if isinstance(error, BotoCoreError):
        # Not the error's own words: they name hosts, which only the log may.
        return StorageUnavailable(
            f"The S3 storage does not answer for {name} ({type(error).__name__}). Please try again."
        )
    return error


def _answered(error: ClientError, name: str) -> WaybillError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # A HEAD has no body, so its code is the bare status.
    if code in ("NoSuchKey", "404"):
        return ObjectMissing(f"{name} is not in the storage (any more).")
    if code in FULL or status == 507:
        return StorageFull(
            f"The S3 storage has no room for {name} ({code}). Nothing was published. "
            "Ask the operator to make room, then try again."
        )
    if code in PASSING or status >= 500 or status == 429:
        return StorageUnavailable(f"The S3 storage failed with {name} ({code}). Please try again.")
    return StorageRefused(
        f"The S3 storage refuses {name} ({code}). "
        "Ask the operator to look at the bucket in STORAGE_URL and the rights of its AWS_* keys."
    )


def _server_time(headers: Mapping[str, str]) -> datetime:
    """The storage's own clock, which its objects' times are read from."""
    return parsedate_to_datetime(headers["date"])


class _Nothing:
    """The body of an empty range, for which S3 has no way to ask."""

    def read(self, size: int, /) -> bytes:
        return b""

    def close(self) -> None: ...
