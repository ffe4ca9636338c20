"""Lottery tickets: a trained network's smallest weights are removed, and what is left is trained again, in rounds.

    round 0: train theta_0 whole; keep theta_k, the weights after k epochs
    round r: remove a share p of the weights that are left, those of least magnitude after round r - 1, of all layers
             together; put the others back to theta_k; train them from epoch k of the same schedule to its end

so that round r has (1 - p)^r of the weights. Of the rounds within the allowed loss the sparsest is taken. Source:
Liu et al., "SparseSpikformer", ICASSP 2024 (arXiv 2311.08806), section 3.2, with p = 25 %; rewinding to an early epoch
is Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from svitkit.compress.evaluate import Batch, accuracy
from svitkit.compress.goal import Goal
from svitkit.compress.journal import Journal
from svitkit.compress.report_tickets import ControlReport, TicketRound, TicketsReport
from svitkit.compress.rounds import Rounds
from svitkit.compress.zeros import prunable_weights, smallest, sparsity, zeros_of
from svitkit.errors import ConfigError
from svitkit.manifest import STRICT
from svitkit.models.plan import PrunePlan
from svitkit.models.spec import ModelSpec
from svitkit.presets import FitOptions, change_fit

REWIND_SHARE = 20 / 300
"""Of a training; SparseSpikformer's code rewinds to epoch 20 of 300."""
OTHER_SEED = 1
"""Added to the recipe's seed where weights are drawn anew."""
Control = Literal["reinit", "oneshot"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LotteryConfig:
    """The constraints and settings of the method.

    Attributes:
        max_drop: accuracy that may be lost, in points of percent.
        min_saving: fraction of the original parameter bytes that must go.
        rate: share of the remaining weights that a round removes.
        sparsity: fraction of weights to remove; the rounds end with the one that comes nearest to it.
        patience: so many rounds in a row may lose too much before the search ends.
        epochs: length of a whole training; the recipe's if None.
        lr: highest learning rate; the recipe's if None.
        rewind_epoch: k; if None the same share of a training as in the paper's code, 20 of 300.
        control: what is trained beside the ticket: ``reinit`` and ``oneshot``.
    """

    max_drop: float = Field(default=0.5, ge=0)
    min_saving: float = Field(default=0.0, ge=0, lt=1)
    rate: float = Field(default=0.25, gt=0, lt=1)
    sparsity: float = Field(default=0.9, gt=0, lt=1)
    patience: int = Field(default=2, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    rewind_epoch: int | None = Field(default=None, ge=0)
    control: tuple[Control, ...] = ()

    def rounds(self) -> int:
        """Returns how many removals come nearest to the wanted sparsity, at least one."""
        return max(1, round(math.log(1 - self.sparsity) / math.log(1 - self.rate)))


@plain_dataclass(frozen=True, kw_only=True)
class Ticket:
    """What was found.

    Attributes:
        model: the network of the round that was taken.
        report: all rounds and controls.
        plan: the channels that were removed from it because they are dead.
    """

    model: nn.Module
    report: TicketsReport
    plan: PrunePlan = field(default_factory=PrunePlan)


@plain_dataclass(frozen=True, kw_only=True)
class TicketSearch(Goal):
    """One run of the method.

    Attributes:
        config: constraints and settings.
        rounds: trains and remembers.
        journal: what was measured before, and is now.
        validation, test: prepared batches; only controls are measured on test, in the end.
        size: returns the bytes of a network's deployed parameters.
    """

    config: LotteryConfig
    rounds: Rounds
    journal: Journal
    validation: list[Batch]
    test: list[Batch]
    size: Callable[[nn.Module], int]

    def run(self) -> Ticket:
        """Trains round after round, chooses one, and trains the controls."""
        found: list[TicketRound] = []
        for number in range(self.config.rounds() + 1):
            found.append(self._measure(number))
            if number and all(each.drop > self.config.max_drop for each in found[-self.config.patience :]):
                break
        taken = self._choose(found)
        options = self.rounds.options
        report = TicketsReport(
            epochs=options.epochs,
            rewind_epoch=self.rounds.rewind_epoch,
            seed=options.seed,
            rounds=tuple(replace(each, accepted=each is taken) for each in found),
            controls=tuple(self._control(name, taken) for name in self.config.control),
        )
        return Ticket(model=self.rounds.trained(taken.number), report=report)

    def _measure(self, number: int) -> TicketRound:
        model = self._train(number)
        measured = self.journal.measure(
            f"validation, round {number}", lambda: (accuracy(model, self.validation), self.size(model))
        )
        return TicketRound(
            number=number,
            sparsity=sparsity(model),
            weights=sum(int(weight.count_nonzero()) for weight in prunable_weights(model).values()),
            validation=measured.accuracy,
            parameter_bytes=measured.parameter_bytes,
            drop=self.baseline.accuracy - measured.accuracy,
            accepted=False,
        )

    def _train(self, number: int) -> nn.Module:
        label = f"round {number} of {self.config.rounds()}"
        if number == 0:
            return self.rounds.train_whole(label)
        before = self.rounds.settled(number - 1)
        return self.rounds.train(number, smallest(before, self.config.rate), label)

    def _choose(self, found: list[TicketRound]) -> TicketRound:
        """Returns the sparsest round within the allowed loss; if there is none, the most accurate one."""
        within = [each for each in found if each.drop <= self.config.max_drop]
        return within[-1] if within else max(found, key=lambda each: each.validation)

    def _control(self, name: str, taken: TicketRound) -> ControlReport:
        zeros = zeros_of(self.rounds.trained(taken.number))
        if name == "oneshot":
            zeros = smallest(self.rounds.settled(0), taken.sparsity)
        seed = self.rounds.options.seed + OTHER_SEED if name == "reinit" else None
        model = self.rounds.train(name, zeros, f"control {name}", seed=seed)
        size = self.size(model)
        validation = self.journal.measure(f"validation, {name}", lambda: (accuracy(model, self.validation), size))
        test = self.journal.measure(f"test, {name}", lambda: (accuracy(model, self.test), size))
        return ControlReport(name=name, sparsity=sparsity(model), validation=validation.accuracy, test=test.accuracy)


def training_recipe(spec: ModelSpec, config: LotteryConfig) -> FitOptions:
    """Returns how a network is trained from its beginning: as it was, with the changes that are set.

    Args:
        spec: the network's; its provenance tells of the training.
        config: may set epochs and learning rate.

    Raises:
        ConfigError: the checkpoint does not tell how it was trained, and no epochs are set; or a value does not fit.
    """
    told = spec.provenance.get("options")
    changes = {name: value for name in ("epochs", "lr") if (value := getattr(config, name)) is not None}
    if told is None:
        if config.epochs is None:
            raise ConfigError(
                "this checkpoint does not tell how it was trained, and method 'lottery' trains from the beginning. "
                "Say at least how long: --set epochs=N, and --set lr=RATE if 0.001 does not suit."
            )
        return change_fit(FitOptions(epochs=config.epochs, timesteps=spec.timesteps), **changes)
    return change_fit(FitOptions(**{**told, "timesteps": spec.timesteps}), **changes)


def rewinding(options: FitOptions, config: LotteryConfig) -> int:
    """Returns k.

    Raises:
        ConfigError: the training is not that long.
    """
    epoch = config.rewind_epoch
    if epoch is None:
        epoch = min(round(REWIND_SHARE * options.epochs), options.epochs - 1)
    if epoch >= options.epochs:
        raise ConfigError(
            f"rewind_epoch is {epoch}, but a training has {options.epochs} epochs. Choose an earlier one."
        )
    return epoch
