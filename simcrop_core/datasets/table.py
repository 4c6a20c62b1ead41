"""Tables in csv files, read as a person wrote them and refused in one sentence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simcrop_core.errors import SimCroPError

#: A cell may hold a whole report.
_LONGEST_CELL = 1_000_000


@dataclass(frozen=True, slots=True)
class TableForm:
    """The columns of a csv that people write for us, and how one of another form is refused.

    Attributes
    ----------
    required
        Columns that must be there, with something in each row unless named in ``may_be_blank``.
    optional
        Columns that may be there; any other is refused.
    code, remedy
        Of the :class:`~simcrop_core.errors.SimCroPError`.
    also
        Whether a column of another name means something.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    code: str
    remedy: str
    may_be_blank: tuple[str, ...] = ()
    also: Callable[[str], bool] = lambda name: False

    def read(self, path: Path) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
        """The columns, and the rows with their numbers in the file (the header is row 1).

        Raises
        ------
        SimCroPError
            ``missing``, ``csv`` or ``empty``; or the form's code, in a sentence that names the
            column and the row.
        """
        header, rows = read_table(path)
        for name in self.required:
            if name not in header:
                raise self.refusal(path, f"The csv lacks the column {name}")
        for name in header:
            if name not in (*self.required, *self.optional) and not self.also(name):
                raise self.refusal(path, f"The csv has a column {name[:40]!r} that means nothing")
        for number, row in enumerate(rows, start=2):
            for name in self.required:
                if not row[name] and name not in self.may_be_blank:
                    raise self.refusal(path, f"Row {number}: The column {name} is blank")
        return header, list(enumerate(rows, start=2))

    def refusal(self, path: Path, problem: str) -> SimCroPError:
        """A sentence about a csv, with what one of this form looks like."""
        return SimCroPError(problem, path=path, code=self.code, remedy=self.remedy)


@contextmanager
def of_row(number: int) -> Iterator[None]:
    """Name the row in what is refused."""
    try:
        yield
    except SimCroPError as e:
        raise SimCroPError(
            f"Row {number}: {e.problem}", code=e.code, remedy=e.remedy, path=e.path
        ) from e


def there(path: Path, column: str) -> str:
    """The absolute path of a cell's file or folder, refused where it is not there."""
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = False
    if not found:
        raise SimCroPError(
            f"The file of the column {column} is not there",
            path=path,
            code="missing",
            remedy="Check the name; paths start at the csv's folder.",
        )
    return str(path.absolute())


def read_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Header and rows of a csv in UTF-8; cells without the space around them.

    Raises
    ------
    SimCroPError
        ``missing``, ``csv`` or ``empty``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            limit = csv.field_size_limit(_LONGEST_CELL)
            try:
                reader = csv.DictReader(file, strict=True)
                header = tuple((reader.fieldnames and [n.strip() for n in reader.fieldnames]) or ())
                reader.fieldnames = list(header)
                rows = list(reader)
            finally:
                csv.field_size_limit(limit)
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no such file", path=path, code="missing", remedy="Check the name."
        ) from e
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise _bad(path, "This cannot be read as a csv file in UTF-8") from e
    if len(set(header)) < len(header):
        raise _bad(path, "A column is there twice")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or any("\0" in cell for cell in row.values()):
            raise _bad(path, f"Row {number} is damaged or not as long as the header")
    if not rows:
        raise SimCroPError(
            "The csv has no rows", path=path, code="empty", remedy="Give a csv with studies in it."
        )
    return header, [{name: cell.strip() for name, cell in row.items()} for row in rows]


def header_of(path: Path) -> tuple[str, ...]:
    """The columns of a csv, or none where it cannot be read or is no file, such as a pipe."""
    try:
        if not path.is_file():
            return ()
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(100_000)
        return tuple(name.strip() for name in next(csv.reader([line]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def labels_in(row: Mapping[str, str], names: tuple[str, ...], path: Path) -> dict[str, int]:
    """The labels in a row (0 or 1, also as 0.0 and 1.0); blank ones are left out.

    Raises
    ------
    SimCroPError
        ``bad-label``.
    """
    found = {}
    for name in names:
        cell = row.get(name, "")
        if cell in ("", "nan", "NaN", "-1", "-1.0"):
            continue
        if cell not in ("0", "1", "0.0", "1.0"):
            raise SimCroPError(
                f"The label {name!r} is {cell[:20]!r}, not 0 or 1",
                path=path,
                code="bad-label",
                remedy="Correct the csv, or leave the cell empty where nobody knows.",
            )
        found[name] = int(cell[0])
    return found


def _bad(path: Path, problem: str) -> SimCroPError:
    return SimCroPError(
        problem,
        path=path,
        code="csv",
        remedy="Fetch the file again, or check its quotation marks.",
    )
