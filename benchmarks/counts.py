"""Train scvi on generated cells whose parameters are known, and compare its likelihood with that of the truth.

    python benchmarks/counts.py              trains, evaluates, and writes the results and README.md
    python benchmarks/counts.py --tables     only the table, from existing results

The true -log p(x) of a cell is an integral over two latents, given the library size that generated it. It is computed
by the trapezoidal rule around the mode, on a grid of 15 x 15 points. scvi gets the sum of the counts as the
library size, as its paper does. So the truth is also computed with the library size that follows from the sum.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import vaezoo
from tables import HERE, hardware, put_tables, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.data.counts import cells
from vaezoo.evaluation.likelihood import negative_log_likelihood
from vaezoo.likelihoods.counts import negative_binomial_log_prob

FILE = HERE / "results" / "counts-cpu.json"
PACKAGES = ("vaezoo", "torch")
TRAINING = {"steps": 6_000, "batch_size": 128, "lr": 1e-3, "schedule": "cosine", "eval_every": 500, "device": "cpu"}
CASES = {"scvi": "zinb", "scvi, without further zeros": "nb"}  # and their likelihoods
ROWS = 40  # cells that are integrated at once
NEWTON_STEPS, LONGEST_STEP = 12, 0.3
REACH = 6.0  # standard deviations from the mode to the end of the grid
NODES = 15  # points of the grid in each direction


class Truth:
    """The true distribution of cells.

    Args:
        observed: Whether the library size follows from the sum of the counts. Otherwise it is the given one.
    """

    def __init__(self, observed: bool) -> None:
        self.observed = observed
        self.centres, self.weights, self.offsets, self.log_theta, self.dropout = (
            torch.from_numpy(values) for values in cells.make_truth()
        )

    def log_joint(self, z: Tensor, x: Tensor, library: Tensor) -> Tensor:
        """Returns log p(x, z | l), `(rows, nodes)`, of latents `(rows, nodes, 2)`."""
        square = (z.unsqueeze(2) - self.centres).square().sum(-1)
        log_prior = torch.logsumexp(-0.5 * square / cells.SPREAD**2, 2) - math.log(len(self.centres))
        log_prior = log_prior - math.log(2 * math.pi * cells.SPREAD**2)
        log_fractions = torch.log_softmax(z @ self.weights + self.offsets, 2)
        log_library = library.log()[:, None, None]
        if self.observed:
            kept = torch.exp(log_fractions + F.logsigmoid(-self.dropout)).sum(2, keepdim=True)
            log_library = x.sum(1).log()[:, None, None] - kept.log()
        x = x.unsqueeze(1)
        log_p = negative_binomial_log_prob(log_fractions + log_library, self.log_theta, x) + F.logsigmoid(-self.dropout)
        log_p = torch.where(x == 0, torch.logaddexp(F.logsigmoid(self.dropout), log_p), log_p)
        return log_prior + log_p.sum(2)

    def nll(self, x: Tensor, library: Tensor, start: Tensor, nodes: int) -> Tensor:
        """Returns -log p(x | l), `(rows,)`, with nodes x nodes points of the grid."""
        mode, curvature = self.find_mode(start, x, library)
        scale = torch.linalg.inv(torch.linalg.cholesky(curvature)).mT  # columns: one standard deviation
        axis = torch.linspace(-REACH, REACH, nodes, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        with torch.no_grad():
            log_joint = self.log_joint(mode.unsqueeze(1) + grid @ scale.mT, x, library)
        volume = torch.linalg.det(scale).abs() * (axis[1] - axis[0]) ** 2
        return -(torch.logsumexp(log_joint, 1) + volume.log())

    def find_mode(self, z: Tensor, x: Tensor, library: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the modes of p(z|x), `(rows, 2)`, and the negative Hessians there, by Newton's method."""
        for step in range(NEWTON_STEPS + 1):
            z = z.detach().requires_grad_()
            value = self.log_joint(z.unsqueeze(1), x, library).sum()
            (gradient,) = torch.autograd.grad(value, z, create_graph=True)
            rows = [torch.autograd.grad(gradient[:, i].sum(), z, retain_graph=True)[0] for i in range(2)]
            values, vectors = torch.linalg.eigh(-torch.stack(rows, 1))
            curvature = vectors @ torch.diag_embed(values.abs().clamp(min=1.0)) @ vectors.mT
            if step == NEWTON_STEPS:
                return z.detach(), curvature.detach()
            move = torch.linalg.solve(curvature, gradient.detach().unsqueeze(2)).squeeze(2)
            z = z + move * (LONGEST_STEP / move.norm(dim=1, keepdim=True)).clamp(max=1.0)
        raise AssertionError


def true_nll(observed: bool, nodes: int, limit: int | None = None) -> tuple[float, float]:
    """Returns the mean of the true -log p(x | l) of the test cells, and its standard error."""
    truth, test = Truth(observed), cells.draw_splits()[1]
    x, library = (torch.from_numpy(values[:limit].astype(np.float64)) for values in (test.x, test.library))
    start = truth.centres[torch.from_numpy(test.types[:limit])]
    parts = zip(x.split(ROWS), library.split(ROWS), start.split(ROWS), strict=True)
    nll = torch.cat([truth.nll(*part, nodes) for part in parts])
    return float(nll.mean()), float(nll.std() / math.sqrt(len(nll)))


def measure(name: str, samples: int) -> dict[str, Any]:
    """Trains and evaluates a case and returns a row of results."""
    likelihood = CASES[name]
    data = vaezoo.load_data("cells", likelihood=likelihood)
    assert data.test is not None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = vaezoo.train("scvi", data, config=TRAINING, out=Path(folder) / "run")
        seconds = time.perf_counter() - start
        nll = negative_log_likelihood(run.vae, data.test, num_samples=samples)
        bound = {metric.name: metric.value for metric in vaezoo.evaluate(run, data, metrics=["elbo"]).metrics}
    row = {"name": name, "likelihood": likelihood, "training": TRAINING, "seconds": seconds, "samples": samples}
    return {**row, "nll": nll.value, "error": nll.error, "neg_elbo": bound["-ELBO"], "kl": bound["KL"]}


def tables(result: dict[str, Any]) -> list[str]:
    """Returns the lines for README.md."""
    truth = result["truth"]["given"]["nll"]
    rows = [
        ["truth, its own library size", f"{truth:.2f}", "", "", ""],
        ["truth, library size from the sum", f"{result['truth']['sum']['nll']:.2f}", "", "", ""],
    ]
    for row in result["rows"]:
        ratio = f"{row['nll'] / truth - 1:+.2%}"
        rows.append([row["name"], f"{row['nll']:.2f}", ratio, f"{row['neg_elbo']:.2f}", f"{row['kl']:.2f}"])
    about, first = result["environment"], result["rows"][0]
    return [
        f"{hardware(about)}, 1 thread; {versions(about)}. 4,500 cells to train, 1,000 held-out cells. "
        f"NLL by importance sampling with {first['samples']:,} z for each cell. "
        f"A training took {first['seconds']:.0f} s.",
        "",
        *table(["model", "NLL, nats", "against the truth", "-ELBO", "KL"], rows),
    ]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only write the table")
    parser.add_argument("--nll-samples", type=int, default=500)
    args = parser.parse_args()
    if not args.tables:
        truth = {}
        for name, observed in (("given", False), ("sum", True)):
            nll, error = true_nll(observed, NODES)
            # Both are of the first cells alone.
            change = true_nll(observed, 2 * NODES, ROWS)[0] - true_nll(observed, NODES, ROWS)[0]
            truth[name] = {"nll": nll, "error": error, "change with a finer grid": change}
            print(name, json.dumps(truth[name]), file=sys.stderr)
        rows = []
        for name in CASES:
            rows.append(measure(name, args.nll_samples))
            print(json.dumps(rows[-1]), file=sys.stderr)
        result = {"schema": 1, "environment": environment(PACKAGES), "truth": truth, "rows": rows}
        write_file(FILE, json_bytes(result))
    put_tables("counts", "counts.py", tables(json.loads(FILE.read_text("utf-8"))))


if __name__ == "__main__":
    main()
