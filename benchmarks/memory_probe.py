"""One runtime in a process of its own, which tells its memory from inside. Started by ``bench_memory.py``.

    python benchmarks/memory_probe.py empty
    python benchmarks/memory_probe.py ort MODEL.onnx INPUTS.npy [--imports-only]
    python benchmarks/memory_probe.py torch CHECKPOINT INPUTS.npy [--imports-only]

It imports nothing that the runtime does not need, and prints one JSON object. ``VmHWM`` is the most memory that the
process ever held; ``ru_maxrss`` would carry the parent's with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def process_memory() -> dict[str, int]:
    """Returns the peak of the resident memory and what is private of the memory held now, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Clean:", "Private_Dirty:")))
    return {"vm_hwm_bytes": int(status["VmHWM"].split()[0]) * 1024, "private_bytes": private * 1024}


def run_ort(model: str, inputs: str, *, imports_only: bool) -> None:
    """Runs every input in ONNX Runtime, with one thread."""
    import numpy as np
    import onnxruntime

    if imports_only:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for x in np.load(inputs):
        session.run(None, {name: x})


def run_torch(checkpoint: str, inputs: str, *, imports_only: bool) -> None:
    """Runs every input in torch eager, with one thread."""
    import numpy as np
    import torch

    from svitkit.models.checkpoint import load_checkpoint
    from svitkit.models.run import forward_logits

    if imports_only:
        return
    torch.set_num_threads(1)
    loaded = load_checkpoint(Path(checkpoint))
    for x in np.load(inputs):
        frames = torch.from_numpy(x)
        frames = frames.expand(loaded.spec.timesteps, 1, *x.shape[1:]) if loaded.spec.static_input else frames
        with torch.inference_mode():
            forward_logits(loaded.model, frames)


def main(arguments: list[str]) -> None:
    """Runs what the arguments say and prints the process's memory."""
    imports_only = "--imports-only" in arguments
    kind, *files = [argument for argument in arguments if argument != "--imports-only"]
    if kind == "ort":
        run_ort(*files, imports_only=imports_only)
    elif kind == "torch":
        run_torch(*files, imports_only=imports_only)
    elif kind != "empty":
        raise SystemExit(f"unknown runtime '{kind}', wanted empty, ort or torch")
    print(json.dumps(process_memory()))


if __name__ == "__main__":
    main(sys.argv[1:])
