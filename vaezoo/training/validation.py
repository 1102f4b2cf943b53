"""Evaluation by the trainer: an objective's metrics over a split, and the error of reconstructions."""

from __future__ import annotations

import math
import signal
from contextlib import closing

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.seed import derive_seed, isolate_rng, set_seed
from vaezoo.data.base import Batch, Split, TensorSplit, to_floats
from vaezoo.data.prefetch import prefetch
from vaezoo.errors import DivergedError
from vaezoo.objectives.base import Objective, StepContext
from vaezoo.objectives.vq import code_counts, usage_metrics
from vaezoo.posteriors.base import map_tensors
from vaezoo.training.config import TrainConfig
from vaezoo.training.train_step import DIVERGED_HINT, binarize
from vaezoo.vae import VAE, eval_mode

MSE_EXAMPLES = 3_000  # whose reconstructions are compared with them
NUMERIC_KINDS = ("unit", "real")  # whose values have a squared error


def evaluate(
    vae: VAE, objective: Objective, split: Split, config: TrainConfig, *, train_size: int = 0
) -> dict[str, float]:
    """Returns an objective's metrics over a split: means over its examples, with one sample of z for each.

    For codes of a quantizer, perplexity and `codes_used` are those of all codes of the split together.

    The run's seed determines z and, if the training binarizes, the bits. They are the same at each call and for any
    number of processes. The caller's random state does not change. Model and objective are in
    evaluation mode while it runs. `train_size` is the number of training examples, or 0 if it is not known.

    Raises:
        DivergedError: If a metric is not finite.
        Stopped: If this process or another one was asked to stop.
    """
    device = next(vae.parameters()).device
    batch_size = config.batch_size // config.grad_accum_steps  # what the training holds in memory at a time
    # The processes share the batches. A process without a batch computes the first one with weight 0.
    own = range(distributed.rank(), -(-len(split) // batch_size), distributed.world_size())
    numbers = own or range(1)
    examples = torch.arange(len(split), device=split.x.device if isinstance(split, TensorSplit) else None)
    indices = [examples[n * batch_size :][:batch_size] for n in numbers]
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(sum(level.codes for level in vae.latent_levels), device=device)
    batches = prefetch(split, indices, device, config.workers)
    with eval_mode(vae, objective), closing(batches), isolate_rng(device), distributed.single_process():
        for number, batch in zip(numbers, batches, strict=True):
            set_seed(derive_seed(config.seed, "evaluation", number), device)
            x = binarize(to_floats(batch.x), config)
            metrics = objective(vae, Batch(x, batch.y), StepContext.initial(device, train_size)).metrics
            for name, value in metrics.items():
                weight = len(x) if number in own else 0
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value * weight
            if len(counts) and number in own:
                counts += code_counts(vae.infer(Batch(x, batch.y)).mode(), vae.latent_levels)
            if signals.pending_signal():  # all processes meet below and leave together
                break
    pending = torch.full((), signals.pending_signal(), dtype=torch.float32, device=device)
    stop_requested, *totals = distributed.dist_mean(torch.stack([pending, *sums.values()])).tolist()
    if stop_requested:
        raise signals.Stopped(signals.pending_signal() or signal.SIGTERM)
    means = {name: total * distributed.world_size() / len(split) for name, total in zip(sums, totals, strict=True)}
    if len(counts):
        means |= usage_metrics(vae.latent_levels, distributed.dist_mean(counts))
    if not all(math.isfinite(value) for value in means.values()):
        terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise DivergedError(f"an evaluation is not finite ({terms})", DIVERGED_HINT)
    return means


def reconstruction_error(vae: VAE, split: Split, batch_size: int) -> dict[str, float]:
    """Returns how far the means of p(x|z) are from examples, for images and other numbers. Empty for other data.

    Args:
        vae: The model, on the device to use.
        split: The examples. Of more than 3,000, as many are taken, evenly spaced.
        batch_size: Examples at a time.

    Returns:
        `mse`, the squared error of a value, averaged over values and examples; and `explained_variance`,
        1 - mse / variance. The variance is that of each value over the examples, averaged over the values. It is left
        out where the data do not vary.
    """
    if vae.data.kind not in NUMERIC_KINDS:
        return {}
    examples = split.subsample(MSE_EXAMPLES)
    device = next(vae.parameters()).device
    total, error = torch.zeros((2, *vae.data.shape), dtype=torch.float64), 0.0
    with eval_mode(vae), distributed.single_process():
        for start in range(0, len(examples), batch_size):
            batch = map_tensors(examples.batch(slice(start, start + batch_size)), lambda t: t.to(device))
            difference = (vae.reconstruct(*batch) - batch.x).double()
            x = batch.x.double().cpu()
            error += difference.square().sum().item()
            total += torch.stack([x.sum(0), x.square().sum(0)])
    mean, square = total / len(examples)
    mse, variance = error / len(examples) / vae.data.dims, (square - mean.square()).clamp(min=0).mean().item()
    return {"mse": mse} | ({"explained_variance": 1 - mse / variance} if variance > 0 else {})
