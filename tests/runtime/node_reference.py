"""What hand-written networks compute, by numpy and torch: sums in float64, so that their order does not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from svitkit.lif import lif
from svitkit.runtime.import_onnx import Node
from tests.models import token_reference
from tests.runtime.playing import Array

Attributes = Mapping[str, Any]


def compute(nodes: Sequence[Node], x: Array, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Returns every value of a network by its name; neurons start at rest."""
    values: dict[str, Array] = {"input": x, **constants}
    for each in nodes:
        made = OPERATORS[each.op](each.attributes, *(values[name] for name in each.inputs))
        parts = made if isinstance(made, list) else [made]
        values.update(zip(each.outputs, parts, strict=True))
    return values


def _convolve(told: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    given = [torch.from_numpy(np.asarray(value, np.float64)) for value in (x, weight)]
    stride, padding = told.get("strides", [1, 1]), told.get("pads", [0, 0])[:2]
    sums = F.conv2d(*given, stride=stride, padding=padding, groups=told.get("group", 1)).numpy().astype(np.float32)
    return sums if bias is None else sums + bias[:, None, None]


def _multiply(_: Attributes, a: Array, b: Array) -> Array:
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)


def _pool(told: Attributes, x: Array) -> Array:
    kernel, stride, padding = told["kernel_shape"], told["strides"], told["pads"][:2]
    return F.max_pool2d(torch.from_numpy(x), kernel, stride, padding).numpy()


def _mean(_: Attributes, x: Array, axes: Array) -> Array:
    """As svitkit defines it: an exact sum, divided once."""
    count = np.prod([x.shape[axis] for axis in axes])
    return np.asarray(x.sum(tuple(axes), np.float64, keepdims=True).astype(np.float32) / np.float32(count))


def _top(_: Attributes, scores: Array, kept: Array) -> list[Array]:
    return [scores, np.array([token_reference.top(scores[0].astype(np.int64), int(kept[0]))])]


def _scatter(_: Attributes, places: Array, numbers: Array, updates: Array) -> Array:
    changed = places.copy()
    changed[numbers] = updates
    return changed


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "LIF": lambda told, x, _: lif(x.astype(np.float32), told["params"])[0],
    "Conv": _convolve,
    "ConvInteger": _convolve,
    "MatMul": _multiply,
    "MatMulInteger": _multiply,
    "MaxPool": _pool,
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "Cast": lambda _, x: x.astype(np.float32),
    "ReduceMean": _mean,
    "ReduceSum": lambda _, x, axes: x.sum(tuple(axes), keepdims=True),
    "Reshape": lambda _, x, shape: x.reshape(shape),
    "Transpose": lambda told, x: x.transpose(told["perm"]),
    "Squeeze": lambda _, x, axes: x.squeeze(tuple(axes)),
    "Expand": lambda _, x, shape: np.broadcast_to(x, shape),
    "Split": lambda told, x: np.split(x, told["num_outputs"], told["axis"]),
    "Gather": lambda told, x, numbers: x.take(numbers, told["axis"]),
    "Concat": lambda told, *parts: np.concatenate(parts, told["axis"]),
    "Score": lambda told, x: token_reference.score(x[:, 0], told["criterion"])[None],
    "TopK": _top,
    "ScatterElements": _scatter,
}
