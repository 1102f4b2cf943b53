"""The script that made files/mnist-lenet64.safetensors.

python -m scripts.make_features --data-dir FOLDER OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save
from torch.nn import functional as F

from vaezoo.core.atomic import write_file
from vaezoo.core.seed import epoch_permutation
from vaezoo.data.base import TensorSplit
from vaezoo.data.images import standard_sets
from vaezoo.evaluation.feature_extractors import ACCURACY, LeNet

SEED = 0
EPOCHS = 8
BATCH = 100
RATE = 3e-3
SHIFT = 2  # pixels


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_features", description=__doc__)
    parser.add_argument("--data-dir", required=True, type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("out", metavar="OUT", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)  # with more of them sums would depend on their number
    make(args.data_dir, args.out)


def make(data_dir: Path, out: Path) -> None:
    """Trains the classifier on MNIST's 60,000 training images and writes it with its accuracy on the 10,000 others.

    Two runs on one machine write the same bytes.
    """
    train, test = standard_sets.load("mnist", data_dir, None)
    lenet = fit(train)
    told = {ACCURACY: f"{accuracy(lenet, test):.4f}"}  # of two entries, either would come first, by chance
    write_file(out, save(lenet.state_dict(), metadata=told))


def fit(part: TensorSplit) -> LeNet:
    """Trains a classifier. Each batch is shifted by up to two pixels, over a border that is black."""
    torch.manual_seed(SEED)
    lenet = LeNet()
    optimizer = torch.optim.AdamW(lenet.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * -(-len(part) // BATCH))
    for epoch in range(EPOCHS):
        for index in torch.split(epoch_permutation(SEED, epoch, len(part)), BATCH):
            x, y = part.batch(index)
            assert y is not None
            down, right = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
            loss = F.cross_entropy(lenet(x.roll((down, right), (2, 3))), y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return lenet.eval()


@torch.no_grad()
def accuracy(lenet: LeNet, part: TensorSplit) -> float:
    """Returns the share of a part's examples that are told right."""
    right = 0
    for index in torch.split(torch.arange(len(part)), BATCH):
        x, y = part.batch(index)
        right += int((lenet(x).argmax(1) == y).sum())
    return right / len(part)


if __name__ == "__main__":
    main()
