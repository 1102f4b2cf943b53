"""Graphs of operations that PyTorch's own translation computes only for small numbers."""

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

from vaezoo.export.translations import TRANSLATIONS


class Operations(nn.Module):
    def forward(self, a, b):
        return F.logsigmoid(a), torch.logaddexp(a, b), torch.logaddexp(a, a)


def test_large_numbers_do_not_overflow():
    a = torch.tensor([-torch.inf, -300.0, -20.0, -9.0, 0.0, 1e-4, 20.0, 89.0, 300.0, torch.inf])
    b = torch.tensor([0.0, -299.0, -torch.inf, -9.1, 0.0, 89.0, 20.5, -89.0, 301.0, 5.0])
    program = torch.onnx.export(Operations().eval(), (a, b), custom_translation_table=TRANSLATIONS, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    results = session.run(None, dict(zip(names, (a.numpy(), b.numpy()), strict=True)))
    for result, expected in zip(results, Operations()(a, b), strict=True):
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-6, atol=1e-7)
