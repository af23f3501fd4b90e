"""Prometheus: `/metrics` and `/healthz` on a port of this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from deepfer_yolo.errors import ConfigError, DeepferError, explained_imports

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    from deepfer_yolo.stream.pipeline import Pipeline

COUNTERS = ("captured", "processed", "overwritten", "stale", "corrupt")


class MetricsServer:
    """Serves the counters of a pipeline; `target` is `[HOST:]PORT`, to this machine alone where it names no host."""

    def __init__(self, target: str) -> None:
        with explained_imports():
            import prometheus_client  # noqa: F401
        host, _, port = target.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"Prometheus needs [HOST:]PORT, not '{target}'")
        self._place = (host or "127.0.0.1", int(port))
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1]) if self._server is not None else self._place[1]

    def start(self, pipeline: Pipeline) -> None:
        """Listen. Raises DeepferError where the port is taken."""
        from prometheus_client import CollectorRegistry, MetricsHandler

        collected = CollectorRegistry(auto_describe=False)
        collected.register(PipelineCollector(pipeline))

        class Handler(MetricsHandler):
            registry = collected

            def do_GET(self) -> None:  # noqa: N802 (the library's name)
                if self.path.partition("?")[0] == "/metrics":
                    super().do_GET()
                elif self.path == "/healthz":
                    is_healthy = pipeline.is_healthy
                    self._say(200 if is_healthy else 503, "ok" if is_healthy else "no source is live")
                else:
                    self._say(404, "/metrics or /healthz")

            def _say(self, code: int, words: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                self.wfile.write(f"{words}\n".encode())

        try:
            self._server = http.server.ThreadingHTTPServer(self._place, Handler)
        except OSError as error:
            place = ":".join(map(str, self._place))
            raise DeepferError(f"cannot listen on {place}: {error.strerror}", "name another port") from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class PipelineCollector:
    """The state of a pipeline, read anew whenever it is asked for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        summary, ages_ms = self._pipeline.summary(), self._pipeline.ages_ms()
        sources = summary.sources
        for name in COUNTERS:
            counts = {source.source: getattr(source.counters, name) for source in sources}
            yield _filled(Counter(f"deepfer_{name}", f"Frames {name}.", labels=["source"]), counts)
        reconnects = Counter("deepfer_reconnects", "Reconnects.", labels=["source"])
        yield _filled(reconnects, {source.source: source.reconnects for source in sources})
        live = Gauge("deepfer_live", "1 where the source gives frames.", labels=["source"])
        yield _filled(live, {source.source: float(source.is_live) for source in sources})
        age = Gauge("deepfer_age_seconds", "Age of the latest live result.", labels=["source"])
        yield _filled(age, {name: age_ms / 1000 for name, age_ms in ages_ms.items()})
        yield Counter("deepfer_faces", "Faces that were labelled.", value=summary.faces)
        times = Gauge("deepfer_stage_seconds", "Time a stage took.", labels=["stage", "quantile"])
        for stage, taken in summary.stages.items():
            times.add_metric([stage, "0.5"], taken.p50_ms / 1000)
            times.add_metric([stage, "0.99"], taken.p99_ms / 1000)
        yield times
        dropped = Counter("deepfer_sink_dropped", "Outputs that a sink did not take.", labels=["sink"])
        yield _filled(dropped, {sink.sink: sink.dropped for sink in summary.sinks})


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    """The family with a value a label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family
