"""A model with another classification head."""

from __future__ import annotations

from torch import nn

from simcrop_core.model.config import ClassificationConfig, model_config_from
from simcrop_core.model.simcrop import SimCroP, without_weights

_HEAD = "classification."


def with_classification(
    model: SimCroP, config: ClassificationConfig | None, head: nn.Linear | None
) -> SimCroP:
    """A copy of the model with this head in place of its own; None takes it away.

    Parameters
    ----------
    model
        Stays as it is; all weights but the head's are its own.
    config, head
        What the outputs are, and ``nn.Linear`` from the encoder's width to them.

    Raises
    ------
    SimCroPError
        The configuration of the head is none.
    """
    if (config is None) != (head is None):
        raise ValueError("A head and its configuration are given together.")
    if config is None and model.config.classification is None:
        return model
    settings = model.config.model_dump(mode="json")
    settings["classification"] = None if config is None else config.model_dump(mode="json")
    state = {
        name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_HEAD)
    }
    if head is not None:
        width = model.config.vision.width
        if config is None or tuple(head.weight.shape) != (len(config.labels), width):
            raise ValueError(f"The head maps {tuple(head.weight.shape)} and not {width} features.")
        own = {f"{_HEAD}{name}": tensor.detach() for name, tensor in head.state_dict().items()}
        state |= {name: tensor.to(model.device) for name, tensor in own.items()}
    made = without_weights(model_config_from(settings), text_location=model.text_location)
    made.load_state_dict({n: t.clone() for n, t in state.items()}, strict=True, assign=True)
    made._text[:] = model._text
    return made.train(model.training)
