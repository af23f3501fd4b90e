"""The engine of the page in a real browser against Python: pixels, faces, crops, probabilities; and what it refuses."""

from __future__ import annotations

import base64
import csv
import functools
import gzip
import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.data.images import load_image
from deepfer_yolo.painted import paint_faces, paint_golden
from deepfer_yolo.records import Face, Image
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import TOLERANCES
from deepfer_yolo.runtime.preprocess import to_input
from deepfer_yolo.web.bundle import write_web
from deepfer_yolo.web.runtime_files import runtime_folder

PATIENCE_MS = 120_000
READ = """async text => {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    return readImage(new Blob([bytes]));
}"""
IN_PAGE = f"""async () => {{
    Object.assign(window, await import("./engine/index.js"));
    window.read = {READ};
    window.stages = [];
    window.progress = (stage, done, total) => {{
        if (!stages.length || stages.at(-1)[0] !== stage) stages.push([stage, []]);
        stages.at(-1)[1].push([done, total]);
    }};
}}"""


def text_of(content: bytes) -> str:
    """Bytes as a page takes them."""
    return base64.b64encode(content).decode()


def encoded(image: PillowImage.Image | Image, kind: str = "PNG", **more: Any) -> bytes:
    """An image file."""
    content = io.BytesIO()
    (image if isinstance(image, PillowImage.Image) else PillowImage.fromarray(image)).save(content, kind, **more)
    return content.getvalue()


class Page:
    """A page on which the engine is open."""

    def __init__(self, page: Any, classifier: Classifier) -> None:
        self.page, self.classifier = page, classifier

    def run(self, code: str, *given: Any) -> Any:
        """What the body of a function gives, with `engine`, `read` and `given`."""
        return self.page.evaluate(f"async given => {{ {code} }}", list(given))

    def pixels(self, content: bytes) -> NDArray[np.uint8]:
        """The pixels, uint8 (H, W, 3), that the engine reads."""
        code = """const {width, height, data} = await read(given[0]);
            let text = "";
            for (let at = 0; at < data.length; at += 32768)
                text += String.fromCharCode(...data.subarray(at, at + 32768));
            return [width, height, btoa(text)];"""
        width, height, text = self.run(code, text_of(content))
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]

    def classify(self, contents: list[bytes]) -> tuple[list[str], NDArray[np.float64]]:
        """Label and probabilities of whole images."""
        code = """const said = [];
            for (const text of given[0]) {
                const [{label, probs}] = await engine.classify(await read(text));
                said.push([label, [...probs]]);
            }
            return said;"""
        said = self.run(code, [text_of(content) for content in contents])
        return [label for label, _ in said], np.array([probs for _, probs in said])

    def same(self, contents: list[bytes], images: list[Image], tolerance: float = 1e-5) -> None:
        """Whole images get the labels and probabilities that they get in Python."""
        labels, probs = self.classify(contents)
        expected = self.classifier.predict_images(images)
        assert labels == [self.classifier.labels[i] for i in expected.argmax(1)]
        assert np.abs(probs - expected).max() <= tolerance


@pytest.fixture(scope="module")
def open_page(open_browser: Callable[..., Any], start_files: Callable[[Path], str]) -> Iterator[Callable[..., Any]]:
    """A function that opens a page of a folder that nothing but `python -m http.server` serves, or at an address,
    without the engine; it asks for nothing outside.
    """
    if runtime_folder() is None:
        pytest.skip("no onnxruntime-web here; deepfer models pull onnxruntime-web")
    browser = open_browser()

    def start(place: Path | str) -> Any:
        url, page = place if isinstance(place, str) else start_files(place), browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        pages.append((url, asked))
        page.goto(url + "licenses.txt")
        page.evaluate(IN_PAGE)
        return page

    pages: list[tuple[str, list[str]]] = []
    yield start
    for url, asked in pages:
        assert [line for line in asked if not line.startswith((url, "blob:"))] == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes the folder of a model."""
    return lambda model, detector=None: (
        write_web(Path(model), tmp_path_factory.mktemp("web") / "web", detector=detector).path
    )


@pytest.fixture(scope="module")
def opened(open_page: Callable[..., Any], folders: Callable[..., Path]) -> Callable[[str], Page]:
    """A function that gives the engine of a shipped model."""

    @functools.cache
    def start(model: str) -> Page:
        page = open_page(folders(model))
        page.evaluate("async () => { window.engine = await openEngine({progress}); }")
        return Page(page, Classifier(model))

    return start


@pytest.fixture(params=["deepfer-live", "deepfer-xs"], ids=["fp32", "int8"])
def engine(request: pytest.FixtureRequest, opened: Callable[[str], Page]) -> Page:
    """The engine of a shipped model in fp32 and of one in int8."""
    return opened(request.param)


@pytest.fixture
def fp32(opened: Callable[[str], Page]) -> Page:
    """The engine of a shipped model in fp32."""
    return opened("deepfer-live")


@pytest.fixture(scope="module")
def detecting(open_page: Callable[..., Any], folders: Callable[..., Path], yunet: Path) -> Page:
    """The engine of a shipped model with the face detector."""
    page = open_page(folders("deepfer-live", yunet))
    page.evaluate("async () => { window.engine = await openEngine({progress}); }")
    return Page(page, Classifier("deepfer-live"))


def painted_images() -> list[Image]:
    """Painted faces in colour and grey, from 20 to 700 pixels, upright, wide and high."""
    grey = [paint_faces(seed, 1, size)[0][0] for seed, size in enumerate((20, 48, 49, 64, 97, 200))]
    tinted = list(paint_golden(7, 6, 120))
    shapes = [(48, 61), (61, 48), (300, 80), (80, 300), (700, 333), (333, 700), (24, 24), (47, 96)]
    large = paint_golden(8, 1, 700)[0]
    scaled = [
        np.asarray(PillowImage.fromarray(large).resize(shape, PillowImage.Resampling.LANCZOS)) for shape in shapes
    ]
    return [np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image for image in [*grey, *tinted, *scaled]]


def test_painted_faces_of_many_shapes_get_the_same_answers(engine: Page) -> None:
    images = painted_images()
    # Where rounding of int8 is a near tie, one processor's last bit moves an answer: WebAssembly is one more processor.
    tolerance = 1e-5 if engine.classifier.card.precision == "fp32" else TOLERANCES["int8"]
    engine.same([encoded(image) for image in images], images, tolerance)


def noise(seed: int, width: int, height: int) -> Image:
    """Noise that a page makes too."""
    return (
        (np.arange(width * height * 4, dtype=np.int64) * (2 * seed + 7) % 251)
        .astype(np.uint8)
        .reshape(height, width, 4)
    )


NOISE = """(seed, width, height, Type) => ({width, height, channels: 4,
    data: new Type(width * height * 4).map((_, at) => (at * (2 * seed + 7)) % 251)})"""


def digest(image: NDArray[np.uint8]) -> list[int]:
    """What identifies an image."""
    return list(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest())


def test_inputs_are_those_of_python_to_the_bit(fp32: Page) -> None:
    random = np.random.default_rng(0)
    rows = []
    for seed, colour, native in itertools.product(range(25), ("grey", "rgb"), (None, 48)):
        size = (48, 64, 224)[seed % 3]
        width, height = (int(side) for side in np.exp(random.uniform(np.log(8), np.log(600), 2)))
        rows.append((seed, width, height, {"size": size, "colour": colour, "native_px": native}))
    expected = [
        digest(to_input(noise(seed, width, height)[..., :3].copy(), InputSpec(**spec)))
        for seed, width, height, spec in rows
    ]
    code = f"""const {{toInput}} = await import("./engine/preprocess.js");
        const noise = {NOISE}, digests = [];
        for (const [seed, width, height, spec] of given[0]) {{
            const target = new Uint8Array(spec.size * spec.size * 3);
            toInput(noise(seed, width, height, Uint8Array), spec, target);
            digests.push([...new Uint8Array(await crypto.subtle.digest("SHA-256", target))]);
        }}
        return digests;"""
    found = fp32.run(code, rows)
    assert [row for row, one, two in zip(rows, found, expected, strict=True) if one != two] == []


def test_what_the_detector_looks_at_is_opencvs_to_the_bit(fp32: Page) -> None:
    import cv2

    rows = [(1, 640, 480, 320, 240), (2, 640, 480, 213, 160), (3, 333, 217, 320, 209), (4, 600, 400, 600, 200)]
    rows += [(5, 900, 300, 300, 100), (6, 48, 48, 160, 160), (7, 128, 100, 256, 200), (8, 97, 61, 254, 160)]
    rows += [(9, 90, 400, 72, 320), (10, 301, 77, 300, 1), (11, 7, 5, 160, 114), (12, 1, 9, 36, 320)]
    expected = []
    for seed, width, height, wide, high in rows:
        how = cv2.INTER_AREA if wide <= width and high <= height else cv2.INTER_LINEAR
        image = cv2.resize(noise(seed, width, height)[..., :3].copy(), (wide, high), interpolation=how)
        expected.append(digest(image))
    code = f"""const {{resized}} = await import("./engine/scale.js");
        const {{planesOf}} = await import("./engine/preprocess.js");
        const noise = {NOISE}, digests = [];
        for (const [seed, width, height, wide, high] of given[0]) {{
            const {{data}} = resized(planesOf(noise(seed, width, height, Uint8Array), "rgb"), wide, high);
            digests.push([...new Uint8Array(await crypto.subtle.digest("SHA-256", data))]);
        }}
        return digests;"""
    found = fp32.run(code, rows)
    assert [row for row, one, two in zip(rows, found, expected, strict=True) if one != two] == []


def test_a_hundred_faces_of_fer2013_get_the_same_answers(engine: Page, shared_dir: Path) -> None:
    table = shared_dir / "datasets" / "fer2013_dev.csv.gz"
    if not table.is_file():
        pytest.skip("no FER2013")
    with gzip.open(table, "rt") as file:
        held_out = (row["pixels"] for row in csv.DictReader(file) if row["Usage"] == "PublicTest")
        rows = list(itertools.islice(held_out, 0, None, 35))[:100]
    images = [np.array(row.split(), np.uint8).reshape(48, 48) for row in rows]
    assert len(images) == 100
    engine.same([encoded(image) for image in images], [np.repeat(image[..., None], 3, 2) for image in images])


def test_the_self_test_passes_and_progress_is_told(engine: Page) -> None:
    said = engine.run("return [await engine.selfTest(), engine.threads, engine.runtime, engine.labels, stages];")
    golden = engine.classifier.card.golden
    assert golden is not None
    assert (said[0]["passed"], said[0]["n"]) == (True, golden.n)
    assert said[0]["worst"] <= 1e-4
    assert said[1:4] == [1, "onnxruntime-web 1.30.0", list(engine.classifier.labels)]
    assert [stage for stage, _ in said[4]] == ["model", "runtime", "session"]
    for _, told in said[4]:
        done = [part for part, _ in told]
        assert (done[0], done) == (0, sorted(done))
        assert told[-1][0] == told[-1][1] > 0


FILES: dict[str, Callable[[Image], bytes]] = {
    "grey png": lambda image: encoded(image[..., 0].copy()),
    "palette png": lambda image: encoded(PillowImage.fromarray(image).quantize(64)),
    "palette png with a transparent colour": lambda image: encoded(
        PillowImage.fromarray(image).quantize(64), transparency=5
    ),
    "png with alpha": lambda image: encoded(np.dstack([image, image[::-1, :, 0]])),
    "grey png with alpha": lambda image: encoded(PillowImage.fromarray(image[..., :2].copy(), "LA")),
    "rgb png with a transparent colour": lambda image: encoded(image, transparency=tuple(map(int, image[3, 4]))),
    "webp with alpha": lambda image: encoded(np.dstack([image, image[::-1, :, 0]]), "WEBP", lossless=True, exact=True),
    "gif": lambda image: encoded(PillowImage.fromarray(image).quantize(64), "GIF"),
    "bmp": lambda image: encoded(image, "BMP"),
    "jpg": lambda image: encoded(image, "JPEG", quality=85),
    "jpg 4:4:4": lambda image: encoded(image, "JPEG", quality=85, subsampling=0),
    "progressive jpg": lambda image: encoded(image, "JPEG", progressive=True),
    "grey jpg": lambda image: encoded(image[..., 0].copy(), "JPEG"),
    "cmyk jpg": lambda image: encoded(PillowImage.fromarray(image).convert("CMYK"), "JPEG"),
    "lossy webp": lambda image: encoded(image, "WEBP", quality=80),
}


@pytest.fixture(scope="module")
def drawn() -> Image:
    """A painted face in noise, 83×61."""
    image = np.random.default_rng(3).integers(0, 256, (61, 83, 3), np.uint8)
    image[5:53, 11:59] = paint_golden(3, 1, 48)[0]
    return image


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_has_the_same_pixels(fp32: Page, drawn: Image, kind: str) -> None:
    content = FILES[kind](drawn)
    assert np.array_equal(fp32.pixels(content), load_image(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_images_are_upright(fp32: Page, drawn: Image, kind: str) -> None:
    for orientation in range(1, 9):
        exif = PillowImage.Exif()
        exif[0x112] = orientation
        content = encoded(drawn, kind, exif=exif)
        assert np.array_equal(fp32.pixels(content), load_image(content)), orientation


def test_colour_profiles_are_left_alone(fp32: Page, drawn: Image) -> None:
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = [profile.index(tag, 128) for tag in (b"rXYZ", b"bXYZ")]  # red and blue exchanged in the table of tags
    profile[at[0] : at[0] + 4], profile[at[1] : at[1] + 4] = b"bXYZ", b"rXYZ"
    content = encoded(drawn, icc_profile=bytes(profile))
    assert np.array_equal(fp32.pixels(content), drawn)


def test_sixteen_bits_differ_by_one_level_at_most(fp32: Page, drawn: Image) -> None:
    deep = drawn[..., 0].astype(np.uint16) * 256 + drawn[..., 1]
    content = encoded(PillowImage.fromarray(deep))
    assert np.abs(fp32.pixels(content).astype(int) - load_image(content)).max() <= 1


def test_a_photo_of_twelve_megapixels_is_read_and_labelled_alike(fp32: Page) -> None:
    face = PillowImage.fromarray(paint_golden(5, 1, 400)[0])
    exif = PillowImage.Exif()
    exif[0x112] = 6
    content = encoded(face.resize((4032, 3024), PillowImage.Resampling.BICUBIC), "JPEG", quality=92, exif=exif)
    image = load_image(content)
    assert image.shape == (4032, 3024, 3)
    code = """const image = await read(given[0]);
        const digest = await crypto.subtle.digest("SHA-256", image.data.filter((_, at) => at % 4 < 3));
        const [{label, probs}] = await engine.classify(image);
        return [image.width, image.height, [...new Uint8Array(digest)], label, [...probs]];"""
    width, height, digest, label, probs = fp32.run(code, text_of(content))
    assert (width, height) == (3024, 4032)
    assert bytes(digest) == hashlib.sha256(image.tobytes()).digest()
    expected = fp32.classifier.predict_images([image])[0]
    assert label == fp32.classifier.labels[expected.argmax()]
    assert np.abs(np.array(probs) - expected).max() <= 1e-5


def photos(shared: Path) -> dict[str, Image]:
    """People in many sizes: as they are, turned, small, cut at the edge, and one face that fills the image."""
    zidane = load_image(shared / "media" / "zidane.jpg")
    as_image = PillowImage.fromarray(zidane)
    return {
        "as it is": zidane,
        "bus": load_image(shared / "media" / "bus.jpg"),
        "turned": np.asarray(as_image.rotate(20)),
        "small": np.asarray(as_image.resize((200, 112))),
        "face": np.asarray(PillowImage.fromarray(zidane[50:450, 600:1000]).resize((48, 48))),
        "cut": zidane[60:, :800],
        "a third": zidane[::3, ::3].copy(),
    }


def test_faces_boxes_and_their_labels_are_those_of_python(detecting: Page, shared_dir: Path, yunet: Path) -> None:
    from deepfer_yolo.faces.align import crop_faces
    from deepfer_yolo.faces.detect import FRAME_PX, IMAGE_PX, YuNetDetector

    if not (shared_dir / "media" / "zidane.jpg").is_file():
        pytest.skip("no example image")
    code = """const image = await read(given[0]);
        const faces = await engine.faces(image, given[1] ? {size: given[1]} : {});
        const said = await engine.classify(image, faces);
        return [faces, said.map(({label, probs, box}) => [label, [...probs], box.x])];"""
    n_faces = 0
    images = photos(shared_dir)
    frames = [(FRAME_PX, name) for name in ("as it is", "turned", "a third")]
    for size, name in [*((IMAGE_PX, name) for name in images), *frames]:
        image = images[name]
        faces = YuNetDetector(yunet, size=size, min_score=0.7).detect(image)
        found, said = detecting.run(code, text_of(encoded(image)), None if size == IMAGE_PX else size)
        assert len(found) == len(faces), (name, size)
        n_faces += len(faces)
        if not faces:
            continue
        boxes = np.array([[face["x"], face["y"], face["x"] + face["w"], face["y"] + face["h"]] for face in found])
        assert np.abs(boxes - [face.box for face in faces]).max() < 0.01, (name, size)
        assert np.abs([face["score"] - other.score for face, other in zip(found, faces, strict=True)]).max() < 1e-4
        card, labels = detecting.classifier.card, detecting.classifier.labels
        own = detecting.classifier.predict(crop_faces(image, faces, "face", card))
        assert [label for label, *_ in said] == [labels[i] for i in own.argmax(1)]
        # The last bit of a landmark moves pixels of a crop that is turned by the eyes: the same boxes, the same bits.
        marks = [np.array(face["landmarks"], np.float32).reshape(5, 2) for face in found]
        same = [Face(box.astype(np.float32), 1.0, points) for box, points in zip(boxes, marks, strict=True)]
        expected = detecting.classifier.predict(crop_faces(image, same, "face", card))
        probs = np.array([probs for _, probs, _ in said])
        assert np.abs(probs - expected).max() <= 1e-5, (name, size)
        assert np.abs(probs - own).max() < 0.01, (name, size)
        assert [x for *_, x in said] == [face["x"] for face in found]
    assert n_faces > 15


def test_crops_of_any_rule_and_place_are_those_of_python(
    open_page: Callable[..., Any],
    folders: Callable[..., Path],
    write_linear_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A model in colour with a fixed batch of four, that weighs each pixel differently, and another rule for crops."""
    import onnx

    from deepfer_yolo.faces.align import crop_faces
    from deepfer_yolo.runtime.card import CropSpec
    from deepfer_yolo.runtime.golden import make_golden
    from deepfer_yolo.runtime.model_file import attach

    random = np.random.default_rng(0)
    path = write_linear_model(
        tmp_path / "rgb.onnx", random.normal(0, 0.2, (7, 24 * 24 * 3)).astype(np.float32), np.zeros(7, np.float32)
    )
    classifier, model = Classifier(path), onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    crop = CropSpec(reference="longer", margin=0.2, shift_x=0.1, shift_y=-0.05, alignment="eyes")
    changed = {"input": InputSpec(size=24, colour="rgb", native_px=None), "crop": crop, "graph_sha256": None}
    onnx.save(model, path)
    attach(classifier.card.model_copy(update=changed | {"golden": make_golden(classifier.predict, 24)}), path)
    page, classifier = open_page(folders(path)), Classifier(path)
    page.evaluate("async () => { window.engine = await openEngine({progress}); }")
    opened = Page(page, classifier)
    image = random.integers(0, 256, (90, 131, 3), np.uint8)
    faces = []
    for x, y, w, h in [(20, 20, 30, 40), (0, 0, 131, 90), (-10.5, -3.2, 40, 40), (100, 60, 60, 50), (50.5, 40.5, 3, 2)]:
        for angle in (None, 0.0, 17.3, -44.0):
            eyes = np.array([x, y, w, h])[[0, 1]] + np.array(
                [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]
            )
            marks = None
            if angle is not None:
                turn = np.array([[np.cos(np.radians(angle)), np.sin(np.radians(angle))]])
                marks = (eyes[0] + (eyes - eyes[0]) * 0 + np.outer(np.arange(5), turn[0]) * w / 4).astype(np.float32)
            faces.append(Face(np.array([x, y, x + w, y + h], np.float32), 0.9, marks))
    code = """const image = await read(given[0]);
        return (await engine.classify(image, given[1])).map(({probs}) => [...probs]);"""
    boxes = []
    for face in faces:
        left, top, right, bottom = map(float, face.box)
        marks = {} if face.landmarks is None else {"landmarks": [float(v) for v in face.landmarks.ravel()]}
        boxes.append({"x": left, "y": top, "w": right - left, "h": bottom - top, **marks})
    expected = classifier.predict(crop_faces(image, faces, "face", classifier.card))
    assert np.abs(np.array(opened.run(code, text_of(encoded(image)), boxes)) - expected).max() <= 1e-5
    assert opened.run("return (await engine.selfTest()).passed;")
    assert opened.run("return await engine.faces(await read(given[0]));", text_of(encoded(image))) is None


def test_a_damaged_model_fails_its_self_test_or_is_refused(
    open_page: Callable[..., Any], folders: Callable[..., Path]
) -> None:
    folder = folders("deepfer-live")
    whole = bytearray((folder / "model.onnx").read_bytes())
    code = """async () => {
        try { return await (await openEngine()).selfTest(); }
        catch (error) { return `${error.name}: ${error.message}`; }
    }"""
    page = open_page(folder)
    for kind in ("weights", "half", "empty"):
        middle = len(whole) // 2
        damaged = {
            "weights": bytes(whole[:middle]) + bytes(4096) + bytes(whole[middle + 4096 :]),
            "half": bytes(whole[:middle]),
            "empty": b"",
        }[kind]
        (folder / "model.onnx").write_bytes(damaged)
        page.reload()
        page.evaluate(IN_PAGE)
        said = page.evaluate(code)
        if kind == "weights":
            assert said["passed"] is False
            assert said["worst"] > said["tolerance"]
        else:
            assert said.startswith("EngineError: the model cannot be opened: "), said
    (folder / "model.onnx").unlink()
    page.reload()
    page.evaluate(IN_PAGE)
    assert page.evaluate(code) == "EngineError: model.onnx cannot be fetched: the server answers 404"


REFUSED = [
    ('await readImage(new Blob(["no image"]))', "the image cannot be read: "),
    ("await readImage(new Blob([]))", "the image cannot be read: "),
    ("await readImage(null)", "the image cannot be read: "),
    ("await engine.classify({width: 2, height: 2, data: new Uint8Array(3)})", "an image is {width, height, data}"),
    ("await engine.classify({width: 0, height: 2, data: new Uint8Array(0)})", "an image is {width, height, data}"),
    ("await engine.classify(null)", "an image is {width, height, data}"),
    ("await engine.faces(undefined)", "an image is {width, height, data}"),
    ("await engine.faces(one, {size: 0})", "the size that is searched is 32 pixels or more"),
    ("await engine.classify(one, [{x: 1, y: 1, w: 0, h: 3}])", "no box of a face: 1, 1, 0, 3"),
    ("await engine.classify(one, [{x: 1, y: 1, w: 2, h: NaN}])", "no box of a face: 1, 1, 2, NaN"),
    ("await engine.classify(one, [{x: 1, y: 1, w: -2, h: 2}])", "no box of a face: 1, 1, -2, 2"),
    ("await engine.classify(one, [null])", "no box of a face: NaN"),
    ("await engine.classify(one, [{x: 60, y: 1, w: 5, h: 5}])", "the box lies outside the image: 60, 1, 5, 5 in 50×50"),
    ("await engine.classify(one, [{x: 0, y: 0, w: 1e9, h: 1e9}])", "the box is larger than the image"),
    ("await engine.classify(one, [{x: 0, y: 0, w: 9, h: 9, landmarks: [1]}])", "landmarks are ten numbers"),
]


def test_what_cannot_be_used_is_one_clear_error_and_the_engine_goes_on(detecting: Page) -> None:
    code = """const one = {width: 50, height: 50, data: new Uint8ClampedArray(50 * 50 * 4).fill(90)};
        const said = [];
        for (const call of given[0]) {
            const run = new Function("one", `return (async () => ${call})()`);
            said.push(await run(one).then(() => "no error", error => `${error.name}: ${error.message}`));
        }
        const boxes = [{x: -20, y: -20, w: 40, h: 40}];
        return [said, (await engine.classify(one, [])).length, (await engine.classify(one, boxes)).length];"""
    said, n_none, n_partly = detecting.run(code, [call for call, _ in REFUSED])
    for told, (call, expected) in zip(said, REFUSED, strict=True):
        assert told.startswith(f"EngineError: {expected}"), call
        assert "\n" not in told
    assert (n_none, n_partly) == (0, 1)


def test_an_image_of_too_many_pixels_is_refused(fp32: Page) -> None:
    content = encoded(PillowImage.new("1", (8000, 8000)))
    code = "try { await read(given[0]); } catch (error) { return `${error.name}: ${error.message}`; }"
    assert fp32.run(code, text_of(content)) == "EngineError: 8000×8000 pixels are more than the limit of 50000000"


def test_calls_wait_for_each_other_and_end_with_the_engine(
    open_page: Callable[..., Any], folders: Callable[..., Path]
) -> None:
    page = open_page(folders("deepfer-xs"))
    said = page.evaluate("""async () => {
        const engine = await openEngine();
        const images = [10, 90, 200].map(value => ({
            width: 60, height: 60, data: new Uint8ClampedArray(60 * 60 * 4).map((_, at) => (at * value) % 251)}));
        const alone = [];
        for (const image of images) alone.push([...(await engine.classify(image))[0].probs]);
        const together = await Promise.all(images.map(image => engine.classify(image)));
        const last = engine.classify(images[0]).catch(error => error.message);
        engine.close();
        const after = engine.classify(images[0]).catch(error => error.message);
        return [alone, together.map(([{probs}]) => [...probs]), await last, await after];
    }""")
    assert said[0] == said[1]
    assert said[2:] == ["the engine is closed", "the engine is closed"]


class Isolated(SimpleHTTPRequestHandler):
    """Isolates its pages from other origins, and declares packed files as compressed."""

    def end_headers(self) -> None:
        """Ends every answer's head."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_two_threads_where_the_page_is_isolated_and_a_host_that_unpacks(
    open_page: Callable[..., Any], folders: Callable[..., Path]
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Isolated, directory=folders("deepfer-live")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        page = open_page(f"http://127.0.0.1:{server.server_port}/")
        threads, result = page.evaluate("""async () => {
            const engine = await openEngine({threads: 2});
            const said = [engine.threads, await engine.selfTest()];
            engine.close();
            return said;
        }""")
        assert page.evaluate("crossOriginIsolated") is True
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (threads, result["passed"]) == (2, True)
    assert result["worst"] <= 1e-4
