"""How every ATen operator carries the axes of its inputs to its output.

A rule is ``rule(roles, given, shape) -> axes``: ``given`` holds the operator's arguments by their names in its schema,
with :class:`Tensor` in the place of tensors. An operator without a rule fixes the axes of all its inputs: nothing is
pruned on a guess. Here are the operators that compute; those that only rearrange are in
:mod:`svitkit.compress.rearrange`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from svitkit.compress.axes import Axes, Axis, Piece, extent, fix, merge, new_axes, skip, whole
from svitkit.compress.rearrange import DIVISIONS, SHAPE_RULES
from svitkit.compress.values import Given, Roles, Rule, Tensor, tensors


def propagate(op: str, roles: Roles, given: Given, shape: Sequence[int]) -> tuple[Axes, ...]:
    """Applies the rule of an operator.

    Args:
        op: the operator's name without namespace and overload, for example ``conv2d``.
        roles: is filled with the parts that parameters play.
        given: arguments by name.
        shape: shape of the (first) result.

    Returns:
        The axes of every result, for most operators one.
    """
    if op in RULES:
        return (RULES[op](roles, given, shape),)
    if op in DIVISIONS:
        return DIVISIONS[op](given, shape)
    for value in tensors(given):
        fix([piece for axis in value.axes for piece in axis], f"the operator '{op}' has no rule")
    return (new_axes(shape),)


def _convolution(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    x, weight = given["input"], given["weight"]
    channel = len(x.axes) - len(weight.axes) + 1
    groups = given["groups"]
    if groups == 1:
        merge(x.axes[channel], weight.axes[1])
        _note(roles.consuming, weight, 1)
    elif extent(weight.axes[1]) == 1 and groups == extent(weight.axes[0]):
        merge(x.axes[channel], weight.axes[0])
    else:
        fix([*x.axes[channel], *weight.axes[0]], "a grouped convolution divides it")
    _produce(roles, weight, given["bias"])
    return (*x.axes[:channel], weight.axes[0], *new_axes(shape[channel + 1 :]))


def _linear(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    x, weight = given["input"], given["weight"]
    merge(x.axes[-1], weight.axes[1])
    _note(roles.consuming, weight, 1)
    _produce(roles, weight, given["bias"])
    return (*x.axes[:-1], weight.axes[0])


def _produce(roles: Roles, weight: Tensor, bias: Tensor | None) -> None:
    _note(roles.producing, weight, 0)
    if bias is not None:
        merge(weight.axes[0], bias.axes[0])


def _note(where: list[tuple[str, int]], tensor: Tensor, dim: int) -> None:
    if tensor.parameter is not None:
        where.append((tensor.parameter, dim))


def _batch_norm(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    x: Tensor = given["input"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if given[name] is not None:
            merge(x.axes[1], given[name].axes[0])
    return x.axes


def _elementwise(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    inputs = tensors(given)
    result = []
    for back in range(len(shape), 0, -1):
        axes = [value.axes[-back] for value in inputs if len(value.axes) >= back and whole(value.axes[-back])]
        for other in axes[1:]:
            merge(axes[0], other)
        result.append(axes[0] if axes else (Piece(shape[-back]),))
    return tuple(result)


def _add(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    """An addition; one of a value and something computed from it is a skip connection."""
    result = _elementwise(roles, given, shape)
    left, right = given["self"], given["other"]
    if isinstance(left, Tensor) and isinstance(right, Tensor) and _is_skip(left, right):
        skip(piece for axis in result for piece in axis)
    return result


def _is_skip(left: Tensor, right: Tensor) -> bool:
    if left.parameter is not None or right.parameter is not None:
        return False
    return left.ancestors <= right.ancestors or right.ancestors <= left.ancestors


def _pool(spatial: int) -> Callable[[Roles, Given, Sequence[int]], Axes]:
    def rule(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
        x: Tensor = given["input"] if "input" in given else given["self"]
        return (*x.axes[:-spatial], *new_axes(shape[-spatial:]))

    return rule


def _matmul(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    """(..., M, K) x (..., K, N): K is one axis of both, the leading axes meet as in elementwise operators."""
    left = given["self"]
    right = given["other"] if "other" in given else given["mat2"]
    if len(left.axes) < 2 or len(right.axes) < 2:
        fix([piece for value in (left, right) for axis in value.axes for piece in axis], "a product with a vector")
        return new_axes(shape)
    merge(left.axes[-1], right.axes[-2])
    roles.summed.extend(left.axes[-1])
    lead = _elementwise(roles, {"a": Tensor(axes=left.axes[:-2]), "b": Tensor(axes=right.axes[:-2])}, shape[:-2])
    return (*lead, left.axes[-2], right.axes[-1])


def _einsum(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    """Letters name axes: those of one letter meet, and those that the result has not are summed over."""
    operands: list[Tensor] = given["tensors"]
    terms, arrow, out = given["equation"].replace(" ", "").partition("->")
    known: dict[str, Axis] = {}
    for term, value in zip(terms.split(","), operands, strict=True):
        if not arrow or not (term + out).isalpha() or len(set(term)) < len(term):
            fix([piece for tensor in operands for axis in tensor.axes for piece in axis], f"'{terms}' is no product")
            return new_axes(shape)
        for letter, axis in zip(term, value.axes, strict=True):
            if extent(known.setdefault(letter, axis)) == 1:
                known[letter] = axis
            merge(known[letter], axis)
    roles.summed.extend(piece for letter, axis in known.items() if letter not in out for piece in axis)
    return tuple(known[letter] for letter in out)


def _reduce(reason: str | None) -> Callable[[Roles, Given, Sequence[int]], Axes]:
    """Rule of a reduction; ``reason`` says why the reduced axes are fixed (a sum does not mind silent channels)."""

    def rule(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
        axes = given["self"].axes
        dims = given.get("dim")
        dims = range(len(axes)) if dims is None else [dims] if isinstance(dims, int) else dims or range(len(axes))
        gone = {dim % len(axes) for dim in dims}
        reduced = [piece for dim in gone for piece in axes[dim]]
        if reason is None:
            roles.summed.extend(reduced)
        else:
            fix(reduced, reason)
        if given.get("keepdim"):
            return tuple((Piece(1),) if dim in gone else axis for dim, axis in enumerate(axes))
        return tuple(axis for dim, axis in enumerate(axes) if dim not in gone)

    return rule


def _normalize_over(roles: Roles, given: Given, shape: Sequence[int]) -> Axes:
    x = given["input"] if "input" in given else given["self"]
    count = len(given["normalized_shape"]) if "normalized_shape" in given else len(x.axes)
    fix([piece for axis in x.axes[-count:] for piece in axis], "a normalization mixes its channels")
    return _elementwise(roles, {"x": x}, shape)


ELEMENTWISE = (
    "sub rsub mul div neg relu relu_ sigmoid tanh gelu silu clamp clone contiguous detach alias dropout _to_copy to "
    "type_as lift_fresh_copy identity abs square sqrt exp pow maximum minimum zeros_like ones_like neuron mul_ div_ "
    "clip hardtanh floor round sign where gt ge lt le addcmul"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE.split(), _elementwise),
    **SHAPE_RULES,
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _pool(n) for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")},
    **{f"upsample_{kind}{n}d": _pool(n) for n, kind in ((1, "nearest"), (2, "nearest"), (2, "bilinear"))},
    "add": _add,
    "add_": _add,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _normalize_over,
    "softmax": _normalize_over,
    "matmul": _matmul,
    "bmm": _matmul,
    "einsum": _einsum,
    "sum": _reduce(None),
    "mean": _reduce("a mean is taken over it"),
    "amax": _reduce("a maximum is taken over it"),
}
