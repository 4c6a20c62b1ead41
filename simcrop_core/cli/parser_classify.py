"""What ``simcrop classify`` understands."""

from __future__ import annotations

from typing import Any

from simcrop_core.cli.options import (
    add_command,
    add_compute_options,
    add_model_option,
    add_volume_options,
    later,
)


def add_classify(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "classify",
        later("classify", "run_classify"),
        "say what a scan shows, with probabilities",
        description="Give the probability of each finding or class that a model's classification "
        "head knows, such as the model of a linear probe.",
    )
    parser.add_argument("ct", metavar="CT", help="DICOM folder or file, NIfTI, NRRD, MHA, npz")
    add_model_option(parser, reads_text=False)
    add_volume_options(parser)
    add_compute_options(parser)
