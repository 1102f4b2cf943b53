"""Runs that are worth nothing say so: a training that only got worse, and a model that encodes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

import vaezoo

TRAIN = ("train", "mlp-vae", "--data", "t.npy", "-o", "hidden=16", "--batch-size", 50)


@pytest.fixture
def table(inside):
    np.save("t.npy", np.random.default_rng(0).random((120, 4)))
    return inside


def test_training_that_only_got_worse(table, run):
    code, out, err = run(*TRAIN, "--steps", 20, "--eval-every", 5, "--lr", 30, "--out", "r")
    assert code == 4 and "only got worse: its best checkpoint is that of step 0" in err
    assert "written  r/" in out and json.loads(Path("r/result.json").read_text())["step"] == 0
    assert vaezoo.load("r").only_got_worse
    code, _, err = run("eval", "r")
    assert code == 0 and "of step 0" in err


def test_a_trial_of_a_few_steps_is_not_judged(table, run):
    code, _, err = run(*TRAIN, "--steps", 19, "--eval-every", 10, "--lr", 30, "--out", "r")
    assert code == 0 and "warning" not in err


def test_training_that_improved(table, run):
    code, _, err = run(*TRAIN, "--steps", 20, "--eval-every", 5, "--out", "r")
    assert code == 0 and "step 0" not in err and not vaezoo.load("r").only_got_worse


@pytest.mark.slow
def test_eval_repeats_the_collapse(table, run):
    code, _, err = run(*TRAIN, "-o", "objective.beta=1e5", "--lr", 0.01, "--steps", 200, "--out", "r")
    assert code == 0 and "collapsed by step 200" in err
    code, out, err = run("eval", "r", "--json")
    assert code == 0 and "vaezoo: warning: the posterior has collapsed: no latent dimension" in err
    assert json.loads(out)["metrics"][4]["value"] == 0
