"""A model without what only pre-training needs."""

from __future__ import annotations

from simcrop_core.model.config import model_config_from
from simcrop_core.model.simcrop import SimCroP, without_weights

DECODERS = ("image_decoder", "fusion", "text_decoder")


def without_decoders(model: SimCroP, name: str | None = None) -> SimCroP:
    """A copy of the model without its decoders, which inference never uses.

    Parameters
    ----------
    model
        Stays as it is.
    name
        Of the copy; None keeps the model's.

    Raises
    ------
    SimCroPError
        The name is none.
    """
    settings = model.config.model_dump(mode="json")
    settings |= dict.fromkeys(DECODERS)
    if name is not None:
        settings["name"] = name
    state = {
        key: tensor.clone()
        for key, tensor in model.state_dict().items()
        if not key.startswith(tuple(f"{part}." for part in DECODERS))
    }
    made = without_weights(model_config_from(settings), text_location=model.text_location)
    made.load_state_dict(state, strict=True, assign=True)
    made._text[:] = model._text
    return made.train(model.training)
