"""A session on disk: what was open and how it was looked at; no pixels, no text of a report."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen
from simcrop_core.outputs import whole_file
from simcrop_core.report import Report
from simcrop_viewer.model.figure import FigureSettings
from simcrop_viewer.model.overlay import OverlaySettings
from simcrop_viewer.model.session import MOST_SELECTED, Session

FORMAT = "simcrop-session"
VERSION = 1
SUFFIX = ".simcrop"
_MOST_BYTES = 1 << 20


class SavedFile(Frozen):
    """Where something was, and what it was.

    Attributes
    ----------
    path
        Absolute.
    beside
        The same place as seen from the session's folder, so that all may move together.
    digest
        Of a scan's voxels and geometry, of a report's text, of a model's weights and settings.
    which
        The series of a DICOM folder, or the row of a csv of reports, where there are several.
    """

    path: str = Field(min_length=1)
    beside: str | None = None
    digest: str = Field(min_length=8)
    which: str | None = None

    def find(self, what: str, session: Path) -> Path:
        """Where it is now.

        Raises
        ------
        SimCroPError
            ``session-file-missing``.
        """
        # Beside the session first: a folder that was copied goes with its own files.
        places = [Path(self.path)]
        if self.beside is not None:
            places.insert(0, Path(os.path.normpath(session.absolute().parent / self.beside)))
        for place in places:
            if os.path.exists(place):  # also says no to what can be no path at all
                return place
        raise SimCroPError(
            f"The {what} of this session is not where it was",
            path=self.path,
            code="session-file-missing",
            remedy="Put it back, or open the study from where it is now.",
        )

    def check(self, what: str, digest: str) -> None:
        """Refuse what is not what was saved.

        Raises
        ------
        SimCroPError
            ``session-file-changed``.
        """
        if digest != self.digest:
            raise SimCroPError(
                f"The {what} is no longer the one that this session was saved with",
                path=self.path,
                code="session-file-changed",
                remedy="Put the earlier one back, or open the study afresh and save it anew.",
            )


class SavedSession(Frozen):
    """What is in a ``.simcrop`` file."""

    format: Literal["simcrop-session"] = "simcrop-session"
    version: Literal[1] = 1
    scan: SavedFile
    report: SavedFile | None
    model: SavedFile | None
    placement: Literal["center", "lungs", "tiled"] = "center"
    questions: tuple[str, ...]
    selection: tuple[int, ...] = Field(max_length=MOST_SELECTED)
    position_mm: tuple[float, float, float]
    window: tuple[float, float]
    overlay: OverlaySettings
    figure: FigureSettings

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        SimCroPError
            ``cannot-write``.
        """
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        with whole_file(path) as hidden:
            hidden.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> SavedSession:
        """Read what `write` wrote.

        Raises
        ------
        SimCroPError
            ``not-a-session``, ``newer-session`` or ``unreadable``.
        """
        try:
            if path.exists() and not path.is_file():  # a pipe would never answer
                raise OSError
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("larger than a session is")
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise ValueError("it does not call itself a session")
            version = data.get("version")
            if isinstance(version, int) and version > VERSION:
                raise SimCroPError(
                    f"The session was saved by a newer version (layout {version})",
                    path=path,
                    code="newer-session",
                    remedy="Update SimCroP Viewer.",
                )
            return cls.model_validate_json(json.dumps(data))
        except SimCroPError:
            raise
        except OSError as e:
            raise SimCroPError(
                "The session cannot be read",
                path=path,
                code="unreadable",
                remedy="Check that it is there and that you may read it.",
            ) from e
        except ValidationError as e:
            fault = e.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise _not_a_session(path, f"{where}: {fault['msg']}") from e
        except (ValueError, RecursionError) as e:
            raise _not_a_session(path, "") from e


def saved_session(
    session: Session,
    figure: FigureSettings,
    model: tuple[str, str] | None,
    path: Path,
    placement: Literal["center", "lungs", "tiled"] = "center",
) -> SavedSession:
    """What is open now, to be written at ``path``.

    Parameters
    ----------
    model
        Folder and id of the model in use.
    placement
        Of the model's input in the scan.

    Raises
    ------
    SimCroPError
        No scan is open, or scan or report did not come from a file.
    """
    study = session.study
    if study is None:
        raise SimCroPError("No scan is open", code="no-scan", remedy="Open one first.")
    report = study.report
    if study.volume.source is None or (report is not None and report.source is None):
        raise SimCroPError(
            f"The {'report' if study.volume.source else 'scan'} did not come from a file, and a "
            "session holds places of files only",
            code="no-file",
            remedy="Save it as a file, open that, and save the session then.",
        )

    def file(place: Path | str, digest: str, which: str | None = None) -> SavedFile:
        full = os.path.abspath(place)
        if not is_text(full):
            raise SimCroPError(
                "A file of this study has a name that is no text, which a session cannot hold",
                path=full,
                code="bad-path",
                remedy="Rename the file or its folder, and open it again.",
            )
        try:
            beside = Path(os.path.relpath(full, path.absolute().parent)).as_posix()
        except ValueError:  # another drive
            beside = None
        return SavedFile(path=full, beside=beside, digest=digest, which=which or None)

    x, y, z = (float(value) for value in session.position_mm)
    return SavedSession(
        scan=file(study.volume.source, study.volume.sha256, study.series),
        report=None
        if report is None
        else file(str(report.source), report_digest(report), study.volume_name),
        model=None if model is None else file(*model),
        placement=placement,
        questions=tuple(s.text for s in session.statements if s.is_query),
        selection=session.selection,
        position_mm=(x, y, z),
        window=(session.window.width, session.window.level),
        overlay=session.overlay.model_copy(),
        figure=figure.model_copy(),
    )


def report_digest(report: Report) -> str:
    """Digest of a report's text."""
    return hashlib.sha256(report.text.encode("utf-8", "surrogatepass")).hexdigest()


def is_text(path: str) -> bool:
    """Whether a path can be written down: on some systems a name may hold any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_a_session(path: Path, why: str) -> SimCroPError:
    return SimCroPError(
        "This is not a session, or it is damaged" + (f" ({why})" if why else ""),
        path=path,
        code="not-a-session",
        remedy="Choose a file that was saved with Save session.",
    )
