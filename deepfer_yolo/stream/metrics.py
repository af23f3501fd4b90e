"""Prometheus: `/metrics` and `/healthz` on a port of this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from deepfer_yolo.errors import ConfigError, DeepferError, explained_imports

if TYPE_CHECKING:
    from prometheus_client import Metric

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
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        summary = self._pipeline.summary()
        for name in COUNTERS:
            counter = CounterMetricFamily(f"deepfer_{name}", f"Frames {name}.", labels=["source"])
            for source in summary.sources:
                counter.add_metric([source.source], getattr(source.counters, name))
            yield counter
        reconnects = CounterMetricFamily("deepfer_reconnects", "Reconnects.", labels=["source"])
        live = GaugeMetricFamily("deepfer_live", "1 where the source gives frames.", labels=["source"])
        age = GaugeMetricFamily("deepfer_age_seconds", "Age of the latest live result.", labels=["source"])
        for source in summary.sources:
            reconnects.add_metric([source.source], source.reconnects)
            live.add_metric([source.source], float(source.is_live))
        for name, age_ms in self._pipeline.ages_ms().items():
            age.add_metric([name], age_ms / 1000)
        yield from (reconnects, live, age)
        yield CounterMetricFamily("deepfer_faces", "Faces that were labelled.", value=summary.faces)
        times = GaugeMetricFamily("deepfer_stage_seconds", "Time a stage took.", labels=["stage", "quantile"])
        for stage, taken in summary.stages.items():
            times.add_metric([stage, "0.5"], taken.p50_ms / 1000)
            times.add_metric([stage, "0.99"], taken.p99_ms / 1000)
        yield times
        sinks = CounterMetricFamily("deepfer_sink_dropped", "Outputs that a sink did not take.", labels=["sink"])
        for sink in summary.sinks:
            sinks.add_metric([sink.sink], sink.dropped)
        yield sinks
