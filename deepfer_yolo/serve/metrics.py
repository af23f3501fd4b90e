"""What the server counts, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterable[str]:
        """The histogram's lines."""
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds = Histogram(SECONDS)
        self.batches = Histogram(SIZES)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one finished request. `route` is a route's pattern, never a path that a stranger chose."""
        self.requests[route, status] += 1
        self.seconds.observe(seconds)

    def observe_batch(self, n: int) -> None:
        """Count one inference over `n` crops."""
        self.batches.observe(n)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Everything; `gauges` holds what is measured now, by name, with its help text."""
        lines = ["# HELP deepfer_requests_total Finished requests.", "# TYPE deepfer_requests_total counter"]
        lines += [
            f'deepfer_requests_total{{route="{route}",status="{status}"}} {n}'
            for (route, status), n in sorted(self.requests.items())
        ]
        lines += [
            "# HELP deepfer_request_seconds Time from the head of a request to the end of its answer.",
            "# TYPE deepfer_request_seconds histogram",
        ]
        lines += self.seconds.lines("deepfer_request_seconds")
        lines += ["# HELP deepfer_batch_size Crops in one inference.", "# TYPE deepfer_batch_size histogram"]
        lines += self.batches.lines("deepfer_batch_size")
        for name, (words, value) in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def resident_bytes(pid: int | str = "self") -> int:
    """Memory that a process holds, in bytes; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * 4096
