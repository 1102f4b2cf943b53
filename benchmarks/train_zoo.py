"""Measure the images per second of each model that pythae has too, with the same networks.

    python benchmarks/train_zoo.py --data-dir FOLDER     FOLDER contains MNIST
    python benchmarks/train_zoo.py --tables              only the table, from existing results

pythae's models get our networks, so both train the same weights. Where the objectives are the same function, the losses
of the first step must be equal. zoo_pairs.py has the pairs, and says where they are not. Workers, turns and ratios are
those of train_throughput.py. The results go to results/train-zoo-MACHINE.json and the table to README.md. With --only,
they only go to --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baselines import Compile, fit_model
from reference_model import Job
from tables import HERE, format_quartiles, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from train_throughput import Measurements, describe_environment, log, make_job, run_rounds, start_workers
from train_workers import START_SECONDS, WorkerChannel, serve
from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes
from zoo_pairs import PAIRS

PREFIX = "train-zoo"
BACKENDS = ("pythae", "vaezoo", "vaezoo compiled")
LOSS_TOLERANCE = 1e-4  # of the losses of a first step, which differ by rounding


def train(job: Job, channel: WorkerChannel) -> None:
    """Runs the backend of a worker."""
    pair = PAIRS[job.network]
    if job.backend == "pythae":
        from train_pythae import train_model

        train_model(pair, job, channel)
    else:
        compiled: Compile = "on" if job.backend == "vaezoo compiled" else "off"
        fit_model(pair.model, dict(pair.options), "fp32", compiled, job, channel, pair.likelihood)


def compare_losses(job: Job) -> dict[str, float]:
    """Returns the loss of the first step by name of the zoo, and logs both. Empty if pythae is not installed.

    Raises:
        ValueError: If they are not equal, though they should be.
    """
    try:
        from train_pythae import first_losses
    except ModuleNotFoundError:
        return {}
    pair = PAIRS[job.network]
    ours, theirs = first_losses(pair, job)
    log(f"{job.network}: loss of the first step {ours:.3f}, pythae {theirs:.3f} {pair.differs}".rstrip())
    if not pair.differs and abs(ours - theirs) > LOSS_TOLERANCE * abs(theirs):
        raise ValueError(f"the losses of {job.network} are {ours} and {theirs}")
    return {"vaezoo": ours, "pythae": theirs}


def measure(job: Job, rounds: int) -> dict[str, Any]:
    """Measures one model in all backends. Raises ValueError if both zoos should have the same loss and have not."""
    losses = compare_losses(job)
    measurements = Measurements()
    workers = start_workers(Path(__file__), BACKENDS, job, measurements, False, START_SECONDS)
    try:
        rounds = run_rounds(workers, rounds, job.seconds, measurements, float("inf"))
    finally:
        for worker in workers.values():
            worker.stop()
    rates = measurements.rates
    return {
        "name": job.network,
        "peer": PAIRS[job.network].peer,
        "options": dict(PAIRS[job.network].options),
        "settings": dict(PAIRS[job.network].settings),
        "first_loss": losses,
        "differs": PAIRS[job.network].differs,
        "rounds": rounds,
        "skipped": measurements.skipped,
        "died": measurements.died,
        "parameters": {name: info["parameters"] for name, info in measurements.info.items()},
        "images_per_second": {name: quartiles(list(rate.values())) for name, rate in rates.items()},
        "over_pythae": {
            name: quartiles(ratios(rate, rates["pythae"]))
            for name, rate in rates.items()
            if name != "pythae" and "pythae" in rates
        },
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table of a result file, with the machine and the versions above it."""
    about, setting = result["environment"], result["setting"]
    rows = [
        [
            row["name"],
            row["peer"],
            f"{row['parameters'].get('vaezoo', 0):,}",
            *(format_quartiles(row["images_per_second"].get(name, quartiles([])), ",.0f") for name in BACKENDS),
            *(format_quartiles(row["over_pythae"].get(name, quartiles([])), ".2f") for name in BACKENDS[1:]),
        ]
        for row in result["rows"]
    ]
    head = ["model", "in pythae", "parameters", *(f"{name}, images/s" for name in BACKENDS)]
    return [
        f"{hardware(about)}, {setting['threads']} threads; {versions(about)}. {setting['data']}, batch "
        f"{setting['batch']}, {setting['rounds']} rounds of {setting['seconds']:g} s.",
        "",
        *table([*head, "over pythae", "compiled over pythae"], rows),
    ]


def tables(results: Path) -> list[str]:
    """Returns the lines for README.md, with a table for each machine."""
    files = sorted(results.glob(f"{PREFIX}-*.json"))
    return [line for file in files for line in [*lines(json.loads(file.read_text("utf-8"))), ""]]


def parse_args() -> argparse.Namespace:
    """Parses the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="device of the training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's MNIST; default: the packaged digits")
    parser.add_argument("--batch", type=int, default=128, help="images per step")
    parser.add_argument("--only", nargs="+", choices=list(PAIRS), metavar="NAME", help=f"models: {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of all backends")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--warm-up", type=int, default=100, help="warm-up steps")
    parser.add_argument("--out", type=Path, help="write results to this folder, and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    parser.add_argument("--worker", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Parses the arguments, measures, and writes the results. Returns 1 if a worker died or was skipped."""
    args = parse_args()
    if args.worker:
        serve(Job(**json.loads(args.worker)), train)
        return 0
    rows = []
    if not args.tables:
        job = replace(make_job(args), batch=args.batch)
        rows = [measure(replace(job, network=name), args.rounds) for name in args.only or PAIRS]
        setting = {k: getattr(job, k) for k in ("device", "threads", "batch", "data", "warm_up", "seconds")}
        about, setting = describe_environment(args.device), setting | {"rounds": args.rounds}
        result = {"schema": 1, "benchmark": PREFIX, "environment": about, "setting": setting, "rows": rows}
        print("\n".join(lines(result)))
        if args.out or not args.only:
            write_file((args.out or HERE / "results") / f"{PREFIX}-{slug(machine(result))}.json", json_bytes(result))
    if not args.out and not args.only:
        put_tables(PREFIX, "train_zoo.py", tables(HERE / "results"))
    return int(any(row["died"] or row["skipped"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
