"""Frames as people see them: colours by their tags, square pixels, upright, high dynamic range on an ordinary scale."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.pixels import FrameConverter, squared, to_frame, to_rgb, to_standard_range, upright
from deepfer_yolo.stream.sources import VideoSource

WEIGHTS = {"BT.601": (6, 0.299, 0.114), "BT.709": (1, 0.2126, 0.0722), "BT.2020": (9, 0.2627, 0.0593)}
"""FFmpeg's number of a colour matrix, and its weights of red and blue (ITU-R BT.601, BT.709, BT.2020)."""
CHROMA = {"yuv420p": 2, "yuvj420p": 2, "nv12": 2, "yuv422p": 1, "yuv444p": 0, "yuv420p10le": 2, "p010le": 2,
          "yuv422p10le": 1, "yuv444p10le": 0}  # fmt: skip
"""How often chroma is halved: in neither direction, across, or both ways."""
BLOCK = 16


def colours() -> Image:
    """192 colours in blocks of 16 pixels."""
    small = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.repeat(np.repeat(small, BLOCK, axis=0), BLOCK, axis=1)


def inside(difference: np.ndarray) -> np.ndarray:
    """What is not at the edge of a block, where chroma is mixed."""
    blocks = difference.reshape(12, BLOCK, 16, BLOCK, 3)
    return np.asarray(blocks[:, 4:-4, :, 4:-4])


def encoded(image: Image, name: str, matrix: str, *, is_full: bool, transfer: int = 2) -> Any:
    """An image as a frame of one format, matrix and range, by the formulas of the standards."""
    import av

    number, red, blue = WEIGHTS[matrix]
    bits = 10 if "10" in name else 8
    r, g, b = (image[..., i] / 255 for i in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    scale, top = 2 ** (bits - 8), 2**bits - 1
    levels = [top * y, top * cb + 128 * scale, top * cr + 128 * scale]
    if not is_full:
        levels = [scale * (16 + 219 * y), scale * (128 + 224 * cb), scale * (128 + 224 * cr)]
    across, down = 1 + (CHROMA[name] > 0), 1 + (CHROMA[name] > 1)
    planes = [np.clip(np.rint(level), 0, top) for level in levels]
    planes[1:] = [plane[::down, ::across] for plane in planes[1:]]
    if name in ("nv12", "p010le"):
        planes[1:] = [np.stack(planes[1:], axis=2).reshape(len(planes[1]), -1)]
    frame = av.VideoFrame(image.shape[1], image.shape[0], name)
    for place, plane in zip(frame.planes, planes, strict=True):
        kind = np.uint8 if bits == 8 else np.uint16
        rows = np.zeros((place.height, place.line_size // np.dtype(kind).itemsize), kind)
        rows[:, : plane.shape[1]] = plane.astype(kind) << (6 if name == "p010le" else 0)
        place.update(rows.tobytes())
    frame.colorspace, frame.color_range, frame.color_trc = number, 2 if is_full else 1, transfer
    return frame


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("name", CHROMA)
def test_every_matrix_and_range_is_honoured_in_every_format(name: str, matrix: str, is_full: bool) -> None:
    if name.startswith("yuvj") and not is_full:
        return
    image = colours()
    found = to_rgb(encoded(image, name, matrix, is_full=is_full)).astype(int)
    error = inside(np.abs(found - image))
    assert error.mean() < 1.5
    assert error.max() <= 5


def test_a_matrix_that_is_not_known_is_said_once_and_read_all_the_same() -> None:
    converter = FrameConverter()
    frame = encoded(colours(), "yuv420p", "BT.601", is_full=False)
    for _ in range(2):
        frame.colorspace = 8
        assert inside(np.abs(converter.image(frame).astype(int) - colours())).mean() < 1.5
    assert converter.notes == ["colour matrix 8 is not known, read as BT.601"]


@pytest.mark.parametrize("shape", [(47, 63), (48, 63), (47, 64)])
@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv422p", "gray", "rgba", "pal8", "gbrp", "yuv410p"])
def test_odd_sizes_and_rare_formats_come_out_whole(name: str, shape: tuple[int, int]) -> None:
    import av

    assert to_rgb(av.VideoFrame(shape[1], shape[0], name)).shape == (*shape, 3)


def test_our_own_frames_come_back(write_clip: Callable[..., Path]) -> None:
    assert inside(np.abs(to_rgb(to_frame(colours())).astype(int) - colours())).mean() < 2


# Signal → light → signal, by hand: HLG 50 % is 1/12 of the scene's range, 1000 (1/12)^1.2 = 50.7 cd/m², a quarter of
# white at 203; 255 (50.7 / 203)^(1/2.4) = 143. PQ 44 % is 49.9 cd/m², and so 142.
@pytest.mark.parametrize(("transfer", "signal", "wanted"), [("HLG", 0.5, 143), ("HLG", 0.25, 72), ("PQ", 0.44, 142)])
def test_middle_greys_of_high_dynamic_range_keep_their_light(transfer: str, signal: float, wanted: int) -> None:
    grey = np.full((4, 4, 3), round(255 * signal), np.uint8)
    assert np.abs(to_standard_range(grey, transfer).astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("transfer", ["HLG", "PQ"])
def test_highlights_are_rolled_off_and_not_cut(transfer: str) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    tones = to_standard_range(ramp, transfer)[0, :, 1].astype(int)
    assert (np.diff(tones) >= 0).all()
    assert tones[0] == 0
    white = {"HLG": 191, "PQ": 148}[transfer]
    assert 220 <= tones[white] <= 240, "reference white stays below the end of the scale"
    assert tones[-1] == 255


def test_colours_of_high_dynamic_range_keep_their_hue() -> None:
    sdr = np.array([[200, 60, 40], [40, 120, 60], [50, 70, 160], [190, 150, 130]], np.uint8)
    light = 203 * np.linalg.inv(np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083],
                                          [-0.0182, -0.1006, 1.1187]])) @ ((sdr / 255) ** 2.4).T / 10000  # fmt: skip
    power = light ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    found = to_standard_range(np.rint(255 * signal.T).astype(np.uint8)[None], "PQ")[0]
    assert np.abs(found.astype(int) - sdr).max() <= 8
    assert np.abs(found.astype(int) - sdr).mean() <= 3


@pytest.mark.slow  # FFmpeg's own mapping builds its tables for some seconds
@pytest.mark.parametrize(("transfer", "number"), [("HLG", 18), ("PQ", 16)])
def test_below_white_the_mapping_is_ffmpegs(transfer: str, number: int) -> None:
    from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

    ramp = np.repeat(np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 3, axis=2), 16, axis=0)
    frame = encoded(ramp, "yuv444p10le", "BT.2020", is_full=False, transfer=number)
    frame.color_primaries = 9
    theirs = VideoReformatter().reformat(
        frame, format="rgb24", dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709
    )
    wanted, found = theirs.to_ndarray()[0].astype(int), to_rgb(frame)[0].astype(int)
    below = wanted.max(axis=1) < 180
    assert below.sum() > 20
    assert np.abs(found - wanted)[below].max() <= 4


def test_high_dynamic_range_is_mapped_in_a_file_and_said(write_clip: Callable[..., Path]) -> None:
    path = write_clip("hlg.mkv", pix_fmt="yuv420p10le", colour=(9, 1, 18, 9))
    source = VideoSource(parse_source(str(path))[0], StreamConfig())
    images = [grab.image for grab in source.grabs()]
    assert source.notes == ["HLG shown in standard range"]
    source.close()
    plain = write_clip("plain.mkv", pix_fmt="yuv420p10le", colour=(9, 1, 1, 9))
    assert np.abs(images[0].astype(int) - image_of(plain)).mean() > 5  # type: ignore[union-attr]


def image_of(path: Path) -> Image:
    """The first image of a file."""
    source = VideoSource(parse_source(str(path))[0], StreamConfig())
    image = next(source.grabs()).image
    source.close()
    assert image is not None
    return image


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a clip of 16 × 8 blocks, the corners of which are bright, dark, red and blue."""

    def write(
        name: str,
        *,
        pix_fmt: str = "yuv420p",
        aspect: Fraction | None = None,
        matrix: tuple[int, int, int, int] | None = None,
        colour: tuple[int, int, int, int] = (6, 1, 2, 2),
        n: int = 3,
    ) -> Path:
        import av

        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"qp": "4", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 128, 64, pix_fmt
            context = stream.codec_context
            context.colorspace, context.color_range, context.color_trc, context.color_primaries = colour
            if aspect is not None:
                context.sample_aspect_ratio = aspect
            if matrix is not None:
                a, b, c, d = (65536 * value for value in matrix)
                stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            for _ in range(n):
                frame = av.VideoFrame.from_ndarray(corners(), format="rgb24").reformat(format=pix_fmt)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


def corners() -> Image:
    image = np.full((64, 128, 3), 128, np.uint8)
    image[:16, :32], image[:16, -32:], image[-16:, :32], image[-16:, -32:] = 240, 16, (200, 30, 30), (30, 30, 200)
    return image


MATRICES = [
    (x, 0, 0, y) if not is_transposed else (0, y, x, 0)
    for is_transposed, x, y in itertools.product((False, True), (1, -1), (1, -1))
]


def moved(image: Image, matrix: tuple[int, int, int, int]) -> Image:
    """Each pixel put where ISO/IEC 14496-12 says: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    result = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    result[to_y, to_x] = image
    return result


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices(matrix: tuple[int, int, int, int], write_clip: Callable[..., Path]) -> None:
    found, wanted = image_of(write_clip("turned.mp4", matrix=matrix)), moved(corners(), matrix)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 4
    # An image that was turned otherwise is far from it.
    others = [moved(corners(), other) for other in MATRICES if other != matrix]
    assert all(o.shape != found.shape or np.abs(found.astype(int) - o).mean() > 10 for o in others)


def test_a_matrix_between_quarters_is_rounded_and_one_without_area_is_ignored() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    leaning = np.array([[10, 60], [-60, 10]], np.int32)
    assert (upright(image, leaning) == moved(image, (0, 1, -1, 0))).all()
    assert upright(image, np.zeros((2, 2), np.int32)) is image


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [
        (Fraction(64, 45), (64, 182)),
        (Fraction(2), (64, 256)),
        (Fraction(1, 2), (128, 128)),
        (Fraction(10, 11), (70, 128)),
        (Fraction(1), (64, 128)),
    ],
)
def test_pixels_are_square(aspect: Fraction, shape: tuple[int, int], write_clip: Callable[..., Path]) -> None:
    found = image_of(write_clip("aspect.mp4", aspect=aspect))
    assert found.shape == (*shape, 3)
    bright = (found[: shape[0] // 2] > 200).all(axis=2)
    assert bright.any(axis=0).sum() == pytest.approx(shape[1] / 4, abs=2)
    assert bright.any(axis=1).sum() == pytest.approx(shape[0] / 4, abs=2)


def test_pixels_are_squared_before_the_image_is_turned(write_clip: Callable[..., Path]) -> None:
    assert image_of(write_clip("both.mp4", aspect=Fraction(2), matrix=(0, 1, -1, 0))).shape == (256, 64, 3)


def test_an_absurd_aspect_is_not_believed() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    for aspect in (None, Fraction(255), Fraction(1, 255), Fraction(400, 399)):
        assert squared(image, aspect) is image


def test_shape_and_aspect_may_change_within_a_file(tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    parts = [write_clip("one.ts", aspect=Fraction(2), n=30), write_clip("two.ts", n=30)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = VideoSource(parse_source(str(path))[0], StreamConfig())
    shapes = [grab.image.shape[:2] for grab in source.grabs() if grab.image is not None]
    source.close()
    assert shapes == [(64, 256)] * 30 + [(64, 128)] * 30
