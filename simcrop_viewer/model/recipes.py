"""Recipes of training as the command tells them: what can be run, and each field that can be set.

Nothing here knows the configurations themselves, so that every kind of run has its form.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NONE = "None: "
_OR_NAME = re.compile(r"\bby folder or name\b|\bhub id\b")
_PRESET = "None: as in the preset."


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a recipe.

    Attributes
    ----------
    path, kind, text, default, nullable, choices
        As ``simcrop-train recipes --json`` tells them; ``kind`` is its ``type``.
    minimum, maximum, above, below
        Limits of a number, or None.
    """

    path: str
    kind: str
    text: str = ""
    default: Any = None
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Setting:
        names = ("path", "text", "default", "nullable", "minimum", "maximum", "above", "below")
        given = {name: told[name] for name in names if name in told}
        return cls(kind=told["type"], choices=tuple(told.get("choices", ())), **given)

    @property
    def section(self) -> str:
        """The part of the configuration that it belongs to, such as ``"optim"``; or ``""``."""
        return self.path.partition(".")[0] if "." in self.path else ""

    @property
    def is_folder(self) -> bool:
        """Whether a folder can be given."""
        return self.kind == "string" and (
            "folder" in self.text.lower() or self.path.endswith("folder")
        )

    def settled(self, value: Any) -> Any:
        """A value that means the same wherever the run goes on: folders from the root.

        Where a name may be given too, only what is surely a folder is taken for one.
        """
        if not self.is_folder or not isinstance(value, str) or not value:
            return value
        path = Path(value)
        with suppress(RuntimeError):  # nobody's home
            path = path.expanduser()
        if _OR_NAME.search(self.text) and value[0] not in ".~":
            try:
                if value in self.text.replace(",", "").split() or not path.is_dir():
                    return value
            except OSError:
                return value
        return str(path.absolute())

    @property
    def when_none(self) -> str:
        """What no value means."""
        start = self.text.find(_NONE)
        if start < 0:
            return "none"
        return self.text[start + len(_NONE) :].strip().rstrip(".")

    @property
    def about(self) -> str:
        """Its text, its name for ``--set``, its limits and what the recipe says."""
        limits = self.limits
        lines = [self.text.replace(_PRESET, "").strip(), "", f"--set {self.path}=..."]
        lines += [limits] if limits else []
        default = self.when_none if self.default is None else self.shown(self.default)
        return "\n".join([*lines, f"In the recipe: {default}."]).strip()

    @property
    def limits(self) -> str:
        """Which numbers there may be, as a sentence; or ``""``."""
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"From {_limit(low)} to {_limit(high)}."
        parts = [
            (self.above, "above {}"),
            (low, "{} or more"),
            (self.below, "below {}"),
            (high, "{} or less"),
        ]
        said = " and ".join(words.format(_limit(at)) for at, words in parts if at is not None)
        return f"{said[:1].upper()}{said[1:]}." if said else ""

    # -- values and how they are typed ----------------------------------------------------------

    def shown(self, value: Any) -> str:
        """A value as it is typed; None is typed as nothing."""
        if value is None:
            return ""
        if isinstance(value, bool | list | dict | tuple):
            return json.dumps(value)
        return (
            f"{value:g}"
            if isinstance(value, float) and float(f"{value:g}") == value
            else str(value)
        )

    def value(self, typed: str) -> Any:
        """The value that was typed.

        Raises
        ------
        ValueError
            It is none, as a short sentence.
        """
        text = typed.strip()
        if not text:
            if self.nullable:
                return None
            raise ValueError("A value is needed.")
        if self.choices:
            for choice in self.choices:
                if str(choice) == text:
                    return choice
            raise ValueError(f"One of {', '.join(map(str, self.choices))}.")
        if self.kind == "boolean":
            if text not in ("true", "false"):
                raise ValueError("true or false.")
            return text == "true"
        if self.kind in ("integer", "number"):
            return self._number(text)
        if self.kind in ("list", "object"):
            return self._tree(text)
        return text

    def _number(self, text: str) -> float | int:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise ValueError("A number is needed.")
        if self.kind == "integer" and found != int(found):
            raise ValueError("A whole number is needed.")
        if (
            (self.minimum is not None and found < self.minimum)
            or (self.maximum is not None and found > self.maximum)
            or (self.above is not None and found <= self.above)
            or (self.below is not None and found >= self.below)
        ):
            raise ValueError(self.limits)
        return int(found) if self.kind == "integer" else found

    def _tree(self, text: str) -> Any:
        if self.kind == "list" and not text.startswith("["):
            text = f"[{text}]"
        try:
            return json.loads(text)
        except ValueError:
            example = "[48, 40, 32]" if self.kind == "list" else '{"name": 1}'
            raise ValueError(f"Written like {example}.") from None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named start for a run: a line about it, and its fields."""

    name: str
    text: str
    settings: tuple[Setting, ...]

    def __getitem__(self, path: str) -> Setting:
        return next(setting for setting in self.settings if setting.path == path)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(setting.path for setting in self.settings)


def _limit(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def recipes_from(told: Mapping[str, Any]) -> tuple[Recipe, ...]:
    """What ``simcrop-train recipes --json`` answers, as recipes."""
    return tuple(
        Recipe(one["name"], one["text"], tuple(Setting.of(field) for field in one["fields"]))
        for one in told["recipes"]
    )


def setting_words(path: str, value: Any) -> str:
    """``a.b=c`` as ``--set`` reads it back to the same value."""
    if value is None:
        return f"{path}=null"
    if isinstance(value, str):
        taken = value[:1] in ("[", "{", '"') or value in ("null", "none", "None", "")
        return f"{path}={json.dumps(value) if taken or value != value.strip() else value}"
    return f"{path}={json.dumps(value)}"


def settings_of_run(recipe: Recipe, config: Mapping[str, Any]) -> list[str]:
    """What has to be set in a recipe to get a run's configuration (plain data) again."""
    there = leaves(config)
    before = {setting.path: setting.default for setting in recipe.settings}
    changed = {p: v for p, v in there.items() if p not in before or before[p] != v}
    for path in before:  # parts that the run has not
        parts = path.split(".")
        for end in range(1, len(parts)):
            above = ".".join(parts[:end])
            if above in there and there[above] is None:
                changed[above] = None
    changed.pop("schema_version", None)
    # Kinds decide which other fields there are.
    order = sorted(changed, key=lambda path: not path.endswith(".kind"))
    return [setting_words(path, changed[path]) for path in order]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a configuration (plain data) by their paths."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def run_words(
    recipe: str, folder: str, settings: Sequence[str], *, resume: bool = False
) -> list[str]:
    """The words of ``simcrop-train`` that start a run, or go on with one."""
    words = ["run", recipe, "--out", folder]
    for setting in settings:
        words += ["--set", setting]
    return [*words, "--resume"] if resume else words


def as_line(words: Sequence[str]) -> str:
    """A command as the system's own shell takes it."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
