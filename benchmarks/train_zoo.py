"""Measure the images per second of each model that pythae has too, with the same networks.

    python benchmarks/train_zoo.py --data-dir FOLDER     FOLDER contains MNIST
    python benchmarks/train_zoo.py --tables              only the table, from existing results

pythae's models get our networks, so both train the same weights. Workers, turns and ratios are those of
train_throughput.py. The results go to results/train-zoo-MACHINE.json and the table to README.md. With --only, they only
go to --out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from baselines import Compile, fit_model
from reference_model import Job
from tables import HERE, format_quartiles, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from train_throughput import Measurements, describe_environment, make_job, run_rounds, start_workers
from train_workers import START_SECONDS, WorkerChannel, serve
from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes

PREFIX = "train-zoo"
BACKENDS = ("pythae", "vaezoo", "vaezoo compiled")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A model of both zoos.

    Attributes:
        model: Our model.
        peer: Name of pythae's class.
        options: Options of our model.
        settings: Fields of pythae's config.
    """

    model: str
    peer: str
    options: dict[str, object] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)


BCE = {"reconstruction_loss": "bce"}
PAIRS = {
    "autoencoder": Pair(model="autoencoder", peer="AE"),
    "vae, dense": Pair(model="mlp-vae", peer="VAE", settings=BCE),
    "vae, convolutional": Pair(model="conv-vae", peer="VAE", settings=BCE),
    "beta-vae": Pair(model="beta-vae", peer="BetaVAE", settings=BCE | {"beta": 4.0}),
    "iwae, k=5": Pair(model="iwae", peer="IWAE", options={"objective.k": 5}, settings=BCE | {"number_samples": 5}),
    "vamp-vae": Pair(model="vamp-vae", peer="VAMP", settings=BCE | {"number_components": 500}),
    "iaf-vae": Pair(
        model="iaf-vae",
        peer="VAE_IAF",
        settings=BCE | {"n_made_blocks": 2, "n_hidden_in_made": 1, "hidden_size": 64},
    ),
    # pythae's discriminator has five hidden layers of 1000 units.
    "factor-vae": Pair(
        model="factor-vae",
        peer="FactorVAE",
        options={"objective.hidden": 1000, "objective.layers": 5},
        settings=BCE | {"gamma": 10.0},
    ),
    "vae-gan": Pair(model="vae-gan", peer="VAEGAN"),
    "vq-vae": Pair(model="vq-vae", peer="VQVAE", settings={"use_ema": True}),
}


def train(job: Job, channel: WorkerChannel) -> None:
    """Runs the backend of a worker."""
    pair = PAIRS[job.network]
    if job.backend == "pythae":
        from train_pythae import train_model

        train_model(pair.model, pair.options, pair.peer, pair.settings, job, channel)
    else:
        compiled: Compile = "on" if job.backend == "vaezoo compiled" else "off"
        fit_model(pair.model, pair.options, "fp32", compiled, job, channel)


def measure(job: Job, rounds: int) -> dict[str, Any]:
    """Measures one model in all backends."""
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
        "options": PAIRS[job.network].options,
        "settings": PAIRS[job.network].settings,
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
