"""Compares sentence-vae with an autoregressive network of the same decoder, on the packaged names.

    python benchmarks/text_likelihood.py --out names.json

Both have the same GRU, and train on the same names with the same batches' size, optimizer and number of steps. The
autoregressive network gets no latents. The likelihood of the VAE is estimated by importance sampling. Both are measured
on the test names, with the weights that are best on the validation names.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import vaezoo
from vaezoo.data.base import Dataset, Split
from vaezoo.evaluation import latents
from vaezoo.evaluation.likelihood import elbo, negative_log_likelihood
from vaezoo.likelihoods.categorical import Categorical
from vaezoo.nn.sequence import RecurrentDecoder, SequenceConfig
from vaezoo.posteriors.base import map_tensors

WIDTH, LATENTS, BATCH, LR, EVAL_EVERY = 128, 16, 128, 2e-3, 200
PAIRS, STEPS_BETWEEN = 20, 5


def mean_nll(decoder: RecurrentDecoder, likelihood: Categorical, split: Split) -> float:
    """Returns -log p(x) in nats, the mean over the names of a split."""
    decoder.eval()
    x = split.gather(slice(None)).x
    with torch.no_grad():
        total = sum(-float(likelihood.log_prob(decoder(no_latents(part), part), part).sum()) for part in x.split(1000))
    decoder.train()
    return total / len(x)


def no_latents(x: Tensor) -> Tensor:
    return torch.zeros(len(x), 1)


def train_autoregressive(data: Dataset, steps: int) -> float:
    """Trains the decoder alone, and returns its NLL on the test names."""
    torch.manual_seed(0)
    config = SequenceConfig(hidden=WIDTH, layers=1, word_dropout=0, decoder="gru")
    decoder, likelihood = RecurrentDecoder(data.spec.vocabulary, 1, "gru", config), Categorical(data.spec.vocabulary)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=LR)
    x, best, weights = data.train.gather(slice(None)).x, float("inf"), decoder.state_dict()
    for step in range(1, steps + 1):
        batch = x[torch.randint(len(x), (BATCH,))]
        loss = -likelihood.log_prob(decoder(no_latents(batch), batch), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVAL_EVERY == 0 and (value := mean_nll(decoder, likelihood, data.valid)) < best:
            best, weights = value, copy.deepcopy(decoder.state_dict())
    decoder.load_state_dict(weights)
    assert data.test is not None
    return mean_nll(decoder, likelihood, data.test)


def train_vae(data: Dataset, steps: int, options: dict[str, object], free_bits: float, folder: Path) -> vaezoo.Run:
    """Trains the VAE."""
    config = vaezoo.TrainConfig(
        steps=steps,
        batch_size=BATCH,
        lr=LR,
        kl_warmup=steps // 4,
        free_bits=free_bits,
        eval_every=EVAL_EVERY,
        device="cpu",
    )
    sizes = {"hidden": WIDTH, "layers": 1, "latent_dim": LATENTS, "decoder": "gru"}
    return vaezoo.train("sentence-vae", data, options=sizes | options, config=config, out=folder)


def lines_between(run: vaezoo.Run, data: Dataset) -> list[str]:
    """Returns the names between pairs of test names, a line for each pair."""
    assert data.test is not None
    batch = data.test.subsample(2 * PAIRS).batch(slice(None))
    index = torch.randperm(2 * PAIRS, generator=torch.Generator().manual_seed(0))
    first, second = (map_tensors(batch, lambda tensor, i=i: tensor[index[i::2]]) for i in (0, 1))  # type: ignore[misc]
    rows = latents.interpolation(run.vae, first, second, STEPS_BETWEEN)
    tokenizer = data.spec.make_tokenizer()
    return [" ".join(tokenizer.to_texts(row.numpy())) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--nll-samples", type=int, default=100)
    parser.add_argument("--free-bits", type=float, default=0.3)
    parser.add_argument("--word-dropout", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=Path("names.json"))
    arguments = parser.parse_args()
    data = vaezoo.load_data("names")
    assert data.test is not None
    baseline = train_autoregressive(data, arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, object] = {"word_dropout": arguments.word_dropout}
        run = train_vae(data, arguments.steps, options, arguments.free_bits, Path(folder) / "run")
        nll = negative_log_likelihood(run.vae, data.test, num_samples=arguments.nll_samples)
        estimate = elbo(run.vae, data.test)
        known = {*data.spec.make_tokenizer().to_texts(data.train.gather(slice(None)).x.numpy())}
        between = lines_between(run, data)
    result = {
        "steps": arguments.steps,
        "free_bits": arguments.free_bits,
        "word_dropout": arguments.word_dropout,
        "autoregressive NLL": baseline,
        f"VAE NLL-{arguments.nll_samples}": nll.value,
        "ratio": nll.value / baseline,
        "-ELBO": -estimate.elbo.value,
        "KL": estimate.kl.value,
        "active units": estimate.active_units,
        "between": between,
        "share of training names": sum(t in known for line in between for t in line.split()) / PAIRS / STEPS_BETWEEN,
        "torch": torch.__version__,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
