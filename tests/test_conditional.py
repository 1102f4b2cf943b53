"""A model conditioned on labels, from its training to samples of a chosen label."""

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo import Batch, Dataset, TensorSplit, TrainConfig, create_model, export_onnx, train, verify_onnx
from vaezoo.core import signals
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError
from vaezoo.evaluation import latents
from vaezoo.objectives.elbo import elbo_terms
from vaezoo.training.trainer import Trainer
from vaezoo.vae import blank_batch, check_fits, conditioned_on
from vaezoo_cli.main import main

pytestmark = pytest.mark.usefixtures("own_models")
CONFIG = TrainConfig(steps=3, batch_size=20)
NAMES = ["own-conditional", "own-label-prior"]


@pytest.fixture(scope="module")
def runs(own_models, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    return {name: train(name, digits, config=CONFIG, out=folder / name) for name in NAMES}


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {name: export_onnx(run, folder / name) for name, run in runs.items()}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def run(name, runs):
    return runs[name]


@pytest.fixture
def exported(name, exports):
    return exports[name]


@pytest.fixture
def model(exported):
    return vaezoo.runtime.load(exported.path)


@pytest.fixture(scope="module")
def factors():
    """Vectors with two labels each, of 3 and 2 values."""
    y = torch.stack([torch.arange(60) % 3, torch.arange(60) % 2], 1)
    return vaezoo.from_arrays(np.random.default_rng(0).random((60, 5)), y, name="factors")


def without_labels(split):
    return TensorSplit(split.x, None)


def test_training_changes_all_groups(name, digits):
    torch.manual_seed(0)
    vae, objective = create_model(name, digits), vaezoo.ELBO()
    before = {n: p.detach().clone() for n, p in vae.named_parameters()}
    trainer = Trainer(vae, objective, digits, CONFIG)
    trainer.fit()
    assert trainer.global_step == 3
    assert all(not torch.equal(p, before[n]) for n, p in vae.named_parameters())


def test_terms_depend_on_labels(run, digits):
    x, y = digits.test.batch(slice(0, 8))
    values = []
    for labels in (y, (y + 1) % 10):
        torch.manual_seed(0)
        values.append(elbo_terms(run.vae, Batch(x, labels)).reconstruction)
    assert (values[0] != values[1]).all()


def test_conditions_are_declared(runs):
    assert [conditioned_on(run.vae) for run in runs.values()] == [{"y"}, {"y"}]
    assert conditioned_on(create_model("mlp-vae", runs[NAMES[0]].data)) == set()


def test_evaluation_uses_labels(run, digits):
    result = vaezoo.evaluate(
        run, digits, metrics=["elbo", "nll", "reconstructions", "probe", "nearest-neighbour"], nll_samples=5, limit=50
    )
    values = {metric.name: metric.value for metric in result.metrics}
    assert values["NLL-5"] < values["-ELBO"] and values["-ELBO"] == pytest.approx(
        values["reconstruction"] + values["KL"]
    )
    wrong = dataclasses.replace(digits, test=TensorSplit(digits.test.x, (digits.test.y + 1) % 10))
    other = vaezoo.evaluate(run, wrong, metrics=["elbo"], limit=50)
    assert {metric.name: metric.value for metric in other.metrics}["-ELBO"] != values["-ELBO"]


def test_run_keeps_labels(run, digits):
    x, y = run.examples
    split = digits.test.subsample(64)
    assert torch.equal(x, split.batch(slice(None)).x) and torch.equal(y, split.y) and y.dtype == torch.int64
    assert run.data.classes == (10,)


@pytest.mark.slow
def test_graphs_take_labels(name, exported):
    graphs = exported.manifest["graphs"]
    y = {"name": "y", "dtype": "int64", "shape": ["batch"]}
    assert [t["name"] for t in graphs["encoder"]["inputs"]] == ["x", "y"] and graphs["encoder"]["inputs"][1] == y
    assert [t["name"] for t in graphs["decoder"]["inputs"]] == ["z", "y"] and graphs["decoder"]["inputs"][1] == y
    if name == "own-conditional":
        assert exported.manifest["prior"] == "standard-normal" and list(graphs) == ["encoder", "decoder"]
    else:
        noise = {"name": "noise", "dtype": "float32", "shape": ["batch", 3]}
        assert exported.manifest["prior"] == "graph" and graphs["prior"]["inputs"] == [noise, y]
        assert [t["name"] for t in graphs["prior"]["outputs"]] == ["z"]
    rows = exported.manifest["parity"]["rows"]
    assert {row["graph"] for row in rows} == {*graphs, "round trip"}
    assert all(row["max_abs"] <= row["limit"] for row in rows)


def test_verify_reads_all_inputs(exported):
    assert {row.graph for row in verify_onnx(exported.path).parity} == {*exported.manifest["graphs"], "round trip"}
    golden = exported.path / "golden" / "decoder" / "test_data_set_0"
    assert sorted(file.name for file in golden.iterdir()) == ["input_0.pb", "input_1.pb", "output_0.pb"]


@pytest.mark.parametrize("n", [1, 2, 5, 64, 300])
def test_runtime_equals_the_run(n, run, model):
    index = torch.arange(n) % len(run.examples.x)
    x, y = (tensor[index] for tensor in run.examples)
    with torch.no_grad():
        posterior, expected = run.vae.infer(Batch(x, y)), run.vae.reconstruct(x, y)
    fields = model.encode(x.numpy(), y.numpy())
    np.testing.assert_allclose(fields["mu"], posterior.mu, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x.numpy(), y.numpy()), expected, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(model.decode(fields["mu"], y.numpy()), expected, atol=1e-5, rtol=1e-4)


def test_runtime_samples_chosen_labels(model):
    threes = model.sample(40, seed=1, y=np.full(40, 3))
    assert threes.shape == (40, 1, 28, 28)
    np.testing.assert_array_equal(threes, model.sample(40, seed=1, y=np.full(40, 3, np.uint8)))
    in_turn = model.sample(40, seed=1)
    np.testing.assert_array_equal(in_turn, model.sample(40, seed=1, y=np.arange(40) % 10))
    assert (in_turn != threes).any((1, 2, 3)).tolist() == [i % 10 != 3 for i in range(40)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x, z: m.encode(x), "the encoder needs 'y' as well"),
        (lambda m, x, z: m.decode(z), "the decoder needs 'y' as well"),
        (lambda m, x, z: m.reconstruct(x), "the encoder needs 'y' as well"),
        (lambda m, x, z: m.encode(x, np.array([0, 10])), "unknown label 10"),
        (lambda m, x, z: m.decode(z, np.array([-1, 0])), "unknown label -1"),
        (lambda m, x, z: m.sample(2, y=np.array([0, 11])), "unknown label 11"),
        (lambda m, x, z: m.encode(x, np.zeros(3, int)), "different numbers of rows: x 2, y 3"),
        (lambda m, x, z: m.decode(z, np.zeros(1, int)), "different numbers of rows: z 2, y 1"),
        (lambda m, x, z: m.sample(2, y=np.zeros(3, int)), "different numbers of rows"),
        (lambda m, x, z: m.encode(x, np.zeros((2, 1), int)), "y has shape (2, 1)"),
        (lambda m, x, z: m.encode(x, np.array([0.5, 1.0])), "y holds float64, not integers"),
        (lambda m, x, z: m.encode(x, np.array(["a", "b"])), "not integers"),
    ],
)
def test_wrong_labels_are_refused(call, words, model):
    with pytest.raises(VaezooError) as e:
        call(model, np.zeros((2, 1, 28, 28), np.float32), np.zeros((2, 3), np.float32))
    assert words in e.value.message and e.value.hint and "\n" not in e.value.message


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.tensor([0, 10]), "unknown label 10"),
        (torch.tensor([0, -1]), "unknown label -1"),
        (torch.zeros(3, dtype=torch.int64), "3 labels for 2 examples"),
        (torch.zeros(2, 2, dtype=torch.int64), r"labels have shape \(2, 2\)"),
    ],
)
def test_model_refuses_wrong_labels(y, words, run):
    with pytest.raises(VaezooError, match=words):
        run.vae.sample(2, y)
    with pytest.raises(VaezooError, match=words):
        run.vae.reconstruct(run.examples.x[:2], y)


def test_missing_labels_are_refused(run):
    for call in (lambda: run.vae.infer(Batch(run.examples.x)), lambda: run.vae.reconstruct(run.examples.x)):
        with pytest.raises(VaezooError, match="conditioned on labels, but none are given"):
            call()


def test_model_samples_labels_in_turn(run):
    assert blank_batch(run.vae, 12).y.tolist() == [*range(10), 0, 1]
    torch.manual_seed(0)
    in_turn = run.vae.sample(12)
    torch.manual_seed(0)
    assert torch.equal(in_turn, run.vae.sample(12, torch.arange(12) % 10))


def test_latent_lines_keep_labels(run):
    x, y = run.examples
    first, second = Batch(x[:2], y[:2]), Batch(x[2:4], y[2:4])
    ends = latents.interpolation(run.vae, first, second, 3)
    with torch.no_grad():
        torch.testing.assert_close(ends[:, 0], run.vae.reconstruct(*first))
        last = run.vae.likelihood.mean(run.vae.decode(run.vae.infer(second).mode(), first.y))
    torch.testing.assert_close(ends[:, 2], last)
    rows = latents.traversal(run.vae, Batch(x[:1], y[:1]), [0, 2], torch.zeros(4))
    edited = latents.edit(run.vae, first, torch.zeros(3), torch.zeros(5))
    assert rows.shape == (2, 4, 1, 28, 28)
    torch.testing.assert_close(edited[:, 4], ends[:, 0])


def test_latents_decode_without_batch(run):
    z, y = torch.zeros(3), torch.tensor(4)
    alone = latents.decode(run.vae, z, y)
    assert torch.equal(alone, latents.decode(run.vae, z.view(1, 3), y.view(1))[0])


def test_export_is_evaluated(runs, exports, digits):
    of_run, of_export = (
        vaezoo.evaluate(source, digits, metrics=["elbo", "nll"], nll_samples=4, limit=30)
        for source in (runs["own-conditional"], vaezoo.runtime.load(exports["own-conditional"].path))
    )
    for a, b in zip(of_run.metrics, of_export.metrics, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-4, abs=1e-4), a.name
    with pytest.raises(UnsupportedDataError, match="its prior is not the standard normal"):
        vaezoo.evaluate(vaezoo.runtime.load(exports["own-label-prior"].path), digits)


def command(*arguments):
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    return e.value.code


@pytest.mark.parametrize("kind", ["run", "export"])
def test_command_samples_a_label(kind, run, exported, inside, capsys):
    source = run.path if kind == "run" else exported.path
    assert command("sample", source, "--label", 3, "-n", 9, "--out", "threes.png") == 0
    assert command("sample", source, "--label", 5, "-n", 9, "--out", "fives.png") == 0
    assert command("sample", source, "-n", 9, "--out", "all.png") == 0
    threes, fives, all_labels = (Path(f"{name}.png").read_bytes() for name in ("threes", "fives", "all"))
    assert len({threes, fives, all_labels}) == 3
    with Image.open("threes.png") as image:
        assert image.size[0] >= 3 * 28
    for text, code, words in (
        ("10", 2, "unknown label 10"),
        ("-1", 2, "unknown label -1"),
        ("1,2", 2, "--label names 2 label(s), but an example has 1"),
        ("three", 2, "--label takes integers, not 'three'"),
    ):
        capsys.readouterr()
        assert command("sample", source, f"--label={text}") == code
        error = capsys.readouterr().err
        assert words in error and "hint:" in error and "Traceback" not in error


def test_commands_use_labels(run, exported, inside):
    for number, source in enumerate((run.path, exported.path)):
        assert command("reconstruct", source, "--data", "digits", "-n", 6, "--out", f"{number}.png") == 0
        assert command("encode", source, "--data", "digits", "--out", f"{number}.npz") == 0
    of_run, of_export = np.load("0.npz"), np.load("1.npz")
    assert of_run.files == of_export.files and len(of_run["mu"]) == 2000
    np.testing.assert_allclose(of_run["mu"], of_export["mu"], atol=1e-4, rtol=1e-4)
    for kind in ("traversals", "interpolation", "latents", "attribute-vector"):
        options = ["--label", 3] if kind == "attribute-vector" else []
        assert command("plot", run.path, "--kind", kind, *options, "--out", f"{kind}.png") == 0


@pytest.mark.slow
def test_bench_runs_conditional_models(run):
    from vaezoo.bench.backends import BenchConfig
    from vaezoo.bench.models import from_run
    from vaezoo.bench.native import make_module
    from vaezoo.bench.runner import bench

    workload = from_run(run)
    case = workload.case("round trip", 3)
    assert list(case.inputs) == ["x", "y"]
    module = make_module(run.vae, "round trip")
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(array) for array in case.inputs.values()))
    np.testing.assert_allclose(outputs, case.outputs["x_mean"], atol=1e-5, rtol=1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaezoo.bench.native.torch.compile", lambda module, dynamic: module)
        result = bench(workload, BenchConfig("cpu", 1), [1, 3], seconds=0.001)
    assert {row["task"] for row in result["rows"]} == {"encoder", "decoder", "round trip"}


def test_label_of_unconditional_model_is_refused(trained, shared_export, inside, capsys):
    for source in (trained.path, shared_export().path):
        with pytest.raises(SystemExit):
            main(["sample", str(source), "--label", "3"])
        error, hint = capsys.readouterr().err.splitlines()
        assert error.endswith("is not given labels") and hint == "hint: leave out --label"


@pytest.mark.slow
def test_several_labels_work(own_models, factors, tmp_path):
    assert factors.spec.classes == (3, 2)
    run = train("own-label-prior", factors, config=CONFIG, out=tmp_path / "run")
    exported = export_onnx(run, tmp_path / "export")
    assert exported.manifest["graphs"]["prior"]["inputs"][1]["shape"] == ["batch", 2]
    verify_onnx(exported.path)
    model = vaezoo.runtime.load(exported.path)
    x, y = run.examples
    np.testing.assert_allclose(
        model.reconstruct(x.numpy(), y.numpy()), run.vae.reconstruct(x, y).detach(), atol=1e-5, rtol=1e-4
    )
    in_turn = np.stack([np.arange(7) % 3, np.arange(7) % 2], 1)
    np.testing.assert_array_equal(model.sample(7), model.sample(7, y=in_turn))
    assert blank_batch(run.vae, 7).y.tolist() == in_turn.tolist()
    with pytest.raises(VaezooError, match="unknown label 2"):
        model.sample(1, y=np.array([[2, 2]]))
    with pytest.raises(VaezooError, match="unknown label 3"):
        run.vae.sample(1, torch.tensor([[3, 0]]))
    assert command("sample", run.path, "--label", "2,1", "-n", 4, "--out", tmp_path / "a.npy") == 0
    assert np.load(tmp_path / "a.npy").shape == (4, 5)


def test_other_labels_do_not_fit(run, digits):
    fewer = dataclasses.replace(digits.spec, classes=(9,))
    with pytest.raises(UnsupportedDataError, match=r"the labels of 'digits' have \(9,\) values"):
        check_fits(run.vae, fewer)
    few = digits.test.select(digits.test.y == 3)
    assert vaezoo.evaluate(run, dataclasses.replace(digits, test=few)).examples == len(few)  # not every label is there
    other = dataclasses.replace(digits, test=TensorSplit(few.x, few.y + 7), spec=fewer)
    with pytest.raises(VaezooError, match="unknown label 10"):
        vaezoo.evaluate(run, other)
    check_fits(create_model("mlp-vae", digits), fewer)  # it is not given labels


def test_data_without_labels_are_refused(name, digits, tmp_path):
    unlabelled = Dataset(
        spec=dataclasses.replace(digits.spec, classes=()),
        train=without_labels(digits.train),
        valid=without_labels(digits.valid),
        test=None,
    )
    with pytest.raises(UnsupportedDataError, match="needs labels"):
        train(name, unlabelled, config=CONFIG, out=tmp_path / "run")
    for change, words in (
        ({"train": without_labels(digits.train)}, "the training examples of 'digits' have no labels"),
        ({"test": without_labels(digits.test)}, "the held-out examples of 'digits' have no labels"),
        ({"valid": TensorSplit(digits.valid.x, digits.valid.y + 1)}, "unknown label 10"),
    ):
        with pytest.raises(VaezooError, match=words):
            train(name, dataclasses.replace(digits, **change), config=CONFIG, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_resume_needs_same_labels(name, digits, tmp_path):
    def stop(trainer, path):
        signal.raise_signal(signal.SIGTERM)

    with signals.handle_signals(), pytest.raises(signals.Stopped):
        train(name, digits, config=CONFIG, out=tmp_path / "run", on_start=stop)
    y = digits.train.y.clone()
    y[0] = (y[0] + 1) % 10
    for other in (
        dataclasses.replace(digits, train=TensorSplit(digits.train.x, y)),
        dataclasses.replace(digits, spec=dataclasses.replace(digits.spec, classes=(11,))),
    ):
        with pytest.raises(InputError, match="the data are not those"):
            vaezoo.resume(tmp_path / "run", other)
    assert vaezoo.resume(tmp_path / "run", digits).result


def test_gradients_accumulate_with_labels(name, digits, tmp_path):
    config = TrainConfig(steps=2, batch_size=20, grad_accum_steps=2, ema_decay=0.9, clip_grad=1.0)
    assert train(name, digits, config=config, out=tmp_path / "run").result["metrics"]["elbo"] < 0


def test_class_folders_of_new_data_have_the_numbers_of_the_training(inside):
    for i in range(12):
        path = Path(f"photos/{'cat' if i % 2 else 'dog'}/{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(path)
    config = TrainConfig(steps=1, batch_size=4)
    run = train("cvae", vaezoo.load_data("photos"), options={"latent_dim": 2, "hidden": [8]}, config=config, out="run")
    Path("new/dog").mkdir(parents=True)
    Image.new("L", (8, 8)).save("new/dog/0.png")
    examples = vaezoo.load_examples(run, "new")
    assert examples.split.y.tolist() == [1]  # not 0, the number among the new folders
    Path("new/dog").rename("new/fox")
    with pytest.raises(VaezooError, match="has the label 'fox', which is not a class of the run"):
        vaezoo.load_examples(run, "new")
