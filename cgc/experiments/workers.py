"""Where trials run: processes of this machine, or a Ray cluster. A trial that dies is given back as a death."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from cgc.driver import UsageError
from cgc.experiments.sweep import ATTEMPTS, Trial


@dataclass(frozen=True, slots=True)
class Report:
    """How one attempt at a trial ended: with a result, or with a death and why."""

    trial: Trial
    result: dict[str, Any] | None
    death: str = ""
    again: bool = False


def run_trial(trial: Trial) -> dict[str, Any]:
    """Run a trial with one thread, as the only one of its process."""
    import torch

    torch.set_num_threads(1)
    return trial.run()


def on_this_machine(trials: Sequence[Trial], workers: int) -> Iterator[Report]:
    """Run trials in processes, one for each core; yields a report for every attempt as it ends.

    When a process is killed, every trial that was running may have been the one: all of them are tried again, one at a
    time in a process of its own, so that a trial that always dies takes none of the others with it.
    """
    queue = list(trials)
    suspects: list[Trial] = []
    while queue:
        with _pool(workers) as pool:
            running: dict[Future[dict[str, Any]], Trial] = {}
            broken = False
            while (queue or running) and not broken:
                while queue and len(running) < workers:
                    trial = queue.pop(0)
                    running[pool.submit(run_trial, trial)] = trial
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    trial = running.pop(future)
                    report = _ended(trial, future)
                    broken = broken or report is None
                    if report is None:
                        suspects.append(trial)
                    else:
                        yield report
            suspects += running.values()
    for trial in suspects:
        yield from _alone(trial)


def _alone(trial: Trial) -> Iterator[Report]:
    """Try a trial by itself, up to `ATTEMPTS` times."""
    for attempt in range(1, ATTEMPTS + 1):
        with _pool(1) as pool:
            future = pool.submit(run_trial, trial)
            wait([future])
            report = _ended(trial, future)
        if report is not None:
            yield report
            return
        yield Report(trial, None, "its process was killed", again=attempt < ATTEMPTS)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _ended(trial: Trial, future: Future[dict[str, Any]]) -> Report | None:
    """Return the report of an attempt that ended, None where its process was killed."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return None
    if error is not None:
        return Report(trial, None, f"{type(error).__name__}: {error}")
    return Report(trial, future.result())


def on_ray(trials: Sequence[Trial], address: str) -> Iterator[Report]:
    """Run trials on a Ray cluster (`auto`, `local`, or an address); reports as `on_this_machine`.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs Ray; `pip install 'cgc[ray]'`") from error
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--ray {address}: {str(error).splitlines()[0]}") from error
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(run_trial)
    pending = {remote.remote(trial): trial for trial in trials}
    try:
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            trial = pending.pop(done)
            try:
                yield Report(trial, ray.get(done))
            except ray.exceptions.RayError as error:
                yield Report(trial, None, str(error).splitlines()[0])
    finally:
        ray.shutdown()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
