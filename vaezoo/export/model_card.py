"""The model card, README.md, made from the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vaezoo.export.golden import EXAMPLES

TEMPLATE = """# {model}, exported to ONNX

A variational autoencoder trained with vaezoo on {data}.

| graph | input | outputs |
|---|---|---|
{graphs}

Opset {opset}, {dtype} inside, any batch size, no random operator, weights inside the files, {size:.1f} MB together.

## Use

Needs numpy and onnxruntime alone.

```python
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()  # two sessions share the cores: neither is to spin while the other works
options.add_session_config_entry("session.force_spinning_stop", "1")
encoder = ort.InferenceSession("encoder.onnx", options, providers=["CPUExecutionProvider"])
decoder = ort.InferenceSession("decoder.onnx", options, providers=["CPUExecutionProvider"])

x = {example}
fields = dict(zip([o.name for o in encoder.get_outputs()], encoder.run(None, {{"x": x}})))
(reconstructions,) = decoder.run(None, {{"z": fields["{mode}"]}})  # {range}
{sample}
```

{input}

## Equal to the model

Largest differences from the PyTorch model, in {runtime} on the CPU, at batch sizes {batches}. The limit is what was
allowed at that element; a graph beyond it is not written.

| graph | inputs | output | largest difference | limit |
|---|---|---|---|---|
{parity}

`golden/` holds two sets of {golden} inputs for each graph with the model's outputs, in ONNX's own layout. {held}
`vaezoo verify` repeats the comparison from these files alone.

## Origin

| | |
|---|---|
| model | {model}, options `{options}` |
| data | {data}, shape {shape}, likelihood {likelihood}{bits} |
| checkpoint | step {step}, SHA-256 `{checkpoint}` |
| versions | {versions} |
| licence of the model's code | {license} |
| licence of the weights | {weights_license} |
"""

DRAW = """z = np.random.default_rng(0).standard_normal((16, {latents})).astype("float32")
(samples,) = decoder.run(None, {{"z": z}})"""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Returns the text of README.md."""
    data, form, graphs = manifest["data"], manifest["format"], manifest["graphs"]
    shape = graphs["encoder"]["input"]["shape"]
    sizes = ", ".join(str(n) for n in (16, *shape[1:]))
    if form["uint8"]:
        example = f'np.zeros(({sizes}), "uint8")  # your images, as files hold them'
    else:
        example = f'np.zeros(({sizes}), "float32")  # your data, scaled to 0..1'
    latents = ", ".join(str(n) for n in manifest["latent_shape"])
    drawn = DRAW.format(latents=latents)
    own = "# the model's prior is not the standard normal: draw z from it and run the decoder"
    return TEMPLATE.format(
        model=manifest["model"],
        graphs="\n".join(
            f"| {part}.onnx | {tensor(graph['input'])} | {', '.join(tensor(o) for o in graph['outputs'])} |"
            for part, graph in graphs.items()
        ),
        opset=form["opset"],
        dtype=form["dtype"],
        size=sum(f["bytes"] for name, f in manifest["files"].items() if name.endswith(".onnx")) / 1e6,
        example=example,
        mode=manifest["mode"],
        range="bytes, 0..255" if form["uint8"] else "the mean of p(x|z), in 0..1",
        sample=drawn if manifest["prior"] == "standard-normal" else own,
        input=(
            "Images are bytes, height x width x channels; the scaling is inside the graphs."
            if form["uint8"]
            else "The encoder takes values in 0..1; a graph does not check that."
        ),
        runtime=manifest["parity"]["runtime"],
        batches=", ".join(str(n) for n in manifest["parity"]["batches"]),
        parity="\n".join(
            f"| {r['part']} | {r['inputs']} | {r['output']} | {r['max_abs']:.1e} | {r['limit']:.1e} |"
            for r in manifest["parity"]["rows"]
        ),
        golden=EXAMPLES,
        held=(
            "Those of the encoder's\nfirst set are held-out examples of the data."
            if manifest["parity"]["rows"][0]["inputs"].startswith("real")
            else "All of them were\ngenerated."
        ),
        options=json.dumps(manifest["options"]),
        data=data["name"],
        shape="x".join(str(n) for n in data["shape"]),
        likelihood=data["likelihood"],
        step=manifest["checkpoint"]["step"],
        checkpoint=manifest["checkpoint"]["sha256"],
        versions=", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
        bits=", trained on bits drawn from the grey levels" if manifest["binarize"] == "dynamic" else "",
        license=manifest["license"] or "not stated",
        weights_license=manifest["weights_license"] or "not stated",
    )


def tensor(value: Mapping[str, Any]) -> str:
    """Writes a tensor as `x` float32 [batch, 1, 28, 28]."""
    return f"`{value['name']}` {value['dtype']} [{', '.join(str(n) for n in value['shape'])}]"
