"""Three pictures of one plane: the first model, the second, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from simcrop_viewer import layers
from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.scenes import SceneController
from simcrop_viewer.layers import PlaneName
from simcrop_viewer.model.comparison import difference_heat
from simcrop_viewer.scene import Scene, Shown

#: Around the patches that both models have.
_BORDER = "#9e9e9e"
#: Differences are drawn denser than evidence: small ones are faint anyhow.
_DENSER = 1.6


class CompareScenes:
    """Keeps three panes at what is compared, and at the same place, plane, zoom and window.

    Parameters
    ----------
    compare
        What is compared.
    scenes
        First model, second model, difference; all of the same plane.
    """

    def __init__(self, compare: CompareController, scenes: Sequence[Scene]) -> None:
        first, second, apart = scenes
        self.scenes = (first, second, apart)
        self._parts = (
            SceneController(compare.first, [first], jumps=False),
            SceneController(compare.second, [second], jumps=False),
            _DifferenceController(compare, [apart]),
        )
        self._linking = False
        for scene in self.scenes:
            scene.moved = compare.session.move_to
            camera = scene.viewer.scene.camera.events
            for event in (camera.zoom, camera.center):
                event.connect(self._link)
        for part in self._parts:
            part.refresh()

    @property
    def plane(self) -> PlaneName:
        """The plane that is shown."""
        name = self.scenes[0].name
        assert name != "3d"
        return name

    @plane.setter
    def plane(self, plane: PlaneName) -> None:
        if plane == self.plane:
            return
        for scene in self.scenes:
            scene.name = plane
        for part in self._parts:
            part.refresh()

    def fit(self) -> None:
        """The whole scan in each pane."""
        if self.scenes[0].scan:
            self.scenes[0].reset_view()

    def _link(self, event: Any) -> None:
        """The same part of the plane in all three, whichever a person zooms or moves."""
        if self._linking:
            return
        self._linking = True
        try:
            now = event.source
            for scene in self.scenes:
                camera = scene.viewer.scene.camera
                if camera is not now:
                    camera.zoom, camera.center = now.zoom, now.center
        finally:
            self._linking = False

    def close(self) -> None:
        """Let go of what is compared, and of the panes."""
        for scene in self.scenes:
            camera = scene.viewer.scene.camera.events
            for event in (camera.zoom, camera.center):
                with suppress(ValueError):
                    event.disconnect(self._link)
        for part in self._parts:
            part.close()


class _DifferenceController(SceneController):
    """Draws the difference of what was chosen last, or of what is pointed at."""

    def __init__(self, compare: CompareController, scenes: Sequence[Scene]) -> None:
        super().__init__(compare.first, scenes, jumps=False)
        self._compare = compare
        compare.compared.connect(self.draw)

    def close(self) -> None:
        self._compare.compared.disconnect(self.draw)
        super().close()

    def draw(self) -> None:
        settings, first = self._session.overlay, self._session
        hinted = first.hinted
        index = None
        if hinted is not None:
            index = first.statements.index(hinted)
        elif first.selection:
            index = first.selection[-1]
        found = (
            None
            if index is None or not settings.visible
            else self._compare.comparison.difference(index)
        )
        shown = []
        if found is not None:
            patches = found.common.patches
            known_N = np.isfinite(found.values_N)
            shown = [
                Shown(
                    patches.as_map(difference_heat(found.values_N)),
                    known_N.reshape(patches.shape),
                    layers.diverging(),
                    _BORDER,
                )
            ]
        for scene in self.scenes:
            scene.show_evidence(
                None if found is None else found.common.patches,
                shown,
                heat=True,
                outlines=True,
                opacity=min(1.0, _DENSER * settings.opacity),
                smooth=False,  # between "no difference to tell" and a difference is nothing
            )
