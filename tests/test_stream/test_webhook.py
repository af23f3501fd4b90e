"""The webhook: what it sends, how it waits for a server, and what it counts as lost."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.stream.records import Output, Result, State
from deepfer_yolo.stream.sinks.network import WebhookSink, retry_after_s
from deepfer_yolo.stream.sinks.worker import SinkWorker

STATE = State("cam", 0, 1.0, "pts", "live", None, "why")


def test_the_webhook_signs_retries_and_gives_events_and_states_alone(
    serve_http: Callable[..., str], result_of: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFER_WEBHOOK_SECRET", "k3y")
    bodies: list[dict[str, Any]] = []
    failures = [503, 503]

    def handle(request: Any) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        stamp, signature = (part.split("=")[1] for part in request.headers["X-Deepfer-Signature"].split(","))
        assert hmac.compare_digest(
            signature, hmac.new(b"k3y", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        )
        assert request.headers["Authorization"].startswith("Basic ")
        code = failures.pop() if failures else 200
        bodies.extend([json.loads(body)] if code == 200 else [])
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    sink = WebhookSink(serve_http(handle).replace("://", "://u:topsecret@"))
    assert "topsecret" not in sink.name
    worker = SinkWorker(sink)
    worker.start(lambda _: None, "a run")
    worker.put(Output((*result_of(0).records(), STATE)), may_wait=False)
    worker.put(Output(result_of(1).records()), may_wait=False)
    worker.close()
    assert (worker.summary().written, worker.summary().dropped) == (1, 0)
    assert bodies == [{"records": [STATE.to_json("a run")]}]


def test_the_webhook_gives_up_on_refusals_and_reports_what_is_lost(
    serve_http: Callable[..., str], free_port: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("deepfer_yolo.stream.sinks.network.LAST_TRIES_S", 0.2)
    state = Output((STATE,))
    refusing = WebhookSink(serve_http(lambda request: request.send_error(400)))
    with pytest.raises(DeepferError, match="400"):
        refusing.write(state)
    redirected = WebhookSink(redirect_to(serve_http, "http://127.0.0.1:1/x"))
    with pytest.raises(DeepferError, match="302"):
        redirected.write(state)
    dead = WebhookSink(f"http://127.0.0.1:{free_port()}/x")
    dead.write(state)
    dead.write(state)
    with pytest.raises(DeepferError, match="2 requests"):
        dead.close()


class Receiver:
    """A webhook's server whose answers are given: codes, or a code and its `Retry-After`; 200 when they are used up."""

    def __init__(self, *answers: int | tuple[int, str]) -> None:
        self.answers = list(answers)
        self.at: list[float] = []
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: Any) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.at.append(time.monotonic())
        answer = self.answers.pop(0) if self.answers else 200
        code, wait = answer if isinstance(answer, tuple) else (answer, None)
        if code == 200:
            self.bodies.append(body)
        request.send_response(code)
        request.send_header("Content-Length", "0")
        if wait is not None:
            request.send_header("Retry-After", wait)
        request.end_headers()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_webhook_backs_off_and_delivers_in_order_without_further_outputs(serve_http: Callable[..., str]) -> None:
    receiver = Receiver(503, 503, 503)
    told: list[State] = []
    worker = SinkWorker(WebhookSink(serve_http(receiver)))
    worker.start(told.append)
    for index in range(20):
        worker.put(Output((replace(STATE, time_s=float(index)),)), may_wait=False)
    wait_until(lambda: len(receiver.bodies) == 20)
    gaps = np.diff(receiver.at[:4])
    assert (gaps > (0.24, 0.49, 0.99)).all(), "each at least half of 0.5, 1 and 2 s"
    assert [body["records"][0]["time_s"] for body in receiver.bodies] == list(range(20))
    assert len(receiver.at) == 23
    worker.close()
    summary = worker.summary()
    assert (summary.written, summary.dropped, summary.error) == (20, 0, None)
    assert [state.reason.split(";")[0] for state in told] == ["a request was not taken", "requests are delivered again"]


def test_the_webhook_waits_as_long_as_the_server_asks(
    serve_http: Callable[..., str], stopwatch: Callable[..., Any]
) -> None:
    receiver = Receiver((429, "2"), 200, (503, "3600"))
    worker = SinkWorker(WebhookSink(serve_http(receiver)))
    worker.start(lambda _: None)
    asked = stopwatch()
    worker.put(Output((STATE,)), may_wait=False)
    wait_until(lambda: len(receiver.bodies) == 1)
    assert receiver.at[1] - receiver.at[0] >= 2.0
    assert asked() < 4.0
    worker.put(Output((STATE,)), may_wait=False)
    worker.put(Output((STATE,)), may_wait=False)
    wait_until(lambda: len(receiver.at) == 3)
    watch = stopwatch()
    worker.close()
    assert watch() < 2.0, "the end does not wait for an hour"
    summary = worker.summary()
    assert (len(receiver.at), summary.written, summary.dropped) == (3, 1, 2)
    assert "2 requests" in str(summary.error)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("120", 0.0) == 120
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT", 946684799.0 - 30) == 30
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT", 946684799.0 + 30) == 0
    assert retry_after_s("soon", 0.0) is None
    assert retry_after_s(None, 0.0) is None


def test_the_webhook_keeps_the_newest_and_counts_the_rest(free_port: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("deepfer_yolo.stream.sinks.network.SPOOL", 10)
    monkeypatch.setattr("deepfer_yolo.stream.sinks.network.LAST_TRIES_S", 0.1)
    worker = SinkWorker(WebhookSink(f"http://127.0.0.1:{free_port()}/x"))
    worker.start(lambda _: None)
    for _ in range(25):
        worker.put(Output((STATE,)), may_wait=True)
    wait_until(lambda: worker.summary().dropped == 15)
    assert worker.summary().written == 0
    worker.close()
    assert (worker.summary().written, worker.summary().dropped) == (0, 25)


def test_a_refusal_counts_all_that_waited_as_dropped(serve_http: Callable[..., str]) -> None:
    worker = SinkWorker(WebhookSink(serve_http(Receiver(200, 503, 404, 404))))
    worker.start(lambda _: None)
    for _ in range(5):
        worker.put(Output((STATE,)), may_wait=False)
    wait_until(lambda: worker.has_failed)
    worker.put(Output((STATE,)), may_wait=False)
    worker.close()
    assert (worker.summary().written, worker.summary().dropped) == (1, 5)


def redirect_to(serve_http: Callable[..., str], target: str) -> str:
    def handle(request: Any) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return serve_http(handle)
