"""Objects of a JSON file one after the other, in constant memory: one a line, or one list of them."""

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from lit_seqlm.data.table_rows import opened
from lit_seqlm.errors import UserError

CHUNK = 2**20  # characters
UNFINISHED = 64  # a fault so near the end of what was read may be mended by what follows
BETWEEN = " \t\r\n"


def read_json_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of the line, from 1, and object of each line, plain or ``.gz``; blank lines mean nothing.

    Raises:
        UserError: for a line that is no JSON object, and for a file without any.
    """
    with opened(path) as file:
        yield from parse_json_lines(file, path)


def parse_json_lines(lines: Iterable[str], where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_json_lines`; `where` names the lines in messages."""
    found = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}, line {number}: not JSON ({_told(error)}).") from None
        if not isinstance(value, dict):
            raise UserError(f"{where}, line {number}: {_kind(value)}, where an object is wanted.")
        found = True
        yield number, value
    if not found:
        raise UserError(f"{where} has no line with a JSON object.")


def read_json_list(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that is one list of them, plain or ``.gz``.

    Raises:
        UserError: for a file that is none, with the number of the record; and for text after its end.
    """
    with opened(path) as file:
        yield from _Elements(file, path)


class _Elements:
    """Elements of a list, of whose text no more is held than the longest of them needs, and a chunk."""

    def __init__(self, file: IO[str], where: str):
        self.file, self.where = file, where
        self.text, self.place, self.number = "", 0, 0
        self.decode = json.JSONDecoder().raw_decode

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._expect("[")
        if self._next_sign() == "]":
            self.place += 1
        else:
            yield self._element()
            while self._expect(",]") == ",":
                yield self._element()
        if sign := self._next_sign():
            raise UserError(f"{self.where}: {sign!r} after the end of the list.")

    def _element(self) -> dict[str, Any]:
        self.number += 1
        self._next_sign()
        size = CHUNK
        while True:
            try:
                value, end = self.decode(self.text, self.place)
                break
            except (ValueError, RecursionError) as error:
                # More and more at once: else a long record is read again and again.
                if not self._may_be_mended(error) or not self._more(size):
                    raise UserError(
                        f"{self.where}, record {self.number}: not JSON, or cut off ({_told(error)})."
                    ) from None
                size *= 2
        if not isinstance(value, dict):
            raise UserError(
                f"{self.where}, record {self.number}: {_kind(value)}, where an object is wanted."
            )
        self.place = end
        return value

    def _may_be_mended(self, error: ValueError | RecursionError) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated") or len(self.text) - error.pos < UNFINISHED

    def _expect(self, signs: str) -> str:
        found = self._next_sign()
        if not found or found not in signs:
            said = f"{found!r}" if found else "the end of the file"
            after = f"after record {self.number}" if self.number else "at its beginning"
            raise UserError(
                f"{self.where}, {after}: {said}, where {' or '.join(signs)} is wanted. "
                "It is no list of objects, or cut off."
            )
        self.place += 1
        return found

    def _next_sign(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.place < len(self.text):
                if self.text[self.place] not in BETWEEN:
                    return self.text[self.place]
                self.place += 1
            if not self._more(CHUNK):
                return ""

    def _more(self, size: int) -> bool:
        chunk = self.file.read(size)
        self.text, self.place = self.text[self.place :] + chunk, 0
        return bool(chunk)


def _told(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return str(error) if isinstance(error, ValueError) else "nested too deeply"


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
