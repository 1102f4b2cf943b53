"""The model card of an export, README.md, made from the manifest."""

from __future__ import annotations

from vaezoo.core.option_values import json_value, show_value
from vaezoo.export.config import OLDEST_RUNTIME
from vaezoo.export.golden import EXAMPLES_PER_SET
from vaezoo.runtime.manifest import (
    ENCODER_DECODER,
    GraphSignature,
    Manifest,
    QualityEntry,
    TensorSignature,
)

TEMPLATE = """# {model}, exported to ONNX

The graphs of {model}, {origin}.

| graph | inputs | outputs |
|---|---|---|
{graphs}

Opset {opset}, {dtype} weights and arithmetic, {size:.1f} MB in total. The batch size is dynamic. The graphs contain
their weights and no random operators.
{notes}
## Usage

The graphs need only numpy and onnxruntime. The oldest ONNX Runtime that was tested with this opset is {oldest}.

```python
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
# Two sessions share the cores. Without this entry, the threads of one slow the other down.
options.add_session_config_entry("session.force_spinning_stop", "1")
{usage}
```

{input_note}
## Quality

{quality}
## Comparison with the PyTorch model

{comparison} An export with a larger difference is not written.

| graph | inputs | output | {measure} | limit |
|---|---|---|---|---|
{parity}

`golden/` contains sets of {golden} inputs for each graph, with the model's outputs, in ONNX's test data layout.
{golden_source}
`vaezoo verify` repeats the comparison from these files.

## Origin

| | |
|---|---|
| model | {model} |
| data | {data}, shape {shape}, likelihood {likelihood}{binarized} |
| training | {training} |
| checkpoint | {step}SHA-256 `{checkpoint}` |
| versions | {versions} |
| licence of the model's code | {license} |
| licence of the weights | {weights_license} |
{options}"""

OPTIONS = """
The options of the model:

| option | value |
|---|---|
{rows}
"""

# By what the manifest states.
TRAINING = {
    True: "finished",
    False: "**not finished** when this was exported",
    None: "not known: the model came from a program, without a run",
}

INT8 = """
The ranges of the activations were calibrated on held-out examples and draws from the prior. **Values beyond these
ranges are clipped.** So inputs that do not resemble the training data give wrong outputs without an error.

int8 makes the files smaller. It is faster for large batches, and may be slower for a batch of 1. The decoder of
`conv-vae` took {slower} times as long as in float32 at batch 1. `vaezoo bench` measures both.
"""
INT8_SLOWER = 1.5  # measured in docs/export.md

COORDINATES = """# The places of the pixels, for any height and width: x and y from -1 to 1, distance from the middle
v, u = np.meshgrid(*((np.arange(n) + 0.5) / n * 2 - 1 for n in ({sides})), indexing="ij")
coordinates = np.tile(np.stack([u, v, np.hypot(u, v)]).astype("float32"), (16, 1, 1, 1))"""

OPEN = '{name} = ort.InferenceSession("{name}.onnx", options, providers=["CPUExecutionProvider"])'

ENCODE = """{comment}
{example}
fields = dict(zip([o.name for o in encoder.get_outputs()], encoder.run(None, {{{encoder_inputs}}})))"""

DECODE = """({output},) = decoder.run(None, {{"z": fields["{mode}"]{decoder_inputs}}})  # {range}"""

# By whether the graphs are in int8.
COMPARISON = {
    False: """The table shows the largest absolute differences from the PyTorch model.
The graphs ran in {runtime} on the CPU at batch sizes {batches}. The limit is the tolerance at that element.""",
    True: """The table shows the root mean square of the differences from the PyTorch model in float32. The inputs are
held-out examples that were not used for calibration, their latents, and draws from the prior. The graphs ran in
{runtime} on the CPU at batch sizes {batches}. The limit is a tenth of the output's standard deviation,
for the encoder plus 0.01.""",
}

NORMAL = """# Draw samples: decode latents from the standard normal prior.
z = np.random.default_rng(0).standard_normal((16, {sizes})).astype("float32")
(samples,) = decoder.run(None, {{"z": z{decoder_inputs}}})"""

PRIOR_GRAPH = """# Draw samples: prior.onnx maps standard normal noise to latents, and the decoder decodes them.
prior = ort.InferenceSession("prior.onnx", options, providers=["CPUExecutionProvider"])
noise = np.random.default_rng(0).standard_normal((16, {sizes})).astype("float32")
(z,) = prior.run(None, {{"noise": noise{prior_inputs}}})
(samples,) = decoder.run(None, {{"z": z{decoder_inputs}}})"""

UNROLLED = """# Draw samples: ids are drawn one by one, which vaezoo.runtime does with numpy alone.
import vaezoo.runtime

samples = vaezoo.runtime.load(".").sample(16, seed=0)"""

CUSTOM_PRIOR = """# Draw samples: draw z from the model's prior, then run the decoder on it.
# The prior is not the standard normal, and it is not part of this export."""


def _training_origin(manifest: Manifest) -> str:
    """Returns what weights were trained on, and with which weights the training began if these were imported."""
    first = manifest.get("first_imported", "")
    began = f", from weights that were imported from {first}" if first else ""
    return f"trained on {manifest['data']['name']} with vaezoo{began}"


def model_card(manifest: Manifest) -> str:
    """Returns the text of README.md."""
    data, config, graphs, parity = manifest["data"], manifest["format"], manifest["graphs"], manifest["parity"]
    onnx_bytes = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".onnx"))
    quantized, imported = config["dtype"] == "int8", manifest.get("imported")
    has_examples = parity["rows"][0]["inputs"].endswith("real examples")
    return TEMPLATE.format(
        model=manifest["model"],
        graphs="\n".join(
            f"| {name}.onnx | {_tensors(g['inputs'])} | {_tensors(g['outputs'])} |" for name, g in graphs.items()
        ),
        opset=config["opset"],
        dtype=config["dtype"],
        size=onnx_bytes / 1e6,
        oldest=OLDEST_RUNTIME[config["opset"]],
        notes="".join(f"\n{note}\n" for note in _notes(manifest)),
        usage=_usage(manifest),
        input_note=f"{_input_note(manifest)}\n" if "encoder" in graphs or data.get("offset") or data["columns"] else "",
        comparison=COMPARISON[quantized].format(runtime=parity["runtime"], batches=_join(parity["batches"])),
        measure="root mean square difference" if quantized else "largest difference",
        parity="\n".join(
            f"| {row['graph']} | {row['inputs']} | {row['output']} | {row.get('rms', row['max_abs']):.1e} "
            f"| {row['limit']:.1e} |"
            for row in parity["rows"]
        ),
        golden=min(EXAMPLES_PER_SET, max(parity["batches"])),
        golden_source=(
            "The first set holds held-out examples of the data, or their latents."
            if has_examples
            else "All inputs are generated."
        ),
        quality=_quality(manifest) + (INT8.format(slower=INT8_SLOWER) if quantized else ""),
        options=_options(manifest),
        origin=f"imported from {imported}" if imported else _training_origin(manifest),
        training="none: the weights were imported" if imported else TRAINING[manifest.get("finished")],
        data=data["name"],
        shape="x".join(str(n) for n in data["shape"]),
        likelihood=data["likelihood"],
        binarized=", dynamically binarized" if manifest["binarize"] == "dynamic" else "",
        step="" if manifest["checkpoint"]["step"] is None else f"step {manifest['checkpoint']['step']}, ",
        checkpoint=manifest["checkpoint"]["sha256"],
        versions=", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
        license=manifest["license"] or "not stated",
        weights_license=manifest["weights_license"] or "not stated",
    )


def _notes(manifest: Manifest) -> list[str]:
    """Returns what a user of the graphs must know: what they leave out, and where they differ from the model."""
    notes = [manifest["left_out"]] if manifest.get("left_out") else []
    if "latent_scaling" in manifest:
        shift, scale = (manifest["latent_scaling"][key] for key in ("shift_factor", "scaling_factor"))
        notes.append(
            f"The latents of the graphs are `(z - {shift:g}) * {scale:g}`, where z are those of the model. So do not\n"
            "apply scaling_factor and shift_factor again."
        )
    for graph, nodes in manifest.get("float32", {}).items():
        notes.append(
            f"{len(nodes)} nodes of {graph}.onnx stay float32, because their values come near the largest float16\n"
            f"number, 65504. The largest is {max(node['largest'] for node in nodes):g}."
        )
    if manifest["format"]["dtype"] == "fp16":
        codes = [name for name, graph in manifest["graphs"].items() if _gives_codes(graph) and name != "prior"]
        notes += [f"{name}.onnx is float32. Rounding to float16 would change some of its codes." for name in codes]
    factors = manifest["graphs"].get("encoder", {"inputs": []})["inputs"]
    for name, multiple in (pair for tensor in factors for pair in tensor.get("multiples", {}).items()):
        notes.append(f"The {name} of an image must be a multiple of {multiple}. vaezoo.runtime pads it with `pad`.")
    return notes


def _gives_codes(graph: GraphSignature) -> bool:
    return any(output["dtype"] == "int64" for output in graph["outputs"])


def _quality(manifest: Manifest) -> str:
    """Returns the figures that were measured on the weights."""
    if not manifest.get("quality"):
        return "Nothing was measured on these weights. `vaezoo eval` measures an export or its run.\n"
    rows = [
        f"| {_cell(q['name'])} | {_value(q)} | {_cell(q['unit'])} | {_cell(q['data'])}, {_cell(q['split'])} "
        f"| {_cell(q['protocol'])} |"
        for q in manifest["quality"]
    ]
    lines = ["Measured on the weights in PyTorch:", "", "| metric | value | unit | examples | protocol |"]
    return "\n".join([*lines, "|---|---|---|---|---|", *rows, ""])


def _value(quality: QualityEntry) -> str:
    """Returns a figure with its standard error: nats with two decimals, others with four digits."""
    value, error = quality["value"], quality["error"]
    text = str(value) if isinstance(value, int) else f"{value:{'.2f' if quality['unit'] == 'nats' else '#.4g'}}"
    return text if error is None else f"{text} ± {error:.2g}"


def _options(manifest: Manifest) -> str:
    """Returns all options of the model, as a user types them. A module of a program has none."""
    rows = [
        f"| {_cell(name)} | {_cell(show_value(json_value(value)) or 'none')} |"
        for name, value in manifest["options"].items()
    ]
    return OPTIONS.format(rows="\n".join(rows)) if rows else ""


def _cell(text: str) -> str:
    """Returns a text that does not end a cell of a table."""
    return text.replace("|", r"\|")


def _usage(manifest: Manifest) -> str:
    """Returns the lines of code that run the encoder and the decoder, as far as they are there."""
    graphs = manifest["graphs"]
    opened = "\n".join(OPEN.format(name=name) for name in ENCODER_DECODER if name in graphs)
    blocks = [opened]
    if "encoder" in graphs:
        names = [tensor["name"] for tensor in graphs["encoder"]["inputs"]]
        comment = "# Reconstruct inputs." if "decoder" in graphs else "# Encode inputs."
        inputs = ", ".join(f'"{name}": {name}' for name in names)
        blocks.append(ENCODE.format(comment=comment, example=_example(manifest), encoder_inputs=inputs))
    if "encoder" in graphs and "decoder" in graphs:
        output = "reconstructions" if graphs["decoder"]["outputs"][0]["name"] == "x_mean" else "outputs"
        decoder_inputs = _other_inputs(graphs["decoder"])
        blocks[-1] += "\n" + DECODE.format(
            output=output, mode=manifest["mode"], decoder_inputs=decoder_inputs, range=_output_range(manifest)
        )
    if "decoder" in graphs:
        if "encoder" not in graphs and _other_inputs(graphs["decoder"]):
            blocks.append(_example(manifest))
        blocks.append(_sampling(manifest))
    return "\n\n".join(blocks)


def _example(manifest: Manifest) -> str:
    """Returns the lines of code that make data, and labels if a graph takes them."""
    graphs = manifest["graphs"].values()
    dtype = next((t["dtype"] for g in graphs for t in g["inputs"] if t["name"] == "x"), "float32")
    sizes = manifest["data"]["shape"]
    waveform = "encoder" in manifest["graphs"] and manifest["format"].get("waveform", False)
    if waveform:
        sizes = [int(n) for n in manifest["graphs"]["encoder"]["inputs"][0]["shape"][1:]]
    if manifest["format"]["uint8"]:
        sizes = [*sizes[1:], sizes[0]]
    what = "your images" if manifest["format"]["uint8"] else "your data, scaled to 0..1"
    if manifest["data"]["kind"] != "unit":
        what = f"your data, of kind {manifest['data']['kind']}"
    if waveform:
        what = f"your sound in [-1, 1], {manifest['data']['sample_rate']} samples in a second"
    lines = [f'x = np.zeros(({_join((16, *sizes))}), "{dtype}")  # {what}']
    needed = {t["name"]: t for g in graphs for t in g["inputs"] if t["name"] == "y"}
    if any(t["name"] == "coordinates" for g in graphs for t in g["inputs"]):
        lines.append(COORDINATES.format(sides=_join(manifest["data"]["shape"][1:])))
    for tensor in needed.values():
        lines.append(f'y = np.zeros(({_join((16, *tensor["shape"][1:]))},), "{tensor["dtype"]}")  # labels from 0')
    return "\n".join(lines)


def _other_inputs(graph: GraphSignature) -> str:
    """Returns the code of a graph's inputs after the first, such as `, "y": y`."""
    return "".join(f', "{tensor["name"]}": {tensor["name"]}' for tensor in graph["inputs"][1:])


def _sampling(manifest: Manifest) -> str:
    """Returns the lines of code that draw samples."""
    graphs = manifest["graphs"]
    if manifest["autoregressive"] is not None or manifest["prior"] == "autoregressive":
        return UNROLLED
    decoder_inputs = _other_inputs(graphs["decoder"])
    if manifest["prior"] == "standard-normal":
        return NORMAL.format(sizes=_join(manifest["latent_shape"]), decoder_inputs=decoder_inputs)
    if manifest["prior"] == "graph":
        noise = graphs["prior"]["inputs"][0]["shape"][1:]
        return PRIOR_GRAPH.format(
            sizes=_join(noise), prior_inputs=_other_inputs(graphs["prior"]), decoder_inputs=decoder_inputs
        )
    return CUSTOM_PRIOR


def _output_range(manifest: Manifest) -> str:
    """Returns what the decoder's output is, as a comment."""
    output = manifest["graphs"]["decoder"]["outputs"][0]["name"]
    if output != "x_mean":
        texts = {"logits": "the logits of each token id", "columns": "means and probabilities of the columns"}
        return texts.get(output, output)
    if manifest["format"]["uint8"]:
        return "uint8, 0..255"
    return "the mean of p(x|z), in 0..1" if manifest["data"]["kind"] == "unit" else "the mean of p(x|z)"


def _input_note(manifest: Manifest) -> str:
    """Returns what the encoder expects."""
    data = manifest["data"]
    if names := data.get("column_names"):
        columns = "\n".join(f"- {name}" for name in names)
        return f"{_value_note(manifest)}\n\nThe columns are, in this order:\n\n{columns}"
    return _value_note(manifest)


def _value_note(manifest: Manifest) -> str:
    """Returns what values the encoder expects."""
    data = manifest["data"]
    if manifest["format"].get("waveform") and "encoder" in manifest["graphs"]:
        samples = manifest["graphs"]["encoder"]["inputs"][0]["shape"][1]
        return (
            f"The encoder takes waveforms of {samples} samples in [-1, 1], {data['sample_rate']} in a second.\n"
            "It computes their log-mel spectrograms. The decoder returns scaled spectrograms. `value = x * factor +\n"
            "offset` are logarithms of magnitudes. manifest.json holds `offset` and `factor` under `data`."
        )
    if data.get("offset"):
        return (
            "The data were scaled: `x = (value - offset) / factor` for each column or channel. manifest.json holds\n"
            "`offset` and `factor` under `data`. `value = x * factor + offset` turns outputs back. Nothing is clipped."
        )
    if manifest["format"]["uint8"]:
        return "Images are uint8, height x width x channels. The graphs scale them."
    if data["kind"] == "unit":
        return "The encoder expects values in 0..1. The graph does not check the range."
    if data["kind"] == "count":
        return "The encoder expects counts, non-negative integers. `x_mean` is their mean at the mean library size."
    if data["kind"] == "tokens":
        return f"The encoder expects token ids from 0 to {data['vocabulary'] - 1}. 0 is padding."
    if data["kind"] == "table":
        columns = "\n".join(f"- {column}" for column in data["columns"])
        return f"The columns are, `name:real` or `name:k` for categories 0 to k - 1:\n\n{columns}"
    return f"The encoder expects values of kind {data['kind']}, as in the training data."


def _tensors(tensors: list[TensorSignature]) -> str:
    """Returns tensors as `x` float32 [batch, 1, 28, 28], separated by commas."""
    return ", ".join(f"`{tensor['name']}` {tensor['dtype']} [{_join(tensor['shape'])}]" for tensor in tensors)


def _join(values: list[int] | list[str | int] | tuple[str | int, ...]) -> str:
    return ", ".join(str(value) for value in values)
