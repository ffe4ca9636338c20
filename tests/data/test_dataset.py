"""Batches: shapes, normalization, order, limits; and splits that never change."""

import hashlib

import numpy as np
import pytest
import torch

from svitkit.data import Dataset, Split, batches, load_data
from svitkit.data.dataset import sample_order, sequence
from svitkit.data.splits import measure_normalization, set_aside, stratified_indices
from svitkit.errors import ConfigError
from svitkit.manifest import Normalization


def make(x: np.ndarray, *, static: bool) -> Dataset:
    part = Split(x=x, y=np.arange(len(x)) % 3)
    return Dataset(
        name="tiny",
        train=part,
        validation=part,
        test=part,
        normalization=Normalization(mean=(0.5, 0.0), std=(0.5, 2.0)),
        class_names=("a", "b", "c"),
        shape=x.shape[-3:],
        static=static,
    )


def images(count: int = 7) -> Dataset:
    rng = np.random.default_rng(0)
    return make(rng.integers(0, 256, (count, 2, 4, 5), dtype=np.uint8), static=True)


def recordings(frames: int = 4) -> Dataset:
    rng = np.random.default_rng(0)
    return make(rng.integers(0, 200, (5, frames, 2, 4, 5), dtype=np.uint8), static=False)


def test_an_image_is_normalized_and_shown_at_every_step() -> None:
    dataset = images()
    x, y = next(batches(dataset, "test", batch_size=3, timesteps=4))
    assert x.shape == (4, 3, 2, 4, 5)
    assert x.dtype == torch.float32
    assert y.tolist() == [0, 1, 2]
    raw = torch.from_numpy(dataset.test.x[:3].astype(np.float32))
    assert torch.allclose(x[2, :, 0], (raw[:, 0] / 255 - 0.5) / 0.5)
    assert torch.allclose(x[0, :, 1], raw[:, 1] / 255 / 2)
    assert torch.equal(x, torch.from_numpy(np.array(sequence(dataset.test.x[:3], dataset, timesteps=4))))


def test_event_counts_come_with_time_first_and_are_not_divided_by_255() -> None:
    dataset = recordings()
    x, _ = next(batches(dataset, "test", batch_size=2, timesteps=4))
    assert x.shape == (4, 2, 2, 4, 5)
    assert torch.allclose(x[3, 1, 1], torch.from_numpy(dataset.test.x[1, 3, 1].astype(np.float32)) / 2)


def test_frames_are_summed_where_fewer_steps_are_wanted_and_clipped_at_255() -> None:
    dataset = recordings()
    x, _ = next(batches(dataset, "test", batch_size=5, timesteps=2))
    summed = dataset.test.x[:, 2:].astype(int).sum(1).clip(max=255)
    assert (summed == 255).any()
    assert np.allclose(x[1, :, 1].numpy(), summed[:, 1] / 2)


def test_frames_that_do_not_divide_into_the_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 frames, which do not divide into 3"):
        next(batches(recordings(), "test", batch_size=1, timesteps=3))


def test_every_sample_comes_once_and_the_last_batch_may_be_smaller() -> None:
    labels = [y for _, y in batches(images(), "train", batch_size=3, timesteps=1)]
    assert [len(y) for y in labels] == [3, 3, 1]
    assert torch.cat(labels).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_seed_shuffles_and_repeats() -> None:
    first = sample_order(images(), "train", seed=3, limit=None)
    assert sorted(first) == list(range(7))
    assert first.tolist() == sample_order(images(), "train", seed=3, limit=None).tolist()
    assert first.tolist() != list(range(7))


def test_a_limit_without_seed_spreads_over_the_split() -> None:
    assert sample_order(images(9), "train", seed=None, limit=3).tolist() == [0, 3, 6]
    assert sample_order(images(9), "train", seed=None, limit=99).tolist() == list(range(9))


@pytest.mark.parametrize(("limit", "batch_size"), [(0, 1), (-1, 1), (None, 0)])
def test_limits_and_sizes_that_leave_nothing_are_refused(limit: int | None, batch_size: int) -> None:
    with pytest.raises(ConfigError):
        next(batches(images(), "train", batch_size=batch_size, timesteps=1, limit=limit))


def test_a_misspelt_split_brings_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'validation'"):
        images().split("validaton")


def test_a_stratified_choice_gives_every_class_its_share() -> None:
    y = np.repeat([0, 1, 2], [100, 50, 10])
    chosen = stratified_indices(y, 32)
    assert np.bincount(y[chosen]).tolist() == [20, 10, 2]
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_what_is_set_aside_and_the_rest_are_the_whole() -> None:
    part = Split(x=np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1), y=np.arange(40) % 4)
    rest, aside = set_aside(part, 8)
    assert len(aside) == 8
    assert sorted([*rest.x.ravel(), *aside.x.ravel()]) == list(range(40))


def test_measured_statistics_are_those_of_the_pixels() -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 3), dtype=np.uint8)
    found = measure_normalization(x)
    assert np.allclose(found.mean, (x / 255).mean((0, 2, 3)), atol=6e-5)
    assert np.allclose(found.std, (x / 255).std((0, 2, 3)), atol=6e-5)


def test_constant_images_do_not_divide_by_zero() -> None:
    assert measure_normalization(np.zeros((3, 1, 2, 2), np.uint8)).std == (1e-4,)


def test_digits_have_fixed_splits_of_sixteen_pixels_a_side() -> None:
    digits = load_data("digits")
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1221, 216, 360)
    assert digits.shape == digits.test.x.shape[1:] == (1, 16, 16)
    assert np.bincount(digits.test.y).min() >= 35
    small = digits.test.x[:, :, ::2, ::2]
    assert np.array_equal(small.repeat(2, 2).repeat(2, 3), digits.test.x)
    assert set(np.unique(digits.test.x)) == {round(value * 255 / 16) for value in range(17)}
    digest = hashlib.sha256(digits.test.x.tobytes() + digits.test.y.tobytes()).hexdigest()
    assert digest == "7dcaae90610d560efdb85f058e50b4d6495cdcb9f0814978f55cbf7fe91272b4"


def test_digits_splits_do_not_overlap() -> None:
    digits = load_data("digits")
    parts = [{image.tobytes() for image in digits.split(name).x} for name in ("train", "validation", "test")]
    assert sum(len(part) for part in parts) == len(parts[0] | parts[1] | parts[2])
