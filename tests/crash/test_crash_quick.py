"""A few kills of the campaign that `make crash` runs whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_campaign import Campaign


@pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="processes are forked")
def test_kill_9_loses_no_acknowledged_checkpoint_and_changes_no_loss(tmp_path: Path) -> None:
    tally = Campaign(tmp_path, seed=7, steps=16).run(kills=4, by_command=0)
    assert tally.kills == 4
    assert tally.while_saving >= 1
    assert tally.acknowledged > 0
    assert tally.lost == 0
    assert tally.losses_compared >= 16
    assert tally.losses_differing == 0
    assert tally.weights_differing == 0
