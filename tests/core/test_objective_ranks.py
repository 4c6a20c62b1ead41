"""Two processes give the gradients of one process with the doubled batch, for every objective."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from made_batch import small_model, studies

from simcrop_core.objectives import (
    CtClipConfig,
    M3aeConfig,
    M3dClipConfig,
    MaeConfig,
    MrmConfig,
    Ranks,
    SimCroPConfig,
    make_objective,
)

OBJECTIVES = {
    "simcrop": SimCroPConfig(top_k=3),
    "simcrop-all-patches": SimCroPConfig(top_k=3, masked_only=False, word_level=False),
    "mae": MaeConfig(),
    "mrm": MrmConfig(),
    "m3ae": M3aeConfig(depth=2, image_layer=1),
    "ct_clip": CtClipConfig(),
    "m3d_clip": M3dClipConfig(),
}
# Dealt out unevenly: the first process has one report with sentences to contrast, the second has
# three, and the second's reports are longer than the first has room for.
STUDIES = [1, 2, 5], [3, 0, 4]
SENTENCES = (2, 1, 0, 4, 2, 3)
LENGTHS = (16, 32)


def figures(name: str, batch, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Terms and gradients, averaged over the processes as distributed training does."""
    model = small_model()
    objective = make_objective(OBJECTIVES[name], model)
    terms = objective(model, batch, ranks)
    terms.total.backward()
    result = {f"term {key}": value.detach().clone() for key, value in terms.terms.items()}
    result["total"] = terms.total.detach().clone()
    for prefix, module in (("model", model), ("objective", objective)):
        for key, parameter in module.named_parameters():
            if parameter.grad is not None:
                result[f"{prefix}.{key}"] = parameter.grad
    if ranks.world_size > 1:
        for value in result.values():
            dist.all_reduce(value)
            value /= ranks.world_size
    return result


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message=".*(?i:deprecated).*", module="simcrop_core")
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    ranks = Ranks.current()
    assert ranks == Ranks(rank, 2)
    mine = studies(STUDIES[rank], SENTENCES, LENGTHS[rank])
    results = {name: figures(name, mine, ranks) for name in OBJECTIVES}
    dist.destroy_process_group()
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder),), nprocs=2)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_are_one_with_the_doubled_batch(together, name: str) -> None:
    alone = figures(name, studies([*STUDIES[0], *STUDIES[1]], SENTENCES, max(LENGTHS)), Ranks())
    assert together[name].keys() == alone.keys()
    assert sum(key.startswith("model.") for key in alone) > 20
    for key, value in alone.items():
        torch.testing.assert_close(
            together[name][key], value, atol=2e-6, rtol=2e-4, msg=f"{name}: {key}"
        )
