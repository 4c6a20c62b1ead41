"""Changing a run's configuration by ``a.b=c``, and telling what can be changed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from simcrop_core.errors import SimCroPError
from simcrop_core.train.config import RunConfig
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.finetuning_classification import ClassificationRunConfig

Config = TypeVar("Config", bound=BaseModel)

AnyRunConfig = RunConfig | SegmentationRunConfig | ClassificationRunConfig
#: What a run's configuration is, by the word in its file.
CONFIGS: dict[str, type[AnyRunConfig]] = {
    kind.format: kind for kind in (RunConfig, SegmentationRunConfig, ClassificationRunConfig)
}
_SHOWN = 5
_UNION = "objective."


class Fault(NamedTuple):
    """What is wrong with a setting, and which: ``"optim.lr"``, a part of the configuration
    (``"run"``), or ``""`` where several parts do not go together."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def run_config_from(data: Any, *, path: str | None = None) -> RunConfig:
    """A checked configuration; a bad one becomes one sentence that lists what is wrong.

    Raises
    ------
    SimCroPError
        ``code="bad-config"``.
    """
    return checked(RunConfig, data, path)


def checked(kind: type[Config], data: Any, path: str | None = None) -> Config:
    """A checked configuration of a kind; errors as :func:`run_config_from`."""
    try:
        return kind.model_validate(data)
    except ValidationError as e:
        raise _bad_config([_fault(fault, data, kind) for fault in e.errors()], path) from e


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """The configuration with some fields changed.

    Parameters
    ----------
    config
        Stays as it is.
    settings
        ``"optim.lr=1e-3"``, ``"model.vision.depth=4"``, ``"data.store=null"``. Lists and objects
        are JSON. A new ``objective.kind`` starts from that objective's defaults.

    Raises
    ------
    SimCroPError
        A setting is not ``field=value``, or the fields together are not a configuration; all
        faults are named.
    """
    data, faults = _with(config, settings)
    if faults:
        raise _bad_config(faults, None)
    return checked(type(config), data)


def faults_of(config: BaseModel, settings: Sequence[str]) -> list[Fault]:
    """What :func:`with_settings` would refuse, one by one, for a form; empty where all is well."""
    data, faults = _with(config, settings)
    if faults:
        return faults
    try:
        type(config).model_validate(data)
    except ValidationError as e:
        return [_fault(fault, data, type(config)) for fault in e.errors()]
    return []


def _with(config: BaseModel, settings: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The configuration as plain data with the settings in it, and those that cannot be put."""
    data = config.model_dump(mode="json")
    faults: list[Fault] = []
    # Kinds first: they decide which other fields there are.
    for setting in sorted(settings, key=lambda s: not s.strip().startswith("objective.kind")):
        path, found, text = setting.partition("=")
        steps = path.strip().split(".")
        if not found or not all(steps):
            faults.append(Fault("", f"{setting!r} is not of the form field=value"))
            continue
        try:
            _put(data, steps, _value(text.strip()))
        except ValueError as e:
            faults.append(Fault(path.strip(), str(e)))
    return data, faults


def _value(text: str) -> Any:
    # Numbers stay text: pydantic reads them as the field's own type.
    if text in ("null", "none", "None"):
        return None
    if text[:1] in ("[", "{", '"'):
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(f"{text!r} is not JSON") from None
    return text


def _put(data: dict[str, Any], steps: Sequence[str], value: Any) -> None:
    if steps == ["objective", "kind"] and _kind(data) not in (None, value):
        data["objective"] = {}
    *parents, last = steps
    node: Any = data
    for step in parents:
        if node.get(step) is None:
            node[step] = {}
        node = node[step]
        if not isinstance(node, dict):
            raise ValueError("there is no such field")
    node[last] = value


def _kind(data: Any) -> str | None:
    """The kind of a configuration's objective; None where it has none, as probes."""
    objective = data.get("objective") if isinstance(data, Mapping) else None
    kind = objective.get("kind") if isinstance(objective, Mapping) else None
    return kind if isinstance(kind, str) else None


def _bad_config(faults: Sequence[Fault], path: str | None) -> SimCroPError:
    count = len(faults)
    more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    return SimCroPError(
        f"Found {count} error{'s' * (count != 1)} in the config: "
        f"{'; '.join(map(str, faults[:_SHOWN]))}{more}",
        code="bad-config",
        remedy="Correct these settings; `simcrop-train recipes --json` lists every field.",
        path=path,
    )


def _fault(fault: Any, data: Any, config: type[BaseModel]) -> Fault:
    """One fault of pydantic's in our words."""
    steps = [str(step) for step in fault["loc"]]
    kind = _kind(data)
    if len(steps) > 1 and steps[0] == "objective" and steps[1] == kind:
        del steps[1]  # the union's member, which is no field
    where = ".".join(steps)
    text = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
    if fault["type"] == "extra_forbidden":
        text = "there is no such field"
        near = difflib.get_close_matches(where, _paths(config, kind), 1)
        if near:
            text += f" (did you mean {near[0]}?)"
    elif fault["type"] == "missing":
        text = "is missing"
    elif not isinstance(fault.get("input"), Mapping | BaseModel) and "Value error" not in str(
        fault["msg"]
    ):
        text += f", not {fault.get('input')!r}"[:80]
    return Fault(where, text)


def _paths(config: type[BaseModel], kind: Any) -> list[str]:
    """All fields that can be set, with those of one kind of objective."""
    paths = [field["path"] for field in fields_of(config) if field["path"] != "objective"]
    objective = _objectives().get(kind) if "objective" in config.model_fields else None
    return paths + ([] if objective is None else [f["path"] for f in _fields(objective, _UNION)])


# -- what can be set ----------------------------------------------------------------------------


def fields_of(config: BaseModel | type[BaseModel]) -> list[dict[str, Any]]:
    """Every field that can be set, as plain data for a form.

    Each has ``path`` (``"optim.lr"``), ``type`` (``integer``, ``number``, ``boolean``, ``string``,
    ``choice``, ``list`` or ``object``), ``text``, ``default``, ``nullable`` and, where they apply,
    ``choices``, ``minimum``, ``maximum``, ``above``, ``below``. Given an instance, defaults are
    its values.
    """
    fields = list(_fields(config, ""))
    for field in fields:
        if field["path"] == f"{_UNION}kind":
            field |= {"choices": sorted(_objectives()), "text": "What the model learns from."}
    return fields


def _objectives() -> dict[str, type[BaseModel]]:
    """The settings of every objective, by kind."""
    members = get_args(RunConfig.model_fields["objective"].annotation)
    return {member.model_fields["kind"].default: member for member in members}


def _fields(config: BaseModel | type[BaseModel], prefix: str) -> Iterator[dict[str, Any]]:
    kind = config if isinstance(config, type) else type(config)
    for name, field in kind.model_fields.items():
        if name == "schema_version":
            continue
        value = _default(field) if isinstance(config, type) else getattr(config, name)
        inner, nullable = _without_none(field.annotation)
        nested = value if isinstance(value, BaseModel) else inner
        path = prefix + name
        if isinstance(nested, BaseModel) or (
            isinstance(nested, type) and issubclass(nested, BaseModel)
        ):
            if nullable:
                yield {
                    "path": path,
                    "type": "object",
                    "text": field.description or "",
                    "default": None if value is None else {},
                    "nullable": True,
                }
            if value is not None or not nullable:
                yield from _fields(nested, path + ".")
            continue
        yield {"path": path, **_described(field, inner, nullable, value)}


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [a for a in get_args(annotation) if a is not NoneType]
        nullable = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return _without_none(members[0])[0], nullable
        return annotation, nullable
    return annotation, False


def _described(field: FieldInfo, inner: Any, nullable: bool, value: Any) -> dict[str, Any]:
    annotation: Any = field.annotation
    for limit in field.metadata:
        annotation = Annotated[annotation, limit]
    schema = TypeAdapter(annotation).json_schema()
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            schema = {**schema, **option}
            break
    found: dict[str, Any] = {
        "type": {"array": "list"}.get(schema.get("type", ""), schema.get("type", "object")),
        "text": field.description or "",
        "default": TypeAdapter(Any).dump_python(value, mode="json"),
        "nullable": nullable,
    }
    if get_origin(inner) is Literal:
        found |= {"type": "choice", "choices": list(get_args(inner))}
    names = {
        "minimum": "minimum",
        "maximum": "maximum",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
    }
    found |= {ours: schema[theirs] for theirs, ours in names.items() if theirs in schema}
    return found
