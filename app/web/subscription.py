"""Listening to what Redis says about jobs, for ever: a lost connection is made again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import events

log = logging.getLogger(__name__)

# After so long without a word Redis is asked whether it is still there, and given as long again. Seconds.
SILENCE = 5.0
# Between two attempts to connect, in seconds.
PAUSE = 0.5


class Subscription:
    """`run` in a thread calls `on_begin()` when listening begins (again) and `on_message(channel, data)`.

    What was published before `on_begin` may have been missed, what is published after it is not.
    """

    def __init__(
        self, redis_url: str, on_begin: Callable[[], None], on_message: Callable[[str, bytes], None]
    ) -> None:
        self._client = redis.Redis.from_url(
            redis_url,
            socket_timeout=SILENCE,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),  # else the client would hide that it lost its connection
        )
        self._on_begin, self._on_message = on_begin, on_message
        self._ended = threading.Event()
        self.alive = False

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
                    pubsub.psubscribe(events.PATTERN)
                    self._listen(pubsub)
            except (redis.RedisError, OSError) as error:
                if self.alive:
                    log.warning("Redis sends no live messages (%s); streams read from the database.", error)
            except Exception:
                # Without this thread every stream would only hear from the database.
                log.exception("Listening to Redis failed; it begins again.")
            finally:
                self.alive = False
            self._ended.wait(PAUSE)

    def _listen(self, pubsub: Any) -> None:
        asked = False
        while not self._ended.is_set():
            message = pubsub.get_message(timeout=SILENCE)
            if message is None:
                if asked:
                    raise redis.ConnectionError("it does not answer")
                pubsub.ping()
            elif message["type"] == "psubscribe":
                self.alive = True
                self._on_begin()
            elif message["type"] == "pmessage":
                self._on_message(message["channel"].decode("utf-8", "replace"), message["data"])
            asked = message is None
