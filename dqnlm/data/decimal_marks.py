"""Numbers with a comma in the reward columns of CSV and TSV: it can be a decimal comma, or divide thousands.

    1,000        either, unless the column has a number where it can only be a decimal comma (0,5)
    1.234        a decimal point, unless the column has commas: then the point may divide thousands
    0,5  2,25    a decimal comma
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dqnlm.errors import UserError

_COMMA = re.compile(r"[+-]?\d+,\d+")
_POINT = re.compile(r"[+-]?\d*\.\d+")
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")  # also a number of thousands

_GROUPED = re.compile(r"([+-]?\d{1,3})((?:,\d{3})+(?:\.\d+)?|(?:\.\d{3})+(?:,\d+)?)")  # 1,234.5 and 1.234.567


class Marks(NamedTuple):
    """What the numbers of a column have.

    Attributes:
        comma: a comma.
        decimal_comma: a comma that cannot divide thousands.
        point: a point.
    """

    comma: bool
    decimal_comma: bool
    point: bool


def marks_of(column: Iterable[str]) -> Marks:
    """Of the cells of a column."""
    cells = [cell.strip() for cell in column]
    commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
    return Marks(bool(commas), not all(map(_EITHER.fullmatch, commas)), any(map(_POINT.fullmatch, cells)))


def number_in(cell: str, where: str, between_commas: bool, marks: Callable[[], Marks]) -> float | str:
    """The number that a cell with a comma stands for; any other cell as it is.

    Args:
        cell: of a reward column.
        where: "FILE, row 3: reward", for messages.
        between_commas: commas separate the cells.
        marks: of its column, asked for only where they decide.

    Raises:
        UserError: a mark divides thousands, or may be either that or a decimal mark; or a comma where commas separate cells.
    """
    text = cell.strip()
    if _GROUPED.fullmatch(text) and len(re.findall("[.,]", text)) > 1:
        plain = _plain(text)
        raise UserError(f"{where} is {text!r}: write the column without marks of thousands and with decimal points: {plain}")
    comma, either = _COMMA.fullmatch(text) is not None, _EITHER.fullmatch(text) is not None
    if comma and between_commas:
        point = text.replace(",", ".")
        raise _ambiguous(text, where) if either else UserError(
            f"{where} is {text!r}; where commas separate cells, write it with a decimal point: {point}"
        )
    if either and not between_commas:
        others = marks()
        if (comma and (others.point or not others.decimal_comma)) or (not comma and others.comma):
            raise _ambiguous(text, where)
    return float(text.replace(",", ".")) if comma else cell


def _plain(grouped: str) -> str:
    first, *_, last = re.findall("[.,]", grouped)
    return grouped.replace(first, "").replace(",", ".") if first != last else grouped.replace(first, "")


def _ambiguous(text: str, where: str) -> UserError:
    mark = "comma" if "," in text else "point"
    thousands, decimal = re.sub("[.,]", "", text), text.replace(",", ".")
    return UserError(
        f"{where} is {text!r}: {thousands} if the {mark} divides thousands, {decimal} if it is a decimal {mark}. Write the whole "
        f"column without marks of thousands and with decimal points: here {thousands}, or {float(decimal):g}"
    )
