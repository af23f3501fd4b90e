"""The one place that knows Ultralytics: its environment, safe checkpoint loading, and the names of it that we use.

The environment is set before the import: without it Ultralytics sends telemetry, looks up its servers, downloads fonts and weights, and
installs the modules that a checkpoint names.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends import Backend
from deepfer_yolo.runtime.card import Card, read_sidecar
from deepfer_yolo.runtime.classifier import Classifier


def _private_config_dir() -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepfer" / "ultralytics"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return tempfile.mkdtemp(prefix="deepfer-ultralytics-")
    return str(cache) if os.access(cache, os.W_OK) else tempfile.mkdtemp(prefix="deepfer-ultralytics-")


os.environ.update(
    YOLO_OFFLINE="1",
    YOLO_AUTOINSTALL="false",
    YOLO_VERBOSE="false",
    ULTRALYTICS_SAFE_LOAD="1",
    ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS="1",
    YOLO_CONFIG_DIR=_private_config_dir(),
)

try:
    import torch
    from ultralytics.nn.tasks import ClassificationModel, torch_safe_load
    from ultralytics.utils import SETTINGS
except ModuleNotFoundError as error:
    raise MissingDependencyError.for_extra("train", error.name or "ultralytics") from None

_OFF = ("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb", "openvino_msg")
if any(SETTINGS.get(key) for key in _OFF):
    SETTINGS.update({key: False for key in _OFF if key in SETTINGS})


def load_checkpoint(path: Path) -> ClassificationModel:
    """The network inside a `.pt` file, on the CPU, in float32 and evaluation mode.

    Loads with `weights_only`: nothing in the file is executed, installed or fetched. Raises ModelError for anything but a YOLO
    classification checkpoint.
    """
    path = path.resolve()
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}", "check the path")
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (TypeError, RuntimeError, KeyError, AttributeError, EOFError) as error:
        raise ModelError(f"{path} is not a checkpoint that can be loaded safely: {str(error).splitlines()[0]}") from None
    model = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, ClassificationModel):
        raise ModelError(f"{path} holds no YOLO classification model but {type(model).__name__}", "train one with: deepfer train")
    return model.float().eval()


class TorchBackend:
    """A `.pt` checkpoint on a torch device, with the card from its sidecar."""

    provider = "torch"

    def __init__(self, path: Path, *, threads: int = 1, device: str = "cpu") -> None:
        self.card: Card = read_sidecar(path)
        self.threads = threads
        self.device = torch.device(device)
        self.model = load_checkpoint(path).to(self.device)
        names = tuple(self.model.names[i] for i in range(len(self.model.names)))
        if names != self.card.labels:
            raise ModelError(
                f"{path}: the card's labels {self.card.labels} are not the checkpoint's {names}", f"deepfer card {path} writes a new one"
            )

    @torch.inference_mode()
    def run(self, crops: Crops) -> Probs:
        torch.set_num_threads(self.threads)
        images = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        logits = self.model(images)[1]
        probs: Probs = (logits / self.card.temperature).softmax(1).cpu().numpy()
        return probs


class TorchClassifier(Classifier):
    """The same verbs as `Classifier` for a stock Ultralytics `.pt` whose card lies beside it as `<stem>.json`."""

    def _open(self, path: Path, provider: str, threads: int) -> Backend:
        device = {"cpu": "cpu", "cuda": "cuda:0"}.get(provider, provider)
        return TorchBackend(path, threads=threads, device=device)
