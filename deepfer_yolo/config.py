"""Every default of the program; `presets.py` turns a preset, a file and flags into one of these sections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from deepfer_yolo.presets import configs_dir as configs_dir
from deepfer_yolo.presets import find_preset as find_preset
from deepfer_yolo.presets import key_of as key_of
from deepfer_yolo.presets import read_yaml as read_yaml
from deepfer_yolo.presets import resolve as resolve
from deepfer_yolo.presets import to_yaml as to_yaml

Split = Literal["train", "val", "test"]


def _hours(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([hms]?)", value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    return float(match[1]) / {"": 1, "h": 1, "m": 60, "s": 3600}[match[2]]


Hours = Annotated[float, BeforeValidator(_hours), Field(gt=0, le=10_000)]
"""A duration in hours: a number as Ultralytics takes it, or a text such as ``1.5h``, ``90m`` or ``30s``."""


class Config(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FaceConfig(Config):
    """How faces are found, in `predict --faces`, `audit --faces`, `stream` and all of `serve` alike.

    A detection of `min_score` is a face: it is shown in a single image and begins a track in a video; down to
    `carry_score` it only carries on a track. `detect_size_px` is the longer side, in pixels, of what the detector sees;
    None: what `faces/detect.py` has for images and videos.
    """

    detector: Literal["auto", "yunet", "haar", "whole"] = "auto"
    face_model: Path | None = None
    detect_size_px: int | None = Field(None, ge=32, le=4096)
    min_score: float = Field(0.7, ge=0, le=1)

    @property
    def carry_score(self) -> float:
        """The least score that carries on a track: a known face turns away or blurs, but where it is expected a false
        detection is rare.
        """
        return 0.5 * self.min_score


class ConvertConfig(Config):
    """`deepfer convert`.

    `split` is official, as-is or shares such as train=0.8,val=0.1,test=0.1; None: official where there is one, else
    those.
    """

    layout: str = "auto"
    name: str | None = None
    split: str | None = None
    group_by: Literal["auto", "subject", "duplicate", "none"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    map: dict[str, str] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    labels: Literal["original", "ferplus-majority", "ferplus-votes"] = "original"
    ferplus: Path | None = None
    drop_unknown: bool = False
    margin: float = Field(0.0, ge=-0.5, le=2.0)
    exclude: Path | None = None
    workers: int = Field(2, ge=1, le=64)


FindingKind = Literal[
    "unreadable", "left-out", "blank", "dark", "bright", "blurred", "low-entropy", "tiny", "odd-aspect",
    "duplicate", "leak", "conflict", "near-duplicate", "near-leak", "near-conflict", "subject-leak",
    "missing-class", "missing-split", "few", "imbalance", "split-ratio", "vote-disagreement", "label-error",
    "face-none", "face-several", "face-small", "drift-classes", "drift-brightness", "drift-contrast", "drift-sharpness",
]  # fmt: skip


class AuditConfig(FaceConfig):
    """`deepfer audit`: the thresholds behind each finding, 0 to 255 for grey values.

    `severity` replaces a finding's own; `allow` is the share of all pictures up to which a finding is only a note;
    `quarantine` names the findings whose pictures a quarantine list leaves out.
    """

    fail_on: Literal["error", "warning", "never"] = "error"
    severity: dict[FindingKind, Literal["error", "warning", "note"]] = Field(default_factory=dict)
    allow: dict[FindingKind, float] = Field(default_factory=dict)
    quarantine: tuple[FindingKind, ...] = ("unreadable", "blank", "duplicate", "leak", "conflict", "near-leak")
    min_per_class: int = Field(20, ge=1)
    max_imbalance: float = Field(20.0, ge=1)
    min_share: float = Field(0.02, ge=0, lt=1)
    min_contrast: float = Field(4.0, ge=0)
    min_brightness: float = Field(20.0, ge=0, le=255)
    max_brightness: float = Field(235.0, ge=0, le=255)
    min_sharpness: float = Field(3.0, ge=0)
    min_entropy_bits: float = Field(3.0, ge=0, le=8)
    min_px: int = Field(24, ge=1)
    max_aspect: float = Field(2.0, ge=1)
    near_radius_bits: int = Field(14, ge=0, le=24)
    near_correlation: float = Field(0.9, gt=0, le=1)
    max_drift: float = Field(0.5, gt=0)
    max_class_shift: float = Field(0.1, gt=0, le=1)
    min_face: float = Field(0.3, ge=0, le=1)
    detector: Literal["auto", "yunet", "haar"] = "auto"
    workers: int = Field(2, ge=1, le=64)


class TrainConfig(Config):
    """`deepfer train`; names follow Ultralytics where it has one.

    Shares are of the picture's side, angles are degrees.
    """

    data: str | None = None
    model: str | None = None
    pretrained: str | None = None
    epochs: int = Field(20, ge=1)
    imgsz: int = Field(64, ge=32, le=640, multiple_of=32)
    batch: int = Field(128, ge=2)
    device: str = "cpu"
    threads: int = Field(2, ge=1, le=256)
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    fitness: Literal["top1", "macro_f1"] = "top1"
    # Where the decoded pictures are kept; `files` decodes them anew for every batch, and so does `auto` where they do
    # not fit the memory.
    cache: Literal["auto", "ram", "files"] = "auto"
    # `time`, in hours, replaces `epochs`: the schedule then ends when the time does. `logger` is opt-in.
    time: Hours | None = None
    logger: Literal["tensorboard", "mlflow", "wandb"] | None = None
    # The optimiser: SGD with Nesterov momentum, or AdamW; a linear warm-up, then down to lr0 * lrf: by a cosine, or
    # times plateau_factor after plateau_epochs without a better one. `lr_decay` is the rate of each layer as a share of
    # that of the layer above it.
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr0: float = Field(0.01, gt=0)
    lrf: float = Field(0.01, gt=0, le=1)
    lr_decay: float = Field(1.0, gt=0, le=1)
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_epochs: int = Field(3, ge=1)
    plateau_factor: float = Field(0.3, gt=0, lt=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    ema_epochs: float = Field(1.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(0, ge=0)
    freeze: int = Field(0, ge=0)
    # What is reduced, and which pictures are drawn. `votes` takes the manifest's votes as soft labels where a picture
    # has any; `vote_evidence` is the share of each target that comes from what the votes say about the data set's own
    # label.
    loss: Literal["ce", "focal", "logit_adjust"] = "ce"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    focal_gamma: float = Field(2.0, ge=0)
    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    sampling: Literal["natural", "sqrt", "balanced"] = "natural"
    votes: bool = False
    vote_evidence: float = Field(0.0, ge=0, le=1)
    teacher: tuple[str, ...] = ()
    teacher_share: float = Field(0.5, gt=0, le=1)
    teacher_temperature: float = Field(2.0, gt=0)
    exclude: str | None = None
    allow_leak: bool = False
    # Cross-validation: all rows dealt anew to `folds` parts; `fold` trains a single one of them.
    folds: int | None = Field(None, ge=3, le=100)
    fold: int | None = Field(None, ge=1, le=100)
    group_by: Literal["auto", "subject", "duplicate", "none"] = "auto"
    # Augmentation: light, since a face of 48 pixels loses its expression under ImageNet's.
    fliplr: float = Field(0.5, ge=0, le=1)
    degrees: float = Field(10.0, ge=0, le=180)
    translate: float = Field(0.1, ge=0, le=0.9)
    scale: float = Field(0.2, ge=0, lt=1)
    shear: float = Field(0.0, ge=0, le=45)
    brightness: float = Field(0.2, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, le=1)
    gamma: float = Field(0.0, ge=0, le=2)
    blur: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, le=0.5)
    surround: float = Field(0.0, ge=0, le=1)
    erasing: float = Field(0.2, ge=0, le=1)
    mixup: float = Field(0.2, ge=0)
    cutmix: float = Field(0.0, ge=0, le=1)
    # Progressive resolution: the first share of the epochs runs at this side; None keeps imgsz throughout.
    start_imgsz: int | None = Field(None, ge=32, multiple_of=16)
    start_share: float = Field(0.5, ge=0, le=1)


class Range(Config):
    """Values from `low` to `high`, both included; whole numbers where both are; `log` draws their logarithm evenly."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 where log is set")
        return self


class Choices(Config):
    """One of these values."""

    choices: tuple[str | int | float | bool | None, ...] = Field(min_length=2)


class TuneConfig(Config):
    """`deepfer tune`: `startup_trials` are random and never pruned, `prune_after_epochs` of every trial are safe;
    `time` in hours.
    """

    trials: int = Field(20, ge=1)
    time: Hours | None = None
    seed: int = Field(0, ge=0, lt=2**31)
    startup_trials: int = Field(5, ge=1)
    prune_after_epochs: int = Field(2, ge=0)
    space: dict[str, Range | Choices] = {}


class ScoringConfig(Config):
    """How models are scored on a split and how sure the figures are, in `evaluate`, `gate` and `compare` alike.

    `workers` threads decode, `threads` run the model; `replicates` and `seed` are those of the bootstrap.
    """

    split: Split = "val"
    batch: int = Field(64, ge=1)
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(2, ge=1, le=64)
    replicates: int = Field(2000, ge=100, le=100_000)
    seed: int = Field(0, ge=0)
    labels: Literal["same", "intersect"] = "same"
    allow_leak: bool = False


class EvaluateConfig(ScoringConfig):
    """`deepfer evaluate`.

    `pictures` is how many mistakes the report shows, `occlusion` how many of them get a map of what decided; `by` is a
    column of the manifest.
    """

    pictures: int = Field(24, ge=0, le=500)
    occlusion: int = Field(6, ge=0, le=100)
    tta: Literal["none", "flip"] = "none"
    by: tuple[str, ...] = ()
    exclude: str | None = None
    clean: bool = False
    robustness: bool = False
    robustness_pictures: int = Field(1000, ge=10)
    save_plots: bool = False


class Floors(Config):
    """What a challenger must reach by itself, shares of 1; `recall` by label; `ece` is a ceiling."""

    top1: float | None = Field(None, ge=0, le=1)
    macro_f1: float | None = Field(None, ge=0, le=1)
    recall: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    ece: float | None = Field(None, ge=0, le=1)

    def shares(self) -> dict[str, float]:
        """The floors of headline figures that are set."""
        return {key: value for key, value in (("top1", self.top1), ("macro_f1", self.macro_f1)) if value is not None}


class GateConfig(ScoringConfig):
    """`deepfer gate`. `margin` is in shares of top-1; ratios are challenger to champion; `max_latency_ms` is of a
    single crop on this machine, and the limits in ms and MB hold without a champion too; `must_not_break` names a file
    of picture paths.
    """

    split: Split = "test"
    margin: float = Field(0.02, gt=0, le=0.5)
    superiority: bool = False
    class_drop: bool = False
    floors: Floors = Floors()
    max_latency_ratio: float | None = Field(None, gt=0)
    max_size_ratio: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_size_mb: float | None = Field(None, gt=0)
    must_not_break: str | None = None


class CompareConfig(ScoringConfig):
    """`deepfer compare`."""


class ExportConfig(Config):
    """`deepfer export`.

    `batch` None makes the number of pictures dynamic; `pictures` bounds those of the parity run, `calibration` those of
    int8.
    """

    format: Literal["onnx", "openvino", "engine", "ncnn", "torchscript", "litert", "tflite"] = "onnx"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    opset: int = Field(17, ge=13, le=20)
    batch: int | None = Field(None, ge=1, le=1024)
    split: Split = "val"
    pictures: int = Field(4000, ge=1)
    calibration: int = Field(512, ge=32, le=4096)
    version_compatible: bool = False


class ParityConfig(Config):
    """`deepfer parity`. `precision` None takes the candidate's own."""

    split: Split = "val"
    pictures: int = Field(4000, ge=1)
    precision: Literal["fp32", "fp16", "int8"] | None = None
    provider: str = "cpu"


class BenchmarkConfig(Config):
    """`deepfer benchmark`.

    Each round gives every model its turn, so that a noisy machine hits all alike; `timeout_s` ends a child that hangs.
    """

    threads: int = Field(1, ge=1, le=256)
    batch: tuple[int, ...] = (1, 32)
    provider: str = "cpu"
    rounds: int = Field(7, ge=1, le=1000)
    calls: int = Field(20, ge=1, le=100_000)
    timeout_s: float = Field(120.0, gt=0)


class PredictConfig(FaceConfig):
    """`deepfer predict`."""

    batch: int = Field(64, ge=1, le=4096)
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(1, ge=1, le=64)
    provider: str = "cpu"
    format: Literal["table", "jsonl", "csv"] = "table"
    faces: bool = False
    detector: Literal["auto", "yunet", "haar"] = "auto"


class StreamConfig(FaceConfig):
    """`deepfer stream`.

    Times in seconds; `policy` None chooses: lossless where a source's end is known, else latest.
    """

    detect_every: int = Field(1, ge=1, le=1000)
    provider: str = "cpu"
    threads: int = Field(1, ge=1, le=64)
    policy: Literal["latest", "bounded", "lossless"] | None = None
    max_age_s: float = Field(0.5, gt=0, le=60)
    retries: int | None = Field(None, ge=0)
    open_timeout_s: float = Field(10.0, gt=0, le=300)
    read_timeout_s: float = Field(10.0, gt=0, le=300)
    stall_s: float = Field(3.0, gt=0, le=300)
    frozen_s: float = Field(10.0, gt=0, le=3600)
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    max_frames: int | None = Field(None, ge=1)
    max_seconds: float | None = Field(None, gt=0)
    fail_fast: bool = False
    lost_s: float = Field(1.0, ge=0, le=60)
    smooth_s: float = Field(0.6, gt=0, le=60)
    hold_s: float = Field(0.25, ge=0, le=60)
    margin: float = Field(0.08, ge=0, le=1)
    min_confidence: float = Field(0.4, ge=0, le=1)
    anonymise: bool = False
    show: bool = False
    overwrite: bool = False
    allow_host: tuple[str, ...] = ()
    input_options: dict[str, str] = {}
    max_bytes: int = Field(100_000_000, ge=1000)
    keep: int = Field(5, ge=1, le=1000)


class ServeConfig(FaceConfig):
    """`deepfer serve`.

    Times in seconds where the name does not say; `rate_per_s` is requests a second of one client, 0 without a limit.
    """

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    token: str | None = None
    allow_host: tuple[str, ...] = ()
    provider: str = "cpu"
    threads: int = Field(1, ge=1, le=64)
    # Batching: crops that arrive together are labelled together.
    max_batch: int = Field(32, ge=1, le=1024)
    max_wait_ms: float = Field(2.0, ge=0, le=1000)
    # Decoding: processes of their own, with a limit on what they may allocate beyond their libraries.
    workers: int = Field(2, ge=1, le=64)
    worker_memory_mb: int = Field(512, ge=64)
    decode_timeout_s: float = Field(10.0, gt=0, le=600)
    video_timeout_s: float = Field(120.0, gt=0, le=3600)
    # What one request may hold.
    max_body_mb: float = Field(64.0, gt=0, le=2000)
    max_pictures: int = Field(64, ge=1, le=10_000)
    max_megapixels: float = Field(24.0, gt=0, le=200)
    max_video_s: float = Field(60.0, gt=0, le=3600)
    video_fps: float = Field(10.0, gt=0, le=60)
    # What all clients together, or one of them, may ask for.
    max_uploads: int = Field(64, ge=1, le=10_000)
    max_memory_mb: float = Field(512.0, gt=0)
    max_cameras: int = Field(4, ge=0, le=1000)
    max_connections: int = Field(256, ge=1, le=100_000)
    rate_per_s: float = Field(100.0, ge=0)
    burst: int = Field(200, ge=1)
    head_timeout_s: float = Field(10.0, gt=0, le=600)
    body_timeout_s: float = Field(60.0, gt=0, le=3600)
    stop_timeout_s: float = Field(10.0, gt=0, le=600)
