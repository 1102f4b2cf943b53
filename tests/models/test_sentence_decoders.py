"""The decoders of the sentence VAE: what each sees, equality with PyTorch's layers, one compiled graph, and exports."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vaezoo import Batch, TrainConfig, export_onnx, load_data, resume, runtime, train
from vaezoo.core.drawing import Drawing
from vaezoo.core.options import configure
from vaezoo.decoding import step_by_step, unroll
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.models.sentence_vae import SPEC
from vaezoo.nn.recurrent import STATES, Recurrent
from vaezoo.objectives.base import StepContext
from vaezoo.testing import run_checks

CELLS = ("gru", "lstm")
SMALL = {"hidden": "32", "layers": "2", "latent_dim": "4"}


@pytest.fixture(scope="module")
def names():
    return load_data("names")


def build(data, **options):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, SMALL | options), data).eval()


@pytest.mark.parametrize("cell", CELLS)
def test_layers_are_those_of_pytorch(cell):
    torch.manual_seed(0)
    ours, theirs = Recurrent(cell, 16, 2), getattr(nn, cell.upper())(16, 16, 2, batch_first=True)
    for ours_weight, weight in zip(ours.weights, theirs.parameters(), strict=True):
        weight.data.copy_(ours_weight)
    x, state = torch.randn(5, 7, 16), torch.randn(5, ours.state_size)
    parts = state.unflatten(1, (-1, 16)).transpose(0, 1).chunk(STATES[cell])
    expected, after = theirs(x, parts[0] if cell == "gru" else tuple(parts))
    output, state = ours(x, state)
    torch.testing.assert_close(output, expected)
    after = after if cell == "gru" else torch.cat(after)
    torch.testing.assert_close(state, after.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("cell", CELLS)
def test_states_go_on(cell):
    layers, x = Recurrent(cell, 16, 2), torch.randn(3, 6, 16)
    whole, _ = layers(x, state := torch.zeros(3, layers.state_size))
    outputs = []
    for t in range(6):
        output, state = layers(x[:, t : t + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole)


@pytest.mark.parametrize("window", ["0", "1", "3"])
@pytest.mark.parametrize("decoder", ["transformer", *CELLS])
def test_logits_see_the_ids_before_inside_the_window(decoder, window, names):
    vae, x, z = build(names.spec, decoder=decoder, decoder_window=window), names.test.x[:4], torch.randn(4, 4)
    with torch.no_grad():
        logits = vae.decode(z, x)
        torch.testing.assert_close(vae.decode(z, x[:, :5]), logits[:, :5])
        changed = x.clone()
        changed[:, 2] = (x[:, 2] + 1) % 28
        differs = (vae.decode(z, changed) - logits).abs().amax((0, 2)) > 1e-6
        last = 2 + int(window) if window != "0" else 15
        assert differs.nonzero().flatten().tolist() == list(range(3, last + 1))
        assert ((vae.decode(z + 1, x) - logits).abs().amax((0, 2)) > 1e-4).all()


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_keeps_the_recurrence_in_float32(cell, names):
    vae, x, z = build(names.spec, decoder=cell), names.test.x[:4], torch.randn(4, 4)
    with torch.no_grad():
        exact = vae.decode(z, x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(vae.decode(z, x).float(), exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("labels", [False, True])
def test_single_steps_give_the_logits_of_the_whole_text(cell, labels, names):
    spec = replace(names.spec, classes=(3,)) if labels else names.spec
    vae = build(spec, decoder=cell, **({"condition": "labels"} if labels else {}))
    x, z, y = names.test.x[:5], torch.randn(5, 4), torch.arange(5) % 3 if labels else None
    with torch.no_grad():
        next_logits, whole = step_by_step(vae, z, y), vae.generate(z, Batch(x, y))
        steps = torch.stack([next_logits(x[:, : t + 1]) for t in range(16)], 1)
    torch.testing.assert_close(steps, whole)


@pytest.mark.parametrize(
    ("drawing", "power", "k"), [(Drawing(), 1, 27), (Drawing(temperature=0.5), 2, 27), (Drawing(top_k=3), 1, 3)]
)
def test_first_ids_are_drawn_with_their_odds(drawing, power, k, names):
    vae, z = build(names.spec, decoder="gru"), torch.zeros(20_000, 4)
    with torch.no_grad():
        odds = torch.softmax(20 * vae.generate(z[:1], Batch(torch.zeros(1, 1, dtype=torch.int64)))[0, 0], 0) ** power
        vae.decoder.output.weight.mul_(20)
        vae.decoder.output.bias.mul_(20)
    odds = torch.where(odds < odds.topk(k).values[-1], 0, odds)
    torch.manual_seed(0)
    drawn = unroll(vae, z, drawing=drawing)[:, 0].bincount(minlength=28) / len(z)
    torch.testing.assert_close(drawn, odds / odds.sum(), atol=0.02, rtol=0)


def test_the_likeliest_ids_are_those_of_a_beam_of_one(names):
    vae, z = build(names.spec, decoder="gru"), torch.randn(6, 4)
    greedy = unroll(vae, z, greedy=True)
    for drawing in (Drawing(temperature=0), Drawing(top_k=1), Drawing(beam=1)):
        assert unroll(vae, z, drawing=drawing).equal(greedy)


def test_a_negative_window_is_refused():
    with pytest.raises(VaezooError, match="'decoder_window' is -1") as error:
        configure(SPEC.config, {"decoder_window": "-1"})
    assert error.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_compiled_step_is_one_graph(cell, names):
    vae, batch = build(names.spec, decoder=cell).train(), Batch(names.train.x[:8])
    objective, step = SPEC.objective(SPEC.config, names.spec), StepContext.initial()

    def loss():
        return objective(vae, batch, step).losses["vae"]

    def gradients(value):
        vae.zero_grad()
        value.backward()
        return {name: parameter.grad.clone() for name, parameter in vae.named_parameters()}

    torch.manual_seed(0)
    expected = loss()
    expected_gradients = gradients(expected)
    torch.manual_seed(0)
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients(value), expected_gradients, atol=1e-4, rtol=1e-3)


ALL_OPTIONS = {"decoder": "gru", "decoder_window": "4", "word_dropout": "0.3"}


def few(names, n=200):
    from vaezoo import Dataset

    train, valid, test = (split.subsample(n) for split in (names.train, names.valid, names.test))
    return Dataset(spec=names.spec, train=train, valid=valid, test=test, source=names.source)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [pytest.param({"decoder": "gru"}, marks=pytest.mark.matrix), {"decoder": "lstm"}, ALL_OPTIONS], ids=str
)
def test_exports_equal_the_run(options, names, tmp_path):
    data = few(names)
    config = TrainConfig(steps=30, batch_size=50, lr=5e-3, device="cpu")
    run = train("sentence-vae", data, options=SMALL | options, config=config, out=tmp_path / "run")
    export_onnx(run, tmp_path / "export")
    model, x = runtime.load(tmp_path / "export"), data.test.x[:20]
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for t in (1, 2, 7, 16):
        with torch.no_grad():
            expected = run.vae.decode(z, x[:3, :t]).numpy()
        np.testing.assert_allclose(model.decode(z.numpy(), x=x[:3, :t].numpy()), expected, atol=1e-5, rtol=1e-4)
    greedy = model.reconstruct(x.numpy())
    np.testing.assert_array_equal(greedy, run.vae.reconstruct(x))
    has_step = "decoder_window" not in options
    assert ("step" in model.sessions) == has_step == ("start_id" in model.manifest["autoregressive"])
    assert ("greedy" in model.sessions) == has_step
    for left_out in (("greedy",), ("greedy", "step")):  # the runtime repeats the step, or the decoder
        sessions = {name: session for name, session in model.sessions.items() if name not in left_out}
        slower = runtime.OnnxVAE(model.manifest, sessions, model.source)
        np.testing.assert_array_equal(greedy, slower.reconstruct(x.numpy()))
    if options == {"decoder": "gru"}:
        with pytest.raises(UnsupportedDataError, match="cannot hold the operator GRU"):
            export_onnx(run, tmp_path / "half", dtype="fp16")
        assert not (tmp_path / "half").exists()


@pytest.mark.slow
def test_all_options_resume_exactly(names, tmp_path, monkeypatch):
    data = few(names)
    settings = {"batch_size": 50, "device": "cpu", "kl_warmup": 20, "free_bits": 0.1}
    options = SMALL | ALL_OPTIONS
    whole = train("sentence-vae", data, options=options, config=TrainConfig(steps=30, **settings), out=tmp_path / "a")
    train("sentence-vae", data, options=options, config=TrainConfig(steps=20, **settings), out=tmp_path / "b")
    again = resume(tmp_path / "b", data, steps=30)
    assert again.checkpoint.step == whole.checkpoint.step
    for name, tensor in whole.vae.state_dict().items():
        assert again.vae.state_dict()[name].equal(tensor), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"decoder": "gru"}, marks=pytest.mark.matrix),
        {"decoder": "lstm", "decoder_window": "2"},
        {"decoder_window": "3"},
    ],
    ids=str,
)
def test_decoders_pass_the_conformance_suite(options):
    spec = replace(SPEC, config=configure(SPEC.config, SMALL | options))
    assert [result for result in run_checks(spec) if result.failure] == []
