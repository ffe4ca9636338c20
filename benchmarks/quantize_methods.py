"""The ways of quantization that are compared.

``fp32`` is the network as it is. ``int8`` and ``uniform-4`` give every layer 8 or 4 bits, the first and the last 8,
rounded on 256 training images; neurons stay float32. ``int8-plain`` is ``svitkit compress --method int8``, which
rounds to the nearest. ``aq4svit-greedy`` and ``aq4svit-beam`` are svitkit's methods of these names, ``greedy-ungated``
the first without its gate, and ``exhaustive`` the truth that they are held against (:mod:`benchmarks.exhaustive_bits`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from benchmarks.compress_methods import BN_IMAGES, Advance, Task
from benchmarks.exhaustive_bits import search_exhaustively
from svitkit.compress.aq4svit import AQ4SViTConfig
from svitkit.compress.bit_pipeline import prepare_search
from svitkit.compress.evaluate import Batch, accuracy, data_sha256, load_batches
from svitkit.compress.journal import JOURNAL_NAME, Journal, Subject
from svitkit.compress.options import BEAM, GREEDY, WorkOptions, configure
from svitkit.compress.pipeline import compress_model
from svitkit.compress.quantize import CalibratedRounding, QuantizedNetwork, uniform_bits
from svitkit.compress.report_bits import BitsReport, describe_search
from svitkit.compress.run import ORDER_SEED, VALIDATION_BATCH
from svitkit.errors import unknown_name
from svitkit.manifest import to_json
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256
from svitkit.models.run import example_input

UNIFORM = {"int8": 8, "uniform-4": 4}
OWN: dict[str, tuple[str, int, dict[str, object]]] = {
    "int8-plain": ("int8", BN_IMAGES, {}),
    GREEDY: (GREEDY, 0, {}),
    BEAM: (BEAM, 0, {}),
    "greedy-ungated": (GREEDY, 0, {"gate": False}),
}
PATIENT = ("greedy-ungated", "exhaustive")
"""Methods that measure very many candidates."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a method found.

    Attributes:
        checkpoint: the network.
        before, after: accuracy on the validation images, in percent.
        search: what a search looked at; None where nothing is searched for.
    """

    checkpoint: Checkpoint
    before: float
    after: float
    search: BitsReport | None = None


def method_names() -> tuple[str, ...]:
    """Returns every name that :func:`quantize_with` knows."""
    return ("fp32", "int8-plain", *UNIFORM, GREEDY, BEAM, *PATIENT)


def quantize_with(method: str, task: Task, advance: Advance) -> Quantized:
    """Quantizes a network.

    Args:
        method: a name of :func:`method_names`.
        task: what is asked for.
        advance: told the stage, how much of it is done, and how much there is.

    Raises:
        ConfigError: the name is unknown.
        UnavailableError: the method ends without a network.
    """
    if method in OWN:
        return _own(method, task, advance)
    others: dict[str, Callable[[Task, Advance], Quantized]] = {
        "fp32": _as_it_is,
        **{name: _uniform(bits) for name, bits in UNIFORM.items()},
        "exhaustive": _exhaustive,
    }
    if method not in others:
        raise unknown_name("method", method, method_names())
    return others[method](task, advance)


def _own(method: str, task: Task, advance: Advance) -> Quantized:
    name, bn_images, settings = OWN[method]
    result = compress_model(
        task.checkpoint,
        task.data,
        task.work / method,
        method=name,
        max_drop=task.max_drop,
        min_saving=task.min_saving,
        bn_recalibration=bn_images,
        settings=settings,
        progress=advance,
    )
    before, after = result.report.before.validation, result.report.after.validation
    return Quantized(checkpoint=result.checkpoint, before=before, after=after, search=result.report.bits)


def _as_it_is(task: Task, advance: Advance) -> Quantized:
    reached = accuracy(task.checkpoint.model, _validation(task))
    return Quantized(checkpoint=task.checkpoint, before=reached, after=reached)


def _uniform(width: int) -> Callable[[Task, Advance], Quantized]:
    def quantize(task: Task, advance: Advance) -> Quantized:
        advance("quantize", 0, 1)
        spec, model = task.checkpoint.spec, task.checkpoint.model
        limit = AQ4SViTConfig().calibration_images
        images = load_batches(task.data, "train", timesteps=spec.timesteps, limit=limit)
        calibration = torch.cat([x for x, _ in images], 1)
        rounding = CalibratedRounding(model, calibration, spec.normalization, static=spec.static_input)
        small = rounding.quantize(uniform_bits(model, example_input(spec), width))
        advance("quantize", 1, 1)
        validation = _validation(task)
        return Quantized(
            checkpoint=_checkpoint(task, small),
            before=accuracy(model, validation),
            after=accuracy(small.model, validation),
        )

    return quantize


def _exhaustive(task: Task, advance: Advance) -> Quantized:
    """Searches with the pieces of aq4svit: the same candidates, evaluator, floor and journal."""
    config = configure(GREEDY, task.max_drop, task.min_saving, {})
    assert isinstance(config, AQ4SViTConfig)
    validation, network = _validation(task), task.checkpoint
    settings = f"exhaustive {to_json(config, AQ4SViTConfig)}"
    subject = Subject(
        checkpoint_sha256=checkpoint_sha256(network),
        data_sha256=data_sha256(task.data),
        settings_sha256=hashlib.sha256(settings.encode()).hexdigest(),
    )
    journal = Journal(task.work / JOURNAL_NAME, subject, resume=False)
    baseline = journal.measure(
        "validation, whole", lambda: (accuracy(network.model, validation), network.parameter_bytes())
    )
    with prepare_search(
        network,
        task.data,
        validation,
        config,
        journal=journal,
        baseline=baseline,
        work=WorkOptions(),
        progress=advance,
    ) as prepared:
        outcome = search_exhaustively(prepared.search, prepared.layers)
    found = prepared.found(outcome)
    return Quantized(
        checkpoint=_checkpoint(task, found.network),
        before=baseline.accuracy,
        after=outcome.measurement.accuracy,
        search=describe_search(found.search, outcome),
    )


def _validation(task: Task) -> list[Batch]:
    """Returns the images in the order in which svitkit's own methods see them."""
    timesteps = task.checkpoint.spec.timesteps
    return load_batches(task.data, "validation", timesteps=timesteps, seed=ORDER_SEED, batch_size=VALIDATION_BATCH)


def _checkpoint(task: Task, small: QuantizedNetwork) -> Checkpoint:
    spec = replace(task.checkpoint.spec, quantization=small.spec)
    return Checkpoint(model=small.model, spec=spec, quantized=small.weights)
