"""Doubted images to the tools of others and their answers back; the real packages where an interpreter has them.

DEEPFER_LABEL_STUDIO_PYTHON and DEEPFER_FIFTYONE_PYTHON name interpreters that can import `label_studio_sdk` (2.1) and
`fiftyone` (1.22): their requirements contradict those of this program (another OpenCV), so that they have environments
of their own.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from deepfer_yolo.data.corrections import read_corrections, write_corrections
from deepfer_yolo.data.dataset import Dataset, open_dataset, read_description, read_manifest, register
from deepfer_yolo.data.exchange import Doubted, export
from deepfer_yolo.data.foreign_answers import NO_ANSWER, TWICE, Imported, read_answers
from deepfer_yolo.errors import DatasetError, DeepferError
from deepfer_yolo.files import sha256_of

WHY = 'label-error: <"&=1+1'


@pytest.fixture
def dataset(painted_dataset: Path) -> Dataset:
    return open_dataset(painted_dataset)


@pytest.fixture
def doubted(dataset: Dataset) -> list[Doubted]:
    probs = dict.fromkeys(dataset.labels, 0.05) | {"sad": 0.7}
    rows = [*dataset.rows("train")[:10], *dataset.rows("test")[:2]]
    return [Doubted(row, probs, WHY) for row in rows]


def in_program(variable: str, script: str, *words: object) -> str:
    """What a script prints that another interpreter runs."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no interpreter with the package")
    command = [python, "-c", script, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": "", "FIFTYONE_DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answers_of(found: Imported) -> dict[str, tuple[str, str]]:
    return {one.path: (one.new_label, one.reviewer) for one in found.decisions}


ANNOTATE = """
import json, sys
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue
folder = sys.argv[1]
config = open(folder + "/label-studio/config.xml", encoding="utf-8").read()
tasks = json.load(open(folder + "/label-studio/tasks.json", encoding="utf-8"))
interface = LabelInterface(config)
interface.validate()
choice = interface.get_control("new_label")
done = []
for number, task in enumerate(tasks):
    assert interface.validate_task({"data": task["data"]}), task
    for prediction in task.get("predictions", []):
        PredictionValue(**prediction)
        assert interface.validate_prediction(prediction, return_errors=True) == []
    def annotation(label, who, **more):
        region = choice.label(label=label)._dict()
        assert interface.validate_annotation({"result": [region]})
        return {"id": 100 * number + who, "completed_by": who, "result": [region], "was_cancelled": False,
                "created_at": f"2026-11-28T02:1{who}:16.123456Z", "updated_at": f"2026-11-28T02:2{who}:16.123456Z",
                "lead_time": 1.5, **more}
    given = [annotation(choice.labels[number % 9], 1)]
    if number == 1:
        given = [annotation("happy", 1), annotation("sad", 2)]
    if number == 2:
        given = [annotation("fear", 1, was_cancelled=True)]
    if number == 3:
        given = []
    done.append({"id": number + 1, "data": task["data"], "annotations": given, "predictions": []})
json.dump(done, open(folder + "/full.json", "w", encoding="utf-8"))
converter = Converter(config, folder, download_resources=False)
converter.convert_to_json_min(folder + "/full.json", folder + "/min", is_dir=False)
converter.convert_to_csv(folder + "/full.json", folder + "/csv", is_dir=False, sep=",")
print(len(done))
"""


def test_label_studio_takes_the_tasks_and_all_three_of_its_exports_come_back(
    dataset: Dataset, doubted: list[Doubted], tmp_path: Path
) -> None:
    export(doubted, dataset, "label-studio", tmp_path / "label-studio", model="deepfer-n", blind=False)
    assert in_program("DEEPFER_LABEL_STUDIO_PYTHON", ANNOTATE, tmp_path).strip() == "12"
    choices = [*dataset.labels, "leave-out", "unsure"]
    expected = {one.row.path: (choices[i % 9], "Label Studio 1") for i, one in enumerate(doubted[:10])}
    for skipped in (2, 3):
        del expected[doubted[skipped].row.path]
    expected[doubted[1].row.path] = ("sad", "Label Studio 2")  # the last of two
    for name in ("full.json", "min/result.json", "csv/result.csv"):
        found = read_answers(tmp_path / name, dataset, held_out=False)
        assert answers_of(found) == expected, name
        assert len(found.decisions) == 9
        assert {(one.how, one.seconds) for one in found.decisions} == {(("model", "by:deepfer-n", "import"), 1.5)}
        assert found.decisions[0].time == "2026-11-28T02:21:16Z"
        assert found.passed_over["of test"] == 2
        held = read_answers(tmp_path / name, dataset, held_out=True)
        assert {one.split for one in held.decisions} == {"test"}
    assert read_answers(tmp_path / "full.json", dataset, held_out=False).passed_over == {
        "skipped there": 1,
        "without an answer": 1,
        "of test": 2,
    }
    write_corrections(tmp_path / "corrections.csv", found.decisions)
    assert [one.path for one in read_corrections(tmp_path / "corrections.csv").conflicts()] == [doubted[1].row.path]


FIFTYONE = """
import json, sys
from fiftyone.utils.data import FiftyOneImageClassificationDatasetImporter
importer = FiftyOneImageClassificationDatasetImporter(data_path=sys.argv[1], labels_path=sys.argv[2])
importer.setup()
print(json.dumps([[path, label.label, label.sha256, label.model_label, label.why] for path, _, label in importer]))
"""


def test_fiftyone_reads_the_labels_with_what_the_model_says(
    dataset: Dataset, doubted: list[Doubted], tmp_path: Path
) -> None:
    (file,) = export(doubted, dataset, "fiftyone", tmp_path / "fiftyone", model="deepfer-n", blind=False)
    content = json.loads(file.read_text())
    assert content["classes"] == list(dataset.labels)
    first = content["labels"][doubted[0].row.path.removesuffix(".png")]
    assert (first["label"], first["attributes"]["model_label"]) == (doubted[0].row.label, "sad")
    told = json.loads(in_program("DEEPFER_FIFTYONE_PYTHON", FIFTYONE, dataset.root, file).strip().splitlines()[-1])
    expected = {(str(dataset.path(one.row)), one.row.label, one.row.sha256, "sad", WHY) for one in doubted}
    assert {tuple(one) for one in told} == expected


def test_a_table_is_filled_in_by_a_spreadsheet_and_comes_back(
    dataset: Dataset, doubted: list[Doubted], tmp_path: Path
) -> None:
    (file,) = export(doubted, dataset, "csv", tmp_path / "csv", model="deepfer-n", blind=False)
    with file.open(encoding="utf-8", newline="") as text:
        header, *rows = list(csv.reader(text))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    rows[0][7:] = ["Happiness", "Ada"]
    rows[1][7:] = ["leave-out", ""]
    rows[-1][7:] = ["fear", "Ada"]
    with file.open("w", encoding="utf-8-sig", newline="") as text:  # as a spreadsheet of many countries saves it
        writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
        writer.writerows([header, *rows])
    found = read_answers(file, dataset, held_out=False)
    assert answers_of(found) == {
        doubted[0].row.path: ("happy", "Ada"),
        doubted[1].row.path: ("leave-out", ""),
    }
    assert found.passed_over == {NO_ANSWER: 9, "of test": 1}


def test_blind_hides_label_answer_and_reason_everywhere(
    dataset: Dataset, doubted: list[Doubted], tmp_path: Path
) -> None:
    row = doubted[0].row
    for form in ("label-studio", "csv", "fiftyone"):
        files = export(doubted[:1], dataset, form, tmp_path / form, model="deepfer-n", blind=True)
        text = "".join(file.read_text() for file in files if file.suffix != ".xml")
        assert WHY not in text
        assert "model" not in text.replace("model_", "")
        if form == "label-studio":
            assert set(json.loads(files[0].read_text())[0]["data"]) == {"image", "path", "sha256"}
            assert "old_label" not in files[1].read_text()
    # The path itself says the label: whoever reviews blind must use the page.
    assert row.label in row.path


def test_labels_of_any_characters_make_an_interface_that_is_xml(painted_dataset: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(painted_dataset, odd)
    described = read_description(odd).model_copy(update={"labels": ("<a b=\"&'>", "悲", *"cdefghijk")})
    register([], described, odd)
    files = export([], open_dataset(odd), "label-studio", tmp_path / "ls", blind=False)
    choices = [choice.get("value") for choice in ET.fromstring(files[1].read_text()).iter("Choice")]
    assert choices == [*sorted(described.labels), "leave-out", "unsure"]


def test_an_export_never_overwrites(dataset: Dataset, doubted: list[Doubted], tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "review.csv").write_text("mine")
    with pytest.raises(DeepferError, match="not empty"):
        export(doubted, dataset, "csv", tmp_path / "csv", blind=False)
    assert (tmp_path / "csv" / "review.csv").read_text() == "mine"


@pytest.fixture
def roboflow(dataset: Dataset, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes Roboflow's export of train, images encoded anew, with one label changed."""

    def write(form: str, name: str = "{stem}_png.rf.{hash}.jpg", label: str = "Happy") -> Path:
        folder = tmp_path / form
        rows = dataset.rows("train")[:20]
        lines = ["filename, " + ", ".join(known.title() for known in dataset.labels)]
        for number, row in enumerate(rows):
            said = label if number == 3 else row.label.title()
            file = name.format(stem=Path(row.path).stem, hash=f"{number:032x}")
            place = folder / "train" / (said if form == "folder" else "") / file
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.open(dataset.path(row)).convert("RGB").save(place)
            lines.append(f"{file}, " + ", ".join(str(int(known.title() == said)) for known in dataset.labels))
        if form == "classes":
            (folder / "train" / "_classes.csv").write_text("\n".join(lines) + "\n")
        (folder / "README.roboflow.txt").write_text("painted faces - v1\n")
        return folder

    return write


@pytest.mark.parametrize("form", ["folder", "classes"])
def test_roboflow_gives_back_what_was_changed_there(
    dataset: Dataset, roboflow: Callable[..., Path], form: str, tmp_path: Path
) -> None:
    changed = dataset.rows("train")[3]
    folder = roboflow(form, label="Happy" if changed.label != "happy" else "Sad")
    expected = {changed.path: ("happy" if changed.label != "happy" else "sad", "Roboflow")}
    found = read_answers(folder, dataset, held_out=False)
    assert answers_of(found) == expected
    assert found.decisions[0].sha256 == sha256_of(dataset.path(changed))
    assert found.passed_over["with the label that they have"] == 19
    packed = shutil.make_archive(str(tmp_path / "export"), "zip", folder)
    assert answers_of(read_answers(Path(packed), dataset, held_out=False)) == expected


def test_what_names_no_image_or_several_is_refused(
    dataset: Dataset, roboflow: Callable[..., Path], painted_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"is not named as Roboflow names images"):
        read_answers(roboflow("folder", "{stem}.jpg"), dataset, held_out=False)
    with pytest.raises(DatasetError, match=r"20 problems"):
        read_answers(roboflow("classes", "x{stem}_png.rf.{hash}.jpg"), dataset, held_out=False)
    twice = tmp_path / "twice"
    shutil.copytree(painted_dataset, twice)
    rows = read_manifest(twice)
    again = rows[0].path.replace("/", "/", 1).replace(rows[0].label, "neutral" if rows[0].label != "neutral" else "sad")
    if not (twice / again).exists():
        shutil.copy(twice / rows[0].path, twice / again)
    from dataclasses import replace

    register([*rows, replace(rows[0], path=again)], read_description(twice), twice)
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(DatasetError, match="which 2 images bear"):
        read_answers(roboflow("folder"), open_dataset(twice), held_out=False)


def task(dataset: Dataset, **data: Any) -> dict[str, Any]:
    row = dataset.rows("train")[0]
    about = {"image": f"/data/local-files/?d={row.path}", "path": row.path, "sha256": row.sha256, **data}
    result = [{"from_name": "new_label", "to_name": "image", "type": "choices", "value": {"choices": ["happy"]}}]
    return {"id": 1, "data": about, "annotations": [{"completed_by": 7, "result": result}]}


def test_tasks_of_a_teams_own_are_found_by_their_images(dataset: Dataset, tmp_path: Path) -> None:
    row, file = dataset.rows("train")[0], tmp_path / "own.json"
    for image in (
        f"/data/local-files/?d={row.path}",
        f"/data/upload/3/0a1b2c3d-{Path(row.path).name}",
        f"https://files.example/{Path(row.path).name}",
    ):
        one = task(dataset)
        one["data"] = {"image": image}
        file.write_text(json.dumps([one]))
        assert answers_of(read_answers(file, dataset, held_out=False)) == {row.path: ("happy", "Label Studio 7")}


def test_the_last_answer_of_an_annotator_counts_though_label_studio_names_it_first(
    dataset: Dataset, tmp_path: Path
) -> None:
    row, file = dataset.rows("train")[0], tmp_path / "min.json"
    about = {"path": row.path, "sha256": row.sha256, "annotator": 7}
    newest = {**about, "new_label": "sad", "updated_at": "2026-11-28T04:10:16.5+02:00"}
    file.write_text(json.dumps([newest, {**about, "new_label": "happy", "updated_at": "2026-11-28T01:10:16.5Z"}]))
    found = read_answers(file, dataset, held_out=False)
    assert [(one.new_label, one.time) for one in found.decisions] == [
        ("happy", "2026-11-28T01:10:16Z"),
        ("sad", "2026-11-28T02:10:16Z"),
    ]


def test_one_answer_of_a_reviewer_where_nothing_says_which_is_the_last(
    dataset: Dataset, roboflow: Callable[..., Path], tmp_path: Path
) -> None:
    row, file = dataset.rows("train")[0], tmp_path / "filled.csv"
    head, line = "path,new_label,reviewer\n", f"{row.path},%s,%s\n"
    file.write_text(head + line % ("sad", "Ada") + line % ("sad", "Bob") + line % ("Sadness", "Ada"))
    found = read_answers(file, dataset, held_out=False)
    assert [(one.reviewer, one.new_label) for one in found.decisions] == [("Ada", "sad"), ("Bob", "sad")]
    assert found.passed_over == {TWICE: 1}
    file.write_text(head + line % ("sad", "Ada") + line % ("fear", "Ada"))
    with pytest.raises(DatasetError, match=r"line 3: says fear of an image of which the same .* sad, filled.csv, line"):
        read_answers(file, dataset, held_out=False)


@pytest.mark.parametrize("name", ["readme.txt", "folder", "empty.zip"])
def test_what_no_known_tool_exports_is_said_to_be_that(dataset: Dataset, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "empty.zip").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(DatasetError, match="nothing that can be imported") as error:
        read_answers(tmp_path / name, dataset, held_out=False)
    assert "--layout" not in str(error.value.hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is no JSON"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ("[" * 100_000, "is no JSON"),
        ("[1, 2]", "a list of tasks"),
        ('[{"image": "x"}]', "has no 'new_label'"),
        ('[{"annotations": 3, "data": {}}]', "no task of Label Studio"),
        ('[{"annotations": [{"result": 7}], "data": {"path": 3}}]', ""),
    ],
)
def test_hostile_json_is_one_clear_error(dataset: Dataset, tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(content)
    if not message:
        assert read_answers(file, dataset, held_out=False).passed_over == {NO_ANSWER: 1}
        return
    with pytest.raises(DatasetError, match=message):
        read_answers(file, dataset, held_out=False)


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        ({"sha256": "0" * 64}, "happy", "has other bytes here"),
        ({"path": "../../etc/passwd", "image": "x"}, "happy", "is not in"),
        ({}, "bored", "is no label of"),
        ({}, "undo", "is no label of"),
        ({}, "\x1b[31mred", "is no label of"),
    ],
)
def test_strangers_and_unknown_labels_import_nothing(
    dataset: Dataset, tmp_path: Path, data: dict[str, str], label: str, message: str
) -> None:
    one = task(dataset, **data)
    one["annotations"][0]["result"][0]["value"]["choices"] = [label]
    file = tmp_path / "bad.json"
    file.write_text(json.dumps([task(dataset), one]))
    with pytest.raises(DatasetError, match=message) as error:
        read_answers(file, dataset, held_out=False)
    assert "\x1b" not in str(error.value)
