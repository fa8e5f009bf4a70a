# SPDX-License-Identifier: Apache-2.0
"""query-qmp-schema: the interface described in JSON, made from the declared types.

As in QEMU a type's name is a number, so that clients look at what a type is and not
at what it is called (docs/devel/qapi-code-gen, "Client JSON Protocol introspection").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from blockyard.errors import BlockyardError
from blockyard.schema.shape import (
    AlternateShape,
    ArrayShape,
    BuiltinShape,
    EnumShape,
    MemberShape,
    ObjectShape,
    Shape,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CommandLike", "EventLike", "introspect"]

#: JSON type -> the name that introspection has for the built-in.
_BUILTINS = {
    "int": "int",
    "string": "str",
    "boolean": "bool",
    "number": "number",
    "null": "null",
    "value": "any",
}


class CommandLike(Protocol):
    """What is asked of a command's declaration."""

    @property
    def name(self) -> str:
        """Its name on the wire."""

    @property
    def args(self) -> Any:
        """The type of its arguments; None when it has none."""

    @property
    def returns(self) -> Any:
        """The type of its answer; None for an empty object."""

    @property
    def features(self) -> tuple[str, ...]:
        """QAPI features."""


class EventLike(Protocol):
    """What is asked of an event's declaration."""

    @property
    def name(self) -> str:
        """Its name on the wire."""

    @property
    def data(self) -> Any:
        """The struct of its data."""

    @property
    def features(self) -> tuple[str, ...]:
        """QAPI features."""


def introspect(commands: Iterable[CommandLike], events: Iterable[EventLike]) -> list[Any]:
    """The list of SchemaInfo, as JSON data: commands, events, then every type they reach."""
    return _Introspection().run(commands, events)


class _Introspection:
    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._todo: list[Shape | None] = []
        self._found: list[dict[str, Any]] = []

    def run(self, commands: Iterable[CommandLike], events: Iterable[EventLike]) -> list[Any]:
        for command in commands:
            self._command(command)
        for event in events:
            self._found.append(
                {
                    "name": event.name,
                    "meta-type": "event",
                    "arg-type": self._annotated(event.data),
                    **_features(event.features),
                }
            )
        for shape in self._todo:  # grows while it is walked
            self._found.append(self._describe(shape))
        return self._found

    def _command(self, command: CommandLike) -> None:
        info = {
            "name": command.name,
            "meta-type": "command",
            "arg-type": self._annotated(command.args),
            "ret-type": self._annotated(command.returns),
            **_features(command.features),
        }
        if getattr(command, "allow_oob", False):
            info["allow-oob"] = True
        self._found.append(info)

    def _annotated(self, annotation: Any) -> str:
        return self._name(None if annotation is None else shape_of(annotation))

    def _name(self, shape: Shape | None) -> str:
        """The name of a type, which is described if it was not before; None is the empty object."""
        if isinstance(shape, ArrayShape):
            name = f"[{self._name(shape.element)}]"
            return self._once(name, name, shape)
        if isinstance(shape, BuiltinShape):
            name = _BUILTINS[shape.json]
            return self._once(name, name, shape)
        return self._once(shape, str(len(self._names)), shape)

    def _once(self, key: Any, name: str, shape: Shape | None) -> str:
        if key not in self._names:
            self._names[key] = name
            self._todo.append(shape)
        return self._names[key]

    def _describe(self, shape: Shape | None) -> dict[str, Any]:
        name = self._name(shape)
        if isinstance(shape, BuiltinShape):
            return {"name": name, "meta-type": "builtin", "json-type": shape.json}
        if isinstance(shape, ArrayShape):
            element = self._name(shape.element)
            return {"name": name, "meta-type": "array", "element-type": element}
        if isinstance(shape, EnumShape):
            return {"name": name, "meta-type": "enum", **_enum(shape)}
        if isinstance(shape, AlternateShape):
            members = [{"type": self._name(branch)} for branch in shape.branches.values()]
            return {"name": name, "meta-type": "alternate", "members": members}
        return {"name": name, "meta-type": "object", **self._object(shape)}

    def _object(self, shape: ObjectShape | None) -> dict[str, Any]:
        if shape is None:
            return {"members": []}
        info: dict[str, Any] = {"members": [self._member(member) for member in shape.members]}
        if shape.tag is not None:
            info["tag"] = shape.tag.name
            info["variants"] = list(self._variants(shape))
        return info | _features(shape.features)

    def _variants(self, shape: ObjectShape) -> Iterator[dict[str, str]]:
        for case in shape.cases():
            try:
                branch = shape.branch(case)
            except BlockyardError:
                continue  # a broken plugin harms only itself
            yield {"case": case, "type": self._name(branch)}

    def _member(self, member: MemberShape) -> dict[str, Any]:
        info: dict[str, Any] = {"name": member.name, "type": self._name(member.shape)}
        if member.optional:
            info["default"] = None
        return info | _features(member.features)


def _enum(shape: EnumShape) -> dict[str, Any]:
    values = shape.values()
    members = [
        {"name": value, **_features(shape.value_features.get(value, ()))} for value in values
    ]
    return {"members": members, "values": values, **_features(shape.features)}


def _features(features: Iterable[str]) -> dict[str, Any]:
    names = list(features)
    return {"features": names} if names else {}
