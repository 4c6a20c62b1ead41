"""Keeps all panes at the session's state, and the session at what people do in the panes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from psygnal import Signal

from simcrop_core.patches import Box
from simcrop_viewer import layers
from simcrop_viewer.model.overlay import chosen_mask, heat, scale_of
from simcrop_viewer.model.session import MOST_SELECTED, Session, Statement
from simcrop_viewer.model.windows import Window
from simcrop_viewer.scene import Scene, Shown

#: Colours of several statements at once: told apart by people who see few colours, and bright
#: enough for lung and bone (Okabe and Ito's, lightened).
COLORS: tuple[tuple[float, float, float], ...] = (
    (1.00, 0.62, 0.10),
    (0.34, 0.71, 0.91),
    (0.10, 0.82, 0.55),
    (0.94, 0.89, 0.26),
    (0.95, 0.45, 0.70),
    (0.65, 0.55, 1.00),
)
#: Of the outlines of a statement that is shown alone.
ONE_COLOR = "#00e5ff"
assert len(COLORS) == MOST_SELECTED
#: How much of its opacity evidence keeps that is only pointed at.
_LIGHT = 0.6


def color_of(number: int, several: bool) -> str:
    """``"#rrggbb"`` of the selection's ``number``-th statement, in the views and in the report."""
    if not several:
        return ONE_COLOR
    return layers.to_hex(COLORS[number])


class SceneController:
    """Joins a session with panes.

    Parameters
    ----------
    session, scenes
        What is open, and the panes that show it.
    jumps
        Whether choosing a statement moves the crosshair to its best patch.
    """

    flashed = Signal()  # the best patch is framed, until `end_flash` is called

    def __init__(self, session: Session, scenes: Sequence[Scene], *, jumps: bool = True) -> None:
        self._session = session
        self.scenes = tuple(scenes)
        self._setting_window = False
        self._jumping = False
        self._signals = (
            (session.study_changed, self._show_study),
            (session.position_changed, self._move),
            (session.window_changed, self._set_window),
            (session.selection_changed, self.draw),
            (session.hint_changed, self.draw),
            (session.overlay.events, self.draw),
            *(((session.chosen, self._jump),) if jumps else ()),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self._seen = set(self.scenes)
        for scene in self.scenes:
            scene.moved = session.move_to

    def show_only(self, scenes: Sequence[Scene]) -> None:
        """Say which panes can be seen: the others are brought up to date once they are."""
        late = set(scenes) - self._seen
        self._seen = set(scenes)
        if late:
            for scene in late:
                scene.move_to(self._session.position_mm)
            self.draw()

    @property
    def seen(self) -> tuple[Scene, ...]:
        """The panes that can be seen."""
        return tuple(scene for scene in self.scenes if scene in self._seen)

    def close(self) -> None:
        """Let go of session and panes."""
        for signal, answer in self._signals:
            signal.disconnect(answer)
        with _collected_once():
            for scene in self.scenes:
                scene.close()

    def draw(self) -> None:
        """Draw the evidence of what is selected in all panes that can be seen; or of what is
        pointed at, more lightly: its heat, and no outlines unless these are all that is drawn."""
        settings = self._session.overlay
        hinted = self._session.hinted
        hinted = None if hinted is None or hinted.result is None else hinted
        chosen = [
            (number, statement)
            for number, statement in enumerate(
                self._session.selected if hinted is None else (hinted,)
            )
            if statement.result is not None
        ]
        light = hinted is not None and settings.draw != "outlines"
        shown = self._shown(chosen) if settings.visible else []
        result = chosen[0][1].result if chosen else None
        for scene in self.seen:
            scene.show_evidence(
                None if result is None else result.patches,
                shown,
                heat=settings.draw != "outlines",
                outlines=settings.draw != "heat" and not light,
                opacity=settings.opacity * (_LIGHT if light else 1.0),
                smooth=settings.smooth,
            )

    def _shown(self, chosen: list[tuple[int, Statement]]) -> list[Shown]:
        settings = self._session.overlay
        shared = self._shared_scale() if chosen and settings.normalise == "shared" else None
        several = len(self._session.selection) > 1 and self._session.hinted is None
        found = []
        for number, statement in chosen:
            result, row = statement.result, statement.row
            assert result is not None
            scale = shared or scale_of(result, row)
            found.append(
                Shown(
                    heat(result, row, scale, settings.threshold),
                    chosen_mask(result, row, settings.top_k),
                    layers.one_color(COLORS[number])
                    if several
                    else layers.clear_below(settings.colormap),
                    color_of(number, several),
                )
            )
        return found

    def _shared_scale(self) -> tuple[float, float]:
        """From the least to the greatest similarity of all sentences and questions."""
        every = [scale_of(s.result, s.row) for s in self._session.statements if s.result]
        return min(low for low, _ in every), max(high for _, high in every)

    def _jump(self) -> None:
        """Put the crosshair on the own centre of the best patch of what was chosen last."""
        selected = self._session.selected
        if selected and selected[-1].result is not None:
            result, best = selected[-1].result, int(selected[-1].result.top(selected[-1].row)[0])
            before, self._jumping = self._session.position_mm, True
            try:
                self._frame(result.patches.box(best))
                self._session.move_to(result.patches.center(best))
                if self._session.position_mm is before:  # it was there: the frame alone is new
                    self._move()
            finally:
                self._jumping = False
            self.flashed.emit()

    def end_flash(self) -> None:
        """Take the frame around the best patch away."""
        if any(scene.frame_mm is not None for scene in self.scenes):
            self._move()

    def _frame(self, box: Box | None) -> None:
        for scene in self.scenes:
            scene.frame_mm = box

    def refresh(self) -> None:
        """Show what is open anew, in whatever planes the panes are of now."""
        self._show_study()
        self._move()
        self.draw()

    def _show_study(self) -> None:
        study = self._session.study
        self._frame(None)
        goes = study is None or not all(scene.is_set_up for scene in self.scenes)
        self._setting_window = True
        try:
            with _collected_once() if goes else nullcontext():
                for scene in self.scenes:
                    before = scene.scan
                    if study is None:
                        scene.clear()
                    else:
                        scene.show_study(study.display, self._session.window)
                    for layer in scene.scan if scene.scan is not before else ():
                        layer.events.contrast_limits.connect(self._window_changed)
        finally:
            self._setting_window = False

    def _move(self) -> None:
        if not self._jumping:
            self._frame(None)
        for scene in self.seen:
            scene.move_to(self._session.position_mm)

    def _set_window(self) -> None:
        self._setting_window = True
        try:
            for scene in self.scenes:
                scene.set_window(self._session.window)
        finally:
            self._setting_window = False

    def _window_changed(self, event: object) -> None:
        """A person moved the contrast of one of the scan's layers."""
        if self._setting_window:
            return
        low, high = event.source.contrast_limits  # type: ignore[attr-defined]
        self._session.set_window(Window.from_limits(low, high))


@contextmanager
def _collected_once() -> Iterator[None]:
    """napari looks through all of the program's objects for each layer that goes, a quarter of a
    second each time; here that is done once, when all layers have gone."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()
