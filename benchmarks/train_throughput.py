"""Measure the images per second of `vaezoo.Trainer.fit` and of other ways to train the same network.

    python benchmarks/train_throughput.py --data-dir FOLDER                  on the CPU; FOLDER contains MNIST
    python benchmarks/train_throughput.py --data-dir FOLDER --device cuda    on the GPU
    python benchmarks/train_throughput.py --tables                           only the tables, from existing results

FOLDER is a folder of torchvision's data sets. Each backend is a process that is set up and warmed up once and then
waits for its turns. A round gives each backend one turn, in an order that rotates. Ratios are taken within a round. The
results go to results/train-throughput-MACHINE.json and the tables to README.md. With --only, some backends are missing,
so results are only written to --out.

By default the backends are warmed up one after the other. With --together they are warmed up side by side, which is for
machines with many cores. Turns are exclusive in both cases.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from baselines import BACKENDS, WINDOW
from reference_model import Job, choose_data, flops_per_image, load_dataset
from tables import HERE, put_tables
from train_results import PREFIX, case_tables, check_losses, make_rows, merge, peaks, result_file, tables
from train_workers import START_SECONDS, SkippedError, Worker, WorkerDiedError, serve
from vaezoo.core.atomic import write_file
from vaezoo.core.device import resolve_device
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes

PACKAGES = ("vaezoo", "torch", "torchvision", "numpy", "pythae", "jax", "jaxlib", "optax")
CASES = {"cpu": (("mlp", 128), ("conv", 128)), "cuda": (("mlp", 128), ("mlp", 2048), ("conv", 512))}
SETTLE_SECONDS = 0.01  # until the threads of the previous backend stop spinning
START_SHARE = 0.7  # of --limit, in which workers must be warm


@dataclass
class Measurements:
    """The measurements of one case.

    Attributes:
        rates: Backend -> round -> images per second.
        peaks: The rates of matrix products in each round.
        info: Backend -> number of weights and loss after the warm-up.
        skipped: Backend -> why it cannot run on this machine.
        died: Backends whose worker ended early.
    """

    rates: dict[str, dict[int, float]] = field(default_factory=dict)
    peaks: list[dict[str, float]] = field(default_factory=list)
    info: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)


def log(text: str) -> None:
    """Writes a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def start_workers(
    script: Path, names: Sequence[str], job: Job, measurements: Measurements, together: bool, seconds: float
) -> dict[str, Worker]:
    """Starts the backends and waits until they are warm.

    Args:
        script: The script that has the backends.
        names: The backends.
        job: Their common task.
        measurements: Gets the number of weights and the loss of each, or why it does not run.
        together: Start them side by side. Otherwise each is warm before the next one starts.
        seconds: A worker that is not warm by then is ended.
    """

    def start(name: str) -> Worker | None:
        begin = time.perf_counter()
        try:
            worker = Worker(script, replace(job, backend=name), seconds)
        except SkippedError as error:
            measurements.skipped[name] = str(error)
            log(f"{job.network}: {name} is skipped: {error}")
        except WorkerDiedError as error:
            measurements.died.append(name)
            log(f"{job.network}: {name}: {error}")
        else:
            log(f"{job.network}: {name} is warm after {time.perf_counter() - begin:.0f} s")
            return worker
        return None

    with ThreadPoolExecutor(len(names) if together else 1) as pool:
        started = dict(zip(names, pool.map(start, names), strict=True))
    workers = {name: worker for name, worker in started.items() if worker}
    for name in (name for name in workers if name != "peak"):
        measurements.rates[name] = {}
        measurements.info[name] = {key: workers[name].ready[key] for key in ("parameters", "loss")}
    return workers


def run_rounds(
    workers: dict[str, Worker], rounds: int, seconds: float, measurements: Measurements, deadline: float
) -> int:
    """Gives each worker one turn in each round. Returns the number of rounds, fewer if the deadline passes."""
    for number in range(rounds):
        if number and time.perf_counter() > deadline:
            return number
        names = list(workers)
        offset = number % max(1, len(names))
        for name in names[offset:] + names[:offset]:
            time.sleep(SETTLE_SECONDS)
            answer = run_turn(workers, name, seconds, measurements)
            if answer and name == "peak":
                measurements.peaks.append(answer["rates"])
            elif answer:
                measurements.rates[name][number] = answer["images"] / answer["seconds"]
        log(f"round {number + 1} of {rounds}")
    return rounds


def run_turn(
    workers: dict[str, Worker], name: str, seconds: float, measurements: Measurements, *, profile: bool = False
) -> dict[str, Any] | None:
    """Returns a worker's answer to one turn. If the worker died, removes it from `workers` and returns None."""
    try:
        return workers[name].turn(seconds, profile=profile)
    except WorkerDiedError as error:
        workers.pop(name).stop()
        measurements.died.append(name)
        log(f"{name}: {error}")
        return None


def measure(
    names: Sequence[str], job: Job, rounds: int, *, together: bool = False, limit: float | None = None
) -> tuple[dict[str, Any], bool]:
    """Measures one network at one batch size.

    Args:
        names: The backends.
        job: Their common task.
        rounds: Rounds of all backends.
        together: Warm the backends up side by side.
        limit: Seconds after which no round begins.

    Returns:
        The case, and whether no worker died and all losses agree.
    """
    measurements = Measurements()
    start_seconds = START_SECONDS if limit is None else START_SHARE * limit
    deadline = math.inf if limit is None else time.perf_counter() + limit
    workers = start_workers(Path(__file__), names, job, measurements, together, start_seconds)
    try:
        counts = {name: info["parameters"] for name, info in measurements.info.items()}
        assert len(set(counts.values())) <= 1, f"the networks have different numbers of weights: {counts}"
        rounds = run_rounds(workers, rounds, job.seconds, measurements, deadline)
        for name in [n for n in workers if job.device == "cuda" and n not in ("jax", "peak")]:
            if answer := run_turn(workers, name, job.seconds / 5, measurements, profile=True):
                measurements.info[name]["busy"] = answer["busy"]
    finally:
        for worker in workers.values():
            worker.stop()
    peak, flops = peaks(measurements.peaks), flops_per_image(job.network)
    rows = make_rows(measurements.rates, flops, peak, measurements.info)
    deviations = check_losses(rows)
    for line in deviations:
        log(line)
    case = {
        "network": job.network,
        "batch": job.batch,
        "environment": describe_environment(job.device),
        "setting": {
            "device": job.device,
            "threads": job.threads,
            "tf32": False,
            "rounds": rounds,
            "seconds": job.seconds,
            "warm_up": job.warm_up,
            "data": job.data,
            "images": len(load_dataset(job).train),
        },
        "parameters": next(iter(counts.values()), 0),
        "flops_per_image": flops,
        "peak": peak,
        "losses_agree": not deviations,
        "skipped": measurements.skipped,
        "died": measurements.died,
        "rows": rows,
    }
    return case, not deviations and not measurements.died


def describe_environment(device: str) -> Mapping[str, Any]:
    """Returns the machine and the versions, with the GPU if it was measured."""
    return environment(PACKAGES) | ({"gpu": gpu_environment()} if device == "cuda" else {})


def write_case(results: Path, case: Mapping[str, Any]) -> None:
    """Writes a case into the result file of its machine."""
    file = result_file(results, case)
    old = json.loads(file.read_text("utf-8")) if file.exists() else None
    write_file(file, json_bytes(merge(old, [case])))
    print(file)


def parse_args() -> argparse.Namespace:
    """Parses the arguments."""
    names = tuple(BACKENDS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device of the training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's MNIST; default: the packaged digits")
    parser.add_argument("--network", nargs="+", choices=["mlp", "conv"], default=["mlp", "conv"], help="networks")
    parser.add_argument("--batch", type=int, nargs="+", help="batch sizes; by default they follow from the device")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"backends: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of all backends")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--warm-up", type=int, default=400, help=f"warm-up steps, rounded up to {WINDOW}")
    parser.add_argument("--together", action="store_true", help="warm the backends up side by side")
    parser.add_argument("--limit", type=float, help="seconds after which a case begins no further round")
    parser.add_argument("--out", type=Path, help="write results to this folder, and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    parser.add_argument("--worker", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_job(args: argparse.Namespace) -> Job:
    """Returns the task that the arguments describe, without its backend and network."""
    return Job(
        backend="",
        network="",
        batch=0,
        device=args.device,
        threads=args.threads,
        data=choose_data(args.data_dir),
        data_dir=args.data_dir and str(args.data_dir.absolute()),
        warm_up=max(1, -(-args.warm_up // WINDOW)) * WINDOW,
        seconds=args.seconds,
    )


def main() -> int:
    """Parses the arguments, measures, and writes the results. Returns 1 if a worker died or a loss deviates."""
    args = parse_args()
    if args.worker:
        job = Job(**json.loads(args.worker))
        serve(job, BACKENDS[job.backend])
        return 0
    success = True
    if not args.tables:
        resolve_device(args.device)
        job = make_job(args)
        if job.data == "digits":
            log("MNIST was not found, so all backends train on the packaged digits")
        cases = itertools.product(args.network, args.batch) if args.batch else CASES[args.device]
        for network, batch in [c for c in cases if c[0] in args.network]:
            names = args.only or tuple(BACKENDS)
            case_job = replace(job, network=network, batch=batch)
            case, case_success = measure(names, case_job, args.rounds, together=args.together, limit=args.limit)
            success &= case_success
            print("\n".join(case_tables(case)))
            if args.out or not args.only:
                write_case(args.out or HERE / "results", case)
    if not args.out and not args.only:
        put_tables(PREFIX, "train_throughput.py", tables(HERE / "results"))
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())
