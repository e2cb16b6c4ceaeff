"""One tree of errors. Every message is fit to show a person: what was wrong, where, and what to do."""

from __future__ import annotations


class WaybillError(Exception):
    """Base of all errors that Waybill raises on purpose.

    `code` is stable and for programs; the message is for people; `retryable` says whether the same
    attempt may succeed later without anybody changing anything; `status` is the HTTP answer.
    """

    code = "error"
    retryable = False
    status = 500

    @property
    def message(self) -> str:
        return str(self)


class BadSettings(WaybillError):
    """The environment does not describe a Waybill that can start."""

    code = "bad_settings"


class NotFound(WaybillError):
    """There is no such thing, or it is not this person's to see."""

    code = "not_found"
    status = 404


class NotAllowed(WaybillError):
    """The person may see the thing but not do this with it."""

    code = "not_allowed"
    status = 403


class InvalidRequest(WaybillError):
    """The request cannot be understood; nothing was changed."""

    code = "invalid_request"
    status = 400


class InvalidParams(InvalidRequest):
    """One message for each wrong param, by its name."""

    code = "invalid_params"
    status = 422

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in errors.items()))
        self.errors = errors


class Conflict(WaybillError):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409


class TooMany(WaybillError):
    """A limit is reached; `retry_after` is in seconds."""

    code = "too_many"
    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WrongOffset(Conflict):
    """An upload's next byte is another one than the sender thinks: `offset`, from 0."""

    code = "wrong_offset"

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class DigestMismatch(InvalidRequest):
    """The bytes that arrived are not those whose digest was told; none of them was kept."""

    code = "digest_mismatch"


class UploadTooLarge(InvalidRequest):
    """A file is larger than uploads may be."""

    code = "upload_too_large"
    status = 413


class UploadGone(WaybillError):
    """The bytes of an upload were removed: it expired, was refused, or its owner took it away."""

    code = "upload_gone"
    status = 410


class BadFile(InvalidRequest):
    """A file's content is nothing that can be imported."""

    code = "bad_file"
    status = 422


class SourceDown(WaybillError):
    """A source does not answer, or its connection was cut."""

    code = "source_down"
    retryable = True
    status = 503


class QueryFailed(WaybillError):
    """A source refused a report's query or failed in the middle of it."""

    code = "query_failed"


class SourceLate(QueryFailed):
    """A source did not answer as long as somebody waits; a job has more time."""


class StorageUnavailable(WaybillError):
    """The storage does not answer."""

    code = "storage_unavailable"
    retryable = True
    status = 503


class StorageRefused(WaybillError):
    """The storage answers, but refuses: no right, no such bucket, no space."""

    code = "storage_refused"


class StorageFull(StorageRefused):
    """There is no room left in the storage."""

    code = "storage_full"


class ObjectMissing(WaybillError):
    """The storage has no object of that key."""

    code = "object_missing"
    status = 410


class IncompleteArtifact(WaybillError):
    """Rows or bytes written differ from rows or bytes read: nothing was published."""

    code = "incomplete_artifact"
    retryable = True


class LinkInvalid(NotFound):
    """A download link that Waybill never made, or that was changed on its way."""

    code = "link_invalid"


class LinkExpired(WaybillError):
    """A download link that was good once."""

    code = "link_expired"
    status = 410


class Interruption(BaseException):
    """An attempt must stop now. A BaseException, so that no report's `except Exception` keeps it running."""


class Cancelled(Interruption):
    """The owner asked for the job to be cancelled."""


class Paused(Interruption):
    """The owner asked for the job to pause; it is not due until it is resumed."""


class LeaseLost(Interruption):
    """Another attempt has the job: this one may change nothing any more."""


class Stopping(Interruption):
    """The worker is shutting down; the job goes on elsewhere without burning an attempt."""
