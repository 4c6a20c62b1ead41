"""What ``simcrop classify`` understands."""

from __future__ import annotations

from typing import Any

from simcrop_core.cli.parser import (
    _command,
    _compute_options,
    _later,
    _model_option,
    _volume_options,
)


def add_classify(commands: Any) -> None:
    """Add the command."""
    parser = _command(
        commands,
        "classify",
        _later("classify", "run_classify"),
        "say what a scan shows, with probabilities",
        description="Give the probability of each finding or class that a model's classification "
        "head knows, such as the model of a linear probe.",
    )
    parser.add_argument("ct", metavar="CT", help="DICOM folder or file, NIfTI, NRRD, MHA, npz")
    _model_option(parser, reads_text=False)
    _volume_options(parser)
    _compute_options(parser)
