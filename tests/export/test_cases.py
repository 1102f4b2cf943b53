"""How many examples the gate compares: fewer if they are large, so that time and memory stay bounded."""

import numpy as np
import onnx
import pytest
import torch

from vaezoo import DataSpec, create_model, export_onnx, verify_onnx
from vaezoo.errors import ParityError
from vaezoo.export.cases import Case, batch_sizes, example_count
from vaezoo.export.quantize import split_rows
from vaezoo.export.tolerance import Tolerance, compare_cases
from vaezoo.vae import example_batch

LARGE = (1, 560, 560)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 28, 28), (1, 2, 3, 7, 64)),
        ((3, 104, 104), (1, 2, 3, 7, 64)),
        ((3, 105, 105), (1, 2, 3, 7)),
        ((3, 256, 256), (1, 2, 3, 7)),
        (LARGE, (1, 2, 3)),
        ((3, 512, 512), (1, 2)),
        ((3, 4096, 4096), (1, 2)),
    ],
)
def test_large_examples_have_small_batches(shape, expected):
    assert batch_sizes(int(np.prod(shape))) == expected
    assert example_count([(3, 8, 8), shape]) == expected[-1]


def test_batches_follow_from_the_largest_array():
    """An output that is larger than the input counts, and the cases of all graphs have the same sizes."""
    sizes = []

    def run(inputs):
        sizes.append(len(inputs["z"]))
        return [np.repeat(inputs["z"], 1 << 18, 1)]

    z = np.arange(8, dtype=np.float32)[:, None]
    cases = {"decoder": [Case("few", {"z": z}, {"x": np.repeat(z, 1 << 18, 1)})]}
    compare_cases({"decoder": run}, cases, "z", Tolerance("fp32", "cpu"))
    assert sizes == [1, 2, 3, 7]


def test_two_large_examples_must_not_depend_on_each_other():
    x = np.arange(2 << 21, dtype=np.float32).reshape(2, -1)
    cases = {"encoder": [Case("large", {"x": x}, {"mu": x})]}
    with pytest.raises(ParityError, match="at batch 2"):
        compare_cases({"encoder": lambda i: [i["x"] * len(i["x"])]}, cases, "mu", Tolerance("fp32", "cpu"))


@pytest.fixture(scope="module")
def large():
    """A small autoencoder of images of 560x560 pixels in grey."""
    torch.manual_seed(0)
    data = DataSpec(name="x", shape=LARGE, likelihood="gaussian-identity")
    return create_model("tiny-autoencoder", data, {"channels": 2, "blocks": "1,1", "latent_channels": 2}).eval()


@pytest.mark.slow
def test_export_of_large_images(large, tmp_path):
    exported = export_onnx(large, tmp_path / "e")
    assert exported.manifest["parity"]["batches"] == [1, 2, 3]
    assert "on the CPU at batch sizes 1, 2, 3" in (tmp_path / "e" / "README.md").read_text()
    assert "sets of 3 inputs" in (tmp_path / "e" / "README.md").read_text()
    golden = onnx.TensorProto.FromString((tmp_path / "e/golden/encoder/test_data_set_0/input_0.pb").read_bytes())
    assert list(golden.dims) == [3, *LARGE]
    verified = verify_onnx(tmp_path / "e")
    assert verified.batches == (1, 2, 3)
    assert [row.max_abs for row in verified.parity] == pytest.approx([r.max_abs for r in exported.parity], abs=1e-6)


@pytest.mark.matrix
def test_large_images_in_float16(large, tmp_path):
    x = torch.rand(20, *LARGE, generator=torch.Generator().manual_seed(0)).numpy()
    exported = export_onnx(large, tmp_path / "e", dtype="fp16", examples=x)
    assert exported.manifest["parity"]["batches"] == [1, 2, 3]


def test_calibration_examples_in_parts():
    batch = example_batch(DataSpec(name="x", shape=(2, 3, 3), classes=(4,)), 5, torch.Generator().manual_seed(0))
    parts = split_rows(batch, 2)
    assert [len(part.x) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.x for part in parts]), batch.x)
    assert torch.equal(torch.cat([part.y for part in parts]), batch.y)
