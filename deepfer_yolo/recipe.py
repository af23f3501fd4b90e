"""The settings of training: a recipe, and the search for a better one, declared as config.py declares all others."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from deepfer_yolo.config import GroupBy
from deepfer_yolo.errors import listed
from deepfer_yolo.presets import Config, Count, Hours, Seed, Share, Texts, key


class TrainConfig(Config):
    """`deepfer train`; names follow Ultralytics'. Shares are of the image's side, angles are degrees."""

    data: str | None = key(None, "A data set folder, as `deepfer convert` writes it.")
    model: str | None = key(
        None,
        "yolo11n-cls, yolo26n-cls, yolov8n-cls (or s, m, l, x), a .pt or a .yaml file.",
        shown="the shipped deepfer-n.pt",
        flags="--model -m",
    )
    pretrained: str | None = key(
        None,
        "A checkpoint whose matching layers are the start, of a network with fewer blocks too.",
        shown="from scratch for a bare name",
    )
    soup: Texts = key((), "A checkpoint whose weights are averaged into the start (a model soup); may be repeated.")
    epochs: Count = key(20, "Passes over the training split.")
    imgsz: int = key(64, "Side of the network's input in pixels: a multiple of 16.", ge=32, le=640, multiple_of=16)
    batch: int = key(128, "Images a step.", ge=2)
    device: str = key("cpu", "cpu, mps, the number of a GPU, or several: 0,1.")
    threads: int = key(2, "Threads of the CPU.", ge=1, le=256)
    seed: Seed = key(0, "Seed of everything random.")
    precision: Literal["auto", "fp32", "bf16"] = key("auto", "fp32, bf16, or auto: bf16 where the hardware has it.")
    fitness: Literal["top1", "macro_f1"] = key("top1", "What picks best.pt: top1 or macro_f1.")
    judge: Literal["label", "votes"] = key(
        "label", "What val is judged by: its labels, or the clear winner of its votes, without images that have none."
    )
    cache: Literal["auto", "ram", "files"] = key("auto", "Keep decoded images in ram, decode files each time, or auto.")
    time: Hours | None = key(None, "Train this long instead of --epochs: 1.5h, 90m, or hours.")
    logger: Literal["tensorboard", "mlflow", "wandb"] | None = key(
        None, "Also log to tensorboard, mlflow or wandb, if installed."
    )
    # The optimiser: a linear warm-up, then down to lr0 * lrf.
    optimizer: Literal["sgd", "adamw"] = key("sgd", "sgd with Nesterov momentum, or adamw.")
    lr0: float = key(0.01, "Learning rate after the warm-up.", gt=0)
    lrf: float = key(0.01, "Least learning rate, as a share of lr0.", gt=0, le=1)
    lr_decay: float = key(1.0, "Learning rate of each layer, as a share of the next one's.", gt=0, le=1)
    schedule: Literal["cosine", "linear", "plateau"] = key(
        "cosine", "How the learning rate falls: cosine by epoch, linear by step, or plateau."
    )
    plateau_epochs: Count = key(3, "plateau: epochs without a better one before the rate falls.")
    plateau_factor: float = key(0.3, "plateau: what the rate is multiplied by.", gt=0, lt=1)
    momentum: float = key(0.9, "Momentum of sgd, beta 1 of adamw.", ge=0, lt=1)
    weight_decay: float = key(5e-4, "Weight decay.", ge=0)
    warmup_epochs: float = key(1.0, "Epochs in which the rate rises to lr0.", ge=0)
    ema_epochs: float = key(1.0, "Epochs that the average of the weights looks back on.", gt=0)
    dropout: float = key(0.0, "Share of the features that are dropped before the last layer.", ge=0, lt=1)
    patience: int = key(0, "Stop after N epochs without a better one; 0 never.", ge=0)
    freeze: int = key(0, "Keep the first N layers as they are.", ge=0)
    freeze_share: Share = key(1.0, "Share of the epochs, from the first, in which freeze holds.")
    val_from: Share = key(0.0, "Share of the epochs that pass before the first validation; the last is always judged.")
    # What is reduced, and which images are drawn.
    loss: Literal["ce", "focal", "logit_adjust"] = key("ce", "ce, focal, or logit_adjust: by class frequency.")
    logit_tau: float = key(1.0, "logit_adjust: the power of the class frequency (Menon et al., 2021).", ge=0, le=2)
    label_smoothing: float = key(0.1, "Share of each target that is spread over all labels.", ge=0, lt=1)
    focal_gamma: float = key(2.0, "focal: the exponent (Lin et al., 2017).", ge=0)
    class_weights: Literal["none", "sqrt", "balanced"] = key("none", "Weights of the loss by class frequency.")
    sampling: Literal["natural", "sqrt", "balanced"] = key("natural", "How often images of rare classes are drawn.")
    votes: bool = key(False, "Learn the votes of the manifest as soft labels.", shown="")
    label_votes: float = key(0.0, "votes: votes that the label itself counts as, where an annotator agrees.", ge=0)
    vote_evidence: Share = key(0.0, "Share of each target from what the votes say about the data set's own label.")
    teacher: Texts = key((), "A checkpoint whose answers are learned too (distillation); repeated, their mean.")
    teacher_share: float = key(0.5, "Share of the loss that the teachers have.", gt=0, le=1)
    teacher_temperature: float = key(2.0, "Temperature that softens the teachers' answers.", gt=0)
    teacher_view: Literal["same", "clean", "still"] = key(
        "same", "What teachers see: the same image, it without the sensor, or, once for all, it unmoved and unspoilt."
    )
    exclude: str | None = key(None, "A quarantine list of `deepfer audit`: training images to leave out.")
    corrections: str | None = key(
        None, "Corrections of deepfer review to training images; val and test stay as they are.", metavar="CSV"
    )
    allow_leak: bool = key(False, "Go on where the model has learned images that are to judge it.", shown="")
    folds: int | None = key(None, "Cross-validate: deal all images anew to K folds, one run each.", ge=3, le=100)
    fold: int | None = key(None, "Train only this one of the folds.", ge=1, le=100)
    group_by: GroupBy = key(
        "auto", "What a fold must not tear apart: subject, duplicate, none, or auto: subjects where known, and copies."
    )
    # Augmentation: light, since a face of 48 pixels loses its expression under ImageNet's.
    fliplr: Share = key(0.5, "Chance of a mirror image.")
    degrees: float = key(10.0, "Rotation, to either side.", ge=0, le=180)
    translate: float = key(0.1, "Shift, to either side.", ge=0, le=0.9)
    scale: float = key(0.2, "Zoom, in or out.", ge=0, lt=1)
    shear: float = key(0.0, "Shear in degrees, to either side.", ge=0, le=45)
    brightness: Share = key(0.2, "Lighter or darker by up to this share of the range.")
    contrast: Share = key(0.2, "More or less contrast by up to this share.")
    gamma: float = key(0.0, "Gamma up to 1 + this, or down to its inverse.", ge=0, le=2)
    blur: Share = key(0.0, "Largest share of a Gaussian blur of 1 px.")
    noise: float = key(0.0, "Largest deviation of the noise, as a share of the range.", ge=0, le=0.5)
    surround: Share = key(0.0, "Chance that another image, not the edge, fills what a shift lays bare.")
    erasing: Share = key(0.2, "Chance of a rectangle that is wiped out.")
    mixup: float = key(0.2, "Alpha of mixup; 0: none.", ge=0)
    cutmix: Share = key(0.0, "Chance of cutmix in place of mixup.")
    margin: float = key(0.0, "More of the surroundings, up to this share on each side.", ge=0, le=1)
    # A simulated camera (train/sensor.py); pixels are those of a face of 48, stops are powers of two of light.
    sensor: Share = key(0.0, "Chance that an image passes a simulated camera, whose stages the next keys bound.")
    stage_chance: Share = key(0.28, "sensor: chance of each stage but colour's for an image that passes the camera.")
    least_face_px: int | None = key(None, "sensor: least side to which a face is reduced.", ge=8, le=48)
    defocus_px: float = key(0.0, "sensor: largest radius of defocus.", ge=0, le=6)
    motion_px: float = key(0.0, "sensor: longest path of motion blur.", ge=0, le=16)
    sharpen: float = key(0.0, "sensor: largest share of over-sharpening.", ge=0, le=4)
    dark_stops: float = key(0.0, "sensor: least light, in stops below the image's.", ge=0, le=8)
    bright_stops: float = key(0.0, "sensor: most light, in stops above the image's.", ge=0, le=4)
    shot_noise: float = key(0.0, "sensor: largest shot noise at full light, as a share of it.", ge=0, le=0.5)
    read_noise: float = key(0.0, "sensor: largest read noise, as a share of full light.", ge=0, le=0.5)
    least_quality: int | None = key(None, "sensor: least JPEG quality.", ge=1, le=95)
    ghost_px: float = key(0.0, "sensor: largest distance of a second, weaker image.", ge=0, le=8)
    dead_pixels: Share = key(0.0, "sensor: largest share of pixels that are black or white.")
    banding: Share = key(0.0, "sensor: deepest bands of flickering light.")
    warp_px: float = key(0.0, "sensor: largest sway of a moving head or a rolling shutter.", ge=0, le=8)
    shade: Share = key(0.0, "sensor: deepest shadow across the face.")
    haze: Share = key(0.0, "sensor: thickest veil, as a share of the image.")
    covering: Share = key(0.0, "sensor: largest share of a side that something covers.")
    any_filter: float = key(0.0, "sensor: largest share of a filter of random taps.", ge=0, le=2)
    texture: Share = key(0.0, "sensor: largest deviation of a random texture, as a share of the range.")
    hidden: Share = key(0.0, "sensor: largest share of the area, of any form, that a texture hides.")
    tone_curve: Share = key(0.0, "sensor: largest deviation of a random curve of tones, as a share of the range.")
    colour_cast: Share = key(0.0, "sensor: largest gain or loss of one colour.")
    grey_conversion: Share = key(0.0, "sensor: chance of grey by weights drawn anew, from colour images.")
    start_imgsz: int | None = key(None, "Side of the input in the first epochs.", shown="imgsz", ge=32, multiple_of=16)
    start_share: Share = key(0.5, "Share of the epochs that run at start_imgsz.")

    @model_validator(mode="after")
    def _ends_judged(self) -> TrainConfig:
        if self.val_from and self.time is not None:
            raise ValueError("val_from needs a known number of epochs, and time has none: leave one of them out")
        return self

    def idle_keys(self) -> list[str]:
        """Lines on the keys that are set and do nothing for want of another one."""
        needs = {"a teacher": ("teacher_", bool(self.teacher)), "sensor": ("sensor: ", self.sensor > 0)}
        lines = []
        for need, (mark, is_there) in needs.items():
            idle = [
                name
                for name, field in type(self).model_fields.items()
                if (name.startswith(mark) or (field.description or "").startswith(mark))
                and getattr(self, name) != field.default
            ]
            if idle and not is_there:
                lines.append(f"without {need} nothing comes of {listed(idle)}")
        return lines

    @property
    def n_runs(self) -> int:
        """How many trainings the recipe asks for: one, or one a fold."""
        return self.folds if self.folds is not None and self.fold is None else 1


class Range(Config):
    """Values from `low` to `high`, both included; whole numbers where both are; `log` draws their logarithm evenly."""

    low: int | float = key(..., "Least value.")
    high: int | float = key(..., "Largest value.")
    log: bool = key(False, "Draw the logarithm evenly.")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 where log is set")
        return self


class Choices(Config):
    """One of these values."""

    choices: tuple[str | int | float | bool | None, ...] = key(..., "The values.", min_length=2)


class TuneConfig(Config):
    """`deepfer tune`."""

    trials: Count = key(20, "Trials in all, those before an interruption included.")
    time: Hours | None = key(None, "Begin no trial after this long: 8h, 90m, or hours.", shown="no limit")
    seed: Seed = key(0, "Seed of the search; the trainings keep the recipe's.")
    startup_trials: Count = key(5, "First trials, which are random; none is ended early before them.")
    prune_after_epochs: int = key(2, "Epochs after which a trial may be ended early.", ge=0)
    storage: str | None = key(
        None,
        "Share the search among several of these commands: sqlite:///FILE on one machine, "
        "postgresql://USER@HOST/DATABASE on many.",
        shown="the run's folder, for one",
        envvar="DEEPFER_STORAGE",
    )
    study: str = key("tune", "storage: the search's name there.", min_length=1)
    heartbeat_s: int = key(
        30, "storage: seconds between a worker's signs of life; after four its trial is begun anew.", ge=1, le=3600
    )
    space: dict[str, Range | Choices] = key({}, "What is searched: a range or choices for each key of the recipe.")
