"""The form of a run that is to be started: a recipe, what is changed in it, and where it goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from psygnal import Signal

from simcrop_core.errors import sentence
from simcrop_core.train.events import LOG_NAME
from simcrop_viewer.model.recipes import Recipe, Setting, as_line, run_words, setting_words
from simcrop_viewer.model.run_log import log_is_held

#: Fields that are shown first, in this order, where a recipe has them; with their titles.
FIRST = {
    "model": "Model",
    "model.preset": "New model",
    "model.folder": "Or go on from",
    "data.root": "Data set",
    "data.lists": "Lists",
    "data.fraction": "Share",
    "data.store": "Data set",
    "data.phantoms": "Phantoms",
    "protocol": "Protocol",
    "run.epochs": "Epochs",
    "run.steps": "Steps",
    "run.batch_size": "Batch",
    "optim.lr": "Learning rate",
    "head.lr": "Learning rate",
    "run.accelerator": "Device",
    "accelerator": "Device",
    "run.seed": "Seed",
    "seed": "Seed",
}
#: Never in the form: a run is found again by its recipe's name.
_HIDDEN = ("name",)


class TrainingForm:
    """What is typed, whether it can be run, and the command that runs it.

    Faults are of two kinds. What a field alone tells (a word for a number, a number out of its
    limits) is known at once; what fields tell together is asked of the command, see :attr:`asks`.

    Attributes
    ----------
    recipes
        Those to choose from; empty until the command has told them.
    name
        Of the folder that is made for the run.
    """

    changed = Signal()  # what is typed, or what is wrong with it
    fields_changed = Signal()  # other fields are there

    def __init__(self) -> None:
        self.recipes: tuple[Recipe, ...] = ()
        self.name = ""
        self.runs = Path()
        self._recipe: Recipe | None = None
        self._shown: tuple[Setting, ...] = ()
        self._typed: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._checked: tuple[str, ...] = ()
        self._named = False
        self._free = True

    # -- recipe and fields ----------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe | None:
        return self._recipe

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The fields; another objective has others than the recipe."""
        return self._shown

    @property
    def first(self) -> tuple[Setting, ...]:
        """The few that matter most."""
        there = {setting.path: setting for setting in self._shown}
        return tuple(there[path] for path in FIRST if path in there)

    @property
    def more(self) -> dict[str, tuple[Setting, ...]]:
        """All others, by section."""
        found: dict[str, list[Setting]] = {}
        for setting in self._shown:
            if setting.path not in FIRST and setting.path not in _HIDDEN:
                found.setdefault(setting.section, []).append(setting)
        return {name: tuple(some) for name, some in found.items()}

    def offer(self, recipes: Sequence[Recipe]) -> None:
        """Take the recipes that there are; the first is chosen."""
        self.recipes = tuple(recipes)
        if self._recipe is None and recipes:
            self.choose(recipes[0].name)

    def choose(self, name: str) -> None:
        """Begin with a recipe; what was typed for another one goes."""
        self._recipe = next(recipe for recipe in self.recipes if recipe.name == name)
        self._shown = self._recipe.settings
        self._typed, self._faults, self._checked = {}, {}, ()
        self._named = False
        self.suggest_name()
        self.fields_changed.emit()
        self.changed.emit()

    # -- what is typed --------------------------------------------------------------------------

    def typed(self, setting: Setting) -> str:
        """What a field shows."""
        return self._typed.get(setting.path, setting.shown(self._default(setting)))

    def type(self, setting: Setting, text: str) -> None:
        """A person typed or chose something; what the recipe says is no change."""
        path = setting.path
        if self._is_default(setting, text):
            self._typed.pop(path, None)
        else:
            self._typed[path] = text
        if path.endswith(".kind"):  # the other kind has fields of its own
            section = path.removesuffix("kind")
            others = [p for p in self._typed if p.startswith(section) and p != path]
            for other in others:
                del self._typed[other]
        self._faults.pop(path, None)
        if not self._typed:  # the recipe as it is needs nobody's judgement
            self._judged((), {}, self._recipe)
        self.changed.emit()

    def is_changed(self, setting: Setting) -> bool:
        return setting.path in self._typed

    def _default(self, setting: Setting) -> Any:
        """What the recipe says; of a part that is of another kind, what that kind says."""
        assert self._recipe is not None
        kind = f"{setting.section}.kind"
        other = kind in self._typed and setting.path != kind
        if other or setting.path not in self._recipe.paths:
            return setting.default
        return self._recipe[setting.path].default

    def _is_default(self, setting: Setting, text: str) -> bool:
        try:
            return bool(setting.value(text) == self._default(setting))
        except ValueError:
            return False

    def suggest_name(self) -> None:
        """Name the run by its recipe and the first free number, unless a person named it."""
        if self._recipe is None or self._named:
            return
        self.name = _free_name(self.runs, self._recipe.name)

    def name_it(self, name: str) -> None:
        self.name, self._named = name.strip(), bool(name.strip())
        self.changed.emit()

    def put_in(self, runs: Path) -> None:
        """Another folder of runs."""
        self.runs = runs
        self.suggest_name()
        self.changed.emit()

    def started(self) -> None:
        """The run is on its way: the next one has another name."""
        self._named = False
        self.suggest_name()
        self.changed.emit()

    def looked(self) -> None:
        """Folders may have come or gone: the name may be free no more, or again."""
        before = (self.name, self._free)
        self.suggest_name()
        self._free = not self.name_fault
        if before != (self.name, self._free):
            self.changed.emit()

    # -- what is wrong --------------------------------------------------------------------------

    def fault(self, setting: Setting) -> str:
        """What is wrong with a field, as a sentence; or ``""``."""
        try:
            if setting.path in self._typed:
                setting.value(self._typed[setting.path])
        except ValueError as e:
            return str(e)
        return self._faults.get(setting.path, "")

    @property
    def name_fault(self) -> str:
        """What is wrong with the run's name; or ``""``."""
        if not self.name:
            return "A name is needed."
        if self.name != os.path.basename(self.name) or self.name in (".", ".."):
            return "A name without slashes is needed."
        try:
            taken = is_taken(self.folder)
        except (OSError, ValueError) as e:
            too_long = getattr(e, "errno", None) == errno.ENAMETOOLONG
            return "A shorter name is needed." if too_long else "This folder cannot be read."
        return "There is a folder of this name already." if taken else ""

    @property
    def other_faults(self) -> tuple[str, ...]:
        """What is wrong with several fields together."""
        paths = {setting.path for setting in self._shown}
        return tuple(text for path, text in self._faults.items() if path not in paths)

    @property
    def is_ready(self) -> bool:
        """Whether the run can be started, as far as is known."""
        return (
            self._recipe is not None
            and not self._faults
            and not self.name_fault
            and not any(self.fault(setting) for setting in self._shown)
        )

    @property
    def changes(self) -> list[str]:
        """``a.b=c`` for each changed field that has a value."""
        found = []
        for path, typed in self._typed.items():
            setting = self._setting(path)
            try:
                value = typed if setting is None else setting.settled(setting.value(typed))
            except ValueError:
                continue
            found.append((path, value))
        found.sort(key=lambda change: not change[0].endswith(".kind"))
        return [setting_words(path, value) for path, value in found]

    def _setting(self, path: str) -> Setting | None:
        return next((setting for setting in self._shown if setting.path == path), None)

    @property
    def asks(self) -> tuple[str, tuple[str, ...]] | None:
        """Recipe and changes that the command has not judged yet; or None."""
        changes = tuple(self.changes)
        if self._recipe is None or changes == self._checked:
            return None
        return self._recipe.name, changes

    def judged(
        self, asked: tuple[str, tuple[str, ...]], told: Mapping[str, Any], recipe: Recipe
    ) -> None:
        """Take what the command says to what was asked; late answers are passed over."""
        if self._recipe is None or asked != (self._recipe.name, tuple(self.changes)):
            return
        faults: dict[str, str] = {}
        for one in told.get("faults", ()):
            faults.setdefault(self._field_of(one["path"]), sentence(one["text"]))
        self._judged(asked[1], faults, recipe)
        self.changed.emit()

    def _field_of(self, path: str) -> str:
        """The field that a fault is about: it may be one number of a list."""
        fields = {setting.path for setting in self._shown}
        above = path
        while above and above not in fields:
            above = above.rpartition(".")[0]
        return above or path

    def _judged(
        self, changes: tuple[str, ...], faults: Mapping[str, str], recipe: Recipe | None
    ) -> None:
        assert recipe is not None
        self._checked, self._faults = changes, dict(faults)
        others = recipe.paths != tuple(setting.path for setting in self._shown)
        if others and not faults:
            self._shown = recipe.settings
            self._typed = {p: text for p, text in self._typed.items() if p in recipe.paths}
            self.fields_changed.emit()

    # -- the run --------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        return self.runs / self.name

    @property
    def words(self) -> list[str]:
        """The words of ``simcrop-train``."""
        assert self._recipe is not None
        return run_words(self._recipe.name, str(self.folder), self.changes)

    @property
    def command(self) -> str:
        """The whole line for a terminal; ``""`` without a recipe."""
        return "" if self._recipe is None else as_line(["simcrop-train", *self.words])


def _free_name(runs: Path, recipe: str) -> str:
    """A recipe's name with the first number that no folder has; 1 where nobody can tell.

    Only names that the folder lists are looked at, so that numbering ends wherever it is.
    """
    there: set[str] = set()
    with suppress(OSError, ValueError):
        there = {name.casefold() for name in os.listdir(runs)}
    number = 1
    while f"{recipe}-{number}".casefold() in there and _may_be_taken(runs / f"{recipe}-{number}"):
        number += 1
    return f"{recipe}-{number}"


def _may_be_taken(folder: Path) -> bool:
    try:
        return is_taken(folder)
    except (OSError, ValueError):
        return True


def is_taken(folder: Path) -> bool:
    """Whether a folder holds more than the log of a run that was refused.

    Raises
    ------
    OSError, ValueError
        The folder around it cannot be read, or has no such names.
    """
    try:
        others = any(entry != LOG_NAME for entry in os.listdir(folder))
        return others or log_is_held(folder / LOG_NAME)
    except FileNotFoundError:
        return False
    except OSError:
        if os.path.lexists(folder):  # a file, or somebody else's
            return True
        raise
