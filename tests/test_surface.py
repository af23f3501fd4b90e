"""What users see, pinned: help, the shape of every JSON answer, records, run folders, cards and the HTTP schema.

The golden files lie in `tests/surface/`. A change of what users see is a decision: make it, then write the files anew
and read their diff:

    DEEPFER_UPDATE_SURFACE=1 python -m pytest tests/test_surface.py -m "slow or not slow"

A shape shows each key with the type of its value. A list shows the shape of its elements as one; `key?` stands in some
of them only. Keys that come from data are collapsed (`<label>`, `<number>`, `<path>`), and the values that programs
branch on are shown (`= pass`).
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces, paint_frames

SURFACE = Path(__file__).parent / "surface"
UPDATE = os.environ.get("DEEPFER_UPDATE_SURFACE") == "1"
Deepfer = Callable[..., Any]

EXACT = {
    *("schema", "schema_version", "kind", "verdict", "passed", "severity", "rule", "exit_code", "promoted", "status"),
    *("clock", "policy", "state", "was", "final", "complete", "step"),
}
"""Keys whose values programs branch on: they are pinned as they are."""

MACHINE: dict[str, Any] = {
    "cameras": ["text"],
    "commit": "null | text",
    "cuda": ["text"],
    "gpus": ["text"],
    "load": "null | number",
    "memory_gb": "null | number",
    "providers": ["text"],
    "sizes_mb": {"<package>": "number"},
    "versions": {"<package>": "text"},
}
"""Keys whose values say what machine this is."""

TINY = """nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""
RECIPE = ("--model", "tiny-cls.yaml", "--imgsz", "32", "--batch", "35", "--threads", "1", "--epochs", "1")


TYPES = {type(None): "null", bool: "true or false", int: "number", float: "number", str: "text"}


def leaf(value: Any, key: str) -> str:
    """The name of a plain value's type, or the value where programs branch on it."""
    if value is not None and key in EXACT:
        return f"= {json.dumps(value) if isinstance(value, bool) else value}"
    return TYPES[type(value)]


def shape(*samples: Any, key: str = "") -> Any:
    """The shape that all samples have together."""
    if key in MACHINE:
        return MACHINE[key]
    objects = [sample for sample in samples if isinstance(sample, dict)]
    lists = [sample for sample in samples if isinstance(sample, list)]
    leaves = sorted({leaf(sample, key) for sample in samples if not isinstance(sample, dict | list)})
    parts: list[Any] = [" | ".join(leaves)] if 0 < len(leaves) < 4 else leaves
    if objects:
        parts.append(object_shape(objects))
    if lists:
        items = [item for sample in lists for item in sample]
        parts.append([shape(*items, key=key)] if items else [])
    return parts[0] if len(parts) == 1 else {"any of": parts}


def object_shape(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The shape of objects together: all keys, `?` after those that not all have."""
    values = defaultdict(list)
    for sample in objects:
        for key, value in sample.items():
            values[collapsed(key)].append(value)
    found = {}
    for key, several in values.items():
        is_everywhere = key.startswith("<") or len(several) == len(objects)
        found[key if is_everywhere else f"{key}?"] = shape(*several, key=key)
    return found


def collapsed(key: str) -> str:
    """The key, or what kind of key it is where it comes from the data."""
    if key in EMOTIONS:
        return "<label>"
    if re.fullmatch(r"[\d.]+", key):
        return "<number>"
    return "<path>" if "/" in key or key.endswith((".onnx", ".pt", ".png")) else key


def changes(name: str, text: str) -> str:
    """How a text differs from its golden file, which is written first where that is asked for."""
    path = SURFACE / name
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"no golden file {path}: {__doc__}"
    golden = path.read_text(encoding="utf-8")
    diff = difflib.unified_diff(golden.splitlines(), text.splitlines(), f"{name} (pinned)", f"{name} (now)")
    return "\n".join(map(str.rstrip, diff))


def check(name: str, text: str) -> None:
    """Compare with the golden file."""
    if found := changes(name, text):
        pytest.fail(f"what users see has changed:\n{found}", pytrace=False)


def written(value: Any, indent: int = 0) -> str:
    """Sorted JSON, on one line where it fits."""
    line = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if not isinstance(value, dict | list) or indent + len(line) <= 110:
        return line
    before = "\n" + " " * (indent + 1)
    if isinstance(value, list):
        return "[" + ",".join(before + written(item, indent + 1) for item in value) + "]"
    rows = (f"{json.dumps(key, ensure_ascii=False)}: {written(value[key], indent + 1)}" for key in sorted(value))
    return "{" + ",".join(before + row for row in rows) + "}"


def check_json(name: str, value: Any) -> None:
    """Compare a document with its golden file."""
    check(f"{name}.json", written(value) + "\n")


def answer(done: Any, *codes: int) -> Any:
    """What a command printed as JSON."""
    assert done.returncode in (codes or (0,)), done.stderr
    return json.loads(done.stdout)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def json_lines(path: Path) -> list[Any]:
    """The records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def header(path: Path) -> list[str]:
    """The first row of a csv file."""
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def files_in(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run_folder(run: Path, printed: Any, **places: Path) -> dict[str, Any]:
    """What a run's folder holds; the resolved configuration with its values, the given places by their names."""
    config = (run / "config.yaml").read_text(encoding="utf-8")
    for name, place in places.items():
        config = config.replace(str(place), f"<{name}>")
    found = {"files": files_in(run), "config.yaml": config.splitlines(), "env.json": shape(read(run / "env.json"))}
    for path in run.glob("*.json"):
        content = read(path)
        found.setdefault(path.name, "as printed" if content == printed else shape(content))
    return found


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture in which the Haar detector finds the one painted face."""
    [face, *_] = paint_frames(6, ("happy",), 1, 160)
    scene = np.full((240, 320, 3), (90, 110, 130), np.uint8)
    scene[40:200, 80:240] = face
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    Image.fromarray(scene).save(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a painted face that goes from happy to sad."""
    import av

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for pixels in paint_frames(3, ("happy", "sad"), 10, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def sure_model(tmp_path_factory: pytest.TempPathFactory, write_linear_model: Callable[..., Path]) -> Path:
    """A classifier that finds everybody happy, so that a stream has events on every machine."""
    bias = np.array([5.0 * (label == "happy") for label in EMOTIONS], np.float32)
    weights = np.zeros((7, 16 * 16 * 3), np.float32)
    return write_linear_model(tmp_path_factory.mktemp("sure") / "sure.onnx", weights, bias)


HELP = """
import contextlib, io, json, sys
from deepfer_yolo.cli.app import COMMANDS, load, run

def names(command, words):
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from names(child, (*words, name))

every = [words for listed in COMMANDS.values() for name in listed for words in names(load(name), (name,))]
pages = {}
for words in [(), *every]:
    sys.argv = ["deepfer", *words, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as page:
        run()
    pages["-".join(("deepfer", *words))] = "".join(line.rstrip() + "\\n" for line in page.getvalue().splitlines())
print(json.dumps(pages))
"""


def test_help() -> None:
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH"}}
    environment = kept | {"COLUMNS": "80", "TERM": "dumb", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True, env=environment)
    pages = json.loads(done.stdout)
    assert len(pages) > 20
    if UPDATE:
        shutil.rmtree(SURFACE / "help", ignore_errors=True)
    if found := [text for name, page in pages.items() if (text := changes(f"help/{name}.txt", page))]:
        pytest.fail("what users see has changed:\n" + "\n".join(found), pytrace=False)
    assert {path.stem for path in (SURFACE / "help").iterdir()} == set(pages), "help that no command has"


def test_python_names_and_configuration_keys() -> None:
    import deepfer_yolo
    from deepfer_yolo import config, recipe, servers

    sections = {
        name: value
        for name, value in (vars(config) | vars(recipe) | vars(servers)).items()
        if name.endswith("Config") and name != "Config"
    }
    defaults = {name: section().model_dump(mode="json") for name, section in sections.items()}
    check_json("python", {"names": sorted(deepfer_yolo.__all__), "configuration": defaults})


def test_doctor(deepfer: Deepfer) -> None:
    report = answer(deepfer("doctor", "--json", "--sizes"), 0, 1)
    report |= {"extras": {name: ["missing"] for name in report["extras"]}, "problems": ["one"]}
    check_json("doctor", shape(report))


def test_convert_and_the_data_set_folder(deepfer: Deepfer, painted_csv: Path, tmp_path: Path) -> None:
    printed = answer(deepfer("convert", painted_csv, "data", "--json"))
    found = {
        "printed": shape(printed),
        "dataset.json": shape(read(tmp_path / "data/dataset.json")),
        "manifest.csv": header(tmp_path / "data/manifest.csv"),
        "files": sorted({re.sub(r"[^/]+\.png", "<name>.png", name) for name in files_in(tmp_path / "data")}),
    }
    check_json("convert", found)


def test_audit(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    clean = answer(deepfer("audit", painted_dataset, "--json"), 0, 3)
    shutil.copytree(painted_dataset, tmp_path / "dirty")
    train, val = (sorted((tmp_path / "dirty" / split).rglob("*.png")) for split in ("train", "val"))
    train[0].write_bytes(b"no picture")
    Image.new("L", (48, 48), 90).save(train[1])
    shutil.copyfile(val[0], train[2])
    shutil.copyfile(train[3], train[-1])
    words = ("--with-model", linear_model, "--faces", "--detector", "haar", "--against", painted_dataset)
    dirty = answer(deepfer("audit", "dirty", "--json", *words, "--quarantine", "out.csv", "--report", "audit.html"), 3)
    check_json("audit", {"clean": shape(clean), "dirty": shape(dirty), "quarantine": header(tmp_path / "out.csv")})


def test_review(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    from deepfer_yolo.data.corrections import write_corrections
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.decisions import Decision, now

    row = open_dataset(painted_dataset).rows("train")[0]
    said = (("sad", "Ada", ()), ("fear", "Bob", ("blind",)), ("sad", "Ada", ("repeat",)))
    decisions = [
        Decision(row.path, row.sha256, row.split, row.label, new, who, "", how, 0.5, now()) for new, who, how in said
    ]
    write_corrections(tmp_path / "corrections.csv", decisions)
    unsettled = answer(deepfer("review", painted_dataset, "--report", "--json"))
    write_corrections(tmp_path / "corrections.csv", [replace(decisions[0], reviewer="Bob")])
    settled = answer(deepfer("review", painted_dataset, "--report", "--json"))
    found = shape(unsettled, settled)
    check_json("review", {"report": found, "corrections": header(tmp_path / "corrections.csv")})


def test_train(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-cls.yaml").write_text(TINY)
    plan = answer(deepfer("train", painted_dataset, *RECIPE, "--dry-run", "--json"))
    printed = answer(deepfer("train", painted_dataset, *RECIPE, "--name", "r", "--json"))
    run = tmp_path / "runs/train/r"
    found = run_folder(run, printed, dataset=painted_dataset, folder=tmp_path)
    found |= {"plan": shape(plan), "printed": shape(printed), "results.csv": header(run / "results.csv")}
    check_json("train", found | {"card": shape(read(run / "weights/best.json"))})


@pytest.mark.slow
def test_cross_validation(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-cls.yaml").write_text(TINY)
    printed = answer(deepfer("train", painted_dataset, *RECIPE, "--folds", "3", "--name", "r", "--json"))
    check_json("train-folds", {"printed": shape(printed), "files": files_in(tmp_path / "runs")})


def test_tune(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-cls.yaml").write_text(TINY)
    (tmp_path / "recipe.yaml").write_text("imgsz: 32\nbatch: 35\nthreads: 1\n")
    (tmp_path / "space.yaml").write_text("space:\n  lr0: {low: 0.001, high: 0.1, log: true}\n")
    words = ("--model", "tiny-cls.yaml", "--config", "recipe.yaml", "--space", "space.yaml", "--epochs", "1")
    printed = answer(deepfer("tune", painted_dataset, *words, "--trials", "2", "--name", "t", "--json"))
    found = run_folder(tmp_path / "runs/tune/t", printed, dataset=painted_dataset, folder=tmp_path)
    check_json("tune", {"printed": shape(printed), **found})


def test_evaluate_compare_and_runs(
    deepfer: Deepfer,
    painted_dataset: Path,
    linear_model: Path,
    exported: Path,
    tmp_path: Path,
) -> None:
    model = ("-m", linear_model, "--json", "--name")
    plain = answer(deepfer("evaluate", painted_dataset, *model, "plain"))
    every = ("--clean", "--by", "source_id", "--robustness", "--tta", "flip", "--save-plots", "--split", "test")
    full = answer(deepfer("evaluate", painted_dataset, *model, "full", *every))
    runs = tmp_path / "runs"
    found = {"plain": shape(plain), "full": shape(full), "run": run_folder(runs / "evaluate/plain", plain)}
    full_run = runs / "evaluate/full"
    found |= {"predictions.csv": header(full_run / "predictions.csv"), "files": files_in(full_run)}
    check_json("evaluate", found)
    compared = answer(deepfer("compare", linear_model, exported, "--data", painted_dataset, "--name", "c", "--json"))
    check_json("compare", {"printed": shape(compared), "run": run_folder(runs / "compare/c", compared)})
    listed = answer(deepfer("runs", "list", "--json"))
    shown = answer(deepfer("runs", "show", "compare/c", "--json"))
    differing = answer(deepfer("runs", "diff", "evaluate/plain", "evaluate/full", "--json"))
    found = {"list": sorted({key for row in listed for key in row}), "show": sorted(shown)}
    top1 = shape(differing["metrics"]["top1"])
    found["diff"] = {"sections": sorted(differing), "config": differing["config"], "top1": top1}
    check_json("runs", found)


def test_gate(
    deepfer: Deepfer,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def answers(right: float) -> list[int]:
        return [i % 7 if (i // 7) % 50 < round(50 * right) else (i + 1) % 7 for i in range(350)]

    write_answer_sheets(tmp_path / "sheets", [i % 7 for i in range(350)], [answers(0.6), answers(0.8), answers(0.4)])
    for name, k in (("champion", 0), ("better", 1), ("worse", 2)):
        write_sheet_reader(tmp_path / f"{name}.onnx", k)
    (tmp_path / "rules.yaml").write_text(
        "class_drop: true\nsuperiority: true\nmax_latency_ratio: 1000\nmax_latency_ms: 10000\n"
        "max_size_ratio: 10\nmax_size_mb: 10\nmust_not_break: list.txt\nfloors: {top1: 0.1, macro_f1: 0.1}\n"
    )
    (tmp_path / "list.txt").write_text("test/angry/00000.png\n")
    gate = ("gate", "sheets", "--json", "-m")
    first = answer(deepfer(*gate, "champion.onnx", "--promote", "titles", "--name", "first"))
    passed = answer(deepfer(*gate, "better.onnx", "--promote", "titles", "--config", "rules.yaml", "--name", "pass"))
    failed = answer(deepfer(*gate, "worse.onnx", "--champion", "champion.onnx", "--name", "fail"), 3)
    twin = ("champion.onnx", "--champion", "champion.onnx", "--superiority", "--name", "open")
    unclear = answer(deepfer(*gate, *twin), 5)
    runs = tmp_path / "runs/gate"
    found = {"pass": shape(passed), "run": run_folder(runs / "pass", passed)}
    for name, result in {"first": first, "fail": failed, "inconclusive": unclear}.items():
        found[name] = {key: shape(result[key], key=key) for key in ("verdict", "exit_code", "rules")}
        found[name]["keys"] = sorted(result)
    found["history.jsonl"] = shape(*json_lines(tmp_path / "titles/history.jsonl"))
    found["junit.xml"] = [[node.tag, *sorted(node.attrib)] for node in ET.parse(runs / "fail/junit.xml").iter()]
    names = files_in(tmp_path / "titles")
    found["promoted"] = sorted({re.sub(r"\d{4}-[0-9a-f]{12}", "<release>", name) for name in names})
    check_json("gate", found)
    check("gate-summary.md", re.sub(r"\d+(\.\d+)?", "0", (runs / "pass/summary.md").read_text(encoding="utf-8")))


def test_model_files(deepfer: Deepfer, checkpoint: Path, painted_dataset: Path, tmp_path: Path) -> None:
    import onnx

    words = ("--out", "made.onnx", "--data", painted_dataset, "--pictures", "56", "--triton", "triton", "--json")
    made = answer(deepfer("export", checkpoint, *words))
    carried = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "made.onnx")).metadata_props}
    check_json("export", {"printed": shape(made), "metadata": sorted(carried), "triton": files_in(tmp_path / "triton")})
    check_json("verify", shape(answer(deepfer("verify", "made.onnx", "--json"))))
    check_json("parity", shape(answer(deepfer("parity", checkpoint, "made.onnx", "--data", painted_dataset, "--json"))))
    words = ("--pictures", "28", "--json")
    check_json("parity-painted", shape(answer(deepfer("parity", checkpoint, "made.onnx", *words))))
    quick = ("--rounds", "2", "--calls", "2", "--batch", "1", "--json")
    check_json("benchmark", shape(answer(deepfer("benchmark", "made.onnx", "made.onnx", *quick))))
    shutil.copyfile(checkpoint, tmp_path / "stock.pt")
    words = ("--colour", "grey", "--native-px", "48", "--dataset", painted_dataset, "--json")
    check_json("card", shape(answer(deepfer("card", "stock.pt", *words))))
    shipped = {row["name"]: row for row in answer(deepfer("models", "list", "--json"))}
    shipped.pop("onnxruntime-web")  # there or not, as npm was there to fetch it
    check_json("models", {name: shape(row) for name, row in shipped.items()})
    cards = {"exported": json.loads(carried["deepfer"]), "sidecar": read(tmp_path / "stock.json")}
    for name, row in shipped.items():
        if row["kind"] == "shipped" and name.endswith(".onnx"):
            [text] = [entry.value for entry in onnx.load(row["path"]).metadata_props if entry.key == "deepfer"]
            cards[name] = json.loads(text)
        elif row["kind"] == "shipped":
            cards[name] = read(Path(row["path"]).with_suffix(".json"))
    check_json("card-documents", {name: shape(card) for name, card in cards.items()})


def test_predict(deepfer: Deepfer, linear_model: Path, portrait: Path, tmp_path: Path) -> None:
    for i, face in enumerate(paint_faces(3, 3)[0]):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    pictures = ("0.png", "1.png", "broken.png")
    found: dict[str, Any] = {}
    for name, words in {"crops": pictures, "faces": (portrait, "2.png", "--faces", "--detector", "haar")}.items():
        lines = deepfer("predict", *words, "-m", linear_model, "--json").stdout.splitlines()
        found[name] = [shape(json.loads(line)) for line in lines]
        table = deepfer("predict", *words, "-m", linear_model, "--format", "csv").stdout
        found[f"{name}, csv"] = table.splitlines()[0].split(",")
    check_json("predict", found)


def samples_of(text: str) -> dict[str, list[str]]:
    """Prometheus samples: the names of their labels, and the types of the families."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines():
        if kind := re.match(r"# TYPE (\w+) (\w+)", line):
            found[f"{kind[1]}, {kind[2]}"] |= set()
        elif sample := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found[sample[1]] |= set(re.findall(r'(\w+)="', sample[2] or ""))
    return {name: sorted(labels) for name, labels in found.items()}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def webhook(metrics_port: int) -> Iterator[tuple[str, list[Any], dict[str, list[str]]]]:
    """A server that keeps the requests it gets, and looks at the metrics of who sends until all of them are there."""
    requests: list[Any] = []
    samples: dict[str, list[str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = sorted(name for name in self.headers if name.lower().startswith("x-") or name == "Content-Type")
            requests.append({"headers": headers, "body": body})
            deadline = time.monotonic() + 4
            while not samples.get("deepfer_age_seconds") and time.monotonic() < deadline:
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as reply:
                    samples.update(samples_of(reply.read().decode()))
                time.sleep(0.01)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", requests, samples
    server.shutdown()
    server.server_close()


@contextmanager
def broker() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """An MQTT 3.1.1 broker for one client that only publishes; it keeps the messages."""
    messages: list[tuple[str, Any]] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with suppress(OSError), connection, connection.makefile("rb") as wire:  # the client may leave before an answer
            while head := wire.read(1):
                length, shift, byte = 0, 0, 128
                while byte & 128:
                    byte = wire.read(1)[0]
                    length, shift = length | (byte & 127) << shift, shift + 7
                body = wire.read(length)
                if head[0] >> 4 == 1:
                    connection.sendall(b"\x20\x02\x00\x00")
                elif head[0] >> 4 == 3:
                    end = 2 + int.from_bytes(body[:2], "big")
                    has_number = bool(head[0] & 6)
                    messages.append((body[2:end].decode(), json.loads(body[end + 2 * has_number :])))
                    if has_number:
                        connection.sendall(b"\x40\x02" + body[end : end + 2])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}/home", messages
    thread.join(10)
    listener.close()


def by_kind(records: Iterable[Any]) -> dict[str, Any]:
    """The shape of the records of each kind."""
    kinds = defaultdict(list)
    for record in records:
        kinds[record["kind"]].append(record)
    return {kind: shape(*several) for kind, several in kinds.items()}


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that signs what a webhook gets."""
    monkeypatch.setenv("DEEPFER_WEBHOOK_SECRET", "s")


@pytest.mark.usefixtures("secret")
def test_stream(deepfer: Deepfer, clip: Path, sure_model: Path, tmp_path: Path) -> None:
    port = free_port()
    with webhook(port) as (url, requests, samples), broker() as (mqtt, messages):
        targets = (f"webhook={url}", f"mqtt={mqtt}", f"prometheus={port}", "jsonl=out.jsonl", "csv=out.csv")
        sinks = [word for target in targets for word in ("--sink", target)]
        words = ("--detector", "whole", "--max-frames", "20", "--min-confidence", "0.1", "--stall", "30")
        sources = (clip, "testsrc=size=96x64:rate=20")
        done = deepfer("stream", *sources, "-m", sure_model, *sinks, *words, "--stats-json", "stats.jsonl", "--json")
        summary = answer(done)
    assert deepfer("stream", clip, "-m", sure_model, "--detector", "whole", "--sink", "snapshots=seen").returncode == 0
    seen = [re.sub(r"\d+", "0", name) for name in files_in(tmp_path / "seen")]
    found = {
        "summary": shape(summary),
        "jsonl": by_kind(json_lines(tmp_path / "out.jsonl")),
        "csv": header(tmp_path / "out.csv"),
        "stats": shape(json_lines(tmp_path / "stats.jsonl")[-1]),
        "webhook": shape(*(request["body"] for request in requests), key="webhook"),
        "webhook headers": requests[0]["headers"],
        "mqtt": by_kind(record for _, record in messages),
        "mqtt topics": sorted({topic.replace(topic.split("/")[1], "<source>") for topic, _ in messages}),
        "prometheus": samples,
        "snapshots": sorted({re.sub(r"-\w+\.jpg$", "-<label>.jpg", name) for name in seen}),
    }
    check_json("stream", found)


def test_serve(start_server: Callable[..., Any], sure_model: Path, portrait: Path, clip: Path) -> None:
    import httpx
    from websockets.sync.client import connect

    served = start_server(sure_model, "--source", "testsrc=size=96x64:rate=10", detector="whole")
    picture, broken = ("a.png", portrait.read_bytes()), ("files", b"x")
    found: dict[str, Any] = {}
    with httpx.Client(base_url=served.url, timeout=30) as client:
        document = client.get("/openapi.json").json()
        document["info"]["version"] = "<version>"
        check_json("openapi", document)
        calls: dict[str, Callable[[], Any]] = {
            "POST /v1/predict": lambda: client.post("/v1/predict", files=[("files", picture)]),
            "POST /v1/predict?faces": lambda: client.post("/v1/predict?faces=true", files=[("files", picture)]),
            "POST /v1/predict, one broken": lambda: client.post("/v1/predict", files=[("files", picture), broken]),
            "POST /v1/predict, all broken": lambda: client.post("/v1/predict", files=[broken]),
            "POST /v1/video": lambda: client.post("/v1/video", files=[("files", ("a.mp4", clip.read_bytes()))]),
            "GET /v1/model": lambda: client.get("/v1/model"),
            "GET /healthz": lambda: client.get("/healthz"),
            "GET /readyz": lambda: client.get("/readyz"),
            "GET /nowhere": lambda: client.get("/nowhere"),
        }
        for name, call in calls.items():
            reply = call()
            kind = reply.headers["content-type"]
            found[name] = {"status": reply.status_code, "type": kind, "body": shape(reply.json())}
        with connect(f"ws://127.0.0.1:{served.port}/v1/camera") as camera:
            camera.send(picture[1])
            found["WS /v1/camera"] = shape(json.loads(camera.recv(30)))
        deadline = time.monotonic() + 60
        while not (sources := client.get("/v1/sources").json())["sources"][0]["faces"]:
            assert time.monotonic() < deadline, sources
            time.sleep(0.05)
        found["GET /v1/sources"] = shape(sources)
        found["GET /metrics"] = samples_of(client.get("/metrics").text)
    check_json("serve", found)


@pytest.mark.slow
def test_demo(deepfer: Deepfer, tmp_path: Path) -> None:
    found = answer(deepfer("demo", "--out", "demo", "--json"))
    files = [name for name in files_in(tmp_path / "demo") if not name.startswith("data/")]
    check_json("demo", {"printed": shape(found), "files": files})
