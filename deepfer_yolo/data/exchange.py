"""What is doubted, written for the tools of others: tasks of Label Studio, a table, labels of FiftyOne.

label-studio/tasks.json, config.xml    csv/review.csv    fiftyone/labels.json

Images are named, not copied: the data set folder is the root of what these files name. `data/foreign_answers.py` reads
what comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from deepfer_yolo.data.dataset import Dataset, Row, csv_bytes
from deepfer_yolo.data.decisions import LEAVE_OUT, UNSURE, plain_cell
from deepfer_yolo.files import refuse_existing, staged_tree
from deepfer_yolo.records import JsonValue

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio calls files below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
ANSWER, IMAGE = "new_label", "image"
"""The names of the choice and of the image in Label Studio; no key of a task may be called so."""
TABLE = ("path", "sha256", "split", "label", "model_label", "model_confidence", "why", ANSWER, "reviewer")


@dataclass(frozen=True, slots=True)
class Doubted:
    """One image for review: `probs` are the model's, empty where none was asked; `why` it is doubted, in words."""

    row: Row
    probs: Mapping[str, float]
    why: str = ""

    @property
    def said(self) -> tuple[str, float] | None:
        """The model's answer and its share; None where it was not asked."""
        best = max(self.probs, key=lambda label: self.probs[label], default=None)
        return None if best is None else (best, round(float(self.probs[best]), 4))


def export(
    images: Iterable[Doubted], dataset: Dataset, form: str, folder: Path, *, model: str = "", blind: bool = False
) -> list[Path]:
    """Write `images` for another tool into the new folder `folder`; returns the files. `blind` leaves out the label,
    the model's answer and the reason.

    Raises DeepferError where the folder holds something.
    """
    refuse_existing(folder, overwrite=False)
    shown = [Doubted(one.row, {}, "") if blind else one for one in images]
    files = FORMS[form](shown, dataset, model, blind)
    with staged_tree(folder) as staging:
        for name, content in files.items():
            (staging / name).write_bytes(content)
    return [folder / name for name in files]


def _label_studio(images: Sequence[Doubted], dataset: Dataset, model: str, blind: bool) -> dict[str, bytes]:
    tasks: list[JsonValue] = []
    for one in images:
        row = one.row
        data: dict[str, JsonValue] = {IMAGE: LOCAL_FILES + quote(row.path, errors="surrogateescape")}
        data |= {"path": row.path, "sha256": row.sha256}
        if not blind:
            data |= {"split": row.split, "old_label": row.label, "why": one.why}
        task: dict[str, JsonValue] = {"data": data}
        if one.said is not None:
            label, share = one.said
            data |= {"model": model, "model_label": label, "model_confidence": share}
            choice: JsonValue = {
                "from_name": ANSWER,
                "to_name": IMAGE,
                "type": "choices",
                "value": {"choices": [label]},
            }
            task["predictions"] = [{"model_version": model, "score": share, "result": [choice]}]
        tasks.append(task)
    return {"tasks.json": _json(tasks), "config.xml": _config(dataset.labels, blind=blind).encode()}


def _config(labels: Sequence[str], *, blind: bool) -> str:
    """The labelling interface: the image, what is known of it, and one choice with the keys of `deepfer review`."""
    keys = [*(str(n) for n in range(1, 10)), *[""] * len(labels)]
    choices = [(label, key) for label, key in zip(labels, keys, strict=False)] + [(LEAVE_OUT, "x"), (UNSURE, "?")]
    lines = [
        f"    <Choice value={quoteattr(label)}{f' hotkey={quoteattr(key)}' if key else ''}/>" for label, key in choices
    ]
    told = [] if blind else ['  <Header value="$old_label"/>', '  <Text name="why" value="$why"/>']
    return "\n".join(
        [
            "<View>",
            f'  <Image name="{IMAGE}" value="${IMAGE}"/>',
            *told,
            f'  <Choices name="{ANSWER}" toName="{IMAGE}" choice="single" required="true" showInline="true">',
            *lines,
            "  </Choices>",
            "</View>",
            "",
        ]
    )


def _table(images: Sequence[Doubted], dataset: Dataset, model: str, blind: bool) -> dict[str, bytes]:
    rows = []
    for one in images:
        label, share = one.said or ("", "")
        row = one.row
        cells = (row.path, row.sha256, row.split, "" if blind else row.label, label, str(share), one.why, "", "")
        rows.append([plain_cell(cell) for cell in cells])
    return {"review.csv": csv_bytes(TABLE, rows)}


def _fiftyone(images: Sequence[Doubted], dataset: Dataset, model: str, blind: bool) -> dict[str, bytes]:
    """FiftyOneImageClassificationDataset: labels by path without suffix, with attributes."""
    labels: dict[str, JsonValue] = {}
    for one in images:
        row = one.row
        attributes: dict[str, JsonValue] = {"path": row.path, "sha256": row.sha256, "split": row.split}
        if one.said is not None:
            attributes |= {"model": model, "model_label": one.said[0], "model_confidence": one.said[1]}
        if one.why:
            attributes["why"] = one.why
        labels[row.path.rpartition(".")[0]] = {"label": "" if blind else row.label, "attributes": attributes}
    return {"labels.json": _json({"classes": list(dataset.labels), "labels": labels})}


FORMS: dict[str, Callable[[Sequence[Doubted], Dataset, str, bool], dict[str, bytes]]] = {
    "label-studio": _label_studio,
    "csv": _table,
    "fiftyone": _fiftyone,
}


def _json(content: JsonValue) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
