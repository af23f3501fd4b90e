"""How many cameras a core carries at a bounded age: a simulation from measured service times, checked by real runs.

    python tests/benchmarks/fleet.py clip.mp4                 # measures, then simulates: seconds
    python tests/benchmarks/fleet.py clip.mp4 --check 4 16 [--fps 10]   # and real runs with looped RTSP sources

Measured on one core, in processor time: reading a frame (the source's own process, and what takes it over), and all
that inference does with each frame of the clip. The simulation is of one `stream` process: every camera gives a frame
each 1/fps seconds and keeps the newest, one thread takes at most one of each, and its results are as old as the frames
are then. Reading goes first; inference has the share of the core that is left.

A check starts ffmpeg once a camera on the other cores, a `stream` process and its readers on one, and counts for some
seconds once all are live. Where other work took a part of the core, the simulation beside it has what was left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIMULATED_S = 120.0
SETTLE_S = 10.0
"""After all cameras of a check are live: what queued while others started has been worked off."""
FROM, READ = 60, 240
"""Frames of an RTSP source that are passed over, and that are measured."""
LISTENING: dict[str, Any] = {
    "open_timeout_s": 120, "read_timeout_s": 60, "input_option": {"rtsp_flags": "listen", "listen_timeout": "120"}
}  # fmt: skip
LEAST_SHARE = 0.1
"""Of a core, below which reading leaves too little for inference: frames queue before they are read."""


@dataclass(frozen=True)
class Service:
    """Processor seconds a frame: of reading, and of inference on each frame of the clip."""

    read_s: float
    label_s: list[float]
    fps: float


@dataclass(frozen=True)
class Outcome:
    """What a shard did: frames a second that each camera had labelled, and the ages of the results."""

    cameras: int
    fps: float
    labelled: float
    p50_ms: float
    p99_ms: float
    core: float
    """Processor seconds a second."""

    def row(self, name: str) -> str:
        """As a line of the table."""
        return (
            f"{name:<22} {self.cameras:>7} {self.fps:>5.1f} {self.labelled:>9.2f} {self.p50_ms:>8.0f} "
            f"{self.p99_ms:>8.0f} {self.core:>6.2f}"
        )


HEADER = f"{'':<22} {'cameras':>7} {'fps':>5} {'labelled':>9} {'p50 ms':>8} {'p99 ms':>8} {'core':>6}"


def measure(clip: Path, detect_every: int, others: set[int]) -> Service:
    """The service times of this clip."""
    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.faces.detect import open_detector
    from deepfer_yolo.records import Frame
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.runtime.model_file import LIVE
    from deepfer_yolo.stream.address import Address
    from deepfer_yolo.stream.scene import Scene
    from deepfer_yolo.stream.sources import open_source

    config = StreamConfig(detect_every=detect_every)
    address = Address(clip.name, "file", str(clip))
    source = open_source(address, config, 1)
    frames = [(grab.image, grab.pts_s) for grab in source.grabs() if grab.image is not None]
    source.close()
    fps = (len(frames) - 1) / (float(frames[-1][1] or 0) - float(frames[0][1] or 0))
    classifier = Classifier(LIVE, threads=1)
    scene = Scene(open_detector(config, "video"), classifier.card, config)
    taken = []
    for index, (image, pts_s) in enumerate(frames):
        assert image is not None
        frame = Frame(index, float(pts_s or 0.0), "pts", image, "clip")
        began = time.process_time()
        result = scene.label(frame, classifier)
        json.dumps([record.to_json("run") for record in result.records()])
        taken.append(time.process_time() - began)
    return Service(read_time(clip, others), taken[len(taken) // 10 :], fps)


def read_time(clip: Path, cores: set[int]) -> float:
    """Processor seconds that a frame of an RTSP source takes to arrive: in its own process, and where it is taken
    over.
    """
    import psutil

    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.stream.address import Address
    from deepfer_yolo.stream.source_process import SourceProcess

    with played(clip, 1, cores) as (port,):
        process = SourceProcess(Address("camera", "network", url(port)), StreamConfig(**LISTENING))
        process.open()
        child = psutil.Process(process._process.pid)

        def spent() -> float:
            times = child.cpu_times()
            return float(times.user + times.system) + time.thread_time()

        n, began = 0, 0.0
        for n, _ in enumerate(process.grabs()):
            if n == FROM:  # what starting costs is behind it
                began = spent()
            if n == FROM + READ:
                break
        ended = spent()
        process.close()
    return (ended - began) / READ


def simulate(service: Service, cameras: int, fps: float, share: float = 1.0, seed: int = 0) -> Outcome:
    """A shard of so many cameras, with a share of one core."""
    draw = random.Random(seed)
    reading = cameras * fps * service.read_s
    left = share - reading
    if left < LEAST_SHARE:
        return Outcome(cameras, fps, 0.0, math.inf, math.inf, reading)
    period = 1 / fps
    phases = [draw.random() * period for _ in range(cameras)]
    places = [draw.randrange(len(service.label_s)) for _ in range(cameras)]
    last_taken = [-1] * cameras
    now, busy_s = 0.0, 0.0
    ages: list[float] = []
    while now < SIMULATED_S:
        newest = [int((now - phase) // period) for phase in phases]
        batch = [c for c in range(cameras) if newest[c] > last_taken[c]]
        if not batch:
            now = min(phase + (taken + 1) * period for phase, taken in zip(phases, last_taken, strict=True)) + 1e-9
            continue
        costs = [service.label_s[(places[c] + newest[c]) % len(service.label_s)] for c in batch]
        now += sum(costs) / left
        busy_s += sum(costs)
        for camera in batch:
            ages.append(now - (phases[camera] + newest[camera] * period))
            last_taken[camera] = newest[camera]
    p50, p99 = np.percentile(ages, (50, 99)) * 1000
    core = min(share, reading) + busy_s / now
    return Outcome(cameras, fps, len(ages) / now / cameras, float(p50), float(p99), core)


def carried(service: Service, fps: float, age_ms: float, least: float) -> Outcome | None:
    """The largest shard whose results are old by no more than so much, 99 of 100, and whose cameras have so many a
    second.
    """
    best = None
    for cameras in range(1, 1000):
        found = simulate(service, cameras, fps)
        if found.p99_ms > age_ms or found.labelled < min(least, 0.9 * fps):
            break
        best = found
    return best


def url(port: int) -> str:
    """Where a camera of the check is."""
    return f"rtsp://127.0.0.1:{port}/live"


@contextmanager
def played(clip: Path, n: int, cores: set[int]) -> Iterator[list[int]]:
    """Ports to which the clip is played for ever, once something listens there, by ffmpeg on these cores."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    is_over = threading.Event()
    player = threading.Thread(target=publish, args=(clip, ports, cores, is_over))
    player.start()
    try:
        yield ports
    finally:
        is_over.set()
        player.join()


def publish(clip: Path, ports: list[int], cores: set[int], is_over: threading.Event) -> None:
    """Play the clip to each port as soon as it listens, until it is over."""
    running: dict[int, subprocess.Popen[bytes]] = {}
    while not is_over.wait(0.2):
        tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        ends = [line.split()[1:4:2] for table in tables for line in table.splitlines()[1:]]
        open_ports = {int(end.rpartition(":")[2], 16) for end, state in ends if state == "0A"}
        for port in ports:
            if port in open_ports and (port not in running or running[port].poll() is not None):
                words = ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", str(clip)]
                words += ["-an", "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", url(port)]
                running[port] = subprocess.Popen(words)
                os.sched_setaffinity(running[port].pid, cores)
    for process in running.values():
        process.kill()
        process.wait()


def shard(ports: list[int], core: int, seconds: float, detect_every: int) -> None:
    """The `stream` process of a check: prints what it did, as JSON."""
    os.sched_setaffinity(0, {core})
    import psutil

    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.runtime.model_file import LIVE
    from deepfer_yolo.stream.session import run_stream

    own = psutil.Process()
    live_since: list[float] = []
    began: list[float] = []
    first: list[int] = []
    found: list[Outcome] = []

    def spent() -> float:
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def tick(pipeline: Any) -> None:
        n_live = sum(reader.state == "live" for reader in pipeline.readers)
        counts = [reader.buffer.counters for reader in pipeline.readers]
        if not began:
            live_since.extend([time.monotonic()] * (n_live == len(ports) and not live_since))
            if live_since and time.monotonic() - live_since[0] >= SETTLE_S:
                pipeline.stages._ms.clear()
                began.extend((time.monotonic(), spent()))
                first.extend((sum(c.captured for c in counts), sum(c.processed for c in counts)))
        elif not found and time.monotonic() - began[0] >= seconds:
            wall_s, n = time.monotonic() - began[0], len(ports)
            captured, processed = sum(c.captured for c in counts), sum(c.processed for c in counts)
            age = pipeline.stages.percentiles()["age"]
            rates = (captured - first[0]) / wall_s / n, (processed - first[1]) / wall_s / n
            found.append(Outcome(n, *rates, age.p50_ms, age.p99_ms, (spent() - began[1]) / wall_s))
            pipeline.stop("measured")

    config = StreamConfig(**LISTENING, detect_every=detect_every)
    with tempfile.TemporaryDirectory() as folder:
        run_stream(
            [*map(url, ports)], Classifier(LIVE, threads=1), [f"jsonl={folder}/faces.jsonl"], config, on_tick=tick
        )
    print(json.dumps(asdict(found[0])))


def at_rate(clip: Path, fps: float, target: Path) -> Path:
    """The clip with so many frames a second, a key frame each second."""
    words = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(clip), "-an", "-r", str(fps), "-g", str(int(fps))]
    subprocess.run([*words, str(target)], check=True)
    return target


def check(clip: Path, cameras: int, seconds: float, detect_every: int, core: int, others: set[int]) -> Outcome:
    """A real run on one core."""
    with played(clip, cameras, others) as ports:
        words = ["--shard", *map(str, ports), "--core", str(core), "--seconds", str(seconds)]
        command = [sys.executable, __file__, str(clip), *words, "--detect-every", str(detect_every)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 400)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, simulate, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--check", type=int, nargs="+", default=[], metavar="N")
    parser.add_argument("--fps", type=float, help="of the cameras of a check; else the clip's")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--age-ms", type=float, default=500)
    parser.add_argument("--least", type=float, default=2, help="results a second that a camera must have")
    parser.add_argument("--detect-every", type=int, default=1)
    parser.add_argument("--shard", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.shard:
        shard(given.shard, given.core, given.seconds, given.detect_every)
        return
    cores = os.sched_getaffinity(0)
    core = max(cores)
    others = cores - {core} or cores
    os.sched_setaffinity(0, {core})
    service = measure(given.clip, given.detect_every, others)
    os.sched_setaffinity(0, cores)
    label_ms = np.array(service.label_s) * 1000
    print(
        f"{given.clip.name}, {service.fps:.1f} fps: reading {1000 * service.read_s:.2f} ms a frame; inference "
        f"{label_ms.mean():.2f} ms (median {np.median(label_ms):.2f}, p99 {np.percentile(label_ms, 99):.2f}, "
        f"n = {len(label_ms)}), processor time of one core"
    )
    print(f"\nlargest shard: p99 <= {given.age_ms:.0f} ms, {given.least:g} results a second of each camera\n{HEADER}")
    for fps in (service.fps, 15.0, 5.0, 1.0):
        best = carried(service, fps, given.age_ms, given.least)
        print(best.row("simulated") if best else f"{'simulated':<22}       0 {fps:>5.1f}")
    folder = tempfile.TemporaryDirectory()
    clip = given.clip if given.fps is None else at_rate(given.clip, given.fps, Path(folder.name) / "clip.mp4")
    for cameras in given.check:
        real = check(clip, cameras, given.seconds, given.detect_every, core, others)
        whole = simulate(service, cameras, real.fps)
        print(f"\n{HEADER}\n{real.row('real run')}\n{whole.row('simulated, whole core')}")
        if whole.core > 0.95:  # the core was full: what other work took, the run did not have
            print(simulate(service, cameras, real.fps, share=real.core).row(f"simulated, {real.core:.2f} core"))


if __name__ == "__main__":
    main()
