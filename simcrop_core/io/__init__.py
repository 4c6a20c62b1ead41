"""Reading and writing scans and masks. Every fault ends as a Note or as a `SimCroPError`."""

from simcrop_core.io.guard import Limits
from simcrop_core.io.label_stack import read_label_stack
from simcrop_core.io.labels import labels_on, read_labels
from simcrop_core.io.read import read_volume, series_to_choose
from simcrop_core.io.write import write_labels, write_map, write_volume

__all__ = [
    "Limits",
    "labels_on",
    "read_label_stack",
    "read_labels",
    "read_volume",
    "series_to_choose",
    "write_labels",
    "write_map",
    "write_volume",
]
