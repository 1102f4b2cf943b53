"""Measure the gain of distributed training: two gloo processes of one thread each against one of two threads.

    python benchmarks/train_distributed.py [--rounds N]    measures; writes the results and the table in README.md
    python benchmarks/train_distributed.py --tables        only the table, from existing results

Both layouts train on the packaged digits with `vaezoo train`, at the same global batch size. Whole trainings are run in
turns. Each gives the median of its reports' images per second, so start-up and evaluation do not count. The results go
to results/train-distributed-MACHINE.json.
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

from tables import HERE, format_quartiles, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes

PROCESSES = 2
PREFIX = "train-distributed"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
DISTRIBUTED, SINGLE = f"{PROCESSES} processes, 1 thread each", f"1 process, {PROCESSES} threads"
LAYOUTS: dict[str, tuple[list[str], int]] = {DISTRIBUTED: (TORCHRUN, 1), SINGLE: ([], PROCESSES)}  # launcher, threads
CASES = (("mlp-vae", 128, 600), ("mlp-vae", 1024, 150), ("conv-vae", 128, 150))  # model, global batch size, steps


def images_per_second(launcher: list[str], threads: int, model: str, batch: int, steps: int) -> float:
    """Trains once and returns the median of the reports, which count all processes.

    Raises:
        subprocess.CalledProcessError: If the training failed. Its stderr is the stderr of this process.
    """
    settings = ["--steps", str(steps), "--eval-every", str(steps), "--batch-size", str(batch), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, *launcher, "-m", "vaezoo_cli", "train", model, *settings, "--json"],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(process.stdout)["images_per_second"])


def measure(rounds: int, model: str, batch: int, steps: int) -> dict[str, Any]:
    """Returns the results of one case. Every second round runs the layouts in reverse order."""
    rates: dict[str, dict[int, float]] = {name: {} for name in LAYOUTS}
    for number in range(rounds):
        for name in list(LAYOUTS)[:: -1 if number % 2 else 1]:
            rates[name][number] = images_per_second(*LAYOUTS[name], model, batch, steps)
            print(
                f"{model} {batch}, round {number + 1} of {rounds}: {name}: {rates[name][number]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    return {
        "model": model,
        "batch": batch,
        "steps": steps,
        "rows": [{"layout": n, "images_per_second": quartiles(list(r.values()))} for n, r in rates.items()],
        "processes_over_threads": quartiles(ratios(rates[DISTRIBUTED], rates[SINGLE])),
    }


def tables(results: Path) -> list[str]:
    """Returns the lines for README.md, with one table per machine."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        lines += result_table(file, json.loads(file.read_text("utf-8")))
    return lines


def result_table(file: Path, result: Mapping[str, Any]) -> list[str]:
    """Returns the section of one machine."""
    environment, setting = result["environment"], result["setting"]
    rows = [
        [
            f"{case['model']}, batch {case['batch']}",
            *(format_quartiles(row["images_per_second"], ",.0f") for row in case["rows"]),
            format_quartiles(case["processes_over_threads"], ".2f"),
        ]
        for case in result["cases"]
    ]
    return [
        f"### Distributed training on {machine(result)}",
        "",
        f"`results/{file.name}`. {hardware(environment)}; {versions(environment)}. "
        f"{setting['rounds']} runs each; global batch size; images/s.",
        "",
        *table(["training", *LAYOUTS, "ratio"], rows),
        "",
    ]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each layout per case")
    parser.add_argument("--out", type=Path, help="write results to this folder, and do not change README.md")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    results = args.out or HERE / "results"
    if not args.tables:
        result = {
            "schema": 1,
            "benchmark": PREFIX,
            "environment": environment(("vaezoo", "torch", "numpy")),
            "setting": {"device": "cpu", "threads": PROCESSES, "rounds": args.rounds},
            "cases": [measure(args.rounds, *case) for case in CASES],
        }
        file = results / f"{PREFIX}-{slug(machine(result))}.json"
        write_file(file, json_bytes(result))
        print(file)
    if not args.out:
        put_tables(PREFIX, "train_distributed.py", tables(results))


if __name__ == "__main__":
    main()
