"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import (  # noqa: TID253 (only `deepfer serve` imports this package)
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server, and what is measured when somebody asks."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # would double every count
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("deepfer_requests", "Finished requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "deepfer_request_seconds",
            "Time from the head of a request to the end of its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batches = Histogram("deepfer_batch_size", "Crops in one inference.", buckets=SIZES, registry=registry)
        self.crashes = Counter("deepfer_worker_crashes", "Decode workers that died in a request.", registry=registry)
        self.timeouts = Counter(
            "deepfer_worker_timeouts", "Decode workers that were ended for taking too long.", registry=registry
        )
        self.measure("process_resident_memory_bytes", "Resident memory of the server.", resident_bytes)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one finished request. `route` is a route's pattern, never a path that a stranger chose."""
        self._requests.labels(route, status).inc()
        self._seconds.observe(seconds)

    def measure(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Ask `value` whenever the metrics are read."""
        Gauge(name, words, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format (version 0.0.4)."""
        return generate_latest(self._registry)


def resident_bytes(pids: Iterable[int | str] = ("self",)) -> int:
    """Memory that processes hold together, in bytes; those that are gone hold none."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError):
            total += resource.getpagesize() * int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return total
