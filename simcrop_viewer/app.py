"""``simcrop-viewer``: the desktop application."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from simcrop_core import __version__

_OWN_PLUGINS = ("napari", "simcrop-viewer")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="simcrop-viewer",
        description="Read a report with the scan pointing back. Research use only, not for "
        "diagnosis.",
    )
    made.add_argument("scan", nargs="?", metavar="CT", help="a scan: file or DICOM folder")
    made.add_argument("--report", metavar="R", help="its report")
    made.add_argument("--model", metavar="M", help="folder of a model")
    made.add_argument(
        "--studies",
        metavar="LIST",
        help="a folder of studies, a csv that lists them, or a data set such as ct-rate:ROOT",
    )
    made.add_argument(
        "--session", metavar="S", help="a saved session (.simcrop), in place of all of these"
    )
    made.add_argument(
        "--no-cache",
        action="store_true",
        help="keep no encoded scans in ~/.simcrop/encoded, and take none from there",
    )
    made.add_argument(
        "--safe",
        action="store_true",
        help="start without other people's napari plugins, to see whether one of them is at fault",
    )
    made.add_argument("--version", action="version", version=f"simcrop-viewer {__version__}")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Open the window; returns when it is closed."""
    made = parser()
    arguments = made.parse_args(words)
    if arguments.session and (arguments.scan or arguments.report or arguments.model):
        made.error("--session names scan, report and model itself: give it alone")
    if sys.platform == "linux" and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        print(
            "simcrop-viewer: There is no display here. Start it in a desktop session, or under "
            "xvfb-run; the command simcrop needs none.",
            file=sys.stderr,
        )
        return 2
    # Qt 5 is what this version is built on; people who use it can do nothing about that.
    warnings.filterwarnings("ignore", message=".*Qt6 backend.*")
    import napari
    from napari._qt import qt_main_window

    qt_main_window.SHOW_QT_WARNING = False
    if arguments.safe:
        leave_out_plugins()

    from simcrop_core.encoded_cache import EncodedCache
    from simcrop_viewer.model.recent import RecentStudies, usual_place
    from simcrop_viewer.model.runs_folder import RunsFolder
    from simcrop_viewer.view.window import MainWindow

    home = usual_place()
    cache = None if arguments.no_cache else EncodedCache(home / "encoded")
    runs = RunsFolder(home / "training.json")
    window = MainWindow(RecentStudies(home / "recent.json"), cache, runs)
    window.show()
    if arguments.session:
        window.open_session(arguments.session)
    if arguments.model:
        window.use_model(arguments.model)
    if arguments.studies:
        window.open_list(arguments.studies)
    if arguments.scan:
        window.open(arguments.scan, arguments.report)
    napari.run()
    return 0


def leave_out_plugins() -> None:
    """Disable all napari plugins but napari's own and ours, in this process alone."""
    from npe2 import PluginManager

    plugins = PluginManager.instance()
    plugins.discover(include_npe1=True)
    for manifest in list(plugins.iter_manifests()):
        if manifest.name not in _OWN_PLUGINS and not plugins.is_disabled(manifest.name):
            plugins.disable(manifest.name)


if __name__ == "__main__":
    sys.exit(main())
