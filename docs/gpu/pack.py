"""FER2013's rows and their FER+ votes in one file small enough to travel, and back, byte for byte.

python docs/gpu/pack.py make fer2013.csv[.gz] fer2013new.csv PACK [--minutes 10]
python docs/gpu/pack.py unpack PACK FOLDER
python docs/gpu/pack.py halve CHECKPOINT.pt SMALLER.pt

`make` trains a small network that predicts pixels (codec.c says how), writes PACK and, beside it, codec.so, the
compiled codec, for a machine without a C compiler. Images that stand in several rows are kept once. `unpack` writes
FOLDER/fer2013.csv and FOLDER/fer2013new.csv and checks their SHA-256. `halve` rounds a
checkpoint's weights to fp16 and leaves its last layer out, for a start whose labels are others.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import hashlib
import io
import itertools
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE, REACH, NEAR = 48, 4, 12
HIDDEN, PARTS, OUTPUTS = (64, 40), 5, 16
CHUNKS = 64
"""Parts that are coded apart, so that as many cores can work."""
FLAGS = ("-O3", "-march=x86-64-v3", "-ffp-contract=off", "-shared", "-fPIC")
Bytes = NDArray[np.uint8]


def neighbours() -> list[tuple[int, int]]:
    """Row and column offsets of the pixels that a prediction may look at, the nearest first."""
    around = [(y, x) for y in range(-REACH, 1) for x in range(-REACH, REACH + 1) if y < 0 or x < 0]
    return sorted(around, key=lambda place: (place[0] ** 2 + place[1] ** 2, place))


def build_codec(target: Path) -> None:
    """Compile the codec into the shared library `target`."""
    subprocess.run(["cc", *FLAGS, "-o", target, Path(__file__).with_name("codec.c")], check=True)


def code(codec: Path, network: bytes, images: Bytes, stream: bytes | None = None) -> bytes:
    """The code of `images` (n, 48, 48); with a `stream` they are filled from it instead."""
    buffer = (
        np.frombuffer(stream, np.uint8).copy() if stream is not None else np.empty(images.nbytes * 2 + 64, np.uint8)
    )
    code_images = ctypes.CDLL(str(codec)).code_images
    code_images.restype = ctypes.c_long
    used = code_images(
        network, ctypes.c_int(stream is not None), ctypes.c_void_p(images.ctypes.data), ctypes.c_int(len(images)),
        ctypes.c_void_p(buffer.ctypes.data), ctypes.c_long(buffer.nbytes),
    )  # fmt: skip
    return buffer[:used].tobytes()


# What only `make` needs


def features(images: Bytes) -> list[Any]:
    """The network's inputs, the base and scale that its outputs are relative to, and the pixels; see codec.c."""
    import torch

    n, reach = len(images), REACH
    padded = np.full((n, SIDE + reach, SIDE + 2 * reach), 128, np.uint8)
    padded[:, reach:, reach:-reach] = images
    padded[:, reach + 1 :, :reach] = images[:, :-1, :1]
    padded[:, reach:, -reach:] = images[:, :, -1:]
    places = neighbours()
    around = np.stack(
        [padded[:, reach + y : reach + y + SIDE, reach + x : reach + x + SIDE] for y, x in places], -1
    ).astype(np.float32)
    left, up, corner = (around[..., places.index(place)] for place in ((0, -1), (-1, 0), (-1, -1)))
    base = (left + up) / 2
    apart = around - base[..., None]
    scale = np.abs(apart[..., :NEAR]).mean(-1) + 2
    least, most = np.minimum(left, up), np.maximum(left, up)
    median = np.where(corner >= most, least, np.where(corner <= least, most, left + up - corner))
    errors = np.abs(images - median).sum(2).cumsum(1)[:, :-1] / (SIDE * np.arange(1, SIDE))
    spent = np.concatenate([np.full((n, 1), 8.0), errors], 1)[:, :, None].repeat(SIDE, 2)
    rows, columns = (np.broadcast_to(axis / 24 - 1, base.shape) for axis in np.mgrid[:SIDE, :SIDE])
    more = np.stack([np.log(scale), np.log(spent + 1), base / 128 - 1, columns, rows], -1)
    inputs = np.concatenate([apart / scale[..., None], more], -1)
    return [
        torch.from_numpy(np.ascontiguousarray(part.reshape(n * SIDE * SIDE, -1), np.float32))
        for part in (inputs, base, scale, images)
    ]


def bits(network: Any, inputs: Any, base: Any, scale: Any, pixels: Any) -> Any:
    """The mean length of a pixel's code."""
    import torch

    weights, means, widths = network(inputs).split(PARTS, 1)
    means, widths = base + means * scale, scale * (widths - 1.5).clamp(-6, 4).exp()
    above, under = (((pixels + half - means) / widths).sigmoid() for half in (0.5, -0.5))
    above, under = above.where(pixels < 255, torch.ones(())), under.where(pixels > 0, torch.zeros(()))
    return -torch.log2(((above - under) * weights.softmax(1)).sum(1) * 0.999 + 0.001 / 256).mean()


def train_network(images: Bytes, minutes: float) -> bytes:
    """The struct Network of codec.c, fitted to `images`."""
    import torch

    torch.manual_seed(0)
    sizes = (len(neighbours()) + 5, *HIDDEN, 3 * PARTS)
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    network = torch.nn.Sequential(layers[0], torch.nn.LeakyReLU(0.1), layers[1], torch.nn.LeakyReLU(0.1), layers[2])
    optimizer = torch.optim.Adam(network.parameters())
    order = np.random.default_rng(0).permutation(len(images))
    began, place, batch, steps, done = time.monotonic(), 0, 4096, 120, 0.0
    while done < 1:
        sample = features(images[order.take(range(place, place + 220), mode="wrap")])
        shuffled, place = torch.randperm(len(sample[0])), place + 220
        for step in range(steps):
            done = (time.monotonic() - began) / max(60 * minutes, 1)
            if done >= 1 and step:
                break
            optimizer.param_groups[0]["lr"] = 4e-3 * max(0.0, 1 - done) + 2e-5
            loss = bits(network, *(part[shuffled[step * batch : (step + 1) * batch]] for part in sample))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        print(f"{done:.0%}: {loss.item():.3f} bits a pixel", flush=True)
    return struct([(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers])


def struct(layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> bytes:
    """The struct Network of codec.c: offsets, then each layer's weights by input, and its biases."""
    content = np.array(neighbours(), np.int8).T.tobytes()
    for weights, biases in layers:
        width = len(biases) if len(biases) in HIDDEN else OUTPUTS
        table = np.zeros((len(weights[0]) + 1, width), np.float32)
        table[:-1, : len(biases)], table[-1, : len(biases)] = weights.T, biases
        content += table.tobytes()
    return content


def make(table: Path, votes: Path, pack: Path, network: bytes | None, minutes: float) -> None:
    """Write `pack` and codec.so beside it."""
    text = gzip.decompress(table.read_bytes()) if table.suffix == ".gz" else table.read_bytes()
    rows = [line.split(b",") for line in text.splitlines()[1:]]
    pixels = np.stack([np.array(row[1].split(b" "), np.uint8) for row in rows])
    _, first, which = np.unique(pixels, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[which.ravel()]
    images = pixels[np.sort(first)].reshape(-1, SIDE, SIDE)
    network = network or train_network(images, minutes)
    pack.parent.mkdir(parents=True, exist_ok=True)
    codec = pack.with_name("codec.so").resolve()
    build_codec(codec)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        streams = list(pool.map(lambda part: code(codec, network, part.copy()), np.array_split(images, CHUNKS)))
    rest = b"\n".join(b",".join((row[0], row[2])) for row in rows)
    new = np.maximum.accumulate(np.concatenate([[-1], rank[:-1]])) < rank
    parts = {
        "streams": np.frombuffer(b"".join(streams), np.uint8),
        "sizes": np.array([len(stream) for stream in streams]),
        "n": np.array(len(images)),
        "network": np.frombuffer(network, np.uint8),
        "which": packed(np.where(new, 0, rank + 1).astype(np.uint16).tobytes()),
        "rest": packed(rest),
        "votes": packed(votes.read_bytes()),
        "hashes": np.array([hashlib.sha256(text).hexdigest(), hashlib.sha256(votes.read_bytes()).hexdigest()]),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **parts)  # type: ignore[arg-type]
    pack.write_bytes(buffer.getvalue())
    print(f"{len(rows):,} rows, {len(images):,} images, {pack}: {len(buffer.getvalue()):,} bytes")


def packed(content: bytes) -> Bytes:
    """The bytes as LZMA makes them."""
    return np.frombuffer(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME), np.uint8)


# What `unpack` needs


def lines_of(codec: Path, network: bytes, n: int, stream: bytes) -> list[str]:
    """The pixels of the `n` images of a stream, as text."""
    images = np.zeros((n, SIDE, SIDE), np.uint8)
    code(codec, network, images, stream)
    number = [str(value) for value in range(256)]
    return [" ".join(map(number.__getitem__, image.ravel())) for image in images]


def unpack(pack: Path, folder: Path) -> None:
    """Write both tables into `folder`, and raise where a byte differs from what was packed."""
    with np.load(pack) as file:
        part = dict(file)
    ends = part["sizes"].cumsum()
    streams = [part["streams"][end - size : end].tobytes() for size, end in zip(part["sizes"], ends, strict=True)]
    counts = [len(places) for places in np.array_split(np.arange(int(part["n"])), CHUNKS)]
    network = part["network"].tobytes()
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor() as pool:
        codec = pack.with_name("codec.so").resolve()
        if shutil.which("cc"):  # else the one that was carried
            codec = Path(name) / "codec.so"
            build_codec(codec)
        found = pool.map(lines_of, [codec] * CHUNKS, [network] * CHUNKS, counts, streams)
        images = [line for lines in found for line in lines]
    which = np.frombuffer(lzma.decompress(part["which"].tobytes()), np.uint16).astype(int)
    rank = np.where(which > 0, which - 1, (which == 0).cumsum() - 1)
    rest = lzma.decompress(part["rest"].tobytes()).decode().split("\n")
    pairs = [line.split(",") for line in rest]
    rows = [f"{label},{images[place]},{usage}\n" for (label, usage), place in zip(pairs, rank, strict=True)]
    tables = ("emotion,pixels,Usage\n" + "".join(rows)).encode(), lzma.decompress(part["votes"].tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    for name, content, digest in zip(("fer2013.csv", "fer2013new.csv"), tables, part["hashes"], strict=True):
        if hashlib.sha256(content).hexdigest() != digest:
            raise SystemExit(f"{name} is not what was packed")
        (folder / name).write_bytes(content)


def halve(source: Path, target: Path) -> None:
    """Write the network of the checkpoint `source` in half precision, without its last layer's classes."""
    import torch

    from deepfer_yolo.yolo import load_checkpoint

    model = load_checkpoint(source)
    model.model[-1].linear = torch.nn.Linear(model.model[-1].linear.in_features, 1)
    torch.save({"model": model.half(), "train_args": {"task": "classify"}, "epoch": -1}, target)
    print(f"{target}: {target.stat().st_size:,} bytes")


def main() -> None:
    """Make a pack, unpack one, or halve a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    for name in ("table", "votes", "pack"):
        making.add_argument(name, type=Path)
    making.add_argument("--minutes", type=float, default=10, help="how long the network learns")
    making.add_argument("--network", type=Path, help="an earlier pack whose network is used again")
    opening = commands.add_parser("unpack")
    opening.add_argument("pack", type=Path)
    opening.add_argument("folder", type=Path)
    halving = commands.add_parser("halve")
    halving.add_argument("source", type=Path)
    halving.add_argument("target", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.command == "make":
        network = None
        if arguments.network is not None:
            with np.load(arguments.network) as file:
                network = file["network"].tobytes()
        make(arguments.table, arguments.votes, arguments.pack, network, arguments.minutes)
    elif arguments.command == "unpack":
        unpack(arguments.pack, arguments.folder)
    else:
        halve(arguments.source, arguments.target)
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
