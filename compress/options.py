"""The options of a compression run, checked before anything is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import get_args

from pydantic import ValidationError

from svitkit.compress.aq4svit import AQ4SViTConfig
from svitkit.compress.balance import BalanceConfig, Objective
from svitkit.compress.lottery import LotteryConfig
from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.compress.token_select import TokenSelectConfig
from svitkit.compress.token_skip import TokenSkipConfig
from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import to_json

INTEGER_METHODS = {"int8": 8, "int4": 4}
GREEDY, BEAM = "aq4svit-greedy", "aq4svit-beam"
LOTTERY = "lottery"
SKIP, SELECT = "token-skip", "token-select"
BEAM_WIDTH = 4
Config = BalanceConfig | PrimeSVTConfig | AQ4SViTConfig | LotteryConfig | TokenSkipConfig | TokenSelectConfig
CONFIGS: dict[str, type[Config]] = {
    "svitkit": BalanceConfig,
    "primesvt": PrimeSVTConfig,
    GREEDY: AQ4SViTConfig,
    BEAM: AQ4SViTConfig,
    LOTTERY: LotteryConfig,
    SKIP: TokenSkipConfig,
    SELECT: TokenSelectConfig,
}
METHODS = (*CONFIGS, *INTEGER_METHODS)
OWN_OPTIONS = ("max_drop", "min_saving", "objective")
OBJECTIVES: tuple[str, ...] = get_args(Objective)
SWEEPS = ("fast", "plain")
EXECUTORS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work of a search is done; it decides the same either way.

    Attributes:
        sweep: ``plain`` runs every candidate whole on every image; ``fast`` runs what candidates share once, and stops
            where the wanted accuracy is out of reach.
        executor: where candidates are measured: ``local`` is this process, ``ray`` a Ray cluster.
        ray_address: of the cluster; None for one on this computer.
    """

    sweep: str = "fast"
    executor: str = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: a name is unknown, or there is an address for nothing.
        """
        if self.sweep not in SWEEPS:
            raise unknown_name("sweep", self.sweep, SWEEPS)
        if self.executor not in EXECUTORS:
            raise unknown_name("executor", self.executor, EXECUTORS)
        if self.ray_address is not None and self.executor != "ray":
            raise ConfigError(
                f"a Ray cluster at '{self.ray_address}' is of no use to executor '{self.executor}'. "
                f"Choose executor 'ray', or leave the address out."
            )


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
        costs: the unit of costs that the caller brought along; None if there are none.
    """

    method: str
    config: Config
    bn_recalibration: int
    finetune_epochs: int
    seed: int
    limit: int | None
    costs: str | None = None

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
        if self.method in ("svitkit", GREEDY, BEAM) and self.bn_recalibration:
            raise ConfigError(
                f"method '{self.method}' mends weights and batch norms by itself, on setting 'calibration_images'. "
                f"Leave bn_recalibration={self.bn_recalibration} out."
            )
        if self.method == SELECT and (self.finetune_epochs or self.bn_recalibration):
            raise ConfigError(
                f"method '{SELECT}' trains the network itself, got finetune_epochs={self.finetune_epochs} and "
                f"bn_recalibration={self.bn_recalibration}. Leave both out; setting 'epochs' says how long it trains."
            )
        if self.method == LOTTERY and (self.finetune_epochs or self.bn_recalibration):
            raise ConfigError(
                f"method '{LOTTERY}' trains the network itself, got finetune_epochs={self.finetune_epochs} and "
                f"bn_recalibration={self.bn_recalibration}. Leave both out; setting 'epochs' says how long it trains."
            )
        if self.method in INTEGER_METHODS and self.finetune_epochs:
            raise ConfigError(
                f"method '{self.method}' makes the weights integers, and training would move them off. "
                f"Fine-tune with the method before it (svitkit), or choose {GREEDY}, which trains integers."
            )

    def sha256(self) -> str:
        """Returns a hash of every option."""
        content = {**asdict(self), "config": json.loads(to_json(self.config, type(self.config)))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def configure(
    method: str,
    max_drop: float | None,
    min_saving: float | None,
    settings: Mapping[str, object],
    *,
    objective: str | None = None,
) -> Config:
    """Returns a method's settings: the user's constraints, what the user set beside them, and defaults for the rest.

    Args:
        method: a name of ``METHODS``.
        max_drop: accuracy that may be lost, in points; None for the method's default.
        min_saving: fraction of the parameter bytes that must go; None for the method's default.
        settings: other fields of the configuration by name; a single value may stand for a tuple of one, and None for
            one of none.
        objective: what method ``svitkit`` makes as small as accuracy allows; None for its default.

    Raises:
        ConfigError: a name is unknown, a value is of the wrong kind or out of range, or the method has no settings.
    """
    if settings and method in INTEGER_METHODS:
        raise ConfigError(f"method '{method}' has no settings, got '{next(iter(settings))}'. Leave it out.")
    kind = CONFIGS.get(method, PrimeSVTConfig)
    limits = {"max_drop": max_drop, "min_saving": min_saving}
    given: dict[str, object] = {name: value for name, value in limits.items() if value is not None}
    if objective is not None and objective not in OBJECTIVES:
        raise unknown_name("objective", objective, OBJECTIVES)
    if kind is BalanceConfig:
        given["objective"] = objective or "memory"
    elif objective not in (None, "memory"):
        raise ConfigError(f"method '{method}' saves memory only, got objective '{objective}'. Choose method 'svitkit'.")
    if method == GREEDY and settings.get("beam_width"):
        raise ConfigError(f"method '{GREEDY}' follows one network only, got a beam_width. Choose method '{BEAM}'.")
    if method == BEAM:
        settings = {"beam_width": BEAM_WIDTH, **settings}
    names = [field.name for field in fields(kind) if field.name not in OWN_OPTIONS]
    for name in settings:
        if name in OWN_OPTIONS:
            raise ConfigError(f"'{name}' is an option of its own (--{name.replace('_', '-')}) and no setting.")
        if name not in names:
            raise unknown_name("setting", name, names)
    several = {name for name in names if isinstance(getattr(kind(), name), tuple)}
    wrapped = {name: _several(value) if name in several else value for name, value in settings.items()}
    try:
        return kind(**given, **wrapped)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}.") from None


def _several(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, int | float | str) else value
