"""The examples that a run or an export is applied to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal, TypeAlias, cast

from torch import Tensor

from vaezoo.core.options import construct
from vaezoo.data.base import Dataset
from vaezoo.data.catalog import DATASETS
from vaezoo.data.convert import TorchData, Values
from vaezoo.data.inference import Examples, array_examples, examples_of, find_examples, load_named
from vaezoo.data.labels import recode_labels
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.runtime import OnnxVAE
from vaezoo.training.run import Run
from vaezoo.vae import VAE, check_classes, check_kind, check_labels, conditioned_on

Model: TypeAlias = Run | OnnxVAE | VAE
Part: TypeAlias = Literal["encoder", "decoder", "prior"]
Data: TypeAlias = str | os.PathLike[str] | Values | TorchData | Dataset | Examples | list[str]


def load_examples(
    model: Model,
    data: Data | None = None,
    *,
    y: Values | None = None,
    part: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    stream: bool | None = None,
    on_bad_image: str = "error",
    stride: int | None = None,
    label_pattern: str | None = None,
    column: str | None = None,
    on_long_text: str = "error",
) -> Examples:
    """Loads examples for a trained model, in the form of the data that it was trained on.

    Nothing is split off: an array, an image or a folder of images gives all of its examples, in order. Images are
    resized and converted between grey and colour. Arrays keep their size.

    Args:
        model: A run, an export or a module.
        data: A data set by name, an image file, an image folder, a .npy, .npz, .csv or .parquet file, a recording or a
            folder of series, a `Dataset`, or an array, a frame or a data set of PyTorch. A model of texts takes a .txt
            file, a folder of them, a .csv file or a list of texts. The default is the data set that the model was
            trained on.
        y: The labels of an array.
        part: "train", "valid", "test" or "all" of a source with parts: a data set by name, a folder with a test split,
            or a file with `x_test`. The default is the held-out part: test, or validation if there is no test split.
        data_dir: The folder of the standard data sets.
        stream: Whether the images of a folder stay in their files. By default they do if they would fill more than half
            of the available memory.
        on_bad_image: What to do with unreadable images of a folder: error or skip.
        stride: Steps between the starts of two windows of a recording in a file. By default windows do not overlap.
        label_pattern: As in `load_data`, for new sound files. Without it their folders may be classes.
        column: The column of a .csv file that holds texts.
        on_long_text: What to do with texts that are longer than those of the model: error or cut.

    Returns:
        The examples with their names: files relative to the folder, or indices.

    Raises:
        InputError: If a file cannot be read, or holds values of another kind.
        UnsupportedDataError: If the data do not fit the model.
        VaezooError: If an option is unknown, or the source has no parts to choose from.
    """
    spec = data_of(model)
    if stride is not None and not isinstance(data, str | os.PathLike):
        raise VaezooError("a stride cuts the recording of a file into windows", "name the file as data, too")
    if label_pattern is not None and not isinstance(data, str | os.PathLike):
        raise VaezooError("a label pattern reads the names of new sound files", "name their folder as data, too")
    if isinstance(data, Examples):
        return data
    if isinstance(data, Dataset):
        examples = examples_of(data, part)
    elif data is None:
        examples = examples_of(own_data(model, data_dir), part)
    elif isinstance(data, str | os.PathLike):
        folder = None if data_dir is None else os.fspath(data_dir)
        examples = find_examples(
            spec,
            data,
            part=part,
            data_dir=folder,
            stream=stream,
            on_bad_image=on_bad_image,
            stride=stride,
            label_pattern=label_pattern,
            column=column,
            on_long_text=on_long_text,
        )
    else:
        examples = array_examples(spec, data, y, part, on_long_text)
    return fitted(model, examples)


def fitted(model: Model, examples: Examples) -> Examples:
    """Returns examples with the labels of a model. Names of classes decide which number is which.

    A conditional model knows no other classes than those of its training.

    Raises:
        UnsupportedDataError: If the examples do not have the model's shape, kind and labels.
    """
    ours, given = data_of(model), examples.spec
    if given.shape != ours.shape:
        raise UnsupportedDataError(
            f"data set '{given.name}' has shape {given.shape}, but the model was made for {ours.shape}",
            "give data of that shape",
        )
    check_kind(ours, given)
    if (given.classes, given.names_by_label) == (ours.classes, ours.names_by_label):
        return examples
    y = examples.split.y
    if not needs_labels(model):
        return examples if y is None else with_classes_of(ours, examples, y)
    if y is None:
        check_classes(ours, given)
        return examples
    y = recode_labels(y, given.names_by_label, ours.names_by_label, given.name)
    check_labels(ours, y)  # a few examples need not have every label
    spec = replace(given, classes=ours.classes, class_names=ours.class_names, label_names=ours.label_names)
    return replace(examples, spec=spec, split=examples.split.with_labels(y))


def with_classes_of(ours: DataSpec, examples: Examples, y: Tensor) -> Examples:
    """Returns examples whose classes have the numbers that they have in the run. Other classes follow after those."""
    own, known = examples.spec.names_by_label, ours.names_by_label
    if not own or len(own) != len(known):
        return examples
    names = tuple((*a, *(name for name in b if name not in a)) for a, b in zip(known, own, strict=True))
    split = examples.split.with_labels(recode_labels(y, own, names))
    return replace(examples, spec=examples.spec.with_labels(names), split=split)


def module_of(model: Run | VAE) -> VAE:
    """Returns the module of a run, or a module itself. Raises VaezooError for anything else."""
    require_model(model)
    return model.vae if isinstance(model, Run) else model


def data_of(model: Model) -> DataSpec:
    """Returns the data that a model was made for. Raises VaezooError if it is not a model."""
    require_model(model)
    return construct(DataSpec, cast("dict[str, object]", model.data)) if isinstance(model, OnnxVAE) else model.data


def require_model(model: object) -> None:
    """Raises VaezooError unless this is a run, an export or a module with the data that it was made for."""
    if isinstance(model, VAE) and not isinstance(getattr(model, "data", None), DataSpec):
        what = f"the {type(model).__name__} does not know the data that it was made for"
        raise VaezooError(what, "call super().__init__(data, latent_shape) with the vaezoo.DataSpec of the data")
    if isinstance(model, Run | OnnxVAE | VAE):
        return
    hint = "pass what vaezoo.train or vaezoo.load returned; docs/plugins.md makes a VAE of a module"
    if isinstance(model, str | os.PathLike):
        hint = "open it with vaezoo.load, or an export with vaezoo.runtime.load"
    raise VaezooError(f"an object of type {type(model).__name__} is not a run, an export or a vaezoo.VAE", hint)


def takes_labels(model: Model, *parts: Part) -> bool:
    """Returns whether one of some parts of a model is given labels. By default these are all parts."""
    parts = parts or ("encoder", "decoder", "prior")
    if isinstance(model, OnnxVAE):
        return model.takes_labels(*parts)
    vae = module_of(model)
    inputs = {"encoder": vae.encoder_inputs, "decoder": vae.decoder_inputs, "prior": vae.prior.sample_inputs}
    return any("y" in inputs[part] for part in parts)


def needs_labels(model: Model) -> bool:
    """Returns whether a model is applied to examples with labels only."""
    if isinstance(model, OnnxVAE):
        return model.takes_labels("encoder", "decoder")
    return "y" in conditioned_on(module_of(model))


def own_data(model: Model, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads the data set that a model was trained on.

    Raises:
        VaezooError: If that is impossible. An export does not store paths, and a module knows no data set.
    """
    if isinstance(model, VAE):
        raise VaezooError(f"a {type(model).__name__} does not know its data set", "pass data")
    folder = None if data_dir is None else os.fspath(data_dir)
    if isinstance(model, Run):
        return model.load_data(folder)
    spec = data_of(model)
    if spec.name not in DATASETS:
        raise VaezooError(f"the export was trained on '{spec.name}', which is not a named data set", "give --data")
    return load_named(spec.name, spec, folder)
