"""`deepfer demo`: the whole story on painted faces, offline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import JsonOption
from deepfer_yolo.config import AuditConfig, ConvertConfig, EvaluateConfig, ExportConfig, StreamConfig
from deepfer_yolo.errors import require
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import TrainConfig

if TYPE_CHECKING:
    from deepfer_yolo.data.audit.findings import AuditResult
    from deepfer_yolo.data.dataset import Description
    from deepfer_yolo.evaluate.evaluation import Evaluation
    from deepfer_yolo.export.export import ExportResult
    from deepfer_yolo.records import Image, Json
    from deepfer_yolo.stream.records import Summary
    from deepfer_yolo.train.results import TrainResult

N_TRAIN, N_VAL, N_TEST = 2100, 350, 700
PRESET = "demo"
CLIP_LABELS, CLIP_FRAMES, CLIP_SIZE, CLIP_FPS = ("happy", "sad", "surprise", "angry"), 30, 256, 15


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the closing table: what a step gave, and how long it took."""

    step: str
    result: str
    seconds: float


@dataclass
class Story:
    """The demo under way: what it is asked for, and what each step hands on to the next ones."""

    folder: Path
    seed: int
    threads: int
    tick: Callable[[float], None]
    say: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    converted: Description = field(init=False)
    audited: AuditResult = field(init=False)
    trained: TrainResult = field(init=False)
    tested: Evaluation = field(init=False)
    exported: ExportResult = field(init=False)
    streamed: Summary = field(init=False)

    @property
    def data(self) -> Path:
        """The data set's folder."""
        return self.folder / "data"

    def run(self, name: str, step: Callable[[Story], str]) -> None:
        """Do one step and note what it gave."""
        began = time.perf_counter()
        self.steps.append(Step(name, step(self), round(time.perf_counter() - began, 1)))

    def to_json(self, report: Path, seconds: float) -> Json:
        """As --json prints it."""
        return {
            "seconds": seconds,
            "report": str(report),
            "steps": [asdict(step) for step in self.steps],
            "fingerprint": self.converted.fingerprint,
            "audit_passed": self.audited.passed,
            "checkpoint": str(self.trained.checkpoint),
            "training": self.trained.metrics(),
            "test": self.tested.to_json(),
            "parity": self.exported.parity.to_json(),
            "model": str(self.exported.path),
            "stream": self.streamed.to_json(),
        }


def demo(
    seed: Annotated[int, typer.Option("--seed", help="Seed of the painted faces and of the training.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for everything that is made.", show_default="runs/demo/<date and time>"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole way on painted faces: data, audit, training, evaluation, export, proof and video, offline, in
    minutes.

    Example: deepfer demo
    """
    from deepfer_yolo.cli.options import print_json, progress, stderr, stdout
    from deepfer_yolo.files import refuse_existing
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import cores

    require("ultralytics")
    folder = out or Path("runs/demo") / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    refuse_existing(folder, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with progress() as bar:
        whole, part = bar.add_task("demo", total=len(STEPS)), bar.add_task("", total=1.0)
        story = Story(
            folder,
            seed,
            min(2, cores()),
            lambda done: bar.update(part, completed=done),
            lambda text: bar.update(part, description=text),
        )
        for name, step in STEPS.items():
            bar.reset(part, description=name, total=1.0)
            if not bar.live.is_started:
                stderr().print(f"{name} …", markup=False)
            story.run(name, step)
            bar.advance(whole)
    report = _write_report(story)
    if as_json:
        print_json(story.to_json(report, round(time.perf_counter() - began, 1)))
        return
    stdout().print(table(("step", "what it gave", "s"), [(s.step, s.result, s.seconds) for s in story.steps]))
    stdout().print(f"report: {report}", soft_wrap=True)


def _paint_and_convert(story: Story) -> str:
    from deepfer_yolo.data.convert import convert
    from deepfer_yolo.painted import paint_csv

    source = story.folder / "painted.csv"
    paint_csv(source, story.seed, N_TRAIN, N_VAL, N_TEST)
    story.tick(0.5)
    story.converted = convert(
        source, story.data, ConvertConfig(name="painted faces"), progress=lambda done: story.tick(0.5 + done / 2)
    )
    counts = ", ".join(f"{sum(labels.values())} {split}" for split, labels in story.converted.counts.items())
    return f"{counts} images from a FER2013-style csv"


def _audit(story: Story) -> str:
    from deepfer_yolo.data.audit.audit import audit

    result = story.audited = audit(story.data, AuditConfig(), progress=story.tick)
    found = ", ".join(f"{finding.count} {finding.kind}" for finding in result.findings) or "nothing found"
    return f"{'passed' if result.passed else 'failed'}: {found}"


def _train(story: Story) -> str:
    from deepfer_yolo.train.results import TrainResult
    from deepfer_yolo.train.run import train

    config = resolve(TrainConfig, PRESET, {"data": str(story.data), "seed": story.seed, "threads": story.threads})
    epochs_shown = iter(range(1, config.epochs + 1))

    def show(line: str) -> None:
        story.say(line.strip()[:60])
        if f"/{config.epochs}" in line:
            story.tick(next(epochs_shown, config.epochs) / config.epochs)

    result = train(config, name="painted", show=show, root=story.folder / "runs")
    if not isinstance(result, TrainResult):
        raise KeyboardInterrupt
    story.trained = result
    how = f"{config.epochs} epochs of {Path(config.model or '').stem}"
    return f"{how}: {result.val.top1:.1%} on val, {result.images_per_s or 0:.0f} images/s"


def _evaluate(story: Story) -> str:
    from deepfer_yolo.cli.options import open_classifier
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.evaluate.evaluation import evaluate
    from deepfer_yolo.evaluate.report import write_files
    from deepfer_yolo.runs import create_run

    settings = EvaluateConfig(split="test", threads=story.threads)
    classifier = open_classifier(story.trained.checkpoint, threads=story.threads)
    run = create_run("evaluate", "painted", settings, story.folder / "runs")
    dataset = open_dataset(story.data)
    result = evaluate(classifier, dataset, settings, on_progress=lambda done, total: story.tick(done / total))
    write_files(result, dataset, classifier, settings, run)
    story.tested = result
    metrics, (low, high) = result.metrics, result.metrics.intervals.top1
    return f"top-1 {metrics.top1:.1%} ({low:.1%} to {high:.1%}), macro-F1 {metrics.macro_f1:.1%}; chance is 14.3%"


def _export(story: Story) -> str:
    from deepfer_yolo.export.export import export_model

    made = export_model(
        story.trained.checkpoint, ExportConfig(split="test"), out=story.folder / "model.onnx", data=story.data
    )
    story.exported = made
    same = f"{made.parity.agreement:.0%} same labels on {made.parity.n} images, max |Δp| {made.parity.max_diff:.0e}"
    return f"{made.path.name}, {made.n_bytes / 1e6:.1f} MB; {same}"


def _verify(story: Story) -> str:
    from deepfer_yolo.errors import ModelError
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.runtime.golden import check_golden

    result = check_golden(Classifier(story.exported.path))
    if not result.passed:
        raise ModelError(f"{story.exported.path} fails its golden self-test by {result.max_diff:.1e}")
    return f"golden self-test passed on {result.n} inputs, without torch"


def _stream(story: Story) -> str:
    from deepfer_yolo.painted import paint_frames
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.stream.session import run_stream

    clip = story.folder / "painted.mp4"
    frames = paint_frames(story.seed + 1, CLIP_LABELS, CLIP_FRAMES, CLIP_SIZE)
    _write_clip(clip, frames, lambda n: story.tick(0.7 * n / (CLIP_FRAMES * len(CLIP_LABELS))))
    sinks = (f"jsonl={story.folder / 'stream.jsonl'}", f"video={story.folder / 'annotated.mp4'}")
    story.streamed = run_stream([str(clip)], Classifier(story.exported.path), sinks, StreamConfig(detector="whole"))
    return f"{CLIP_FRAMES * len(CLIP_LABELS)} frames, {story.streamed.faces} faces labelled, annotated.mp4 written"


def _write_clip(path: Path, frames: Iterable[Image], tick: Callable[[int], None]) -> None:
    import av

    from deepfer_yolo.files import atomic_path

    with atomic_path(path) as part, av.open(str(part), "w") as container:
        video = container.add_stream("libx264", rate=CLIP_FPS)
        video.width = video.height = CLIP_SIZE
        video.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            tick(index + 1)
        container.mux(video.encode())


STEPS: dict[str, Callable[[Story], str]] = {
    "convert": _paint_and_convert,
    "audit": _audit,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "verify": _verify,
    "stream": _stream,
}


def _write_report(story: Story) -> Path:
    from deepfer_yolo.data.dataset import load_images, open_dataset
    from deepfer_yolo.report import plots
    from deepfer_yolo.report.page import Page
    from deepfer_yolo.runs import environment

    dataset = open_dataset(story.data)
    test = story.tested.metrics
    conditions = [("seed", story.seed), ("test images", test.n), ("processor", environment().get("cpu", "unknown"))]
    page = Page("DeepFER demo on painted faces", "deepfer demo", conditions)
    page.add_text(
        "Every face here was drawn by numpy from a seed. The demo shows that the chain works; it says nothing about "
        "accuracy on people: for that, see MODEL_CARD.md. All labels are apparent expressions."
    )
    page.add_table(
        ("step", "what it gave", "seconds"), [(s.step, s.result, s.seconds) for s in story.steps], "The steps"
    )
    rows = [
        next(row for row in dataset.rows("train")[index:] if row.label == label)
        for label in dataset.labels
        for index in (0, 700, 1400)
    ]
    page.add_images(
        [(image, [row.label]) for row, image in zip(rows, load_images(dataset, rows), strict=True)],
        "Painted training faces",
    )
    page.add_figure(
        plots.confusion_matrix(test.confusion, dataset.labels),
        "Test split: rows are the true label",
        "Confusion matrix of the test split",
    )
    page.add_images(_clip_images(story.folder / "annotated.mp4"), "Frames of the annotated video")
    return page.write(story.folder / "report.html")


def _clip_images(path: Path) -> list[tuple[Image, list[str]]]:
    import av

    wanted = {CLIP_FRAMES * (index + 1) - 4 for index in range(len(CLIP_LABELS))}
    opened: AbstractContextManager[Any] = av.open(str(path))
    with opened as container:
        return [
            (frame.to_ndarray(format="rgb24"), [f"{frame.time:.1f} s"])
            for index, frame in enumerate(container.decode(video=0))
            if index in wanted
        ]
