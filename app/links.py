"""Download links: signed, expiring tokens that name one artifact. Nothing is stored for them.

A token is 56 URL-safe characters, short enough for any mail:

    bytes   0-15   the artifact's id
    bytes  16-18   the link's generation: raising `Artifact.link_generation` kills all earlier tokens
    bytes  19-23   when it expires, in seconds of Unix time
    bytes  24-41   the first 144 bits of an HMAC-SHA256 over the bytes before

42 bytes leave no spare bit in base64: a token with any bit flipped is another token.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from app.errors import LinkExpired, LinkInvalid
from app.models import Artifact
from app.settings import current

# Keeps these keys apart from those of sessions and sign-in links, which come from the same secret.
PURPOSE = b"waybill download link, version 1"
CLAIM = 24
SIGNATURE = 18


@dataclass(frozen=True)
class LinkClaim:
    """What a genuine token says; whether its artifact is still there, the database knows."""

    artifact_id: UUID
    generation: int
    expires_at: datetime


class LinkLapsed(LinkExpired):
    """A genuine token after its time; `claim` is what it was good for."""

    def __init__(self, claim: LinkClaim) -> None:
        super().__init__("This download link has expired.")
        self.claim = claim


def url(artifact: Artifact) -> str:
    """The absolute address to hand out for an artifact; whether it still opens, the database knows."""
    token = sign(artifact.id, artifact.link_generation, artifact.expires_at)
    return f"{current().public_url.rstrip('/')}/d/{token}"


def sign(
    artifact_id: UUID, generation: int, expires_at: datetime, *, keys: Sequence[str] | None = None
) -> str:
    """A token, signed with the first of `keys` (by default the app's SECRET_KEY)."""
    claim = (
        artifact_id.bytes
        + generation.to_bytes(3, "big")
        # Rounded up, so that no link dies before its artifact.
        + math.ceil(expires_at.timestamp()).to_bytes(5, "big")
    )
    key = (keys or current().secret_keys)[0]
    return urlsafe_b64encode(claim + _signature(claim, key)).decode()


def read(token: str, now: datetime, *, keys: Sequence[str] | None = None) -> LinkClaim:
    """What a token signed with any of `keys` (by default SECRET_KEY and its fallbacks) claims.

    Raises LinkInvalid for one we never made, LinkLapsed (a LinkExpired) for one whose time is over at `now`.
    """
    claim = _read(_checked(token, keys or current().secret_keys))
    if claim.expires_at <= now:
        raise LinkLapsed(claim)
    return claim


def _checked(token: str, keys: Sequence[str]) -> bytes:
    """The claim's bytes of a genuine token."""
    # Python's decoder skips what isn't base64, so that a token could be written in many ways.
    if not re.fullmatch(r"[A-Za-z0-9_-]{56}", token, re.ASCII):
        raise _invalid()
    raw = urlsafe_b64decode(token)
    claim, signature = raw[:CLAIM], raw[CLAIM:]
    if not any(hmac.compare_digest(signature, _signature(claim, key)) for key in keys):
        raise _invalid()
    return claim


def _read(claim: bytes) -> LinkClaim:
    return LinkClaim(
        UUID(bytes=claim[:16]),
        int.from_bytes(claim[16:19], "big"),
        datetime.fromtimestamp(int.from_bytes(claim[19:24], "big"), UTC),
    )


def _signature(claim: bytes, key: str) -> bytes:
    own = hmac.digest(key.encode(), PURPOSE, hashlib.sha256)
    return hmac.digest(own, claim, hashlib.sha256)[:SIGNATURE]


def _invalid() -> LinkInvalid:
    return LinkInvalid("This is not a download link of ours. Was it copied whole, up to its last character?")
