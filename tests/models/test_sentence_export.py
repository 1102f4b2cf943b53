"""The sentence VAE as ONNX graphs: free lengths, and the same texts as PyTorch."""

import numpy as np
import pytest
import torch

from vaezoo import Dataset, TrainConfig, export_onnx, load_data, runtime, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    names = load_data("names")
    few, valid, test = (split.subsample(400) for split in (names.train, names.valid, names.test))
    data = Dataset(spec=names.spec, train=few, valid=valid, test=test, source=names.source)
    folder = tmp_path_factory.mktemp("sentence")
    options, config = {"hidden": "32", "latent_dim": "4"}, TrainConfig(steps=60, batch_size=50, lr=5e-3, device="cpu")
    run = train("sentence-vae", data, options=options, config=config, out=folder / "run")
    result = export_onnx(run, folder / "export")
    return run, data, result, runtime.load(folder / "export")


def test_texts_have_free_lengths(exported):
    run, data, result, model = exported
    graphs = result.manifest["graphs"]
    assert set(graphs) == {"encoder", "decoder"}
    assert graphs["encoder"]["inputs"][0]["shape"] == ["batch", "length1"]
    assert graphs["decoder"]["inputs"][1]["shape"] == ["batch", "length1"]
    assert graphs["decoder"]["outputs"][0]["shape"] == ["batch", "length1", 28]
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for t in (1, 2, 3, 7, 15, 16):
        x = data.test.x[:3, :t]
        with torch.no_grad():
            expected = run.vae.decode(z, x).numpy()
        np.testing.assert_allclose(model.decode(z.numpy(), x=x.numpy()), expected, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            np.testing.assert_allclose(model.encode(x.numpy())["mu"], run.vae.encode(x).mu, atol=1e-5, rtol=1e-4)


def test_greedy_texts_are_equal(exported):
    run, data, result, model = exported
    assert result.manifest["autoregressive"] == {"length": 16, "end_id": 1}
    for n in (1, 2, 7, 64):
        np.testing.assert_array_equal(model.reconstruct(data.test.x[:n].numpy()), run.vae.reconstruct(data.test.x[:n]))


def test_seeds_fix_the_samples(exported):
    model = exported[-1]
    x = model.sample(100, seed=1)
    assert x.shape == (100, 16) and x.dtype == np.int64
    np.testing.assert_array_equal(x, model.sample(100, seed=1))
    assert (x != model.sample(100, seed=2)).any()
    names = model.tokenizer.to_texts(x)
    assert len(set(names)) > 80 and all(name.isalpha() for name in names if name)


def test_samples_have_the_lengths_of_torch(exported):
    run, _, _, model = exported
    torch.manual_seed(0)
    ours, theirs = ((x != 0).sum(1) for x in (run.vae.sample(2_000).numpy(), model.sample(2_000)))
    error = np.sqrt(ours.var() / 2_000 + theirs.var() / 2_000)
    assert abs(ours.mean() - theirs.mean()) < 4 * error
