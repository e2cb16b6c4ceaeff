"""The Redis broker and its middleware. A message is a hint that carries an id; see app/dispatch.py."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from flask import Flask
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from actors import delivery, exports, imports
from actors.doorbell import Consumer, Doorbell
from app import dispatch, lanes, leases, memory
from app.extensions import db
from app.models.worker import Worker
from app.settings import Settings

log = logging.getLogger(__name__)

QUEUES = ("high", "default", "low")
# How often a worker says that it lives, in seconds; pages believe it for three times as long.
PRESENCE = 5.0
# How often a worker with an idle thread looks for jobs that no message tells it of, in seconds.
LOOKOUT = 1.0
# Platforms signal the whole process group: one stop arrives twice, and dramatiq takes the second for "now".
REPEATED_SIGNALS = 3.0


def init_app(app: Flask, config: Settings) -> None:
    """Make the app's broker and declare its actors and queues."""
    # With a URL the client does no hidden retries, so no message is enqueued twice behind our back.
    middleware = [AppContext(app), Shutdown(), Presence(app), Lookout(app)]
    broker = Broker(url=config.redis_url, middleware=middleware)
    dramatiq.set_broker(broker)
    for queue in QUEUES:
        broker.declare_queue(queue)
    # No middleware of ours retries or limits time: both are the database's business.
    dramatiq.actor(exports.run_export, broker=broker, queue_name="default")  # type: ignore[call-overload]
    dramatiq.actor(exports.make_parts, broker=broker, queue_name="default")  # type: ignore[call-overload]
    dramatiq.actor(imports.run_import, broker=broker, queue_name="high")  # type: ignore[call-overload]
    dramatiq.actor(imports.apply_chunks, broker=broker, queue_name="low")  # type: ignore[call-overload]
    dramatiq.actor(delivery.deliver, broker=broker, queue_name="high")  # type: ignore[call-overload]
    app.extensions["waybill.broker"] = broker


class Broker(RedisBroker):
    """dramatiq's, but an idle worker is woken by a new message."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.doorbell = Doorbell(self.client, f"{self.namespace}:doorbell")
        self.add_middleware(self.doorbell)

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        sent = super().enqueue(message, delay=delay)
        self.doorbell.ring(sent.queue_name)
        return sent

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        return Consumer(super().consume(queue_name, prefetch, 0), self.doorbell, timeout / 1000)


class AppContext(Middleware):
    """Every message is processed in an app context of its own; the memory that it took is given back."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.local = threading.local()

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self.local.context = self.app.app_context()
        self.local.context.push()

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self.local.context.pop()
        memory.give_back()

    after_skip_message = after_process_message


class Shutdown(Middleware):
    """The first stop signal makes every attempt hand its job back; its echoes are ignored."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            # Only the worker's main thread may set handlers; an embedded worker has none.
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(number, once(handler))

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        leases.stopping.set()


def once(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    """The same handler, deaf for `REPEATED_SIGNALS` seconds after it was called."""
    heard: float | None = None

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard is None or time.monotonic() - heard > REPEATED_SIGNALS:
            heard = time.monotonic()
            leases.stopping.set()
            handler(number, frame)

    return first


class Presence(Middleware):
    """Keeps this worker's row in `workers` alive."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.ended = threading.Event()

    def after_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        threading.Thread(target=self._keep, args=(worker,), name="presence", daemon=True).start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self.ended.set()
        with self.app.app_context(), db.engine.begin() as conn:
            conn.execute(delete(Worker).where(Worker.id == leases.WORKER))

    def _keep(self, worker: Any) -> None:
        with self.app.app_context():
            while not self.ended.is_set():
                self._beat(_queues(worker), worker.worker_threads)
                self.ended.wait(PRESENCE)

    def _beat(self, queues: list[str], threads: int) -> None:
        statement = insert(Worker).values(id=leases.WORKER, queues=queues, threads=threads)
        statement = statement.on_conflict_do_update(
            index_elements=[Worker.id], set_={"seen_at": func.clock_timestamp()}
        )
        try:
            with db.engine.begin() as conn:
                conn.execute(statement)
        except SQLAlchemyError as error:
            log.warning("The database does not answer (%s); this worker is not seen for now.", error)


class Lookout(Middleware):
    """Keeps one thread free for small exports, and sees to it that no thread idles while a job is due.

    Messages alone do not: those of large jobs that were heard while their lane was full are gone, and others
    lie in the memory of a worker whose threads are all busy.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.ended = threading.Event()
        self.busy = 0
        self.lock = threading.Lock()

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        # Where reports that take hours are at home, none of them waits for a small one.
        if "default" in _queues(worker):
            lanes.large.width = max(worker.worker_threads - 1, 1)

    def after_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        threading.Thread(target=self._watch, args=(worker,), name="lookout", daemon=True).start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self.ended.set()

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        with self.lock:
            self.busy += 1

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        with self.lock:
            self.busy -= 1

    after_skip_message = after_process_message

    def _watch(self, worker: Any) -> None:
        queues = _queues(worker)
        waited = timedelta(seconds=LOOKOUT)
        with self.app.app_context():
            while not self.ended.wait(LOOKOUT):
                if self.busy < worker.worker_threads:
                    self._look(queues, waited)

    def _look(self, queues: list[str], waited: timedelta) -> None:
        try:
            sent = dispatch.send_next(queues, small_only=lanes.large.full, waited=waited)
        except SQLAlchemyError as error:
            log.warning("The database does not answer (%s); nobody looks for jobs for now.", error)
            sent = False
        if not sent:
            self.ended.wait(PRESENCE)


def _queues(worker: Any) -> list[str]:
    """What this worker listens to."""
    return [queue for queue in sorted(worker.consumer_whitelist or QUEUES) if not queue.endswith(".DQ")]
