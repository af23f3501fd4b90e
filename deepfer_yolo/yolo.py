"""The one place that knows Ultralytics: its environment, safe checkpoint loading, and the names of it that we use.

The environment is set before the import: without it Ultralytics sends telemetry, looks up its servers, downloads fonts
and weights, and installs the modules that a checkpoint names.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.emotions import can_rename
from deepfer_yolo.errors import ConfigError, MissingDependencyError, ModelError, did_you_mean
from deepfer_yolo.presets import read_yaml
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.protocol import Backend
from deepfer_yolo.runtime.card import Card, another_card, pack_hashes
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import cache_dir, checked_sidecar


def _private_config_dir() -> str:
    cache = cache_dir() / "ultralytics"
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    return str(cache) if os.access(cache, os.W_OK) else tempfile.mkdtemp(prefix="deepfer-ultralytics-")


os.environ.update(
    YOLO_OFFLINE="1",
    YOLO_AUTOINSTALL="false",
    YOLO_VERBOSE="false",
    ULTRALYTICS_SAFE_LOAD="1",
    ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS="1",
    YOLO_CONFIG_DIR=_private_config_dir(),
)

# Threads that wait must sleep: spinning ones made training many times slower wherever another process wanted the same
# two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PILLOW_OPEN = PillowImage.open

try:
    import torch
    from torch import distributed
    from torch.nn import functional
    from ultralytics.models.yolo.classify import ClassificationTrainer, ClassificationValidator
    from ultralytics.nn.modules.block import C2f
    from ultralytics.nn.modules.conv import RepConv
    from ultralytics.nn.tasks import ClassificationModel, torch_safe_load
    from ultralytics.utils import LOCAL_RANK, LOGGER, RANK, ROOT, SETTINGS, WORLD_SIZE
    from ultralytics.utils.callbacks import get_default_callbacks
    from ultralytics.utils.metrics import ClassifyMetrics
    from ultralytics.utils.torch_utils import strip_optimizer
except ModuleNotFoundError as error:
    raise MissingDependencyError.for_extra("train", error.name or "ultralytics") from None

# Ultralytics replaces Pillow's open by one that, at the first broken image, tries to install a HEIF reader.
PillowImage.open = _PILLOW_OPEN

_OFF = (
    "sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb", "openvino_msg",
)  # fmt: skip
if any(SETTINGS.get(key) for key in _OFF):
    SETTINGS.update({key: False for key in _OFF if key in SETTINGS})
LOGGER.setLevel("ERROR")

__all__ = [
    "LOCAL_RANK", "RANK", "TRAINED_HASHES", "WORLD_SIZE", "ClassificationModel", "ClassificationTrainer",
    "ClassificationValidator", "ClassifyMetrics", "RepConv", "TorchBackend", "TorchClassifier", "build_layers",
    "build_model", "count_parameters", "first_convolution", "labels_of", "load_checkpoint", "look_at_one_plane",
    "packaged_models", "ranks_on_cpu", "read_checkpoint", "remember", "strip_optimizer", "tensorboard_is_open",
    "trained_hashes", "trainer_callbacks", "transfer", "without_hashes",
]  # fmt: skip

_PACKAGED = re.compile(r"(?P<family>yolo(?:v8|11|12|26))-cls\.yaml")


def packaged_models() -> dict[str, tuple[Path, str]]:
    """Ultralytics' own architectures by bare name, such as ``yolo11n-cls``: the yaml file and the scale letter."""
    names: dict[str, tuple[Path, str]] = {}
    for path in sorted((ROOT / "cfg" / "models").glob("*/*-cls.yaml")):
        if match := _PACKAGED.fullmatch(path.name):
            names |= {f"{match['family']}{scale}-cls": (path, scale) for scale in read_yaml(path)["scales"]}
    return names


def build_model(spec: str, n_classes: int) -> ClassificationModel:
    """A network with fresh weights from a bare name or a yaml file; never a download.

    Raises ConfigError that names the nearest known name, and ModelError for a yaml that is no classifier.
    """
    if spec.endswith((".yaml", ".yml")):
        source, scale = Path(spec), ""
        if not source.is_file():
            raise ModelError(f"no such model file: {source}", "check the path, or name a model without .yaml")
    else:
        known = packaged_models()
        if spec not in known:
            shown = ", ".join(name for name in known if name.endswith("n-cls"))
            raise ConfigError(
                f"unknown model '{spec}'{did_you_mean(spec, known)}",
                f"known: {shown}, their s, m, l and x sizes, or a .pt or .yaml file",
            )
        source, scale = known[spec]
    return build_layers({**read_yaml(source), "scale": scale, "yaml_file": Path(spec).name}, n_classes, source)


def build_layers(layers: Mapping[str, Any], n_classes: int, source: Path) -> ClassificationModel:
    """A network with fresh weights from the content of a yaml, or what a checkpoint of the path `source` has of it."""
    try:
        return ClassificationModel({**layers, "nc": n_classes}, nc=n_classes, ch=3, verbose=False)
    except Exception as error:  # the parser raises whatever the layer's constructor raises
        raise ModelError(
            f"{source} does not describe a classifier that Ultralytics can build: {type(error).__name__}: {error}"
        ) from None


def labels_of(model: ClassificationModel) -> tuple[str, ...]:
    """The labels of a network in the order of its classes."""
    return tuple(str(model.names[index]) for index in range(len(model.names)))


def count_parameters(model: ClassificationModel) -> int:
    """How many weights a network has."""
    return sum(parameter.numel() for parameter in model.parameters())


def transfer(weights: ClassificationModel, model: ClassificationModel) -> tuple[int, int]:
    """Copy the tensors of `weights` whose name and shape are those of `model`; return how many of how many layers
    matched.

    Where a C3k2 has more blocks in `model`, the convolution that joins them keeps its weights, and new blocks weigh
    nothing at first, so that a deeper network begins with the answers of the one it comes from. A layer counts by its
    filters or matrix: every head of ours has the same normalisation, which alone is no start.
    """
    source, target = dict(weights.state_dict()), model.state_dict()
    for name, block in model.named_modules():
        joins, width = f"{name}.cv2.conv.weight", f"{name}.cv1.conv.weight"
        if isinstance(block, C2f) and {joins, width} <= source.keys() and source[width].shape == target[width].shape:
            added = target[joins].shape[1] - source[joins].shape[1]
            source[joins] = functional.pad(source[joins], (0, 0, 0, 0, 0, max(0, added)))
    matching = {name: value for name, value in source.items() if name in target and value.shape == target[name].shape}
    model.load_state_dict(matching, strict=False)
    return sum(value.ndim > 1 for value in matching.values()), sum(value.ndim > 1 for value in target.values())


def first_convolution(network: torch.nn.Module) -> torch.nn.Conv2d:
    """The convolution that sees the image."""
    return next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))


def look_at_one_plane(model: ClassificationModel) -> None:
    """Let a network see the middle one of three equal planes alone, now and while it learns; its answers stay."""
    weight = first_convolution(model).weight
    seen = torch.zeros_like(weight)
    seen[:, 1] = 1
    with torch.no_grad():
        weight.copy_(seen * weight.sum(1, keepdim=True))
    weight.register_hook(lambda gradient: gradient * seen.to(gradient.device))  # type: ignore[no-untyped-call]


TRAINED_HASHES = "trained_hashes"
"""The attribute of a network that holds the hashes of the images it was trained on: an int64 tensor (n,), which stock
Ultralytics keeps.
"""


def trained_hashes(model: ClassificationModel, card: Card | None = None) -> NDArray[np.uint64] | None:
    """The hashes of the images that a network has learned, uint64 (n,): those it carries and those that its card
    names.

    None where neither knows. Raises ModelError for values that are no hashes.
    """
    held = getattr(model, TRAINED_HASHES, None)
    beside = None if card is None else card.learned
    if held is None:
        return beside
    if not isinstance(held, torch.Tensor) or held.dtype != torch.int64 or held.ndim != 1:
        raise ModelError(
            "the checkpoint's hashes of training images cannot be read", "the checkpoint was changed; train it again"
        )
    own = held.cpu().numpy().view(np.uint64)
    return own if beside is None else np.union1d(own, beside)


def remember(model: ClassificationModel, *hashes: NDArray[np.uint64] | None) -> None:
    """Let `model` carry all of `hashes`; every checkpoint of it then does. None adds nothing."""
    known = [part for part in hashes if part is not None]
    if known:
        setattr(model, TRAINED_HASHES, torch.from_numpy(np.unique(np.concatenate(known)).view(np.int64)))


@contextmanager
def ranks_on_cpu() -> Iterator[None]:
    """Let Ultralytics, whose DDP is for GPUs alone, spread over processors: no device has a number there, and gloo has
    no mean.
    """
    wrapper, reduce = torch.nn.parallel.DistributedDataParallel, distributed.reduce

    def wrapped(model: torch.nn.Module, device_ids: object, **words: Any) -> torch.nn.Module:
        return wrapper(model, **words)

    def mean(value: torch.Tensor, dst: int, op: object) -> None:
        reduce(value, dst=dst)
        value.div_(distributed.get_world_size())

    torch.nn.parallel.DistributedDataParallel, distributed.reduce = wrapped, mean  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.nn.parallel.DistributedDataParallel, distributed.reduce = wrapper, reduce  # type: ignore[misc]


def without_hashes(path: Path) -> bytes:
    """The checkpoint without the hashes that its networks carry, as the bytes of a new one."""
    checkpoint = read_checkpoint(path)
    for network in (checkpoint.get("model"), checkpoint.get("ema")):
        if network is not None and hasattr(network, TRAINED_HASHES):
            delattr(network, TRAINED_HASHES)
    made = io.BytesIO()
    torch.save(checkpoint, made)
    return made.getvalue()


def trainer_callbacks(logger: str | None) -> dict[str, list[Any]]:
    """Ultralytics' default callbacks by event, and those of a logger: tensorboard, mlflow or wandb."""
    callbacks: dict[str, list[Any]] = get_default_callbacks()
    if logger is not None:
        module = importlib.import_module(f"ultralytics.utils.callbacks.{'wb' if logger == 'wandb' else logger}")
        for event, function in module.callbacks.items():
            callbacks[event].append(function)
    return callbacks


def tensorboard_is_open() -> bool:
    """Whether Ultralytics' TensorBoard callback has a file to write to; it only warns where it has none."""
    from ultralytics.utils.callbacks import tensorboard

    return tensorboard.WRITER is not None


MAX_CHECKPOINT_BYTES = 2_000_000_000


def load_checkpoint(path: Path) -> ClassificationModel:
    """The network inside a `.pt` file, on the CPU, in float32 and evaluation mode.

    Raises ModelError for anything but a YOLO classification checkpoint; see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, ClassificationModel):
        raise _no_classifier(path, model)
    return model.float().eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a `.pt` file holds. Loads with `weights_only`: nothing in the file is executed, installed or fetched.

    Raises ModelError for a file that names anything but plain data and Ultralytics' own layers, or that is damaged.
    """
    path = path.resolve()
    if not path.is_file():
        what = f"{path} is a folder, not a checkpoint" if path.is_dir() else f"no such checkpoint: {path}"
        raise ModelError(what, "check the path; deepfer models lists the shipped models")
    if path.suffix != ".pt":
        raise ModelError(f"{path} is no checkpoint", "name a .pt file: no other has weights to train or learn from")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise ModelError(
            f"{path} is larger than {MAX_CHECKPOINT_BYTES // 1_000_000} MB", "no face classifier needs that much"
        )
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged or hostile archive can fail anywhere inside the unpickler
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        if not zipfile.is_zipfile(path):
            reason = "it is not a whole archive of PyTorch"
        hint = "the file is damaged, or no YOLO checkpoint: fetch it again, or train one with: deepfer train"
        raise ModelError(f"{path} is not a checkpoint that can be loaded safely: {reason}", hint) from None
    if not isinstance(checkpoint, dict):
        raise _no_classifier(path, checkpoint)
    return checkpoint


def _no_classifier(path: Path, content: object) -> ModelError:
    what = type(content).__name__
    return ModelError(f"{path} holds no YOLO classification model but {what}", "train one with: deepfer train")


class TorchBackend:
    """A `.pt` checkpoint on a torch device, with the card from its sidecar."""

    provider = "torch"

    def __init__(self, path: Path, *, threads: int = 1, device: str = "cpu") -> None:
        self.card: Card = checked_sidecar(path)
        self.threads = threads
        self.device = torch.device(device)
        self.model = self._load(path)

    def _load(self, path: Path) -> Any:
        model = load_checkpoint(path).to(self.device)
        hashes = trained_hashes(model, self.card)
        if hashes is not None:
            self.card = self.card.model_copy(update={"trained_hashes": pack_hashes(hashes)})
        labels = labels_of(model)
        # A card that names the file's bytes may give its labels other names: `deepfer card --labels` wrote it.
        if self.card.labels != labels and (self.card.file_sha256 is None or not can_rename(labels, self.card.labels)):
            raise ModelError(
                f"{path}: the card's labels {self.card.labels} are not the checkpoint's {labels}",
                another_card(path),
            )
        return model

    @torch.inference_mode()
    def run(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), for crops that are uint8 RGB (n, S, S, 3)."""
        torch.set_num_threads(self.threads)
        probs: Probs = self._probs(torch.from_numpy(crops).to(self.device)).cpu().numpy()
        return probs

    def _probs(self, crops: torch.Tensor) -> torch.Tensor:
        logits = self.model(crops.permute(0, 3, 1, 2).float().div_(255))[1]
        return torch.softmax(logits / self.card.temperature, 1)


class TorchScriptBackend(TorchBackend):
    """An exported `.torchscript`: uint8 images in, probabilities out, as in ONNX. Its card must name its bytes."""

    def _load(self, path: Path) -> Any:
        if self.card.file_sha256 is None:
            # TorchScript holds a program, so that only a file which our own export has vouched for is run.
            raise ModelError(
                f"{path}: its card has no file_sha256", "export it again with: deepfer export --format torchscript"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.jit.load(str(path), map_location=self.device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path} is not a TorchScript file: {str(error).splitlines()[0][:300]}") from None

    def _probs(self, crops: torch.Tensor) -> torch.Tensor:
        probs: torch.Tensor = self.model(crops)
        return probs


class TorchClassifier(Classifier):
    """The same verbs as `Classifier` for what needs torch: a `.pt` with its card beside it, and `.torchscript`."""

    def _open(self, path: Path, provider: str, threads: int, spin: bool) -> Backend:
        kind = TorchScriptBackend if path.suffix == ".torchscript" else TorchBackend
        device = {"cpu": "cpu", "cuda": "cuda:0"}.get(provider, provider)
        return kind(path, threads=threads, device=device)
