"""Data sets: packaged, generated, downloaded, from image folders and from arrays."""

from vaezoo.data.arrays import from_arrays
from vaezoo.data.base import Batch, Dataset, DataSource, DataSpec, Part, Split, carve_validation
from vaezoo.data.load import DATASETS, load_data

__all__ = [
    "DATASETS",
    "Batch",
    "DataSource",
    "DataSpec",
    "Dataset",
    "Part",
    "Split",
    "carve_validation",
    "from_arrays",
    "load_data",
]
