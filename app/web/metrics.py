"""The state of the installation as Prometheus reads it. docs/operator.md tells of each metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from app import monitoring
from app.models.clock import PROMPT, SLOW
from app.models.job import LARGE, SMALL
from app.monitoring import State
from app.settings import VERSION

CONTENT_TYPE = CONTENT_TYPE_LATEST

# A metric's samples: the values of its labels, and its own.
Samples = Sequence[tuple[tuple[str, ...], float]]


def exposition(state: State) -> bytes:
    """Prometheus's text format, by a registry of its own: each scrape tells of the installation, not of
    whichever web process answers it."""
    registry = CollectorRegistry()
    registry.register(_Once(state))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("waybill", "The version at work.", {"version": VERSION})
        yield from _findings(self._state)
        yield from _queues(self._state)
        yield from _jobs(self._state)
        yield from _mails(self._state)
        yield from _surroundings(self._state)


def _findings(state: State) -> Iterator[Metric]:
    found = [(finding.code, finding.level) for finding in monitoring.findings(state)]
    all_of_them = [(code, level) for code, levels in monitoring.CODES.items() for level in levels]
    samples: Samples = [((code, level), found.count((code, level))) for code, level in all_of_them]
    yield _gauge("findings", "What is wrong, as /operations tells it.", samples, "code", "level")


def _queues(state: State) -> Iterator[Metric]:
    queues = state.queues
    sized = [(queue, size) for queue in queues for size in (SMALL, LARGE)]
    due: Samples = [((queue.name, size), queue.due.get(size, 0)) for queue, size in sized]
    running: Samples = [((queue.name, size), queue.running.get(size, 0)) for queue, size in sized]
    yield _gauge("jobs_due", "Jobs that wait for a worker.", due, "queue", "size")
    yield _gauge("jobs_running", "Jobs at work.", running, "queue", "size")
    for name, help, values in (
        ("jobs_later", "Queued jobs that are not due: paused, tried again later, waiting for another's file.",
         [queue.later for queue in queues]),
        ("queue_longest_wait_seconds", "How long the first job or mail that is due has waited.",
         [queue.longest_wait for queue in queues]),
        ("queue_workers", "Living workers that listen to the queue.", [queue.workers for queue in queues]),
        ("queue_threads", "Their threads.", [queue.threads for queue in queues]),
    ):  # fmt: skip
        yield _gauge(name, help, [((q.name,), v) for q, v in zip(queues, values, strict=True)], "queue")


def _jobs(state: State) -> Iterator[Metric]:
    late = state.overdue
    yield _gauge("jobs_overdue", "Jobs at work whose worker's lease ran out.", late.jobs)
    yield _gauge("jobs_longest_overdue_seconds", "Since when, the longest.", late.longest)
    ended: Samples = [((one.kind, one.definition, one.status), one.jobs) for one in state.ended]
    labels = ("kind", "definition", "status")
    yield _gauge("jobs_finished_last_day", "Jobs that ended within the last 24 hours.", ended, *labels)
    why = [((one.kind, one.definition, one.code), one) for one in state.failures]
    for name, span, samples in (
        ("jobs_failed_last_day", "24 hours", [(values, float(one.jobs)) for values, one in why]),
        ("jobs_failed_last_hour", "hour", [(values, float(one.recent)) for values, one in why]),
    ):
        help = f"Jobs that failed within the last {span}, by reason."
        yield _gauge(name, help, samples, "kind", "definition", "code")
    yield _gauge(
        "imports_stopped", "Imports that failed in the middle and can be gone on with.", state.stopped.imports
    )


def _mails(state: State) -> Iterator[Metric]:
    mails = state.mails
    waiting = sum(queue.mails for queue in state.queues)
    yield _gauge("mails_waiting", "Mails that are due and were never tried.", waiting)
    yield _gauge("mails_late", "Mails that were tried and are to be tried again.", mails.late)
    yield _gauge("mails_longest_late_seconds", "Since when, the longest.", mails.longest_late)
    yield _gauge("mails_given_up_last_day", "Mails given up within the last 24 hours.", mails.given_up)


def _surroundings(state: State) -> Iterator[Metric]:
    kept, clock = state.kept, state.clock
    yield _gauge("artifacts_kept", "Files in the storage.", kept.artifacts)
    yield _gauge("artifacts_kept_bytes", "Their bytes.", kept.artifact_bytes)
    yield _gauge("uploads_kept", "Uploads in the storage.", kept.uploads)
    yield _gauge("uploads_kept_bytes", "Their bytes.", kept.upload_bytes)
    silent = sum(worker.silent for worker in state.workers)
    yield _gauge("workers_silent", "Workers that fell silent within the last ten minutes.", silent)
    passes = ((PROMPT, clock.silent_for), (SLOW, clock.slow_silent_for))
    last: Samples = [((name,), state.at.timestamp() - ago) for name, ago in passes if ago is not None]
    yield _gauge("clock_last_pass_timestamp_seconds", "When a clock last ended a pass.", last, "passes")
    yield _gauge("clock_steps_failing", "Steps that failed in the last passes.", len(clock.failing))
    yield _gauge("redis_up", "Whether Redis answers.", float(state.redis))


def _gauge(name: str, help: str, value: float | Samples, *labels: str) -> Metric:
    metric = GaugeMetricFamily(f"waybill_{name}", help, labels=labels)
    for values, number in value if isinstance(value, Sequence) else [((), value)]:
        metric.add_metric(values, number)
    return metric
