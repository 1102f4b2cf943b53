"""A program for test_signals.py: runs a command that announces one moment of its work, and dwells there.

signalled.py MOMENT FILE ARGUMENTS...     makes FILE when the moment has come, and waits there for a signal
"""

import sys
import time
from pathlib import Path

from vaezoo.core import signals

MOMENT, FILE, *ARGUMENTS = sys.argv[1:]
STEP = 7  # of the moment "train"; no evaluation is due there


def dwell():
    """Waits for the signal, which raises at once unless signals are held."""
    if not Path(FILE).exists():
        Path(FILE).touch()
        until = time.monotonic() + 20
        while not signals.pending_signal() and time.monotonic() < until:
            time.sleep(0.002)


def before(owner, name, when=lambda *args: True):
    """Dwells before each call of a function for which `when` holds."""
    plain = getattr(owner, name)

    def call(*args, **kwargs):
        if when(*args):
            dwell()
        return plain(*args, **kwargs)

    setattr(owner, name, call)


class OnImport:
    """Dwells where torch is imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            dwell()


def arrange():
    if MOMENT == "import":
        sys.meta_path.insert(0, OnImport())
        return
    from vaezoo.core import compile  # noqa: A004
    from vaezoo.export import graphs
    from vaezoo.training import checkpoint, validation
    from vaezoo.training.train_step import TrainStep
    from vaezoo.vae import VAE

    {
        "compile": lambda: before(compile, "only_values"),  # which the compiler asks
        "first step": lambda: before(TrainStep, "__call__", lambda step, index, batch: index == 0),
        "train": lambda: before(TrainStep, "__call__", lambda step, index, batch: index == STEP - 1),
        "evaluate": lambda: before(validation, "binarized"),
        "save": lambda: before(checkpoint, "_pack"),
        "sample": lambda: before(VAE, "sample"),
        "export": lambda: before(graphs, "_export"),
    }[MOMENT]()


if __name__ == "__main__":
    arrange()
    sys.argv = ["vaezoo", *ARGUMENTS]
    from vaezoo_cli.__main__ import main

    main()
