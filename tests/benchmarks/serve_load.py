"""32 clients post one face each, again and again: `deepfer serve` against a plain FastAPI handler that calls
`YOLO("x.onnx").predict`.

Both servers run the same weights, each in a process of its own; they are asked in turn, the ratio is taken per round,
then the median. Then `--total` requests go to `deepfer serve`, and its memory is looked at.

.venv/bin/python tests/benchmarks/serve_load.py runs/train/NAME/weights/best.pt [--rounds 5] [--seconds 6] [--clients
32] [--total 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

BAR = 1.5
MAX_GROWTH_MB = 15.0
PLAIN = """
import io, sys
from deepfer_yolo import yolo  # sets Ultralytics offline
from ultralytics import YOLO
from fastapi import FastAPI, UploadFile
from PIL import Image
import uvicorn

app, model = FastAPI(), YOLO(sys.argv[1], task="classify")

@app.post("/v1/predict")
def predict(files: UploadFile):
    image = Image.open(io.BytesIO(files.file.read())).convert("RGB")
    result = model.predict(image, imgsz=int(sys.argv[2]), verbose=False)[0]
    probs = result.probs.data.tolist()
    return {"label": result.names[result.probs.top1], "probs": dict(zip(result.names.values(), probs))}

predict_once = model.predict(Image.new("RGB", (48, 48)), imgsz=int(sys.argv[2]), verbose=False)
uvicorn.run(app, port=int(sys.argv[3]), log_level="critical")
"""


def face_requests(n: int, port: int) -> list[bytes]:
    """`n` different faces, each a whole HTTP request with a PNG of 48 pixels."""
    from PIL import Image

    from deepfer_yolo.painted import paint_faces

    requests = []
    for face in paint_faces(9, n)[0]:
        content = io.BytesIO()
        Image.fromarray(face).save(content, "PNG")
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        body += content.getvalue() + b"\r\n--x--\r\n"
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        )
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return requests


async def load(port: int, n_clients: int, seconds: float, total: int | None = None) -> tuple[float, list[float]]:
    """Requests a second, and each latency in milliseconds; ends after `seconds`, or after `total` requests."""
    requests = face_requests(n_clients, port)
    latencies: list[float] = []
    start = time.perf_counter()

    async def client(request: bytes) -> None:
        # A bare connection: the load generator shares the cores with the server and must cost little.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - start < seconds and (total is None or len(latencies) < total):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if b" 200 " not in head[:16] or b"probs" not in body:
                raise SystemExit(f"unexpected answer: {head!r} {body!r}")
            latencies.append(1000 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(client(request) for request in requests))
    return len(latencies) / (time.perf_counter() - start), latencies


def wait_until_ready(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for any answer of the server."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
        except OSError as error:
            if "HTTP Error" in str(error):
                return
            if process.poll() is not None:
                raise SystemExit("a server did not start") from None
            time.sleep(0.2)
        else:
            return
    raise SystemExit("a server did not start")


def export_both(checkpoint: Path, work: Path) -> tuple[Path, Path, int]:
    """Our export, Ultralytics' own export of the same weights, and the input's side."""
    from deepfer_yolo import yolo
    from deepfer_yolo.runtime.classifier import Classifier

    copy = Path(shutil.copy(checkpoint, work / "plain.pt"))
    subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", "export", str(checkpoint), "--out", str(work / "ours.onnx")],
        check=True,
        capture_output=True,
    )
    size = Classifier(work / "ours.onnx").card.input.size
    from ultralytics import YOLO

    assert yolo
    YOLO(str(copy)).export(format="onnx", imgsz=size, dynamic=True, verbose=False)
    return work / "ours.onnx", work / "plain.onnx", size


def memory_mb(port: int) -> float:
    """Resident memory of the server and its workers."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    names = ("process_resident_memory_bytes ", "deepfer_worker_resident_memory_bytes ")
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(names)) / 1e6


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Print throughput, latency, the median ratio with its spread, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--total", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    ports = {"ours": 8471, "plain": 8472}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ours, plain, size = export_both(options.checkpoint.resolve(), work)
        (work / "plain.py").write_text(PLAIN)
        environment = {**os.environ, "YOLO_OFFLINE": "1"}
        commands = {
            "ours": [
                sys.executable,
                "-m",
                "deepfer_yolo",
                "serve",
                "-m",
                str(ours),
                "--port",
                str(ports["ours"]),
                "--rate",
                "0",
                "--detector",
                "haar",
            ],
            "plain": [sys.executable, str(work / "plain.py"), str(plain), str(size), str(ports["plain"])],
        }
        processes = {
            side: subprocess.Popen(command, cwd=work, env=environment, stderr=subprocess.DEVNULL)
            for side, command in commands.items()
        }
        try:
            for side, port in ports.items():
                wait_until_ready(port, "/docs", processes[side])
                asyncio.run(load(port, options.clients, 2.0))
            rounds = [
                {side: asyncio.run(load(port, options.clients, options.seconds)) for side, port in ports.items()}
                for _ in range(options.rounds)
            ]
            before = memory_mb(ports["ours"])
            asyncio.run(load(ports["ours"], options.clients, 600, options.total))
            after = memory_mb(ports["ours"])
        finally:
            for process in processes.values():
                process.terminate()
                process.wait(20)
    ratios = sorted(one["ours"][0] / one["plain"][0] for one in rounds)
    sides = {
        side: {
            "per_s": statistics.median(one[side][0] for one in rounds),
            "p50_ms": statistics.median(percentile(one[side][1], 0.5) for one in rounds),
            "p99_ms": statistics.median(percentile(one[side][1], 0.99) for one in rounds),
        }
        for side in ports
    }
    growth = after - before
    if options.as_json:
        print(
            json.dumps({"ratios": ratios, **sides, "memory_mb": [before, after], "clients": options.clients}, indent=1)
        )
        return
    for side, title in (("ours", "deepfer serve"), ("plain", "plain FastAPI + YOLO.predict")):
        row = sides[side]
        rest = f"p50 {row['p50_ms']:6.1f} ms, p99 {row['p99_ms']:6.1f} ms, {options.clients} clients"
        print(f"{title:<30} {row['per_s']:6.0f} requests/s, {rest}")
    spread = f"min {ratios[0]:.2f}, max {ratios[-1]:.2f}, n = {options.rounds}"
    print(f"{statistics.median(ratios):.2f} times the throughput ({spread}); bar: at least {BAR}")
    grown = f"{before:.0f} -> {after:.0f} MB ({growth:+.1f})"
    print(f"memory after {options.total:,} more requests: {grown}; bar: at most +{MAX_GROWTH_MB:g} MB")


if __name__ == "__main__":
    main()
