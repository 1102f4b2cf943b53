"""Measures how long the command line takes to answer, as whole processes against the bare interpreter.

    python benchmarks/startup.py [--runs N]      measures and writes results/startup-cpu.json and the table of README.md
    python benchmarks/startup.py --tables        only the table, from the results at hand

Contestants are interleaved. A training of one step is how long it takes from the command to the first step, and more:
it evaluates before and after that step, saves checkpoints and evaluates the better one on the test part.
"""

from __future__ import annotations

import argparse
import json
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
TRAIN = ["train", "mlp-vae", "--steps", "1", "--eval-every", "1", "--device", "cpu"]
CONTESTANTS = {
    "python -c pass": ["-c", "pass"],
    "import vaezoo": ["-c", "import vaezoo"],
    "vaezoo --help": ["-m", "vaezoo_cli", "--help"],
    "vaezoo list": ["-m", "vaezoo_cli", "list"],
    "vaezoo train mlp-vae --steps 1": ["-m", "vaezoo_cli", *TRAIN],
}
NOTES = {
    "vaezoo list": "imports every model, and so torch",
    "vaezoo train mlp-vae --steps 1": "the whole process: digits, one step, evaluations, checkpoints",
}


def seconds(arguments: list[str]) -> float:
    """Runs a process to its end and returns the time it took."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - start


def measure(runs: int) -> list[dict[str, Any]]:
    """Returns a row for each contestant."""
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for round_number in range(runs + 1):  # the first round fills the disk cache and is not counted
        for name, arguments in CONTESTANTS.items():
            taken = seconds(arguments)
            if round_number:
                times[name].append(taken)
    base = statistics.median(times["python -c pass"])
    return [
        {
            "command": name,
            "median_s": round(statistics.median(values), 4),
            "min_s": round(min(values), 4),
            "max_s": round(max(values), 4),
            "ratio": round(statistics.median(values) / base, 2),
        }
        for name, values in times.items()
    ]


def lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table and where it comes from."""
    rows = [
        [
            f"`{row['command']}`" + (f" ({NOTES[row['command']]})" if row["command"] in NOTES else ""),
            f"{row['median_s']:.3g} s",
            f"{row['min_s']:.3g} to {row['max_s']:.3g} s",
            f"{row['ratio']:.3g}",
        ]
        for row in result["rows"]
    ]
    environment = result["environment"]
    return [
        f"{hardware(environment)}; {versions(environment)}. Medians of {result['runs']} rounds.",
        "",
        *table(["command", "median", "range", "times `python -c pass`"], rows),
    ]


def main() -> None:
    """Measures, writes the JSON, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    if chosen.tables:
        result = json.loads(FILE.read_text())
    else:
        rows, found = measure(chosen.runs), environment(PACKAGES)
        result = {"schema": 1, "benchmark": "startup", "runs": chosen.runs, "environment": found, "rows": rows}
        write_file(FILE, json_bytes(result))
    print("\n".join(lines(result)))
    put_tables("startup", "startup.py", lines(result))


if __name__ == "__main__":
    main()
