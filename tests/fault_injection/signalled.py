"""A program for test_signals.py and test_launchers.py: a command that waits for a signal at one moment of its work.

signalled.py MOMENT FILE ARGUMENTS...

At the moment it writes its process id to FILE, or to FILE-RANK under torchrun. It then waits for a signal, or until
FILE-release exists.
"""

import os
import sys
import time
from pathlib import Path

from processes import HANG_SECONDS

from vaezoo.core import signals

MOMENT, FILE, *ARGUMENTS = sys.argv[1:]
REACHED = Path(f"{FILE}-{os.environ['RANK']}" if "RANK" in os.environ else FILE)
RELEASE = Path(f"{FILE}-release")


def wait_for_signal():
    """Waits until a signal has arrived. The signal raises at once unless signals are deferred."""
    if REACHED.exists():
        return
    partial = Path(f"{REACHED}.partial")
    partial.write_text(str(os.getpid()))
    partial.rename(REACHED)
    deadline = time.monotonic() + HANG_SECONDS
    while not signals.pending_signal() and not RELEASE.exists():
        if time.monotonic() > deadline:
            sys.exit("no signal came: the test is gone")
        time.sleep(0.002)


def wait_before(owner, name, condition=lambda *args: True):
    """Waits before the first call of a function for which the condition holds."""
    function = getattr(owner, name)

    def call(*args, **kwargs):
        if condition(*args):
            wait_for_signal()
        return function(*args, **kwargs)

    setattr(owner, name, call)


class WaitOnImport:
    """An import hook that waits where torch is imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            wait_for_signal()


def install():
    """Installs the wait for the moment: "import", "compile", "step N", "evaluate", "save", "sample" or "export"."""
    if MOMENT == "import":
        sys.meta_path.insert(0, WaitOnImport())
        return
    from vaezoo.core import compile  # noqa: A004
    from vaezoo.export import graphs
    from vaezoo.priors.standard_normal import StandardNormal
    from vaezoo.training import checkpoint, validation
    from vaezoo.training.train_step import TrainStep

    if MOMENT.startswith("step "):
        number = int(MOMENT.removeprefix("step "))
        wait_before(TrainStep, "prepare", lambda train_step, step: step + 1 == number)
        return
    owner, name = {
        "compile": (compile, "value_guards"),  # the compiler calls it
        "evaluate": (validation, "binarize"),
        "save": (checkpoint, "pack"),
        "sample": (StandardNormal, "sample"),
        "export": (graphs, "_export"),
    }[MOMENT]
    wait_before(owner, name)


if __name__ == "__main__":
    install()
    sys.argv = ["vaezoo", *ARGUMENTS]
    from vaezoo_cli.__main__ import main

    main()
