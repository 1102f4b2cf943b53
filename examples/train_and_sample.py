"""Trains a VAE on the packaged digits, evaluates it and writes sampled images.

python examples/train_and_sample.py --epochs 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torchvision.utils import save_image

import vaezoo


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="conv-vae", help="a name that `vaezoo list` shows")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="runs/example", help="the run folder, which must not exist yet")
    args = parser.parse_args(arguments)

    data = vaezoo.load_data("digits")
    config = vaezoo.TrainConfig(epochs=args.epochs, kl_warmup=200)
    run = vaezoo.train(args.model, data, options={"latent_dim": 8}, config=config, out=args.out, on_report=show)

    for metric in vaezoo.evaluate(run, data).metrics:
        print(f"{metric.name}: {metric.value} {metric.unit}")

    # run.vae is a torch.nn.Module in evaluation mode, with the weights of the best checkpoint.
    x = data.test.batch(slice(0, 8)).x  # (8, 1, 28, 28) in [0, 1]
    rows = [x, run.vae.reconstruct(x).detach(), run.vae.sample(8).detach()]
    for name, images in zip(("originals", "reconstructions", "samples"), rows, strict=True):
        save_image(images, run.path / f"{name}.png", nrow=8)
    print(f"written {run.path}")


def show(report: vaezoo.Report) -> None:
    """Prints the validation metrics after each epoch."""
    if report.split == "valid":
        print(f"epoch {report.epoch:.0f} of {report.epochs:.0f}: ELBO {report.metrics['elbo']:.2f} nats")


if __name__ == "__main__":
    main()
