"""Drops the zero biases that the exporter writes for convolutions without one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def drop_zero_biases(model: ir.Model) -> None:
    """Removes a ``Conv`` bias of zeros that is a constant and no trained parameter."""
    for node in model.graph:
        if node.op_type != "Conv" or node.domain != "" or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = node.inputs[2]
        tensor = ir.convenience.get_const_tensor(bias)
        if tensor is not None and not bias.is_initializer() and not np.any(tensor.numpy()):
            node.resize_inputs(2)
