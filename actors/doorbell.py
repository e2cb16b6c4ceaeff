"""Idle workers sleep until a message comes, instead of asking Redis again and again."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import dramatiq
from dramatiq.common import dq_name
from dramatiq.middleware import Middleware
from redis import Redis, RedisError

log = logging.getLogger(__name__)

# How long a worker sleeps where no bell wakes it, in seconds: what a click waits for at worst.
POLL = 0.1
# The longest that the bell's own thread is deaf to being closed, in seconds.
GLANCE = 1.0


class Doorbell(Middleware):
    """Rings in every process that listens, whenever a message was put on a queue.

    A hint: who misses it finds the message when it looks by itself.
    """

    def __init__(self, client: Redis, channel: str) -> None:
        self._client, self._channel = client, channel
        self._bells: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        # Whether a ring is heard just now.
        self.listening = False

    def ring(self, queue: str) -> None:
        with suppress(RedisError):
            self._client.publish(self._channel, queue)

    def of(self, queue: str) -> threading.Event:
        """A queue's bell; from now on this process listens."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)
                self._thread.start()
            return self._bells[queue]

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Wake everybody, and listen no more."""
        self._closed.set()
        self.listening = False
        self._ring_all()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._hear()
            except RedisError as error:
                log.info("Redis rings no bell for now (%s); idle workers look by themselves.", error)
            self.listening = False
            self._closed.wait(GLANCE)

    def _hear(self) -> None:
        with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(self._channel)
            while not self._closed.is_set():
                heard = subscription.get_message(timeout=GLANCE)
                match heard and heard["type"]:
                    case "subscribe":
                        self.listening = True
                        # For what came before.
                        self._ring_all()
                    case "message":
                        self._bells[heard["data"].decode()].set()

    def _ring_all(self) -> None:
        for bell in list(self._bells.values()):
            bell.set()


class Consumer(dramatiq.Consumer):
    """One of dramatiq's that never sleeps by itself, put to sleep until its bell rings."""

    def __init__(self, inner: Any, doorbell: Doorbell, seconds: float) -> None:
        self._inner, self._doorbell = inner, doorbell
        self._bell = doorbell.of(inner.queue_name)
        self._seconds = seconds
        self._delays = dq_name(inner.queue_name) == inner.queue_name

    def __next__(self) -> Any:
        message = next(self._inner)
        if message is None and self._bell.wait(self._patience):
            self._bell.clear()
        return message

    @property
    def _patience(self) -> float:
        # Delayed messages are in hand until they are due, which no bell tells.
        held = self._delays and self._inner.outstanding_message_count
        return self._seconds if self._doorbell.listening and not held else POLL

    def ack(self, message: Any) -> None:
        self._inner.ack(message)
        self._bell.set()  # there is room for another message

    def nack(self, message: Any) -> None:
        self._inner.nack(message)
        self._bell.set()

    def requeue(self, messages: Iterable[Any]) -> None:
        self._inner.requeue(messages)

    def close(self) -> None:
        self._inner.close()
