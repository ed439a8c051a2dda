"""YAML documents that remember on which line each value stands."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from tasks.errors import SpecMistake


class _Loader(yaml.SafeLoader):
    """Reads `1e-4` as the number that it is in YAML 1.2; PyYAML follows 1.1, where it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value: `("space", 0, "scheme")`."""


@dataclass(frozen=True)
class Document:
    """Plain values read from a YAML text."""

    origin: str
    """What to call the text in messages."""

    values: Any
    """Dicts, lists and scalars."""

    lines: dict[Place, int]
    """Line, counted from 1, of each value."""

    def line_of(self, place: Place) -> int:
        """Returns the line of a value, or of the nearest value around it that exists."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


@dataclass(frozen=True, order=True)
class Problem:
    """One broken rule."""

    line: int
    """Line of the offending value."""

    message: str
    """The rule, the value got and the choices."""


def refuse(origin: str, problems: list[Problem]) -> None:
    """Refuses a document with all its problems in one message.

    Args:
        origin: What to call the document.
        problems: The broken rules; none is fine.

    Raises:
        SpecMistake: If there is a problem.
    """
    if problems:
        counted = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "".join(f"\n  line {problem.line}: {problem.message}" for problem in sorted(set(problems)))
        raise SpecMistake(f"{origin} has {counted}:{listed}")


def read_document(text: str, origin: str) -> Document:
    """Reads YAML.

    Args:
        text: The content of a file.
        origin: What to call it in messages.

    Returns:
        The document.

    Raises:
        SpecMistake: If the text is not YAML, or a key stands twice in one mapping.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecMistake(f"{origin} is not YAML: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SpecMistake(f"{origin} is not YAML: {error}") from error
    lines: dict[Place, int] = {}
    problems: list[Problem] = []
    if node is not None:
        _walk(node, (), lines, problems)
    refuse(origin, problems)
    return Document(origin, values, lines)


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[Problem]) -> None:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*place, index), lines, problems)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            if inner in lines:
                problems.append(Problem(key.start_mark.line + 1, f"the key {key.value!r} stands twice"))
            _walk(value, inner, lines, problems)
            lines[inner] = key.start_mark.line + 1
