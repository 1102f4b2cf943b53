"""The data sets that `load_data` knows by name. This module does not import torch, so that `vaezoo list` stays fast."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DATASETS: Mapping[str, str] = MappingProxyType(
    {
        "digits": "12,000 handwritten digits of MNIST, 28 x 28 grey; packaged, needs no network",
        "shapes": "22,000 sprites with five known factors, 64 x 64 grey; generated, needs no network",
        "names": "29,494 first names, character by character; packaged, needs no network",
        "penguins": "344 penguins, a table of four measurements and three categories; packaged, needs no network",
        "cells": "6,000 cells of four types, counts of 200 genes; generated, needs no network",
        "sines": "6,000 noisy sines, series of 2 x 32 real values; generated, needs no network",
        "mnist": "70,000 handwritten digits, 28 x 28 grey",
        "fashion-mnist": "70,000 images of clothing, 28 x 28 grey",
        "kmnist": "70,000 Japanese cursive characters, 28 x 28 grey",
        "cifar10": "60,000 photographs in ten classes, 32 x 32 colour",
        "svhn": "99,289 house numbers, 32 x 32 colour",
        "celeba": "182,732 faces with 40 attributes, 64 x 64 colour",
    }
)
