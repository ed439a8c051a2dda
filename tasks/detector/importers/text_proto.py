"""Protocol buffers in text form (`pipeline.config`), read without their schema.

Source: the Text Format Language Specification, protobuf.dev/reference/protobuf/textformat-spec.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.errors import ModelMistake

Scalar = float | bool | str

_TOKEN = re.compile(
    r"""\s*(?:
        \#[^\n]*
        | (?P<text>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
        | (?P<mark>[{}<>\[\]:,;])
        | (?P<word>[^\s{}<>\[\]:,;"'\#]+)
    )""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_DEEPEST = 50


@dataclass
class Message:
    """A message: its fields in the order of the file."""

    fields: list[tuple[str, "Scalar | Message"]] = field(default_factory=list)
    """(name, value) pairs; a repeated field has several. Numbers are floats, enumeration values strings."""

    def message(self, *path: str) -> "Message":
        """Returns the message at a path of field names, an empty one where the path ends."""
        found = self
        for name in path:
            inner = [value for key, value in found.fields if key == name and isinstance(value, Message)]
            found = inner[-1] if inner else Message()
        return found

    def has(self, name: str) -> bool:
        """Says whether the field is written."""
        return any(key == name for key, _ in self.fields)

    def scalars(self, name: str) -> list[Scalar]:
        """Returns all values of a repeated field that are not messages."""
        return [value for key, value in self.fields if key == name and not isinstance(value, Message)]

    def number(self, name: str, default: float) -> float:
        """Returns a number.

        Args:
            name: Field name.
            default: Its value where it is not written.

        Returns:
            The value written last.

        Raises:
            ModelMistake: If the value is no number.
        """
        value = (self.scalars(name) or [default])[-1]
        if isinstance(value, bool | str):
            raise ModelMistake(f"{name} is {value!r}; it must be a number")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Returns a truth value, `default` where it is not written; raises `ModelMistake` if it is none."""
        value = (self.scalars(name) or [default])[-1]
        if not isinstance(value, bool):
            raise ModelMistake(f"{name} is {value!r}; it must be true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """Returns a string or enumeration value, `default` where it is not written."""
        return str((self.scalars(name) or [default])[-1])


def parse(text: str, origin: str) -> Message:
    """Reads a message.

    Args:
        text: Content of the file.
        origin: What to call the file in an error.

    Returns:
        The message.

    Raises:
        ModelMistake: If brackets, names and values do not follow the language.
    """
    tokens = list(_tokens(text, origin))
    message, end = _message(tokens, 0, "", origin, 0)
    if end != len(tokens):
        raise _mistake(tokens, end, origin)
    return message


def _tokens(text: str, origin: str) -> Iterator[tuple[str, int]]:
    place = 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ModelMistake(f"{origin}, line {text.count(chr(10), 0, place) + 1}: a string is not closed")
        place = found.end()
        token = found["text"] or found["mark"] or found["word"]
        if token and token not in ",;":
            yield token, text.count("\n", 0, place) + 1


def _mistake(tokens: list[tuple[str, int]], place: int, origin: str) -> ModelMistake:
    if place < len(tokens):
        return ModelMistake(f"{origin}, line {tokens[place][1]}: {tokens[place][0]!r} is not expected here")
    return ModelMistake(f"{origin} ends within a message; is it truncated?")


def _message(tokens: list[tuple[str, int]], place: int, closing: str, origin: str, depth: int) -> tuple[Message, int]:
    message = Message()
    while place < len(tokens) and tokens[place][0] != closing:
        name = tokens[place][0]
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or place + 1 >= len(tokens) or depth > _DEEPEST:
            raise _mistake(tokens, place if name in "{}<>[]:" else place + 1, origin)
        place += 1
        colon = tokens[place][0] == ":"
        place += colon
        if place < len(tokens) and tokens[place][0] in _CLOSING:
            end = _CLOSING[tokens[place][0]]
            inner, place = _message(tokens, place + 1, end, origin, depth + 1)
            if place >= len(tokens):
                raise _mistake(tokens, place, origin)
            message.fields.append((name, inner))
            place += 1
        elif colon:
            values, place = _values(tokens, place, origin)
            message.fields += [(name, value) for value in values]
        else:
            raise _mistake(tokens, place, origin)
    return message, place


def _values(tokens: list[tuple[str, int]], place: int, origin: str) -> tuple[list[Scalar], int]:
    if place < len(tokens) and tokens[place][0] == "[":
        end = next((index for index in range(place, len(tokens)) if tokens[index][0] == "]"), len(tokens))
        if end == len(tokens):
            raise _mistake(tokens, end, origin)
        return [_scalar(tokens, index, origin) for index in range(place + 1, end)], end + 1
    return [_scalar(tokens, place, origin)], place + 1


def _scalar(tokens: list[tuple[str, int]], place: int, origin: str) -> Scalar:
    if place >= len(tokens) or tokens[place][0] in "{}<>[]:":
        raise _mistake(tokens, place, origin)
    token = tokens[place][0]
    if token[0] in "\"'":
        return token[1:-1]
    if token in ("true", "false"):
        return token == "true"
    try:
        return float(token)
    except ValueError:
        return token
