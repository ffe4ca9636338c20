"""The options of a compression run, checked before anything is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from pydantic import ValidationError

from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import to_json

INTEGER_METHODS = {"int8": 8, "int4": 4}
METHODS = ("primesvt", *INTEGER_METHODS)


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """What is asked for beside network and data.

    Attributes:
        method: a name of ``METHODS``.
        config: the method's constraints and settings.
        bn_recalibration: training images on which batch norms are calibrated again, 0 for none.
        finetune_epochs: passes over the training split after pruning, 0 for none.
        seed: of the fine-tuning.
        limit: at most that many images of every split; None for all.
    """

    method: str
    config: PrimeSVTConfig
    bn_recalibration: int
    finetune_epochs: int
    seed: int
    limit: int | None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: the method is unknown, a number is negative, or the method cannot be followed by training.
        """
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        for name in ("bn_recalibration", "finetune_epochs", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be 0 or more.")
        if self.method in INTEGER_METHODS and self.finetune_epochs:
            raise ConfigError(
                f"method '{self.method}' makes the weights integers, and training would move them off. "
                f"Fine-tune with the method before it (primesvt), then quantize without --finetune."
            )

    def sha256(self) -> str:
        """Returns a hash of every option."""
        content = {**asdict(self), "config": json.loads(to_json(self.config, PrimeSVTConfig))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def constraints(max_drop: float, min_saving: float) -> PrimeSVTConfig:
    """Returns the method's default settings with the user's constraints.

    Args:
        max_drop: accuracy that may be lost, in points.
        min_saving: fraction of the parameter bytes that must go.

    Raises:
        ConfigError: a value is out of range.
    """
    try:
        return PrimeSVTConfig(max_drop=max_drop, min_saving=min_saving)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]} is {first['input']!r}: {first['msg']}.") from None
