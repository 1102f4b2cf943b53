"""The model card of an export, README.md, made from the manifest."""

from __future__ import annotations

import json

from vaezoo.export.golden import EXAMPLES_PER_SET, SETS_PER_GRAPH
from vaezoo.runtime.manifest import Manifest, TensorSignature

TEMPLATE = """# {model}, exported to ONNX

Encoder and decoder of {model}, trained on {data} with vaezoo.

| graph | input | outputs |
|---|---|---|
{graphs}

Opset {opset}, {dtype} weights and arithmetic, {size:.1f} MB in total. The batch size is dynamic. The graphs contain
their weights and no random operators.

## Usage

The graphs need only numpy and onnxruntime.

```python
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
# Two sessions share the cores. Without this entry, the threads of one slow the other down.
options.add_session_config_entry("session.force_spinning_stop", "1")
encoder = ort.InferenceSession("encoder.onnx", options, providers=["CPUExecutionProvider"])
decoder = ort.InferenceSession("decoder.onnx", options, providers=["CPUExecutionProvider"])

# Reconstruct inputs.
x = {example}
fields = dict(zip([o.name for o in encoder.get_outputs()], encoder.run(None, {{"x": x}})))
(reconstructions,) = decoder.run(None, {{"z": fields["{mode}"]}})  # {range}

{sampling}
```

{input_note}

## Comparison with the PyTorch model

The table shows the largest absolute differences from the PyTorch model. The graphs ran in {runtime} on the CPU at batch
sizes {batches}. The limit is the tolerance at that element. An export with a larger difference is not written.

| graph | inputs | output | largest difference | limit |
|---|---|---|---|---|
{parity}

`golden/` contains {sets} sets of {golden} inputs for each graph, with the model's outputs, in ONNX's test data layout.
{golden_source}
`vaezoo verify` repeats the comparison from these files.

## Origin

| | |
|---|---|
| model | {model}, options `{options}` |
| data | {data}, shape {shape}, likelihood {likelihood}{binarized} |
| checkpoint | step {step}, SHA-256 `{checkpoint}` |
| versions | {versions} |
| licence of the model's code | {license} |
| licence of the weights | {weights_license} |
"""

SAMPLING = """# Draw samples: decode latents from the standard normal prior.
z = np.random.default_rng(0).standard_normal((16, {latent_shape})).astype("float32")
(samples,) = decoder.run(None, {{"z": z}})"""

CUSTOM_PRIOR = """# Draw samples: draw z from the model's prior, then run the decoder on it.
# The prior is not the standard normal, and it is not part of this export."""


def model_card(manifest: Manifest) -> str:
    """Returns the text of README.md."""
    data, config, graphs, parity = manifest["data"], manifest["format"], manifest["graphs"], manifest["parity"]
    sizes = _join((16, *graphs["encoder"]["input"]["shape"][1:]))
    onnx_bytes = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".onnx"))
    has_examples = parity["rows"][0]["inputs"].startswith("real")
    return TEMPLATE.format(
        model=manifest["model"],
        graphs="\n".join(
            f"| {name}.onnx | {_tensor(graph['input'])} | {', '.join(_tensor(output) for output in graph['outputs'])} |"
            for name, graph in graphs.items()
        ),
        opset=config["opset"],
        dtype=config["dtype"],
        size=onnx_bytes / 1e6,
        example=(
            f'np.zeros(({sizes}), "uint8")  # your images'
            if config["uint8"]
            else f'np.zeros(({sizes}), "float32")  # your data, scaled to 0..1'
        ),
        mode=manifest["mode"],
        range="uint8, 0..255" if config["uint8"] else "the mean of p(x|z), in 0..1",
        sampling=(
            SAMPLING.format(latent_shape=_join(manifest["latent_shape"]))
            if manifest["prior"] == "standard-normal"
            else CUSTOM_PRIOR
        ),
        input_note=(
            "Images are uint8, height x width x channels. The graphs scale them."
            if config["uint8"]
            else "The encoder expects values in 0..1. The graph does not check the range."
        ),
        runtime=parity["runtime"],
        batches=_join(parity["batches"]),
        parity="\n".join(
            f"| {row['graph']} | {row['inputs']} | {row['output']} | {row['max_abs']:.1e} | {row['limit']:.1e} |"
            for row in parity["rows"]
        ),
        sets=SETS_PER_GRAPH,
        golden=EXAMPLES_PER_SET,
        golden_source=(
            "The encoder's first set holds held-out examples of the data."
            if has_examples
            else "All inputs are generated."
        ),
        options=json.dumps(manifest["options"]),
        data=data["name"],
        shape="x".join(str(n) for n in data["shape"]),
        likelihood=data["likelihood"],
        binarized=", dynamically binarized" if manifest["binarize"] == "dynamic" else "",
        step=manifest["checkpoint"]["step"],
        checkpoint=manifest["checkpoint"]["sha256"],
        versions=", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
        license=manifest["license"] or "not stated",
        weights_license=manifest["weights_license"] or "not stated",
    )


def _tensor(tensor: TensorSignature) -> str:
    """Returns a tensor as `x` float32 [batch, 1, 28, 28]."""
    return f"`{tensor['name']}` {tensor['dtype']} [{_join(tensor['shape'])}]"


def _join(values: list[int] | list[str | int] | tuple[str | int, ...]) -> str:
    return ", ".join(str(value) for value in values)
