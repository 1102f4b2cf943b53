"""Times -log p(x) by importance sampling against pythae's `get_nll`: the same network and numbers of draws, in turns.

    python benchmarks/nll_speed.py                  the packaged digits, on this machine's CPU
    python benchmarks/nll_speed.py --device cuda    ... on its GPU
    python benchmarks/nll_speed.py --tables         only the tables, from the results at hand

Both have the same weights and threads, and their estimates have to agree. vaezoo gets so many images that it compiles
the estimate; its time includes that. "product" is what no estimate can do without: the decoder's products and
convolutions alone, in float32 and not compiled, over as many latents, in batches of the best size.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vaezoo
from tables import HERE, hardware, machine, put_tables, quartiles, ratios, slug, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment, gpu_environment
from vaezoo.core.json_io import json_bytes
from vaezoo.data.base import Split
from vaezoo.evaluation.likelihood import COMPILE_FROM, negative_log_likelihood

RESULTS = HERE / "results"
PREFIX = "nll-speed"
PACKAGES = ("vaezoo", "torch", "pythae")
NETWORKS: dict[str, tuple[str, dict[str, object], int]] = {  # ... and images in a turn of vaezoo
    "mlp 784-400-20": ("mlp-vae", {"hidden": (400,), "latent_dim": 20}, 1000),
    "conv-vae": ("conv-vae", {}, 420),
}
SAMPLES = 5000
BATCH = 100  # pythae's default
PRODUCT_BATCHES = (250, 1000, 2500, 5000)


def pythae_of(vae: vaezoo.GaussianVAE) -> Any:
    """Returns pythae's VAE with our encoder and decoder in it."""
    logging.disable(logging.WARNING)
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim = vae.latent_shape[0]

        def forward(self, x: Tensor) -> Any:
            posterior: Any = vae.encode(x)
            return ModelOutput(embedding=posterior.mu, log_covariance=posterior.logvar)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(vae.decode(z)))

    shape = vae.data.shape
    config = VAEConfig(input_dim=shape, latent_dim=vae.latent_shape[0], reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def contestants(
    vae: vaezoo.GaussianVAE, part: Split, images: dict[str, int], device: torch.device
) -> dict[str, Callable[[], float]]:
    """Returns what takes turns: each evaluates its number of images and returns the estimate."""
    model, some = pythae_of(vae), {name: part.select(torch.arange(n)) for name, n in images.items()}

    def pythae() -> float:
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            x = some["pythae"].batch(slice(None)).x.to(device)
            return -float(model.get_nll(x, n_samples=SAMPLES, batch_size=BATCH))  # it returns log p(x)

    def product(size: int) -> float:
        with torch.no_grad():
            z = torch.randn(size, *vae.latent_shape, device=device)
            for _ in range(images["product"] * SAMPLES // size):
                vae.decode(z)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return math.nan

    ours = {"vaezoo": lambda: negative_log_likelihood(vae, some["vaezoo"], samples=SAMPLES).value}
    return {"pythae": pythae, **ours, **{f"product {n}": lambda n=n: product(n) for n in PRODUCT_BATCHES}}


def measure(network: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Times one network; returns milliseconds an image and the estimates."""
    name, options, many = NETWORKS[network]
    data = vaezoo.load_data("digits")
    torch.manual_seed(0)
    vae = vaezoo.create_model(name, data, options)
    vae.init_from_data(data.train)
    vae.to(device).eval()
    assert data.test is not None and isinstance(vae, vaezoo.GaussianVAE)
    images = {"pythae": 10, "vaezoo": many, "product": 10}
    assert many * SAMPLES >= COMPILE_FROM
    calls = contestants(vae, data.test, images, device)
    agree(vae, data.test.select(torch.arange(images["pythae"])), calls["pythae"]())  # which warms up, too
    times: dict[str, dict[int, float]] = {contestant: {} for contestant in calls}
    for number in range(rounds):
        for contestant, call in calls.items():
            start = time.perf_counter()
            call()
            times[contestant][number] = (time.perf_counter() - start) / images[contestant.split()[0]]
        print(f"{network}: round {number + 1} of {rounds}", file=sys.stderr)
    best = min(PRODUCT_BATCHES, key=lambda n: quartiles(list(times[f"product {n}"].values()))["p50"])
    times = {"pythae": times["pythae"], "vaezoo": times["vaezoo"], "product": times[f"product {best}"]}
    return {
        "network": network,
        "product_batch": best,
        "milliseconds": {c: quartiles([1e3 * t for t in by_round.values()]) for c, by_round in times.items()},
        "over": {c: quartiles(ratios(times["pythae"], times[c])) for c in ("vaezoo", "product")},
    }


def agree(vae: vaezoo.VAE, part: Split, theirs: float) -> None:
    """Raises AssertionError unless two estimates of one number are within a nat."""
    ours = negative_log_likelihood(vae, part, samples=SAMPLES).value
    assert abs(ours - theirs) < 1, f"pythae finds {theirs}, vaezoo {ours}"


def tables() -> list[str]:
    """Returns the lines of README.md: the tables of all machines."""
    lines: list[str] = []
    for file in sorted(RESULTS.glob(f"{PREFIX}-*.json")):
        result = json.loads(file.read_text())
        config, about = result["config"], result["environment"]
        threads = f", {config['threads']} threads" if config["device"] == "cpu" else ""
        told = f"{hardware(about)}{threads}; {versions(about)}. {SAMPLES:,} samples an image, {config['rounds']} rounds"
        head = ["network", "pythae, an image", "vaezoo", "product alone", "vaezoo over pythae", "product over pythae"]
        lines += [f"### Likelihood on {machine(result)}", "", f"`results/{file.name}`. {told}.", ""]
        lines += [*table(head, [cells(row) for row in result["rows"]]), ""]
    return lines


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row of a table: medians with quartiles."""
    took = [f"{v['p50']:.3g} ms ({v['p25']:.3g} to {v['p75']:.3g})" for v in row["milliseconds"].values()]
    over = [f"{v['p50']:.2f} ({v['p25']:.2f} to {v['p75']:.2f})" for v in row["over"].values()]
    return [row["network"], *took, *over]


def main() -> None:
    """Reads the arguments, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", action="store_true")
    chosen = parser.parse_args()
    if not chosen.tables:
        about = environment(PACKAGES) | ({"gpu": gpu_environment()} if chosen.device.type == "cuda" else {})
        config = {"device": chosen.device.type, "threads": torch.get_num_threads(), "rounds": chosen.rounds}
        rows = [measure(network, chosen.rounds, chosen.device) for network in NETWORKS]
        result = {"schema": 1, "environment": about, "config": config, "rows": rows}
        write_file(RESULTS / f"{PREFIX}-{slug(machine(result))}.json", json_bytes(result))
    put_tables(PREFIX, "nll_speed.py", tables())


if __name__ == "__main__":
    main()
