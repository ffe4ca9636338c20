"""Checked arrays become a data set: labels in range, equal frames, a validation part set aside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svitkit.data.dataset import Dataset, Split
from svitkit.data.splits import measure_normalization, set_aside
from svitkit.errors import ConfigError
from svitkit.manifest import Normalization

VALIDATION_SHARE = 0.1
MAX_CHANNELS = 4


def checked_split(x: NDArray[Any], y: NDArray[Any], *, classes: int, source: str) -> Split:
    """Checks samples and labels and brings them into one form.

    Args:
        x: (N, H, W), (N, C, H, W) or (N, T, C, H, W), uint8.
        y: (N,) integers.
        classes: number of classes.
        source: where they are from, for the error message.

    Raises:
        ConfigError: a shape or type is wrong, the counts differ, there are no samples, or a label is out of range.
    """
    if x.dtype != np.uint8:
        raise ConfigError(f"{source}: samples are of type {x.dtype}, wanted uint8 (images 0..255, or event counts).")
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim not in (4, 5) or min(x.shape[1:]) < 1 or x.shape[-3] > MAX_CHANNELS:
        hint = " The channels must come before height and width." if x.ndim == 4 and x.shape[-1] <= MAX_CHANNELS else ""
        raise ConfigError(
            f"{source}: samples have shape {x.shape}, wanted (N, H, W), (N, C, H, W) or, for recordings, "
            f"(N, T, C, H, W), with at most {MAX_CHANNELS} channels.{hint}"
        )
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ConfigError(f"{source}: labels have shape {y.shape} and type {y.dtype}, wanted (N,) integers.")
    if len(x) != len(y) or not len(y):
        raise ConfigError(f"{source}: {len(x)} samples and {len(y)} labels. There must be equally many, and some.")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        wrong = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise ConfigError(f"{source}: label {wrong} is out of range, wanted 0..{classes - 1}.")
    return Split(x=np.ascontiguousarray(x), y=y.astype(np.int64))


def assemble(
    name: str,
    train: Split,
    test: Split,
    *,
    class_names: tuple[str, ...],
    normalization: Normalization | None = None,
) -> Dataset:
    """Makes a data set of checked splits; a tenth of the training samples, by class, becomes the validation split.

    Args:
        name: what the data are.
        train: every training sample.
        test: every test sample.
        class_names: one per class.
        normalization: measured on the training split if None; event counts are left as they are.

    Raises:
        ConfigError: the splits differ in shape, or there are fewer than two training samples.
    """
    if train.x.shape[1:] != test.x.shape[1:]:
        raise ConfigError(f"data '{name}': training samples have shape {train.x.shape[1:]}, test {test.x.shape[1:]}.")
    if len(train) < 2:
        raise ConfigError(f"data '{name}' has {len(train)} training sample, wanted 2 or more.")
    rest, validation = set_aside(train, max(1, round(VALIDATION_SHARE * len(train))))
    static = train.x.ndim == 4
    channels, height, width = train.x.shape[-3:]
    if normalization is None and static:
        normalization = measure_normalization(rest.x)
    if normalization is None:
        normalization = Normalization(mean=(0.0,) * channels, std=(1.0,) * channels)
    return Dataset(
        name=name,
        train=rest,
        validation=validation,
        test=test,
        normalization=normalization,
        class_names=class_names,
        shape=(channels, height, width),
        static=static,
    )
