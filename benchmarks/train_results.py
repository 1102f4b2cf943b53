"""What train_throughput.py makes of its rounds: statistics, checks, and the tables of README.md."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import hardware, machine, quartiles, ratios, slug, table, versions

BASES = ("tutorial", "pythae", "plain", "jax")
LOSSES_WITHIN = 0.06  # of their median: other initial weights alone move conv's loss after 400 steps by 4 %
PREFIX = "train-throughput"

Rates = Mapping[str, Mapping[int, float]]  # contestant -> round -> images a second


def precision(contestant: str) -> str:
    """Returns the precision a contestant computes in."""
    return "bf16" if contestant.endswith("bf16") else "fp32"


def peaks(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the operations a second of each precision: of each size's median over the rounds the largest."""
    medians = {name: statistics.median(rates[name] for rates in rounds) for name in (rounds[0] if rounds else ())}
    kinds = dict.fromkeys(name.split()[0] for name in medians)
    return {kind: max(value for name, value in medians.items() if name.startswith(kind)) for kind in kinds}


def rows_of(rates: Rates, flops: int, peak: Mapping[str, float], facts: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Returns a row for each contestant.

    Args:
        rates: What was measured.
        flops: Operations an image, forward and backward.
        peak: As from `peaks`.
        facts: What each worker told when it was warm: its parameters and its loss.
    """
    rows = []
    for name, by_round in rates.items():
        speed = quartiles(list(by_round.values()))
        row: dict[str, Any] = {"contestant": name, "precision": precision(name), **facts[name]}
        row["images_per_second"] = speed
        if speed["n"]:
            row["flops_per_second"] = float(f"{speed['p50'] * flops:.6g}")
            if precision(name) in peak:
                row["of_peak"] = round(speed["p50"] * flops / peak[precision(name)], 5)
        row["over"] = {b: quartiles(ratios(by_round, rates[b])) for b in BASES if b in rates and b != name}
        row["rounds"] = {number: float(f"{rate:.6g}") for number, rate in by_round.items()}
        rows.append(row)
    return rows


def check_losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each fp32 contestant whose loss after the warm-up is not about that of the others."""
    losses = {row["contestant"]: row["loss"] for row in rows if row["precision"] == "fp32"}
    middle = statistics.median([loss for loss in losses.values() if math.isfinite(loss)] or [0.0])
    return [
        f"{name}: a loss of {loss:.2f} after the warm-up, where the median is {middle:.2f}"
        for name, loss in losses.items()
        if not abs(loss - middle) <= LOSSES_WITHIN * middle  # so that NaN is told, too
    ]


def result_file(results: Path, case: Mapping[str, Any]) -> Path:
    """Returns where the cases of a machine are kept."""
    return results / f"{PREFIX}-{slug(machine(case))}.json"


def merge(old: Mapping[str, Any] | None, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns a result file's content: new cases in place of old ones, which stay where the versions are the same."""
    measured = {(case["network"], case["batch"]): case for case in cases}
    same = cases[0]["environment"]["versions"]
    kept = {
        (c["network"], c["batch"]): c for c in (old or {"cases": []})["cases"] if c["environment"]["versions"] == same
    }
    merged = kept | measured
    return {"schema": 1, "benchmark": PREFIX, "cases": [merged[key] for key in sorted(merged, key=order)]}


def order(key: tuple[str, int]) -> tuple[bool, str, int]:
    """Sorts cases: the MLP first, then by batch."""
    network, batch = key
    return network != "mlp", network, batch


def tables(results: Path) -> list[str]:
    """Returns the tables of all machines."""
    lines: list[str] = []
    for file in sorted(results.glob(f"{PREFIX}-*.json")):
        cases = json.loads(file.read_text())["cases"]
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
    bases = [base for base in BASES if any(row["contestant"] == base for row in measured)]
    busy = any("busy" in row for row in measured)
    peak = ", ".join(f"{kind} {rate / 1e9:,.0f} GFLOP/s" for kind, rate in case["peak"].items())
    cells = [
        [
            row["contestant"],
            spread(row["images_per_second"], ",.0f"),
            f"{row['flops_per_second'] / 1e9:,.1f} ({row['of_peak']:.1%})" if "of_peak" in row else "",
            *([f"{row['busy']:.0%}" if "busy" in row else ""] if busy else []),
            *("1" if row["contestant"] == base else spread(row["over"][base], ".2f") for base in bases),
            f"{row['loss']:.1f}",
        ]
        for row in measured
    ]
    head = ["contestant", "images/s", "GFLOP/s (of the peak)", *(["GPU busy"] if busy else [])]
    return [
        f"{case['network']}, batch {case['batch']}: {case['parameters']:,} parameters, "
        f"{case['flops_per_image'] / 1e6:.2f} MFLOP an image; {setting['images']:,} images of {setting['data']}, "
        f"{setting['rounds']} rounds of {setting['seconds']:g} s" + (f"; peak {peak}" if peak else "") + ".",
        "",
        *table([*head, *(f"over {base}" for base in bases), f"loss after {setting['warm_up']} steps"], cells),
        "",
    ]


def spread(values: Mapping[str, float], form: str) -> str:
    """Writes a median with its quartiles."""
    if not values["n"]:
        return ""
    return f"{values['p50']:{form}} ({values['p25']:{form}} to {values['p75']:{form}})"
