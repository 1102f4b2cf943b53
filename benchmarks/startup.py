"""Measure the start-up time of the command line: whole processes, interleaved.

    python benchmarks/startup.py [--runs N]      measures; writes results/startup-cpu.json and the table in README.md
    python benchmarks/startup.py --tables        only writes the table, from the existing results

The processes may write compiled modules even where PYTHONDONTWRITEBYTECODE is set, because an installation by pip has
them.

The training of one step includes more than its start-up. It evaluates before and after the step, saves checkpoints, and
evaluates the better one on the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from tables import HERE, hardware, put_tables, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes

PACKAGES = ("vaezoo", "torch", "click", "rich")
FILE = HERE / "results" / "startup-cpu.json"
BASELINE = "python -c pass"
TRAIN = ["train", "mlp-vae", "--steps", "1", "--eval-every", "1", "--device", "cpu"]
COMMANDS = {
    BASELINE: ["-c", "pass"],
    "import vaezoo": ["-c", "import vaezoo"],
    "vaezoo --help": ["-m", "vaezoo_cli", "--help"],
    "vaezoo list": ["-m", "vaezoo_cli", "list"],
    "vaezoo train --help": ["-m", "vaezoo_cli", "train", "--help"],
    "vaezoo train mlp-vae --steps 1": ["-m", "vaezoo_cli", *TRAIN],
}
NOTES = {"vaezoo train mlp-vae --steps 1": "imports torch, trains one step, evaluates, saves checkpoints"}


def measure_once(arguments: list[str]) -> float:
    """Runs a process and returns its time in seconds."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            cwd=folder,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - start


def measure(runs: int) -> list[dict[str, Any]]:
    """Returns a row for each command."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_number in range(runs + 1):  # the first round fills the disk cache and is not counted
        for name, arguments in COMMANDS.items():
            seconds = measure_once(arguments)
            if round_number:
                times[name].append(seconds)
    baseline = statistics.median(times[BASELINE])
    return [
        {
            "command": name,
            "median_s": round(statistics.median(values), 4),
            "min_s": round(min(values), 4),
            "max_s": round(max(values), 4),
            "ratio": round(statistics.median(values) / baseline, 2),
        }
        for name, values in times.items()
    ]


def lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table, with the machine and the versions above it."""
    rows = [
        [
            f"`{row['command']}`" + (f" ({NOTES[row['command']]})" if row["command"] in NOTES else ""),
            f"{row['median_s']:.3g} s",
            f"{row['min_s']:.3g} to {row['max_s']:.3g} s",
            f"{row['ratio']:.3g}",
        ]
        for row in result["rows"]
    ]
    about = result["environment"]
    return [
        f"{hardware(about)}; {versions(about)}. Medians of {result['runs']} rounds.",
        "",
        *table(["command", "median", "range", f"times `{BASELINE}`"], rows),
    ]


def main() -> None:
    """Measures, writes the JSON file, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="rounds, 9 by default")
    parser.add_argument("--tables", action="store_true", help="write the table from the existing results")
    args = parser.parse_args()
    if args.tables:
        result = json.loads(FILE.read_text("utf-8"))
    else:
        rows, about = measure(args.runs), environment(PACKAGES)
        result = {"schema": 1, "benchmark": "startup", "runs": args.runs, "environment": about, "rows": rows}
        write_file(FILE, json_bytes(result))
    print("\n".join(lines(result)))
    put_tables("startup", "startup.py", lines(result))


if __name__ == "__main__":
    main()
