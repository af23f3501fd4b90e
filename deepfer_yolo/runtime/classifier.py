"""The one class that every command receives: crops in, probabilities out, whatever the file format."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepfer_yolo.errors import ModelError
from deepfer_yolo.records import Crops, Image, Probs
from deepfer_yolo.runtime.backends.protocol import Backend, check_crops, open_backend
from deepfer_yolo.runtime.card import SCHEMA_VERSION, Card
from deepfer_yolo.runtime.formats import library_of
from deepfer_yolo.runtime.model_file import locate
from deepfer_yolo.runtime.preprocess import to_inputs

OLD_CARD = (
    "note: {0} is of before cards had a digest: nothing shows whether its card was changed "
    "(deepfer card {0} --renew writes one)"
)


def open_model(path: Path, provider: str, threads: int, *, spin: bool = False) -> Backend:
    """The backend of a model file, by the one door; see `opened_file` and `meet`.

    Raises ModelError where file and provider do not go together, MissingDependencyError for a library or device that is
    not there.
    """
    file = opened_file(path, provider)
    meet(file, provider)
    return open_backend(file, provider, threads, spin=spin)


def opened_file(path: Path, provider: str) -> Path:
    """The file that the provider really opens: `path`, or for TensorRT the engine that this machine has of it."""
    library_of(path, provider)
    if provider != "tensorrt":
        return path
    from deepfer_yolo.runtime.backends.tensorrt import require_driver
    from deepfer_yolo.runtime.engine_cache import engine_of

    require_driver()
    return engine_of(path, prove=_prove_engine) if path.suffix == ".onnx" else path


def meet(file: Path, provider: str, timeout_s: float | None = None) -> None:
    """Let a child process open the file first, where a native library could end this one.

    All but onnxruntime on the processor: that one is what everything here is tested on, and every command pays for its
    start.
    """
    if (file.suffix, provider) != (".onnx", "cpu"):
        from deepfer_yolo.runtime.first_contact import ensure_contact

        ensure_contact(file, provider, timeout_s)


def _prove_engine(engine: Path) -> None:
    """Raise ModelError unless a new engine answers the golden inputs as its card says."""
    from deepfer_yolo.runtime.golden import check_golden

    result = check_golden(Classifier(engine, provider="tensorrt"))
    if not result.passed:
        raise ModelError(
            f"the TensorRT engine answers otherwise than the card says ({result.difference})",
            "run it on another provider, or export from the checkpoint: deepfer export MODEL.pt --format engine",
        )


class Classifier:
    """An exported model, opened by suffix and ready to run.

    >>> classifier = Classifier("deepfer-n.onnx")
    >>> probs = classifier.predict(crops)        # uint8 (n, S, S, 3) RGB -> float32 (n, C)

    `path` is the file, or the folder of a format that has several. `provider` is `cpu`, `cuda`, `tensorrt` or
    `openvino`; `threads` is the number of intra-op threads, of which one is the best choice for single faces beside
    other work. With `spin` the threads of onnxruntime keep their cores while a call runs: several threads then help a
    single face too, which is over before a sleeping one has woken. Raises ModelError for a file that cannot be used and
    MissingDependencyError for a provider or library that is not there.
    """

    def __init__(self, path: str | Path, *, provider: str = "cpu", threads: int = 1, spin: bool = False) -> None:
        self.path = locate(Path(path))
        self._backend = self._open(self.path, provider, threads, spin)
        if self.card.schema_version < SCHEMA_VERSION:
            print(OLD_CARD.format(self.path), file=sys.stderr)

    def _open(self, path: Path, provider: str, threads: int, spin: bool) -> Backend:
        return open_model(path, provider, threads, spin=spin)

    @property
    def card(self) -> Card:
        """The model's card."""
        return self._backend.card

    @property
    def labels(self) -> tuple[str, ...]:
        """Class labels in the order of the probabilities."""
        return self._backend.card.labels

    @property
    def provider(self) -> str:
        """What really runs the model, such as ``cpu``."""
        return self._backend.provider

    def predict(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), for crops that are uint8 RGB (n, S, S, 3).

        Raises ValueError for any other shape or type, and ModelError where the answer is no number.
        """
        check_crops(crops, self._backend.card)
        if len(crops) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        probs = self._backend.run(crops)
        if not math.isfinite(probs.sum()):
            raise ModelError(
                f"{self.path} answers with NaN or infinite probabilities: its weights are broken",
                f"deepfer verify {self.path}",
            )
        return probs

    def predict_images(self, images: Sequence[Image]) -> Probs:
        """Probabilities, float32 (n, C), for face images of any size, uint8 RGB (H, W, 3) each."""
        return self.predict(to_inputs(images, self.card.input))
