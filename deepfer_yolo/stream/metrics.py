"""Prometheus: `/metrics` and `/healthz` on a port of this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deepfer_yolo.errors import ConfigError, DeepferError, MissingDependencyError

if TYPE_CHECKING:
    from deepfer_yolo.stream.pipeline import Pipeline

COUNTERS = ("captured", "processed", "overwritten", "stale", "corrupt", "reconnects")


class MetricsServer:
    """Serves the counters of a pipeline; `target` is `[HOST:]PORT`, the host being this machine alone where none is
    named.
    """

    def __init__(self, target: str) -> None:
        try:
            import prometheus_client  # noqa: F401
        except ImportError:
            raise MissingDependencyError.for_extra("prometheus", "prometheus_client") from None
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
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(pipeline))

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
                elif self.path == "/healthz":
                    is_healthy = pipeline.is_healthy
                    self._answer(
                        200 if is_healthy else 503, "text/plain", b"ok\n" if is_healthy else b"no source is live\n"
                    )
                else:
                    self._answer(404, "text/plain", b"/metrics or /healthz\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keep quiet."""

        try:
            self._server = http.server.ThreadingHTTPServer(self._place, Handler)
        except OSError as error:
            raise DeepferError(
                f"cannot listen on {self._place[0]}:{self._place[1]}: {error.strerror}", "name another port"
            ) from None
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Collector:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        summary = self._pipeline.summary()
        for name in COUNTERS:
            family = CounterMetricFamily(f"deepfer_{name}", f"Pictures {name}, or reconnects.", labels=["source"])
            for source in summary.sources:
                family.add_metric([source.source], getattr(source, name))
            yield family
        live = GaugeMetricFamily("deepfer_live", "1 where the source gives pictures.", labels=["source"])
        age = GaugeMetricFamily("deepfer_age_seconds", "Age of the latest live result.", labels=["source"])
        for source in summary.sources:
            live.add_metric([source.source], float(source.state in ("live", "frozen")))
        for name, age_ms in self._pipeline.ages_ms().items():
            age.add_metric([name], age_ms / 1000)
        yield live
        yield age
        yield CounterMetricFamily("deepfer_faces", "Faces that were labelled.", value=summary.faces)
        times = GaugeMetricFamily("deepfer_stage_seconds", "Time a stage took.", labels=["stage", "quantile"])
        for stage, values in summary.stages.items():
            times.add_metric([stage, "0.5"], values["p50_ms"] / 1000)
            times.add_metric([stage, "0.99"], values["p99_ms"] / 1000)
        yield times
        sinks = CounterMetricFamily("deepfer_sink_dropped", "Outputs that a sink did not take.", labels=["sink"])
        for sink in summary.sinks:
            sinks.add_metric([sink.sink], sink.dropped)
        yield sinks
