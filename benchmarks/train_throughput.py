"""Measures training: images a second of `vaezoo.Trainer.fit` against other ways to train the same network.

    python benchmarks/train_throughput.py --data-dir FOLDER              the CPU; FOLDER holds torchvision's MNIST
    python benchmarks/train_throughput.py --data-dir FOLDER --device cuda
    python benchmarks/train_throughput.py --tables                       only the tables, from the results at hand

Each contestant is a process that is set up and warmed up once and then waits for its turns; a round gives each of them
one, in an order that rotates. Ratios are taken within a round. The figures go to results/train-throughput-MACHINE.json,
the tables to README.md; with --only they go nowhere but to --out, because they are not all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reference_model import Job, find_data, flops_per_image, load
from tables import HERE, put_tables
from train_results import case_tables, check_losses, merge, peaks, result_file, rows_of, tables
from train_workers import DiedError, LeftOutError, Worker, serve
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.runtime.ort_session import require_cuda

NAMES = ("tutorial", "pythae", "plain", "jax", "vaezoo", "vaezoo compiled", "vaezoo compiled bf16", "peak")
PACKAGES = ("vaezoo", "torch", "torchvision", "numpy", "pythae", "jax", "jaxlib", "optax")
CASES = {"cpu": (("mlp", 128), ("conv", 128)), "cuda": (("mlp", 128), ("mlp", 2048), ("conv", 512))}
SETTLE = 0.01  # seconds in which the threads of the contestant before stop spinning


@dataclass
class Measured:
    """What the rounds of one case gave.

    Attributes:
        rates: Contestant -> round -> images a second.
        peaks: The matrix products' rates of each round.
        facts: Contestant -> what it told when it was warm.
        died: Contestants that ended too early.
    """

    rates: dict[str, dict[int, float]] = field(default_factory=dict)
    peaks: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)


def tell(text: str) -> None:
    """Writes progress."""
    print(text, file=sys.stderr, flush=True)


def start_workers(names: Sequence[str], job: Job, measured: Measured) -> dict[str, Worker]:
    """Starts the contestants one after the other, each warm before the next begins."""
    workers = {}
    for name in names:
        begun = time.perf_counter()
        try:
            workers[name] = worker = Worker(Path(__file__), replace(job, contestant=name))
        except LeftOutError as error:
            tell(f"{job.network}: {name} is left out: {error}")
        except DiedError as error:
            measured.died.append(name)
            tell(f"{job.network}: {name} {error}")
        else:
            tell(f"{job.network}: {name} is warm after {time.perf_counter() - begun:.0f} s")
            if name != "peak":
                measured.rates[name] = {}
                measured.facts[name] = {key: worker.ready[key] for key in ("parameters", "loss")}
    return workers


def play(workers: dict[str, Worker], rounds: int, seconds: float, measured: Measured) -> None:
    """Gives each worker its turn in each round."""
    for number in range(rounds):
        names = list(workers)
        turned = number % max(1, len(names))
        for name in names[turned:] + names[:turned]:
            time.sleep(SETTLE)
            answer = ask(workers, name, seconds, measured)
            if answer and name == "peak":
                measured.peaks.append(answer["rates"])
            elif answer:
                measured.rates[name][number] = answer["images"] / answer["seconds"]
        tell(f"round {number + 1} of {rounds}")


def ask(
    workers: dict[str, Worker], name: str, seconds: float, measured: Measured, **how: bool
) -> dict[str, Any] | None:
    """Returns a worker's answer; None if it died, which takes it out of the rounds to come."""
    try:
        return workers[name].turn(seconds, **how)
    except DiedError as error:
        workers.pop(name).stop()
        measured.died.append(name)
        tell(f"{name} {error}")
        return None


def measure(names: Sequence[str], job: Job, rounds: int) -> tuple[dict[str, Any], bool]:
    """Measures one network at one batch size; returns the case, and whether all went well."""
    measured = Measured()
    workers = start_workers(names, job, measured)
    try:
        counts = {name: facts["parameters"] for name, facts in measured.facts.items()}
        assert len(set(counts.values())) <= 1, f"the networks differ: {counts}"
        play(workers, rounds, job.seconds, measured)
        for name in [n for n in workers if job.device == "cuda" and n not in ("jax", "peak")]:
            if answer := ask(workers, name, job.seconds / 5, measured, profile=True):
                measured.facts[name]["busy"] = answer["busy"]
    finally:
        for worker in workers.values():
            worker.stop()
    peak, flops = peaks(measured.peaks), flops_per_image(job.network)
    rows = rows_of(measured.rates, flops, peak, measured.facts)
    wrong = check_losses(rows)
    for line in wrong:
        tell(line)
    case = {
        "network": job.network,
        "batch": job.batch,
        "environment": describe(job.device),
        "setting": {
            "device": job.device,
            "threads": job.threads,
            "tf32": False,
            "rounds": rounds,
            "seconds": job.seconds,
            "warm_up": job.warm_up,
            "data": job.data,
            "images": len(load(job).train),
        },
        "parameters": next(iter(counts.values()), 0),
        "flops_per_image": flops,
        "peak": peak,
        "losses_agree": not wrong,
        "died": measured.died,
        "rows": rows,
    }
    return case, not wrong and not measured.died


def describe(device: str) -> Mapping[str, Any]:
    """Returns the environment, with the GPU where that is what was measured."""
    return environment(PACKAGES) | ({"gpu": gpu_environment()} if device == "cuda" else {})


def write(results: Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Writes a machine's result file, or brings it up to date."""
    file = result_file(results, cases[0])
    old = json.loads(file.read_text()) if file.exists() else None
    write_file(file, json_bytes(merge(old, cases)))
    print(file)


def parse() -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data-dir", type=Path, help="where torchvision's MNIST lies; else the packaged digits")
    parser.add_argument("--network", nargs="+", choices=["mlp", "conv"], default=["mlp", "conv"])
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--warm-up", type=int, default=400, help="steps, rounded up to 50")
    parser.add_argument("--out", type=Path, help="write results there and leave README.md as it is")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    parser.add_argument("--worker", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Reads the arguments, measures and writes; 1 if a worker died or a loss is not like the others."""
    chosen = parse()
    if chosen.worker:
        serve(Job(**json.loads(chosen.worker)))
        return 0
    good, cases = True, []
    if chosen.device == "cuda":
        require_cuda()
    if not chosen.tables:
        job = Job(
            contestant="",
            network="",
            batch=0,
            device=chosen.device,
            threads=chosen.threads,
            data=find_data(chosen.data_dir),
            data_dir=chosen.data_dir and str(chosen.data_dir.absolute()),
            warm_up=max(1, -(-chosen.warm_up // 50)) * 50,
            seconds=chosen.seconds,
        )
        if job.data == "digits":
            tell("no MNIST there: all train on the packaged digits")
        for network, batch in [c for c in CASES[chosen.device] if c[0] in chosen.network]:
            case, well = measure(chosen.only or NAMES, replace(job, network=network, batch=batch), chosen.rounds)
            cases.append(case)
            good &= well
            print("\n".join(case_tables(case)))
            if chosen.out or not chosen.only:
                write(chosen.out or HERE / "results", [case])
    if not chosen.out and not chosen.only:
        put_tables("train-throughput", "train_throughput.py", tables(HERE / "results"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
