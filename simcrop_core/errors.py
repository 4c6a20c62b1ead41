"""The one error a person meets: what file, what is wrong, what to do."""

from __future__ import annotations

from os import PathLike, fspath


class SimCroPError(ValueError):
    """A refusal in one plain sentence.

    Parameters
    ----------
    problem
        What is wrong, as a sentence without the file's name.
    code
        A short stable name for the kind of fault (``"truncated"``), for programs and tests.
    remedy
        What the person can do about it, as a sentence.
    path
        The file or folder it is about, if it is about one.
    """

    def __init__(
        self,
        problem: str,
        *,
        code: str,
        remedy: str,
        path: str | PathLike[str] | None = None,
    ) -> None:
        self.problem = sentence(problem)
        self.code = code
        self.remedy = sentence(remedy)
        self.path = None if path is None else fspath(path)
        super().__init__(str(self))

    def __str__(self) -> str:
        # A file's name may hold anything, also what is no text: shown as a question mark.
        shown = "".join(c if c.isprintable() else "?" for c in self.path or "")
        where = f"{shown}: " if shown else ""
        return f"{where}{self.problem} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Refusals travel between processes (importer, batch workers), keywords and all.
        return (_rebuild, (self.problem, self.code, self.remedy, self.path))


def _rebuild(problem: str, code: str, remedy: str, path: str | None) -> SimCroPError:
    return SimCroPError(problem, code=code, remedy=remedy, path=path)


def sentence(text: str) -> str:
    """One line, ending as a sentence does (control characters would break a terminal's line)."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if not line or line[-1] in ".!?" else f"{line}."
