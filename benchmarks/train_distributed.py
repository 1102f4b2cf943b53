"""Measures what a second rank brings: two gloo ranks of one thread each against one process of two threads.

    python benchmarks/train_distributed.py [--rounds N]

Both train on the packaged digits through the command line, at the same batch size: that of all ranks together.
The runs are whole processes and take turns; each gives the median of its reports' images a second, so that start-up and
evaluation do not count. The figures go to results/train-distributed-MACHINE.json, the tables to README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables import HERE, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from train_results import spread
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes

RANKS = 2
PREFIX = "train-distributed"
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
CONTESTANTS = {f"{RANKS} ranks, 1 thread each": (LAUNCH, 1), f"1 process, {RANKS} threads": ([], RANKS)}
ONE, TWO = reversed(CONTESTANTS)
CASES = (("mlp-vae", 128, 600), ("mlp-vae", 1024, 150), ("conv-vae", 128, 150))  # model, batch of all ranks, steps


def images_per_second(launch: list[str], threads: int, model: str, batch: int, steps: int) -> float:
    """Trains once and returns the median of the reports, of all ranks together.

    Raises:
        subprocess.CalledProcessError: If the training failed; its stderr went to ours.
    """
    settings = ["--steps", str(steps), "--eval-every", str(steps), "--batch-size", str(batch), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *launch, "-m", "vaezoo_cli", "train", model, *settings, "--json"],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(done.stdout)["images_per_second"])


def measure(rounds: int, model: str, batch: int, steps: int) -> dict[str, Any]:
    """Returns the figures of one case; the order turns round from one round to the next."""
    rates: dict[str, dict[int, float]] = {name: {} for name in CONTESTANTS}
    for number in range(rounds):
        for name in list(CONTESTANTS)[:: -1 if number % 2 else 1]:
            rates[name][number] = images_per_second(*CONTESTANTS[name], model, batch, steps)
            print(
                f"{model} {batch}, round {number + 1} of {rounds}: {name}: {rates[name][number]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    return {
        "model": model,
        "batch": batch,
        "steps": steps,
        "rows": [{"contestant": n, "images_per_second": quartiles(list(r.values()))} for n, r in rates.items()],
        "ranks_over_threads": quartiles(ratios(rates[TWO], rates[ONE])),
    }


def tables(results: Path) -> list[str]:
    """Returns the tables of all machines."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        lines += result_table(file, json.loads(file.read_text()))
    return lines


def result_table(file: Path, result: Mapping[str, Any]) -> list[str]:
    """Returns the table of one machine."""
    environment, setting = result["environment"], result["setting"]
    rows = [
        [
            f"{case['model']}, batch {case['batch']}",
            *(spread(row["images_per_second"], ",.0f") for row in case["rows"]),
            spread(case["ranks_over_threads"], ".2f"),
        ]
        for case in result["cases"]
    ]
    return [
        f"### Ranks on {machine(result)}",
        "",
        f"`results/{file.name}`. {hardware(environment)}; {versions(environment)}. "
        f"{setting['rounds']} runs each; batch of all ranks together; images/s.",
        "",
        *table(["training", *CONTESTANTS, "ratio"], rows),
        "",
    ]


def main() -> None:
    """Reads the arguments, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write results there and leave README.md as it is")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    results = chosen.out or HERE / "results"
    if not chosen.tables:
        result = {
            "schema": 1,
            "benchmark": PREFIX,
            "environment": environment(("vaezoo", "torch", "numpy")),
            "setting": {"device": "cpu", "threads": RANKS, "rounds": chosen.rounds},
            "cases": [measure(chosen.rounds, *case) for case in CASES],
        }
        file = results / f"{PREFIX}-{slug(machine(result))}.json"
        write_file(file, json_bytes(result))
        print(file)
    if not chosen.out:
        put_tables(PREFIX, "train_distributed.py", tables(results))


if __name__ == "__main__":
    main()
