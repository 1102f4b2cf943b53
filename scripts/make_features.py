"""Make vaezoo/evaluation/files/mnist-lenet64.safetensors, the classifier whose features the package uses.

python scripts/make_features.py --data-dir FOLDER OUT
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
BATCH_SIZE = 100
MAX_LR = 3e-3
MAX_SHIFT = 2  # pixels


def main() -> None:
    """Parses the arguments and makes the file."""
    parser = argparse.ArgumentParser(
        prog="python scripts/make_features.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", required=True, type=Path, help="folder that contains MNIST/raw")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)  # floating-point sums depend on the number of threads
    make_features(args.data_dir, args.out)


def make_features(data_dir: Path, out: Path) -> None:
    """Trains the classifier on MNIST's 60,000 training images. Writes it with its accuracy on the 10,000 test images.

    Two runs on one machine write the same bytes.
    """
    train, test = standard_sets.load("mnist", data_dir, None)
    lenet = fit(train)
    # A single entry: the order of several entries in the file would not be deterministic.
    write_file(out, save(lenet.state_dict(), metadata={ACCURACY: f"{accuracy(lenet, test):.4f}"}))


def fit(split: TensorSplit) -> LeNet:
    """Trains a classifier. Each batch is rolled by up to two pixels, which wraps around black borders only."""
    torch.manual_seed(SEED)
    lenet = LeNet()
    optimizer = torch.optim.AdamW(lenet.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, EPOCHS * -(-len(split) // BATCH_SIZE))
    for epoch in range(EPOCHS):
        for index in torch.split(epoch_permutation(SEED, epoch, len(split)), BATCH_SIZE):
            x, y = split.batch(index)
            assert y is not None
            down, right = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,)).tolist()
            loss = F.cross_entropy(lenet(x.roll((down, right), (2, 3))), y)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return lenet.eval()


@torch.no_grad()
def accuracy(lenet: LeNet, split: TensorSplit) -> float:
    """Returns the share of examples that are classified correctly."""
    correct = 0
    for index in torch.split(torch.arange(len(split)), BATCH_SIZE):
        x, y = split.batch(index)
        correct += int((lenet(x).argmax(1) == y).sum())
    return correct / len(split)


if __name__ == "__main__":
    main()
