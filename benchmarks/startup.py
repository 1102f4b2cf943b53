"""Measures how long the command line takes to answer, as whole processes against the bare interpreter.

    python benchmarks/startup.py [--runs N]

Contestants are interleaved; the medians and their ratio to `python -c pass` go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from vaezoo.bench.environment import environment

PACKAGES = ("vaezoo", "torch", "click", "rich")
RESULTS = Path(__file__).parent / "results"
CONTESTANTS = {
    "python -c pass": ["-c", "pass"],
    "import vaezoo": ["-c", "import vaezoo"],
    "vaezoo --help": ["-m", "vaezoo_cli", "--help"],
    "vaezoo list": ["-m", "vaezoo_cli", "list"],
}


def seconds(arguments: list[str]) -> float:
    """Runs a process to its end and returns the time it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measures, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for round_number in range(runs + 1):  # the first round fills the disk cache and is not counted
        for name, arguments in CONTESTANTS.items():
            taken = seconds(arguments)
            if round_number:
                times[name].append(taken)
    base = statistics.median(times["python -c pass"])
    rows = [
        {
            "command": name,
            "median_s": round(statistics.median(values), 4),
            "min_s": round(min(values), 4),
            "max_s": round(max(values), 4),
            "ratio": round(statistics.median(values) / base, 2),
        }
        for name, values in times.items()
    ]
    for row in rows:
        print(
            f"{row['command']:<16} {row['median_s']:.3f} s  ({row['min_s']:.3f} to {row['max_s']:.3f})  x{row['ratio']}"
        )
    RESULTS.mkdir(exist_ok=True)
    result = {"schema": 1, "benchmark": "startup", "runs": runs, "environment": environment(PACKAGES), "rows": rows}
    (RESULTS / "startup-cpu.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
