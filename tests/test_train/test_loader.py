"""The decoded split and the batches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_inputs
from deepfer_yolo.train import device, splits
from deepfer_yolo.train.decoded_split import read_train, read_val
from deepfer_yolo.train.loader import EpochSampler, TrainLoader, ValLoader
from deepfer_yolo.train.schedule import side_at


def faces(n: int, side: int, *, colour: bool = False) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (n, side, side, 1), dtype=np.uint8).repeat(3, 3)
    if colour:
        grey[..., 1] //= 2
    return list(grey)


def test_small_grey_images_are_kept_as_they_are_in_one_channel() -> None:
    images = faces(5, 48)
    kept, spec = read_train(iter(images), [0, 1, 2, 3, 4], 64)
    assert kept.pixels.shape == (5, 1, 48, 48)
    assert (kept.pixels[:, 0].numpy() == np.stack(images)[..., 0]).all()
    assert (spec.size, spec.colour, spec.native_px) == (64, "grey", 48)


def test_one_colour_image_makes_the_split_rgb() -> None:
    kept, spec = read_train([*faces(3, 48), *faces(1, 48, colour=True)], [0] * 4, 64)
    assert kept.pixels.shape == (4, 3, 48, 48)
    assert spec.colour == "rgb"


def test_large_and_mixed_images_are_reduced_to_the_input() -> None:
    kept, spec = read_train([*faces(2, 100), *faces(2, 48)], [0] * 4, 64)
    assert kept.pixels.shape == (4, 1, 64, 64)
    assert spec.native_px is None
    assert (kept.pixels[:2, 0].numpy() == to_inputs(faces(2, 100), spec)[..., 0]).all()


def test_validation_sees_what_an_exported_model_is_fed() -> None:
    spec = InputSpec(size=64, colour="grey", native_px=48)
    images = faces(3, 48)
    read = read_val(iter(images), [0, 1, 2], spec)
    batches = list(ValLoader(read, 2, torch.device("cpu")))
    assert [len(batch["cls"]) for batch in batches] == [2, 1]
    seen = torch.cat([batch["img"] for batch in batches]).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (seen == to_inputs(images, spec)).all()


@pytest.mark.parametrize(("n", "batch", "world"), [(10, 4, 1), (129, 128, 1), (7, 128, 1), (101, 16, 2), (100, 16, 3)])
def test_an_epoch_deals_every_image_once_whatever_the_number_of_ranks(n: int, batch: int, world: int) -> None:
    dealt: list[int] = []
    counts = set()
    for rank in range(world):
        sampler = EpochSampler(n, batch, seed=3, rank=rank, world=world)
        batches = sampler.batches()
        counts.add(len(batches))
        assert len(batches) == sampler.n_batches
        assert sum(map(len, batches)) == len(sampler)
        assert max(map(len, batches)) <= batch
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
        dealt += torch.cat(batches).tolist()
    assert sorted(dealt) == list(range(n))
    assert len(counts) == 1


def test_the_order_changes_with_the_epoch_and_returns_with_it() -> None:
    sampler = EpochSampler(50, 50, seed=1)
    first = sampler.batches()[0]
    sampler.set_epoch(1)
    assert not torch.equal(sampler.batches()[0], first)
    sampler.set_epoch(0)
    assert torch.equal(sampler.batches()[0], first)


def test_a_resumed_epoch_leaves_out_the_batches_that_were_made() -> None:
    kept, _ = read_train(faces(12, 32), list(range(7)) + [0] * 5, 32)
    config = TrainConfig(imgsz=32, batch=4, mixup=0.0)
    loader = TrainLoader(kept, config, 7, torch.device("cpu"))
    whole = list(loader)
    loader.skip = 2
    rest = list(loader)
    assert len(rest) == 1
    assert torch.equal(rest[0]["img"], whole[2]["img"])
    assert len(list(loader)) == 3


def test_balanced_sampling_draws_rare_classes_as_often_as_frequent_ones() -> None:
    labels = [0] * 900 + [1] * 100
    kept, _ = read_train(faces(1000, 32), labels, 32)
    shares = {}
    for sampling in ("natural", "sqrt", "balanced"):
        config = TrainConfig(imgsz=32, sampling=sampling)  # type: ignore[arg-type]
        loader = TrainLoader(kept, config, 2, torch.device("cpu"))
        drawn = torch.cat(loader.sampler.batches())
        shares[sampling] = float(kept.labels[drawn].float().mean())
    assert shares["natural"] == pytest.approx(0.1)
    assert shares["sqrt"] == pytest.approx(0.25, abs=0.05)
    assert shares["balanced"] == pytest.approx(0.5, abs=0.05)


def test_votes_become_the_targets() -> None:
    kept, _ = read_train(faces(4, 32), [0, 1, 2, 0], 32)
    soft = torch.tensor([[0.5, 0.5, 0.0]]).repeat(4, 1)
    config = TrainConfig(imgsz=32, batch=4, mixup=0.0, label_smoothing=0.0)
    batch = next(iter(TrainLoader(replace(kept, soft=soft), config, 3, torch.device("cpu"))))
    assert torch.equal(batch["target"], soft)


def test_labels_are_smoothed_as_the_recipe_says() -> None:
    kept, _ = read_train(faces(4, 32), [1, 1, 1, 1], 32)
    config = TrainConfig(imgsz=32, batch=4, mixup=0.0, label_smoothing=0.3)
    batch = next(iter(TrainLoader(kept, config, 3, torch.device("cpu"))))
    torch.testing.assert_close(batch["target"], torch.tensor([[0.1, 0.8, 0.1]]).repeat(4, 1))


def test_resolution_grows_during_the_run() -> None:
    kept, _ = read_train(faces(4, 32), [0, 1, 2, 3], 64)
    loader = TrainLoader(
        kept, TrainConfig(imgsz=64, start_imgsz=32, start_share=0.5, epochs=10), 7, torch.device("cpu")
    )
    assert [side_at(loader.config, epoch, loader.epochs) for epoch in (0, 4, 5, 9)] == [32, 32, 64, 64]
    batch = next(iter(loader))
    assert batch["img"].shape == (4, 3, 32, 32)
    assert batch["img"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "images",
    [faces(9, 48), faces(9, 100, colour=True), [*faces(5, 100), *faces(4, 48)]],
    ids=["small", "large", "mixed"],
)
def test_batches_from_files_are_those_from_memory(images: list[np.ndarray]) -> None:
    labels = [0, 1, 2] * 3
    asked: list[int] = []

    def read(places: Sequence[int]) -> Iterator[np.ndarray]:
        asked.extend(places)
        return iter([images[place] for place in places])

    config = TrainConfig(imgsz=64, batch=4)
    kept, spec = read_train(images, labels, 64)
    on_files, same = read_train(images, labels, 64, read)
    assert same == spec
    assert not asked
    assert kept.hashes is not None
    assert on_files.hashes is not None
    assert (on_files.hashes == kept.hashes).all()
    pairs = zip(
        TrainLoader(kept, config, 3, torch.device("cpu")),
        TrainLoader(on_files, config, 3, torch.device("cpu")),
        strict=True,
    )
    assert all(
        torch.equal(left["img"], right["img"]) and torch.equal(left["target"], right["target"]) for left, right in pairs
    )
    assert sorted(asked) == list(range(9))
    held = ValLoader(read_val(images, labels, spec), 4, torch.device("cpu"))
    again = ValLoader(read_val(images, labels, spec, read), 4, torch.device("cpu"))
    assert all(torch.equal(left["img"], right["img"]) for left, right in zip(held, again, strict=True))


def test_images_that_do_not_fit_the_memory_stay_in_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    n, need = 1000, 2 * 3 * 1000 * 64**2
    monkeypatch.setattr(splits, "free_memory", lambda: need)
    assert not splits.reads_files(TrainConfig(), n)
    assert splits.reads_files(TrainConfig(), n + 1)
    assert not splits.reads_files(TrainConfig(cache="ram"), n + 1)
    assert splits.reads_files(TrainConfig(cache="files"), 1)


def test_a_control_group_limits_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CGROUPS", tmp_path)
    assert device.free_memory() > 100_000_000
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert device.free_memory() > 100_000_000
    (tmp_path / "memory.max").write_text("1000\n")
    assert device.free_memory() == 400


def test_teachers_may_see_the_image_without_the_sensor() -> None:
    split, _ = read_train(iter(faces(16, 48)), [0, 1] * 8, 64)
    config = TrainConfig(batch=16, sensor=1.0, haze=0.9, teacher_view="clean")
    batch = next(iter(TrainLoader(split, config, 2, torch.device("cpu"))))
    assert batch["clean"].shape == batch["img"].shape
    assert not torch.equal(batch["clean"], batch["img"])
    plain = config.model_copy(update={"sensor": 0.0, "teacher_view": "same"})
    assert torch.equal(next(iter(TrainLoader(split, plain, 2, torch.device("cpu"))))["img"], batch["clean"])


def test_teachers_may_see_each_image_once_as_it_is_in_the_file() -> None:
    split, _ = read_train(iter(faces(16, 64)), [0, 1] * 8, 64)
    loader = TrainLoader(split, TrainConfig(batch=6, sensor=1.0, haze=0.9), 2, torch.device("cpu"))
    seen = torch.cat(list(loader.still()))
    assert torch.equal(seen, (split.pixels[torch.arange(16)].float() / 255).expand(-1, 3, -1, -1))
    small = TrainLoader(split, TrainConfig(batch=6, imgsz=48), 2, torch.device("cpu"))
    assert torch.cat(list(small.still())).shape == (16, 3, 48, 48)


def test_what_teachers_said_is_mixed_as_the_images_are() -> None:
    split, _ = read_train(iter(faces(16, 48)), [0, 1] * 8, 64)
    config = TrainConfig(batch=16, label_smoothing=0.0, mixup=0.4, cutmix=0.5)
    loader = TrainLoader(split, config, 2, torch.device("cpu"))
    loader.taught = torch.eye(2)[[0, 1] * 8]
    batch = next(iter(loader))
    assert torch.equal(batch["taught"], batch["target"])
    assert not torch.equal(batch["target"], torch.eye(2)[batch["cls"]])
