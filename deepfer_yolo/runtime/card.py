"""The card that every model file carries: what it is, what it expects, how it was measured, how to prove it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from deepfer_yolo import __version__
from deepfer_yolo.errors import ModelError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Json, parse_json

SCHEMA_VERSION = 2
"""Cards of version 1, of 0.1.0, differ in one thing: they have no digest, so that nothing shows what was changed."""
MAX_CARD_BYTES = 256_000_000
"""Of a sidecar with its hashes: those of ten million images take half."""
METADATA_KEY = "deepfer"
"""The key of the card in ONNX metadata."""
HASHES_KEY = "deepfer.trained_hashes"
"""The key of the hashes of the training images in ONNX metadata."""
DIGEST_KEY = "deepfer.digest"
"""The key of the digest over graph, card and hashes in ONNX metadata; in a sidecar it is `digest`."""
INTENDED_USE = (
    "Labels apparent facial expressions in pictures for research, art, accessibility and interface studies with "
    "consent. Not for inferring felt emotion, and not for workplaces, schools, hiring, policing, border control or "
    "diagnosis (EU AI Act, Article 5(1)(f))."
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class InputSpec(_Part):
    """What the model wants to see.

    `native_px` is the side in pixels of the images it learned from; None leaves full detail.
    """

    size: int = Field(ge=8, le=1024)
    layout: Literal["NHWC"] = "NHWC"
    colour: Literal["grey", "rgb"] = "rgb"
    native_px: int | None = Field(None, ge=8, le=1024)
    resize: Literal["pillow-bilinear"] = "pillow-bilinear"


class CropSpec(_Part):
    """How a face that a detector found becomes a crop: a square on the box's centre, faces/align.py.

    Its side is the box's `reference` side with the share `margin` added at both ends; `shift_x` and `shift_y` move its
    centre by shares of the same side; `eyes` turns it upright by the eye line, where the detector tells one.

    Around YuNet's boxes the framing of FER2013's own images has its median at a margin of 0.118, and of ten
    references the box width varies least (tests/benchmarks/crop_rule.py, 1,500 Training rows). The default is tighter:
    of 0, 0.03, 0.06, 0.09 and 0.12 it cost a model least on 1,464 faces found among Training rows
    (tests/benchmarks/crop_end_to_end.py --split Training; standard error 1 point, the others 1.0 to 1.4 points worse).
    """

    reference: Literal["width", "longer"] = "width"
    margin: float = Field(0.06, ge=-0.5, le=2.0)
    shift_x: float = Field(0.0, ge=-1.0, le=1.0)
    shift_y: float = Field(0.0, ge=-1.0, le=1.0)
    alignment: Literal["none", "eyes"] = "eyes"


class AppliedCorrections(_Part):
    """A file of people's corrections that was applied to a data set: its name and SHA-256, whether it is of held-out
    images, how many images it changed, kept, left out and so on, and the models whose answers people had before them.
    """

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    held_out: bool = False
    counts: dict[str, int] = {}
    models: tuple[str, ...] = ()


class TrainedOn(_Part):
    """The data set behind the weights; `corrections` are those of its labels."""

    name: str
    fingerprint: str | None = None
    corrections: tuple[AppliedCorrections, ...] = ()

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Programs of before there were corrections read the cards of models that have none."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "corrections" or value}


class Golden(_Part):
    """Probabilities for `n` inputs painted from `seed`, and the SHA-256 of those inputs' bytes."""

    seed: int = Field(ge=0, lt=2**32)
    n: int = Field(ge=1, le=64)
    inputs_sha256: str
    probs: list[list[float]]


class Card(_Part):
    """Everything a model file says about itself (docs/formats.md)."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    name: str
    labels: tuple[str, ...] = Field(min_length=2, max_length=1000)
    input: InputSpec
    crop: CropSpec = CropSpec()
    temperature: float = Field(1.0, gt=0, le=100)
    precision: Literal["fp32", "fp16", "int8", "bf16"] = "fp32"
    # Of a file in fp16: what it calculates in. None in all others, and in files of before this was told apart.
    arithmetic: Literal["fp32", "fp16"] | None = None
    graph_sha256: str | None = None
    file_sha256: str | None = None
    trained_on: TrainedOn | None = None
    metrics: dict[str, Any] = {}
    golden: Golden | None = None
    producer: dict[str, str] = {}
    license: str = "AGPL-3.0-or-later"
    intended_use: str = INTENDED_USE
    # Not in `to_json`: eight bytes an image are for programs, and would drown the rest. Files carry them beside or
    # below the card.
    trained_hashes: str | None = Field(None, exclude=True, repr=False)

    @property
    def learned(self) -> NDArray[np.uint64] | None:
        """The hashes of the images that the model has learned, uint64 (n,); None where its file does not say."""
        return None if self.trained_hashes is None else unpack_hashes(self.trained_hashes)

    @field_validator("trained_hashes")
    @classmethod
    def _hashes_can_be_read(cls, text: str | None) -> str | None:
        if text is not None:
            unpack_hashes(text)
        return text

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Card:
        if len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise ValueError(f"labels must be distinct and not empty: {', '.join(self.labels)}")
        if self.golden is not None and len(self.golden.probs) != self.golden.n:
            raise ValueError(f"golden.probs must have golden.n = {self.golden.n} rows")
        if self.golden is not None and any(len(row) != len(self.labels) for row in self.golden.probs):
            raise ValueError("golden.probs must have one number a label")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Files whose arithmetic is not told apart bear the card that they bore before."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key != "arithmetic" or value}

    def to_json(self, indent: int | None = None) -> str:
        """The card as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=indent, ensure_ascii=False)


def pack_hashes(hashes: NDArray[np.uint64]) -> str:
    """Hashes of images as files carry them: sorted, without repeats, 8 bytes each, little-endian, in base64."""
    return base64.b64encode(np.unique(hashes).astype("<u8").tobytes()).decode("ascii")


def unpack_hashes(text: str) -> NDArray[np.uint64]:
    """The hashes in `text`, uint64 (n,). Raises ValueError for anything but whole hashes in base64."""
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the hashes of training images are not base64: {error}") from None
    if len(content) % 8:
        raise ValueError(f"the hashes of training images end in the middle of one ({len(content)} bytes)")
    return np.frombuffer(content, "<u8").astype(np.uint64)


def parse_card(text: str, where: str, model: Path | None = None) -> Card:
    """The card in `text`; raises ModelError that names `where`, the key and what was expected, and how `model` gets
    another card.
    """
    _parse(text, where, model)
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors()[:5])
        raise _invalid(problems, where, model) from None


def _parse(text: str, where: str, model: Path | None) -> Any:
    """JSON in which no key stands twice: two readers would take it for different things. Raises ModelError."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise _invalid(str(error), where, model) from None


def _invalid(problems: str, where: str, model: Path | None) -> ModelError:
    reason = f"the model card of {where} is not valid: {problems}"
    return ModelError(reason, None if model is None else another_card(model))


def another_card(model: Path) -> str:
    """How `model` gets another card, for the hint of an error: a command where `deepfer card` takes its format."""
    command = f"deepfer card {model} --overwrite"
    if model.suffix == ".onnx":
        return f"fetch or export it again, or write a new card: {command} --labels A,B,… --colour grey"
    return f"fetch it again, or write a new card: {command}" if model.suffix == ".pt" else "fetch or export it again"


def digest_of(*parts: bytes) -> str:
    """SHA-256 over all parts, each behind its length as 8 bytes, little-endian."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def check_digest(card: Card, said: object, found: str, where: Path, model: Path) -> None:
    """Raise ModelError where `said`, the digest in the file `where` of `model`, is not the one `found` over what it
    holds; only cards of before there were digests have none.
    """
    if said is None and card.schema_version == 1:
        return
    if said is None:
        reason = "has lost the digest over its card"
    elif said != found:
        reason = f"is not what its digest covers (SHA-256 {found[:12]}… against {str(said)[:12]}…)"
    else:
        return
    raise ModelError(
        f"{where} {reason}: the card, or the hashes of what the model has learned, were changed",
        f"fetch or export it again; where the change is meant: deepfer card {model} --renew",
    )


def sidecar_path(model: Path) -> Path:
    """Where the card of a format without metadata lies: `<stem>.json` beside the model file."""
    return model.with_suffix(".json")


def read_sidecar(model: Path, *, changed: bool = False) -> Card:
    """The card beside `model`; raises ModelError with the command that makes one where it is missing, and, unless it
    may be `changed`, where its digest is another.
    """
    path = sidecar_path(model)
    if not path.is_file():
        raise no_card(model)
    if path.stat().st_size > MAX_CARD_BYTES:
        raise _invalid(f"it is larger than {MAX_CARD_BYTES // 1_000_000} MB", str(path), model)
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path), model)
    except UnicodeDecodeError as error:
        raise _invalid(str(error), str(path), model) from None
    said = content.pop("digest", None) if isinstance(content, dict) else None
    card = parse_card(json.dumps(content), str(path), model)
    if not changed:
        check_digest(card, said, _digest_of_sidecar(content), path, model)
    return card


def write_sidecar(card: Card, model: Path) -> Path:
    """Write `card` beside `model`, its digest at the end, and return the path."""
    path = sidecar_path(model)
    content = card.model_dump(mode="json") | {"schema_version": SCHEMA_VERSION}
    if card.trained_hashes is not None:
        content["trained_hashes"] = card.trained_hashes
    content["digest"] = _digest_of_sidecar(content)
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _digest_of_sidecar(content: Json) -> str:
    """The digest of a sidecar without it: over JSON with sorted keys, no blanks and ASCII alone, however it is
    written.
    """
    return digest_of(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii"))


def producer(*distributions: str) -> dict[str, str]:
    """Versions of what made a file: this package and the named distributions."""
    from importlib.metadata import version

    return {"deepfer-yolo": __version__} | {name: version(name) for name in distributions}


def no_card(model: Path) -> ModelError:
    """The refusal of a model without a card: nothing is ever guessed from the data."""
    return ModelError(f"{model} has no model card, so its labels and input are unknown", f"deepfer card {model} --help")
