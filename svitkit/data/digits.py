"""Handwritten digits that come with scikit-learn: the default, which needs no file."""

from __future__ import annotations

import numpy as np

from svitkit.data.dataset import Dataset, Split
from svitkit.data.splits import measure_normalization, set_aside

TEST_COUNT = 360
VALIDATION_SHARE = 0.15
SIDE = 16


def load_digits() -> Dataset:
    """Loads 1,797 digits: 8x8 pixels of 0..16, enlarged to 16x16 bytes by repetition.

    The 360 test images are a fixed stratified choice. Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, its test part as packaged in scikit-learn.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    small = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    large = small.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)[:, None]
    every = Split(x=np.ascontiguousarray(large), y=bunch.target.astype(np.int64))
    rest, test = set_aside(every, TEST_COUNT)
    train, validation = set_aside(rest, round(VALIDATION_SHARE * len(rest)))
    return Dataset(
        name="digits",
        train=train,
        validation=validation,
        test=test,
        normalization=measure_normalization(train.x),
        class_names=tuple(str(digit) for digit in range(10)),
        shape=(1, SIDE, SIDE),
        static=True,
    )
