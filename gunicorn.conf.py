"""gunicorn's settings: `gunicorn wsgi:app` reads this file from the folder it starts in.

PORT, WEB_CONCURRENCY and ENVIRONMENT come from the environment.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import FrameType

import gevent
from gunicorn.workers.ggevent import GeventWorker

# Every open stream is a file descriptor; the usual soft limit of 1,024 ends in "Too many open files".
OPEN_FILES = 65_536
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = OPEN_FILES if _hard == resource.RLIM_INFINITY else min(OPEN_FILES, _hard)
if _soft != resource.RLIM_INFINITY and _soft < _wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_wanted, _hard))


class Worker(GeventWorker):
    """Closes its event streams as soon as it is told to stop, so that a deploy waits for none of them."""

    def patch(self) -> None:
        super().patch()
        # gevent leaves files alone, and a disk that is slow to keep a block would hold up every stream.
        fsync = os.fsync
        os.fsync = lambda descriptor: gevent.get_hub().threadpool.apply(fsync, (descriptor,))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # A connection whose answer is complete gets no time to ask for more.
        self.cfg.set("keepalive", 0)
        if self.booted:
            # Not here: a signal handler may interrupt somebody who holds the hub's lock.
            gevent.spawn(self.wsgi.extensions["waybill.hub"].close)


_address = "127.0.0.1" if os.environ.get("ENVIRONMENT") == "development" else "0.0.0.0"
bind = f"{_address}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = Worker
worker_connections = 10_000
graceful_timeout = 15  # seconds for what is still being answered when a worker stops
keepalive = 2  # seconds; a stopping worker waits this long for connections that are idle already
# Heartbeats on a slow disk would look like a hung worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
accesslog = None  # paths hold download links, and a link is a key
control_socket_disable = True
