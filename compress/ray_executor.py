"""Candidates measured on a Ray cluster, several at once.

The network, the images and the repair go to the cluster's object store once; every worker, a process with one CPU,
takes its copy from there and then gets plans. A worker that dies is replaced, and its plan given to another. Results
come back to the search, which alone writes the journal.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections import Counter, deque
from collections.abc import Generator, Sequence
from typing import Any, Generic

from svitkit.compress.executor import Measures, Plan, Wanted
from svitkit.compress.journal import Measurement
from svitkit.errors import ConfigError, RunError, SvitError

MOST_DEATHS = 3
CONNECT_S = 10.0


class Worker(Generic[Plan]):
    """What runs in a process of the cluster."""

    def __init__(self, candidates: Measures[Plan]) -> None:
        import torch

        torch.set_num_threads(1)
        self._candidates = candidates

    def measure(self, plan: Plan, floor: float | None) -> Measurement:
        """Measures one candidate."""
        return self._candidates.measure(plan, floor=floor)


class RayExecutor(Generic[Plan]):
    """Keeps every CPU of a cluster busy with candidates."""

    def __init__(self, candidates: Measures[Plan], *, address: str | None = None) -> None:
        """Connects to a cluster, and hands it what all candidates share.

        Args:
            candidates: measures a plan.
            address: of the cluster; None for the one that this process is connected to, or else a new one on this
                computer, which ends with the executor.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at that address.
        """
        self._ray = _import_ray()
        self._owns_connection = not self._ray.is_initialized()
        if self._owns_connection:
            self._connect(address)
        elif address is not None:
            raise ConfigError(
                f"this process is connected to a Ray cluster already, not to '{address}'. "
                f"Leave the address out, or disconnect with ray.shutdown()."
            )
        self._hireable = self._ray.remote(num_cpus=1)(Worker)
        if self._ray.available_resources().get("CPU", 0) < 1:
            warnings.warn("every CPU of the Ray cluster is taken: the search waits until one is free", stacklevel=2)
        candidates.prepare()
        self._shared = self._ray.put(candidates)
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Wanted[Plan]]] = {}
        self._deaths: Counter[str] = Counter()

    def measure(self, wanted: Sequence[Wanted[Plan]]) -> Generator[Measurement, None, None]:
        """Yields measurements as they come; what still runs when nobody asks any more is told the next time.

        Raises:
            RunError: workers died again and again with the same candidate, or none is left.
        """
        self._hire()
        missing = {(one.key, one.floor): one for one in wanted}
        begun = {(one.key, one.floor) for _, one in self._running.values()}
        queue = deque(one for name, one in missing.items() if name not in begun)
        while missing:
            while queue and self._idle:
                worker, one = self._idle.pop(), queue.popleft()
                self._running[worker.measure.remote(one.plan, one.floor)] = worker, one
            done, _ = self._ray.wait(list(self._running), num_returns=1)
            worker, one = self._running.pop(done[0])
            measurement = self._result(done[0], one)
            if measurement is None:
                queue.appendleft(one)
                self._hire()
                continue
            self._idle.append(worker)
            missing.pop((one.key, one.floor), None)
            yield measurement

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here."""
        for worker in self._workers():
            self._ray.kill(worker)
        self._idle.clear()
        self._running.clear()
        if self._owns_connection:
            self._ray.shutdown()

    def _connect(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what a search does is nobody else's business
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            options["include_dashboard"] = False
        try:
            if address is not None:
                _knock(address)
            self._ray.init(address=address, **options)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"there is no Ray cluster at '{address}': {error}. Leave the address out to start one here."
            ) from error

    def _workers(self) -> list[Any]:
        return [*self._idle, *(worker for worker, _ in self._running.values())]

    def _hire(self) -> None:
        """Starts workers until every CPU of the cluster has one."""
        wanted = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        while len(self._workers()) < wanted:
            self._idle.append(self._hireable.remote(self._shared))

    def _result(self, reference: Any, one: Wanted[Plan]) -> Measurement | None:
        """Returns what a worker found, or None if it died."""
        errors = self._ray.exceptions
        try:
            measurement: Measurement = self._ray.get(reference)
        except errors.RayActorError as error:
            self._deaths[one.key] += 1
            if self._deaths[one.key] == MOST_DEATHS:
                raise RunError(
                    f"{MOST_DEATHS} Ray workers died while they measured '{one.key}'; the last: {error}. Every worker "
                    f"holds the network and its images: is there memory enough for one per CPU? What was measured is "
                    f"kept: go on with --resume."
                ) from error
            return None
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, SvitError) else error) from None
        return measurement


def _knock(address: str) -> None:
    """Fails at once where Ray would try for minutes; addresses without a port are Ray's to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            pass


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError(
            "the executor 'ray' needs Ray, which is not installed. Install it with: pip install 'svitkit[ray]'"
        ) from None
    return ray
