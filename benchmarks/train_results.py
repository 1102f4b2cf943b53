"""The results of train_throughput.py: statistics, checks, and the tables of README.md."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import format_quartiles, hardware, machine, quartiles, ratios, slug, table, versions

BASELINES = ("tutorial", "pythae", "plain", "jax")
LOSS_TOLERANCE = 0.06  # of the median; other initial weights alone move conv's loss after 400 steps by 4 %
PREFIX = "train-throughput"

Rates = Mapping[str, Mapping[int, float]]  # backend -> round -> images per second


def precision(backend: str) -> str:
    """Returns the precision of a backend, "fp32" or "bf16"."""
    return "bf16" if backend.endswith("bf16") else "fp32"


def peaks(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the peak rate of each precision in operations per second.

    It takes the median over the rounds for each matrix size, and then the largest median of each precision.
    """
    medians = {name: statistics.median(rates[name] for rates in rounds) for name in (rounds[0] if rounds else ())}
    kinds = dict.fromkeys(name.split()[0] for name in medians)
    return {kind: max(value for name, value in medians.items() if name.startswith(kind)) for kind in kinds}


def make_rows(rates: Rates, flops: int, peak: Mapping[str, float], info: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Returns a row for each backend.

    Args:
        rates: The measured rates.
        flops: Operations per image, forward and backward.
        peak: The result of `peaks`.
        info: Number of weights and loss of each backend after its warm-up.
    """
    rows = []
    for name, by_round in rates.items():
        speed = quartiles(list(by_round.values()))
        row: dict[str, Any] = {"backend": name, "precision": precision(name), **info[name]}
        row["images_per_second"] = speed
        if speed["n"]:
            row["flops_per_second"] = float(f"{speed['p50'] * flops:.6g}")
            if precision(name) in peak:
                row["of_peak"] = round(speed["p50"] * flops / peak[precision(name)], 5)
        row["over"] = {b: quartiles(ratios(by_round, rates[b])) for b in BASELINES if b in rates and b != name}
        row["rounds"] = {number: float(f"{rate:.6g}") for number, rate in by_round.items()}
        rows.append(row)
    return rows


def check_losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a message for each fp32 backend whose loss after the warm-up differs from the others'."""
    losses = {row["backend"]: row["loss"] for row in rows if row["precision"] == "fp32"}
    median = statistics.median([loss for loss in losses.values() if math.isfinite(loss)] or [0.0])
    return [
        f"{name}: the loss after the warm-up is {loss:.2f}, but the median of all backends is {median:.2f}"
        for name, loss in losses.items()
        if not abs(loss - median) <= LOSS_TOLERANCE * median  # "not <=" is also true for NaN
    ]


def result_file(results: Path, case: Mapping[str, Any]) -> Path:
    """Returns the result file of a case's machine."""
    return results / f"{PREFIX}-{slug(machine(case))}.json"


def merge(old: Mapping[str, Any] | None, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the content of a result file with new cases.

    New cases replace old ones of the same network and batch size. Old cases of other package versions are removed.
    """
    measured = {(case["network"], case["batch"]): case for case in cases}
    same = cases[0]["environment"]["versions"]
    kept = {
        (c["network"], c["batch"]): c for c in (old or {"cases": []})["cases"] if c["environment"]["versions"] == same
    }
    merged = kept | measured
    return {"schema": 1, "benchmark": PREFIX, "cases": [merged[key] for key in sorted(merged, key=case_order)]}


def case_order(key: tuple[str, int]) -> tuple[bool, str, int]:
    """Returns the sort key of a case: the MLP first, then by batch size."""
    network, batch = key
    return network != "mlp", network, batch


def tables(results: Path) -> list[str]:
    """Returns the lines for README.md, with a section per machine."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        cases = json.loads(file.read_text("utf-8"))["cases"]
        environment, setting = cases[0]["environment"], cases[0]["setting"]
        threads = f", {setting['threads']} threads" if setting["device"] == "cpu" else ""
        lines += [
            f"### Training on {machine(cases[0])}",
            "",
            f"`results/{file.name}`. {hardware(environment)}{threads}; {versions(environment)}.",
            "",
        ]
        for case in cases:
            lines += case_tables(case)
    return lines


def case_tables(case: Mapping[str, Any]) -> list[str]:
    """Returns the table of one network at one batch size."""
    setting, rows = case["setting"], case["rows"]
    measured = [row for row in rows if row["images_per_second"]["n"]]
    baselines = [name for name in BASELINES if any(row["backend"] == name for row in measured)]
    busy = any("busy" in row for row in measured)
    peak = ", ".join(f"{kind} {rate / 1e9:,.0f} GFLOP/s" for kind, rate in case["peak"].items())
    cells = [
        [
            row["backend"],
            format_quartiles(row["images_per_second"], ",.0f"),
            f"{row['flops_per_second'] / 1e9:,.1f} ({row['of_peak']:.1%})" if "of_peak" in row else "",
            *([f"{row['busy']:.0%}" if "busy" in row else ""] if busy else []),
            *("1" if row["backend"] == b else format_quartiles(row["over"][b], ".2f") for b in baselines),
            f"{row['loss']:.1f}",
        ]
        for row in measured
    ]
    head = ["backend", "images/s", "GFLOP/s (of the peak)", *(["GPU busy"] if busy else [])]
    return [
        f"{case['network']}, batch {case['batch']}: {case['parameters']:,} parameters, "
        f"{case['flops_per_image'] / 1e6:.2f} MFLOP per image; {setting['images']:,} images of {setting['data']}, "
        f"{setting['rounds']} rounds of {setting['seconds']:g} s" + (f"; peak {peak}" if peak else "") + ".",
        "",
        *table([*head, *(f"over {b}" for b in baselines), f"loss after {setting['warm_up']} steps"], cells),
        "",
    ]
