"""Fixtures that many tests share: painted data, and the folder of real data where there is one."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from deepfer_yolo.emotions import EMOTIONS, canonical_label
from deepfer_yolo.errors import EXTRA_OF_MODULE
from deepfer_yolo.painted import paint_csv, paint_faces
from deepfer_yolo.records import Image

# A property holds or does not; how long an example takes is for the machine to say, and a busy one says too long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent

TINY = """nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [64, False, 0.25]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2PSA, [128]]
head:
  - [-1, 1, Classify, [nc]]
"""
"""One layer of each kind that yolo26n-cls has: what it can do, export and quantise in a tenth of the time."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, for them and their child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> Iterator[None]:
    """Child processes get the default signals, also where the tests run as a job in the background, whose shell ignores
    SIGINT.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGQUIT", signal.SIGTERM))
    ignored = {number for number in numbers if signal.getsignal(number) is signal.SIG_IGN}
    for number in ignored:
        # A child inherits that a signal is ignored, but no handler; one that does nothing keeps this process as deaf as
        # it was.
        signal.signal(number, lambda *_: None)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers) if hasattr(signal, "pthread_sigmask") else set()
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if blocked:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with FER2013 and other material that is never part of the repository."""
    folder = Path(os.environ.get("DEEPFER_SHARED", ROOT.parent / "shared"))
    if not (folder / "datasets").is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def yunet(shared_dir: Path) -> Path:
    """The YuNet file."""
    path = shared_dir / "models" / "face_detection_yunet_2023mar.onnx"
    if not path.is_file():
        pytest.skip("no YuNet file")
    return path


@pytest.fixture(scope="session")
def crowd(shared_dir: Path) -> Callable[..., Image]:
    """`crowds.crowd` of the people in the example image."""
    if not (shared_dir / "media" / "zidane.jpg").is_file():
        pytest.skip("no example image")
    spec = importlib.util.spec_from_file_location("crowds", ROOT / "tests" / "crowds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return functools.partial(module.crowd, shared_dir / "media")


@pytest.fixture(scope="session")
def group_photo(crowd: Callable[..., Image]) -> Image:
    """36 people, 1600×1200, with faces of 50 to 110 pixels."""
    return crowd(1200, 1600, 4, 9, 36, (50, 110))


@pytest.fixture(scope="session")
def painted_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 training, 56 validation and 28 test faces in FER2013's csv form."""
    path = tmp_path_factory.mktemp("csv") / "painted.csv"
    paint_csv(path, seed=7, n_train=140, n_val=56, n_test=28)
    return path


@pytest.fixture(scope="session")
def painted_dataset(painted_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set folder that `deepfer convert` makes of `painted_csv`. Treat it as read-only."""
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert

    target = tmp_path_factory.mktemp("dataset") / "painted"
    convert(painted_csv, target, ConvertConfig())
    return target


@pytest.fixture(scope="session")
def write_linear_model() -> Callable[..., Path]:
    """A function that writes a small real classifier: softmax of weights (C, S·S·3) times pixels / 255, plus bias (C,),
    as ONNX with a card.
    """

    def write(
        path: Path,
        weights: NDArray[np.float32],
        bias: NDArray[np.float32],
        labels: Sequence[str] = EMOTIONS,
        name: str = "linear",
    ) -> Path:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        from deepfer_yolo.runtime.card import Card, InputSpec
        from deepfer_yolo.runtime.model_file import attach

        size = round((weights.shape[1] / 3) ** 0.5)
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
            helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
        ]
        values = [
            numpy_helper.from_array((weights / 255).astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])
        probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", len(labels)])
        model = helper.make_model(
            helper.make_graph(nodes, "linear", [image], [probs], values), opset_imports=[helper.make_opsetid("", 17)]
        )
        model.ir_version = 9
        card = Card(name=name, labels=tuple(labels), input=InputSpec(size=size, colour="grey"))
        onnx.save(model, str(path))
        attach(card, path)
        return path

    return write


@pytest.fixture(scope="session")
def fitted_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (7, 24·24·3) and bias of a logistic regression on painted faces: better than chance, far from perfect."""
    from sklearn.linear_model import LogisticRegression

    faces, labels = paint_faces(seed=11, n=1400, size=24)
    fitted = LogisticRegression(C=0.05, max_iter=60, tol=1e-2).fit(faces.reshape(len(faces), -1) / 255.0, labels)
    spread = np.repeat(fitted.coef_ / 3, 3, axis=1)
    return spread.astype(np.float32), fitted.intercept_.astype(np.float32)


@pytest.fixture(scope="session")
def linear_model(
    tmp_path_factory: pytest.TempPathFactory,
    write_linear_model: Callable[..., Path],
    fitted_weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> Path:
    """An ONNX classifier of painted faces that opens in milliseconds. Treat it as read-only."""
    return write_linear_model(tmp_path_factory.mktemp("linear") / "linear.onnx", *fitted_weights)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock YOLO-cls checkpoint (32 px, seven labels) with its card beside it; random weights, but sharp answers.

    Treat it as read-only.
    """
    import torch

    from deepfer_yolo.runtime.card import Card, InputSpec, write_sidecar
    from deepfer_yolo.yolo import build_model

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "tiny-cls.yaml").write_text(TINY)
    network = build_model(str(folder / "tiny-cls.yaml"), len(EMOTIONS))
    network.names = dict(enumerate(EMOTIONS))
    network.args = {"imgsz": 32}
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    faces = torch.from_numpy(paint_faces(seed=5, n=70, size=32)[0]).float()[:, None].expand(-1, 3, -1, -1) / 255
    with torch.no_grad():
        # Normalisation that has seen data keeps the signal of random layers alive; the last layer then answers
        # decidedly.
        network.train()(faces)
        network.eval().model[-1].linear.weight.mul_(10)
    path = folder / "best.pt"
    torch.save({"model": network.half(), "ema": None, "train_args": {"imgsz": 32}}, path)
    write_sidecar(Card(name="random", labels=EMOTIONS, input=InputSpec(size=32, colour="grey", native_px=48)), path)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX export of `checkpoint`, with card, golden answers and parity on painted faces. Treat it as read-only."""
    from deepfer_yolo.config import ExportConfig
    from deepfer_yolo.export.export import export_model

    return export_model(
        checkpoint, ExportConfig(pictures=140), out=tmp_path_factory.mktemp("exported") / "best.onnx"
    ).path


@pytest.fixture(scope="session")
def write_answer_sheets() -> Callable[..., Path]:
    """A function that writes a data set whose pictures carry answers: row k of an 8×8 picture is bright at the label
    that model k gives.

    `write(folder, truth, answers)` takes label indices, (n,) and one (n,) a model; see `write_sheet_reader` for the
    models.
    """

    def write(
        folder: Path,
        truth: Sequence[int],
        answers: Sequence[Sequence[int]],
        split: str = "test",
        subjects: Sequence[str] = (),
        votes: Sequence[str] = (),
        labels: Sequence[str] = EMOTIONS,
    ) -> Path:
        from PIL import Image as PillowImage

        from deepfer_yolo.data.dataset import Description, Row, register
        from deepfer_yolo.files import sha256_of

        rows = []
        for i, label in enumerate(truth):
            picture = np.zeros((8, 8), np.uint8)
            for k, given in enumerate(answers):
                picture[k, given[i]] = 200
            picture[7] = [i >> bit & 1 for bit in range(8)]  # no two pictures alike, invisible to the readers
            path = f"{split}/{labels[label]}/{i:05d}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(picture).save(folder / path)
            subject, vote = subjects[i] if subjects else "", votes[i] if votes else ""
            rows.append(Row(path, split, labels[label], str(i), subject, sha256_of(folder / path), vote))
        register(rows, Description(name="sheets", labels=tuple(labels), fingerprint=""), folder)
        return folder

    return write


@pytest.fixture(scope="session")
def write_sheet_reader(write_linear_model: Callable[..., Path]) -> Callable[..., Path]:
    """A function `write(path, k, labels=EMOTIONS)` for the model that answers what row k of an answer sheet says, with
    99 % confidence.
    """

    def write(path: Path, k: int, labels: Sequence[str] = EMOTIONS, sharpness: float = 8.0) -> Path:
        weights = np.zeros((len(labels), 8, 8, 3), np.float32)
        for c, label in enumerate(labels):
            if (meant := canonical_label(label)) in EMOTIONS:
                weights[c, k, EMOTIONS.index(meant)] = sharpness / 3 * 255 / 200
        return write_linear_model(
            path, weights.reshape(len(labels), -1), np.zeros(len(labels), np.float32), labels, name=path.stem
        )

    return write


@pytest.fixture(scope="session")
def correct() -> Callable[..., Path]:
    """A function `correct(file, dataset, {path: new label}, who="Ada", how=())` that appends a reviewer's decisions."""
    from deepfer_yolo.data.corrections import write_corrections
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.decisions import Decision

    def write(file: Path, dataset: Path, said: dict[str, str], who: str = "Ada", how: Sequence[str] = ()) -> Path:
        rows = {row.path: row for row in open_dataset(dataset).all_rows}
        decisions = []
        for path, new in said.items():
            row, time = rows[path], "2026-11-28T02:10:16Z"
            about = (row.path, row.sha256, row.split, row.label, new)
            decisions.append(Decision(*about, reviewer=who, how=tuple(how), time=time))
        write_corrections(file, decisions)
        return file

    return write


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and all that it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def deepfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A function that runs the whole program on its words inside this process, with `tmp_path` as working directory."""
    from deepfer_yolo.cli.app import run as program

    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["deepfer", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            program()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: its address, process and log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rstrip("/").rpartition(":")[2])


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    server {{
        listen 127.0.0.1:{port};
        location {prefix}/ {{
            proxy_pass {target};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            {more}
            client_max_body_size 64m;
        }}
    }}
}}
"""


@pytest.fixture(scope="session")
def start_nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """A function that puts a real nginx before a server, which publishes it under a prefix; `cuts` says whether the
    server sees paths without it. Returns the published URL.
    """
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("no nginx here; Debian: apt-get install -y nginx-light")
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str, prefix: str, *, cuts: bool, more: str = "") -> str:
        folder = tmp_path_factory.mktemp("nginx")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        target = url if cuts else url.rstrip("/")
        text = NGINX.format(folder=folder, port=port, prefix=prefix, target=target, more=more)
        (folder / "nginx.conf").write_text(text)
        processes.append(subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf"]))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return f"http://127.0.0.1:{port}{prefix}/"
            time.sleep(0.05)
        pytest.fail("nginx did not start")

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def hiding() -> Callable[..., dict[str, str]]:
    """A function that gives the environment of a Python that has none of the extras' modules but those of the extras
    `kept`; what hides them lies in `folder`.
    """

    def environment(folder: Path, *kept: str) -> dict[str, str]:
        hidden = [module for module, extra in EXTRA_OF_MODULE.items() if extra not in kept]
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n")
        return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "80"}

    return environment


@pytest.fixture(scope="session")
def start_process() -> Iterator[Callable[..., Served]]:
    """A function that starts `deepfer` on its words in a folder and waits until its log names an address."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, *words: object, environment: Mapping[str, str] = os.environ) -> Served:
        command = [sys.executable, "-m", "deepfer_yolo", *map(str, words)]
        environment = {key: value for key, value in environment.items() if key != "DEEPFER_TOKEN"}
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, cwd=folder, env=environment)
        processes.append(process)
        deadline = time.monotonic() + 60
        while (found := re.search(r" at (http://\S+)", (folder / "log.txt").read_text())) is None:
            assert process.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        return Served(found[1], process, folder / "log.txt")

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def start_server(
    tmp_path_factory: pytest.TempPathFactory, start_process: Callable[..., Served]
) -> Callable[..., Served]:
    """A function that starts `deepfer serve` on a free port of this machine and waits until it answers; keywords are
    keys of its configuration.
    """

    def start(model: Path, *words: object, **settings: object) -> Served:
        folder = tmp_path_factory.mktemp("serve")
        (folder / "serve.yaml").write_text(json.dumps({"port": 0, "detector": "haar", **settings}))
        return start_process(folder, "serve", "-m", model, "--config", folder / "serve.yaml", *words)

    return start


@pytest.fixture(scope="session")
def start_review(start_process: Callable[..., Served]) -> Callable[..., Served]:
    """A function that starts `deepfer review` in a folder on a free port; its address holds the token."""

    def start(folder: Path, dataset: Path, *words: object) -> Served:
        return start_process(folder, "review", dataset, "--port", 0, *words)

    return start


@pytest.fixture(scope="session")
def start_files() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder by nothing but `python -m http.server`, and returns its address."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> str:
        words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        process.stdout.close()
        found = re.search(r"port (\d+)", said)
        assert found is not None, said
        return f"http://127.0.0.1:{found[1]}/"

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


TICKS = """import mmap, os, struct, sys, time
parent = os.getppid()
with open(sys.argv[1], "r+b") as file:
    shared, ticks = mmap.mmap(file.fileno(), 8), 0
while os.getppid() == parent:
    time.sleep(0.01)
    ticks += 1
    struct.pack_into("q", shared, 0, ticks)
"""


@pytest.fixture(scope="session")
def stopwatch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Callable[[], float]]]:
    """A function that starts a stopwatch, which tells the seconds that the machine has given since.

    Another process counts sleeps of 10 ms, so on a machine that others keep busy it stands still as often as the tests
    do, and a limit that the product promises can be asserted there too. What the tests themselves keep busy does not
    stop it.
    """
    path = tmp_path_factory.mktemp("stopwatch") / "ticks"
    path.write_bytes(bytes(8))
    counter = subprocess.Popen([sys.executable, "-c", TICKS, str(path)])

    def ticks() -> int:
        return int.from_bytes(path.read_bytes(), sys.byteorder)

    def start() -> Callable[[], float]:
        began = ticks()
        return lambda: (ticks() - began) * 0.01

    while not ticks():
        time.sleep(0.01)
    yield start
    counter.kill()
    counter.wait()


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an H.264 clip of `times` (seconds), each frame a ramp of a brightness of its own; never
    black.
    """

    def make(
        name: str = "clip.mp4",
        times: Sequence[float] = tuple(i / 25 for i in range(25)),
        size: tuple[int, int] = (96, 64),
        **options: Any,
    ) -> Path:
        import av

        path = tmp_path / name
        with av.open(str(path), "w", options=options.pop("container", {})) as container:
            stream = container.add_stream(
                options.pop("codec", "libx264"), rate=25, options={"preset": "ultrafast", "g": "5"}
            )
            stream.width, stream.height = size
            stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
            stream.codec_context.time_base = Fraction(1, 12800)
            assert not options, options
            for index, time_s in enumerate(times):
                shades = 40 + (index * 7) % 200 + np.linspace(-40, 15, size[0])
                grey = np.ascontiguousarray(
                    np.broadcast_to(shades.astype(np.uint8)[None, :, None], (size[1], size[0], 3))
                )
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = round(time_s * 12800), Fraction(1, 12800)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
