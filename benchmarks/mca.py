"""Cycles of straight-line code by llvm-mca, which knows the pipelines of CPUs that are not here.

It assumes that loads hit the first-level cache and that branches are predicted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from svitkit.errors import ConfigError

OLDEST, NEWEST = 16, 40
FEW, MANY = 16, 48  # iterations; their difference is free of the pipeline's filling
CHUNK = 400
Code = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a piece of code costs.

    Attributes:
        steady: cycles an iteration if it is repeated for long.
        once: cycles from the first instruction's dispatch to the last one's retirement.
        bound: what limits the repeated code: a unit of the core, the width of its front end, or a chain of results.
    """

    steady: float
    once: float
    bound: str


@cache
def find_mca() -> str:
    """Returns the newest llvm-mca.

    Raises:
        ConfigError: there is none, or only one too old to be asked for JSON about single regions.
    """
    names = [f"llvm-mca-{version}" for version in range(NEWEST, OLDEST - 1, -1)]
    found = next((name for name in names if shutil.which(name)), None)
    if found is None and shutil.which("llvm-mca") and _major("llvm-mca") >= OLDEST:
        found = "llvm-mca"
    if found is None:
        raise ConfigError(f"estimates need llvm-mca {OLDEST} or newer, which was not found. Run scripts/install_mca.")
    return found


def mca_version() -> str:
    """Returns the version, such as ``22.1.8``."""
    text = subprocess.run([find_mca(), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\S+)", text)
    return match[1] if match else "unknown"


def _major(program: str) -> int:
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)", text)
    return int(match[1]) if match else 0


def analyse(codes: Collection[Code], *, triple: str, mcpu: str, comment: str) -> dict[Code, Timing]:
    """Times pieces of code, each as if it were alone in the core.

    Args:
        codes: instructions; neither calls nor returns.
        triple: GNU triple.
        mcpu: scheduling model by LLVM's name.
        comment: what begins a comment in that assembly.

    Raises:
        ConfigError: llvm-mca is missing or fails.
    """
    every = [code for code in dict.fromkeys(codes) if code]
    timings: dict[Code, Timing] = {(): Timing(steady=0.0, once=0.0, bound="nothing")}
    for start in range(0, len(every), CHUNK):
        part = every[start : start + CHUNK]
        runs = [_run(part, triple, mcpu, comment, iterations) for iterations in (1, FEW, MANY)]
        for code, once, few, many in zip(part, *(run["CodeRegions"] for run in runs), strict=True):
            timings[code] = _timing(once, few, many, runs[2]["TargetInfo"]["Resources"])
    return timings


def _run(codes: Sequence[Code], triple: str, mcpu: str, comment: str, iterations: int) -> dict[str, Any]:
    regions = [
        "\n".join([f"{comment} LLVM-MCA-BEGIN r{index}", *code, f"{comment} LLVM-MCA-END"])
        for index, code in enumerate(codes)
    ]
    command = [find_mca(), f"-mtriple={triple}", f"-mcpu={mcpu}", f"-iterations={iterations}", "-json"]
    command += ["--skip-unsupported-instructions=any"] if _major(find_mca()) >= 19 else []
    done = subprocess.run(command, input="\n".join(regions) + "\n", capture_output=True, text=True, check=False)
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        raise ConfigError(f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}")
    parsed: dict[str, Any] = json.loads(done.stdout[start:])
    return parsed


def _timing(once: dict[str, Any], few: dict[str, Any], many: dict[str, Any], resources: Sequence[str]) -> Timing:
    cycles = [region["SummaryView"]["TotalCycles"] for region in (once, few, many)]
    steady = max((cycles[2] - cycles[1]) / (MANY - FEW), 0.0)
    return Timing(steady=steady, once=max(float(cycles[0]), steady), bound=_bound(many, steady, resources))


def _bound(region: dict[str, Any], steady: float, resources: Sequence[str]) -> str:
    total = len(region["Instructions"])
    pressure: dict[str, float] = {}
    for entry in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if entry["InstructionIndex"] == total:
            pressure[resources[entry["ResourceIndex"]]] = float(entry["ResourceUsage"])
    width = region["SummaryView"]["DispatchWidth"]
    operations = [entry["NumMicroOpcodes"] for entry in region["InstructionInfoView"]["InstructionList"]]
    front = dispatch_cycles(operations, width)
    unit, most = max(pressure.items(), key=lambda item: item[1], default=("none", 0.0))
    if max(most, front) < 0.85 * steady:
        return "chain of results"
    return f"unit {unit}" if most >= 0.95 * front else f"front end, {width} a cycle"


def dispatch_cycles(operations: Sequence[int], width: int) -> int:
    """Cycles in which a front end hands over instructions of so many micro-operations; it does not split small ones."""
    cycles = room = 0
    for count in operations:
        if count > room:
            cycles += -(-count // width)
            room = -(-count // width) * width
        room -= count
    return cycles
