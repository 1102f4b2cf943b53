"""vaezoo encode [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.loaded_model import LoadedModel, load_model
from vaezoo_cli.options import checkpoint_option, default_output_dir, out_option, output_suffixes, source_argument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.data.base import Split


@click.command()
@source_argument
@checkpoint_option
@data_options()
@out_option("latents.npz")
def encode(
    source: str | None,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Write the posteriors of a data set to a .npz file.

    The file has the fields of q(z|x) of each split (train, valid, test), such as mu_test and logvar_test, and the
    labels, such as y_test, if the data have labels. The examples keep the order of the data. They come from --data, by
    default from the data set that the model was trained on. RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo
    sample'.
    """
    import numpy as np

    from vaezoo.core.atomic import write_file

    output_suffixes(out, (".npz",))
    model = load_model(source, checkpoint)
    dataset = data.load_for(model)
    arrays: dict[str, NDArray[Any]] = {}
    for name, split in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test)):
        if split is not None and len(split):
            arrays |= {f"{field}_{name}": values for field, values in encode_split(model, split).items()}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    path = Path(out) if out else default_output_dir(model.folder) / "latents.npz"
    write_file(path, file.getvalue())
    click.echo(path)


def encode_split(model: LoadedModel, split: Split) -> dict[str, NDArray[Any]]:
    """Returns the fields of q(z|x) of all examples of a split, and their labels as `y` if they have labels."""
    import numpy as np
    import torch

    from vaezoo.evaluation.batches import iter_batches

    batches = iter_batches(split, "none", 0, torch.device("cpu"))
    fields = [model.encode(x.numpy(), None if y is None else y.numpy()) for x, y in batches]
    arrays = {name: np.concatenate([f[name] for f in fields]) for name in fields[0]}
    return arrays if split.y is None else arrays | {"y": split.y.numpy()}
