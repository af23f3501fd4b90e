"""Each known layout, painted into a folder: the fixtures of the layout tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.emotions import (
    AFFECTNET_CODES,
    CKPLUS_CODES,
    EMOTIONS,
    EXPW_CODES,
    FERPLUS_COLUMNS,
    JAFFE_CODES,
    KDEF_CODES,
    RAFDB_CODES,
)
from deepfer_yolo.painted import paint_faces

FACES, LABELS = paint_faces(11, 70)
NAMES = [EMOTIONS[label] for label in LABELS]


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(pixels).save(path)
    return path


def framed(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A larger RGB image with the face at (30, 20)."""
    image = np.full((100, 120, 3), 7, np.uint8)
    image[20:68, 30:78] = face[:, :, None]
    return image


def code_of(codes: dict[int, str], label: str) -> int:
    return next(code for code, name in codes.items() if name == label)


def fer2013_prefixed(root: Path) -> None:
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        usage = ("Training", "PublicTest", "PrivateTest")[index % 3]
        save(root / ("train" if usage == "Training" else "test") / name / f"{usage}_{index * 1000}.png", face)


def fer2013_rows(root: Path) -> None:
    """Rows spread over the official parts, and shuffled over the copy's own two folders."""
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / ("train" if index % 5 else "validation") / name / f"{index * 520}.jpg", face)


def ferplus(root: Path) -> None:
    for folder, start in (("FER2013Train", 0), ("FER2013Valid", 30), ("FER2013Test", 50)):
        lines = []
        for index in range(start, start + 20):
            save(root / folder / f"fer{index:07d}.png", FACES[index])
            votes = [
                8 if column == NAMES[index] else 1 if column in ("contempt", "unknown") else 0
                for column in FERPLUS_COLUMNS
            ]
            lines.append(f'fer{index:07d}.png,"(0, 0, 48, 48)",{",".join(map(str, votes))}\n')
        lines.append('fer9999999.png,"(0, 0, 48, 48)",3,2,0,0,0,0,0,0,5,0\n')
        save(root / folder / "fer9999999.png", FACES[0])
        (root / folder / "label.csv").write_text("".join(lines))


def rafdb(root: Path) -> None:
    lines = []
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        stem = f"{'train' if index < 50 else 'test'}_{index:05d}"
        save(root / "Image" / "aligned" / f"{stem}_aligned.jpg", np.dstack([face] * 3))
        lines.append(f"{stem}.jpg {code_of(RAFDB_CODES, name)}\n")
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel" / "list_patition_label.txt").write_text("".join(lines))


def rafdb_copy(root: Path) -> None:
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        split = "train" if index < 50 else "test"
        save(
            root / "DATASET" / split / str(code_of(RAFDB_CODES, name)) / f"{split}_{index:05d}_aligned.jpg",
            np.dstack([face] * 3),
        )
    (root / "train_labels.csv").write_text("image,label\n")


def affectnet_csv(root: Path) -> None:
    for split, start, stop in (("training", 0, 50), ("validation", 50, 70)):
        lines = [
            "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
        ]
        for index in range(start, stop):
            path = f"{index % 7}/{index:08x}.png"
            save(root / "Manually_Annotated_Images" / path, framed(FACES[index]))
            lines.append(f"{path},30,20,48,48,1;2;3;4,{code_of(AFFECTNET_CODES, NAMES[index])},0.1,0.2\n")
        lines.append("9/none.jpg,0,0,9,9,1;2,10,-2,-2\n")
        (root / f"{split}.csv").write_text("".join(lines))


def affectnet_npy(root: Path) -> None:
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        folder = root / ("train_set" if index < 50 else "val_set")
        save(folder / "images" / f"{index}.jpg", np.dstack([face] * 3))
        (folder / "annotations").mkdir(exist_ok=True)
        code = code_of(AFFECTNET_CODES, name)
        np.save(folder / "annotations" / f"{index}_exp.npy", np.array(str(code) if index % 2 else code))
        np.save(folder / "annotations" / f"{index}_val.npy", np.array(0.3))


def ckplus(root: Path) -> None:
    for index in range(21):
        subject, sequence = f"S{index // 3:03d}", f"{index % 3 + 1:03d}"
        label = EMOTIONS[index % 7] if EMOTIONS[index % 7] != "neutral" else "contempt"
        for frame in range(5):
            save(
                root / "cohn-kanade-images" / subject / sequence / f"{subject}_{sequence}_{frame + 1:08d}.png",
                FACES[index] + np.uint8(frame),
            )
        note = root / "Emotion" / subject / sequence / f"{subject}_{sequence}_00000005_emotion.txt"
        note.parent.mkdir(parents=True)
        note.write_text(f"   {code_of(CKPLUS_CODES, label):.7e}\n")
    save(
        root / "cohn-kanade-images" / "S099" / "001" / "S099_001_00000001.png", FACES[60]
    )  # a sequence without a label


def ckplus_copy(root: Path) -> None:
    folders = {"angry": "anger", "happy": "happy", "neutral": "contempt", "sad": "sadness"}
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / folders.get(name, name) / f"S{index // 5:03d}_{index % 5:03d}_{index:08d}.png", face)


def jaffe(root: Path) -> None:
    codes = {label: code for code, label in JAFFE_CODES.items()}
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / f"{'ABCDEFGHIJ'[index // 7]}A.{codes[name]}{index % 3 + 1}.{index}.tiff", face)


def kdef(root: Path) -> None:
    codes = {label: code for code, label in KDEF_CODES.items()}
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        person = f"{'AB'[index % 2]}{'FM'[index // 7 % 2]}{index // 7:02d}"
        save(
            root / person / f"{person}{codes[name]}{('S', 'HL', 'HR', 'FL', 'FR')[index % 5]}.JPG",
            np.dstack([face] * 3),
        )
    save(root / "AF31" / "AF31V.JPG", FACES[0])


def expw(root: Path) -> None:
    lines = []
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / "image" / "origin" / f"face_{index // 2}.png", framed(face))
        lines.append(f"face_{index // 2}.png {index % 2} 20 30 78 68 {90.5} {code_of(EXPW_CODES, name)}\n")
    (root / "label").mkdir()
    (root / "label" / "label.lst").write_text("".join(lines))


def ferg(root: Path) -> None:
    words = {"angry": "anger", "happy": "joy", "sad": "sadness"}
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        character = ("aia", "bonnie", "jules", "malcolm", "mery", "ray")[index // 12]
        folder = f"{character}_{words.get(name, name)}"
        save(root / character / folder / f"{folder}_{index}.png", np.dstack([face] * 3))
    (root / "Readme.txt").write_text("read me")


def muxspace(root: Path) -> None:
    lines = ["user.id,image,emotion\n"]
    words = {"happy": "happiness", "angry": "anger"}
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / "images" / f"{index}.png", face)
        word = words.get(name, name)
        lines.append(f"{index % 3},{index}.png,{(word, word.upper(), word.title())[index % 3]}\n")
    (root / "data").mkdir()
    (root / "data" / "legend.csv").write_text("".join(lines))
    (root / "README.md").write_text("read me")


def table_csv(root: Path) -> None:
    lines = ["path,label,split,subject,box\r\n"]
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / "faces" / f"{index}.png", framed(face))
        lines.append(f"faces/{index}.png,{name},{'train' if index < 50 else 'val'},p{index // 7},30 20 78 68\r\n")
    (root / "labels.csv").write_text("".join(lines), newline="")


def table_jsonl(root: Path) -> None:
    with (root / "labels.jsonl").open("w") as file:
        for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
            save(root / "faces" / f"{index}.png", framed(face))
            row = {
                "image": f"faces/{index}.png",
                "emotion": name,
                "split": "train" if index < 50 else "val",
                "box": [30, 20, 78, 68],
            }
            file.write(json.dumps(row) + "\n")


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_parquet(
    path: Path, indices: Sequence[int], names: Sequence[str] | None = EMOTIONS, row_group_size: int = 9, **more: object
) -> None:
    """Faces as `datasets` writes them; without `names` the schema says nothing of the labels."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    cells = [{"bytes": encoded(FACES[i]), "path": f"{i}.png"} for i in indices]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(cells, image), "label": pa.array([int(LABELS[i]) for i in indices]), **more}
    label = {"names": list(names), "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path, row_group_size=row_group_size)


def parquet(root: Path) -> None:
    write_parquet(root / "data" / "train-00000-of-00002.parquet", range(30))
    write_parquet(root / "data" / "train-00001-of-00002.parquet", range(30, 50))
    write_parquet(root / "data" / "validation" / "0000.parquet", range(50, 60))
    write_parquet(root / "data" / "test-00000-of-00001.parquet", range(60, 70))


def imagefolder(root: Path) -> None:
    for folder, start, stop in (("train", 0, 50), ("validation", 50, 60), ("test", 60, 70)):
        lines = ["file_name,emotion,age\n"]
        for index in range(start, stop):
            save(root / folder / "faces" / f"{index % 10}-{index}.png", FACES[index])
            lines.append(f"faces/{index % 10}-{index}.png,{NAMES[index]},30\n")
        (root / folder / "metadata.csv").write_text("".join(lines))


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def webdataset(root: Path) -> None:
    for shard, start, stop in (("train-000000", 0, 30), ("train-000001", 30, 50), ("val-000000", 50, 70)):
        members = []
        for index in range(start, stop):
            members += [(f"a/{index:05d}.png", encoded(FACES[index])), (f"a/{index:05d}.cls", b"%d" % LABELS[index])]
        write_tar(root / f"{shard}.tar", members)
    (root / "classnames.txt").write_text("\n".join(EMOTIONS))


def class_tree(root: Path) -> None:
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / ("train" if index < 50 else "valid") / name.upper() / f"image {index}.png", face)


def class_tree_without_splits(root: Path) -> None:
    for index, (face, name) in enumerate(zip(FACES, NAMES, strict=True)):
        save(root / name / f"image {index}.png", face)
