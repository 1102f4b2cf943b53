"""Checks of a model's state: how it is built, saved and restored."""

from __future__ import annotations

import dataclasses
import inspect
import json

import torch
from torch import nn

from vaezoo.core.options import config_json, configure
from vaezoo.testing.examples import Spec, build_example, compute_losses, example_data


def check_names(spec: Spec) -> None:
    """No parameter, buffer or part has the name of an attribute of its class, which would hide it."""
    vae, objective, _ = build_example(spec)
    for root, name in ((vae, "the model"), (objective, "the objective")):
        for path, module in root.named_modules():
            own = (*module._parameters, *module._buffers, *module._modules)
            hidden = [n for n in own if inspect.getattr_static(type(module), n, None) is not None]
            what = f"'{'.'.join(filter(None, (path, *hidden[:1])))}' of {name}"
            class_name = type(module).__name__
            assert not hidden, f"{what} is hidden by the attribute of that name of {class_name}. Choose another name."


def check_meta(spec: Spec) -> None:
    """The model can be built on the meta device, without allocating memory."""
    data = example_data(spec)
    with torch.device("meta"):
        modules: list[nn.Module] = [spec.build(spec.config, data), spec.objective(spec.config, data)]
    for module in modules:
        elsewhere = [name for name, p in module.named_parameters() if p.device.type != "meta"]
        advice = "Create parameters without a device argument."
        assert not elsewhere, f"parameters not on the meta device: {', '.join(elsewhere)}. {advice}"


def check_state(spec: Spec) -> None:
    """A model restored from its config in JSON and its state_dict gives the same outputs."""
    restored = configure(spec.config, json.loads(json.dumps(config_json(spec.config))))
    advice = "Give each option a default of its own type, a tuple for several values."
    assert restored == spec.config, f"the config changes on the way through JSON, to {restored}. {advice}"
    vae, _, batch = build_example(spec)
    copy, _, _ = build_example(dataclasses.replace(spec, config=restored), seed=1)
    copy.load_state_dict(vae.state_dict())
    vae.eval(), copy.eval()
    with torch.no_grad():
        same = torch.equal(vae.reconstruct(*batch), copy.reconstruct(*batch))
    advice = "Hold its whole state in parameters and persistent buffers."
    assert same, f"a model that loads the state_dict of another gives other reconstructions. {advice}"


def check_seed(spec: Spec) -> None:
    """The same seed gives the same weights and losses."""

    def losses() -> list[float]:
        vae, objective, batch = build_example(spec, seed=3)
        return [float(loss.detach()) for loss in compute_losses(vae, objective, batch, seed=4).losses.values()]

    first, second = losses(), losses()
    advice = "Draw random numbers from PyTorch's global generator only."
    assert first == second, f"the same seed gives losses {first} and then {second}. {advice}"
