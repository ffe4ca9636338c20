"""Candidates measured on a Ray cluster, several at once.

The network, the images and the repair go to the cluster's object store once; every worker, a process with one CPU,
takes its copy from there and then gets plans. A search has several executors (accuracy, divergence, drift); all that
are open in a process share the workers, for a worker that waits holds its CPU too. A worker that dies is replaced, and
its plan given to another. Results come back to the search, which alone writes the journal.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections import Counter, deque
from collections.abc import Generator, Sequence
from itertools import count
from typing import Any, Generic

from svitkit.compress.executor import Measures, Plan, Wanted
from svitkit.compress.journal import Measurement
from svitkit.errors import ConfigError, RunError, SvitError

MOST_DEATHS = 3
CONNECT_S = 10.0


class Worker:
    """What runs in a process of the cluster."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._known: dict[int, Any] = {}

    def measure(self, number: int, shared: Sequence[Any], plan: Any, floor: float | None) -> Measurement:
        """Measures one candidate of an executor, whose share it takes from the store the first time.

        Args:
            number: of the executor.
            shared: where its candidates lie in the store.
            plan: what is removed or rounded.
            floor: percent; how far below it the accuracy is need not be known.
        """
        import ray

        if number not in self._known:
            self._known[number] = ray.get(shared[0])
        measurement: Measurement = self._known[number].measure(plan, floor=floor)
        return measurement


class _Staff:
    """The workers of the cluster that this process is connected to.

    Attributes:
        address: of the cluster; None for one on this computer.
        idle: those without work.
        running: worker, executor and candidate by the reference of the result.
        executors: how many are open.
    """

    def __init__(self, ray: Any, address: str | None, *, owns_connection: bool) -> None:
        self._ray, self.address, self._owns_connection = ray, address, owns_connection
        self._hireable = ray.remote(num_cpus=1)(Worker)
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[Any, RayExecutor[Any], Wanted[Any]]] = {}
        self.executors = 0

    def hire(self) -> None:
        """Starts workers until every CPU of the cluster has one."""
        wanted = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        while len(self.idle) + len(self.running) < wanted:
            self.idle.append(self._hireable.remote())

    def dismiss(self, executor: RayExecutor[Any]) -> None:
        """Ends the workers that are busy for an executor; with the last one all, and the cluster if it began here."""
        for reference, (worker, owner, _) in list(self.running.items()):
            if owner is executor:
                self._ray.kill(worker)
                del self.running[reference]
        self.executors -= 1
        if not self.executors:
            for worker in self.idle:
                self._ray.kill(worker)
            self.idle.clear()
            if self._owns_connection:
                self._ray.shutdown()


_staff: _Staff | None = None
_numbers = count()


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
        global _staff
        self._ray = _import_ray()
        owns_connection = not self._ray.is_initialized()
        if owns_connection:
            self._connect(address)
        elif address is not None and (_staff is None or _staff.address != address):
            raise ConfigError(
                f"this process is connected to a Ray cluster already, not to '{address}'. "
                f"Leave the address out, or disconnect with ray.shutdown()."
            )
        if _staff is None:
            if self._ray.available_resources().get("CPU", 0) < 1:
                warnings.warn("every CPU of the Ray cluster is taken: the search waits until one is free", stacklevel=2)
            _staff = _Staff(self._ray, address, owns_connection=owns_connection)
        self._staff = _staff
        self._staff.executors += 1
        candidates.prepare()
        self._number = next(_numbers)
        self._shared = self._ray.put(candidates)
        self._late: list[tuple[Wanted[Plan], Measurement | Exception]] = []
        self._deaths: Counter[str] = Counter()

    def measure(self, wanted: Sequence[Wanted[Plan]]) -> Generator[Measurement, None, None]:
        """Yields measurements as they come; what still runs when nobody asks any more is told the next time.

        Raises:
            RunError: workers died again and again with the same candidate, or none is left.
        """
        staff = self._staff
        staff.hire()
        missing = {(one.key, one.floor): one for one in wanted}
        yield from self._told_late(missing)
        begun = {(one.key, one.floor) for _, owner, one in staff.running.values() if owner is self}
        queue = deque(one for name, one in missing.items() if name not in begun)
        while missing:
            while queue and staff.idle:
                worker, one = staff.idle.pop(), queue.popleft()
                reference = worker.measure.remote(self._number, [self._shared], one.plan, one.floor)
                staff.running[reference] = worker, self, one
            done, _ = self._ray.wait(list(staff.running), num_returns=1)
            worker, owner, one = staff.running.pop(done[0])
            found = owner._keep_late(done[0], one) if owner is not self else self._result(done[0], one)
            if found is None:
                if owner is self:
                    queue.appendleft(one)
                staff.hire()
                continue
            staff.idle.append(worker)
            if owner is self:
                missing.pop((one.key, one.floor), None)
                yield found

    def close(self) -> None:
        """Ends the workers if no other executor needs them, and then the cluster if it was started here."""
        global _staff
        self._staff.dismiss(self)
        if not self._staff.executors:
            _staff = None

    def _told_late(self, missing: dict[Any, Wanted[Plan]]) -> Generator[Measurement, None, None]:
        """Yields what came while another executor waited, if it is wanted."""
        late, self._late = self._late, []
        for one, found in late:
            if missing.pop((one.key, one.floor), None) is None:
                continue
            if isinstance(found, Exception):
                raise found
            yield found

    def _keep_late(self, reference: Any, one: Wanted[Plan]) -> Measurement | None:
        """Puts a result aside that came while another executor waited; None if the worker died."""
        try:
            found = self._result(reference, one)
        except Exception as error:
            self._late.append((one, error))
            return Measurement(key=one.key, accuracy=0.0, parameter_bytes=0)
        if found is not None:
            self._late.append((one, found))
        return found

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
