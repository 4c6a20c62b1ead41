"""Training from the window: what can be run, starting, following, stopping and going on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from psygnal import Signal

from simcrop_core.errors import SimCroPError
from simcrop_core.train.events import LOG_NAME
from simcrop_viewer.controller.run_process import Tell, ask, ask_to_stop, start
from simcrop_viewer.model.event_tail import last_bytes
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.recipes import Recipe, recipes_from, run_words, settings_of_run
from simcrop_viewer.model.run_log import section_of
from simcrop_viewer.model.run_summary import RunSummary, config_of
from simcrop_viewer.model.run_watch import RunWatch, Seen
from simcrop_viewer.model.runs_folder import RunsFolder
from simcrop_viewer.model.training_form import TrainingForm

_LANE, _WATCH, _STOP = "training", "training-watch", "training-stop"
#: Runs whose curves are shown at once.
MOST_CHOSEN = 6


class TrainingController:
    """Starts runs as processes of their own and follows them by what their folders tell.

    A run does not know of the window: it goes on when the window is closed, and is found again by
    its folder.

    Attributes
    ----------
    place
        The folder of runs.
    form
        The run that is to be started.
    seen
        What the last look found.
    chosen
        The runs that are looked at closely; their order is that of their colours.
    """

    recipes_changed = Signal()
    looked = Signal()
    chosen_changed = Signal()
    starting_changed = Signal()
    started = Signal(Path)
    refused = Signal(SimCroPError)

    def __init__(self, jobs: Jobs, place: RunsFolder | None = None) -> None:
        self.place = place or RunsFolder()
        self.form = TrainingForm()
        self.form.put_in(self.place.folder)
        self.seen = Seen()
        self.chosen: tuple[Path, ...] = ()
        self._jobs = jobs
        self._watch = RunWatch()
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._asking: Job | None = None
        self._judging: Job | None = None
        self._beginning: Job | None = None
        self._looking = False
        self._trouble = ""
        self.place.changed.connect(self._moved)

    def close(self) -> None:
        """Let go of everything but the runs, which go on."""
        self.place.changed.disconnect(self._moved)

    # -- what can be run ------------------------------------------------------------------------

    def ask_for_recipes(self) -> None:
        """Find out what can be run, unless that is known or being asked for."""
        if self.form.recipes or self._asking is not None:
            return

        def take(recipes: tuple[Recipe, ...]) -> None:
            self._asking = None
            self.form.offer(recipes)
            self.recipes_changed.emit()

        def fail(error: SimCroPError) -> None:
            self._asking = None
            self.refused.emit(error)

        self._asking = self._jobs.start(
            "List the recipes", _recipes, take, lane=_LANE, failed=fail, quiet=True
        )

    def judge(self) -> None:
        """Have the command say what is wrong with what is typed; an older question is given up."""
        asked = self.form.asks
        if asked is None:
            return
        if self._judging is not None:
            self._judging.cancel()
        name, changes = asked

        def work(tell: Tell) -> tuple[dict[str, object], Recipe]:
            words = ["recipes", name, "--json"]
            for change in changes:
                words += ["--set", change]
            told = ask(words, tell)
            return dict(told), recipes_from(told)[0]

        self._judging = self._jobs.start(
            "Check the settings",
            work,
            lambda found: self.form.judged(asked, *found),
            lane=_LANE,
            failed=self.refused.emit,
            quiet=True,
        )

    # -- runs -----------------------------------------------------------------------------------

    @property
    def is_starting(self) -> bool:
        """Whether a run is being started or gone on with, so that no other can be."""
        return self._beginning is not None and not self._beginning.wanted.is_set()

    def start(self) -> Job | None:
        """Start the run of the form, unless one is being started."""
        form = self.form
        if not form.is_ready or self.is_starting:
            return None
        folder, words = form.folder, form.words
        return self._starting("Start the run", folder, lambda tell: start(folder, words, tell))

    def resume(self, folder: Path) -> Job | None:
        """Go on with a run, with the settings it was started with, unless one is being started."""
        if self.is_starting:
            return None

        def work(tell: Tell) -> subprocess.Popen[bytes]:
            return start(folder, self._words_again(folder, tell), tell)

        return self._starting("Go on with the run", folder, work)

    def stop(self, run: RunSummary) -> Job:
        """Ask a run to save and end."""
        process = self._processes.get(run.folder)
        return self._jobs.start(
            "Ask the run to stop",
            lambda tell: ask_to_stop(run, process),
            lambda _: self.look(),
            lane=_STOP,
            failed=self.refused.emit,
            quiet=True,
        )

    def _starting(
        self, title: str, folder: Path, work: Callable[[Tell], subprocess.Popen[bytes]]
    ) -> Job:
        def take(process: subprocess.Popen[bytes]) -> None:
            self._processes[folder] = process
            # What was seen last is over: until the next look, it is not to be gone on with again.
            self.seen = self.seen.with_started(folder)
            over()
            self.form.started()
            self.choose([folder])
            self.started.emit(folder)
            self.look()

        def fail(error: SimCroPError) -> None:
            over()
            self.refused.emit(error)

        def over() -> None:
            self._beginning = None
            self.starting_changed.emit()

        job = self._jobs.start(title, work, take, lane=_LANE, failed=fail, quiet=True)
        self._beginning = job
        self.starting_changed.emit()
        return job

    def _words_again(self, folder: Path, tell: Tell) -> list[str]:
        """How to go on with a run: by the command in its log, or by its configuration."""
        said = section_of(last_bytes(folder / LOG_NAME).decode("utf-8", "replace")).words
        if said[:1] == ("run",) and "--out" in said[:-1]:
            words = [word for word in said if word != "--resume"]
            words[words.index("--out") + 1] = str(folder)
            return [*words, "--resume"]
        config, _ = config_of(folder)
        recipes = self.form.recipes or _recipes(tell)
        for recipe in recipes:
            if recipe.name == config.get("name"):
                settings = settings_of_run(recipe, config)
                return run_words(recipe.name, str(folder), settings, resume=True)
        raise SimCroPError(
            "It cannot be told how this run was started",
            code="no-recipe",
            remedy="Go on with it in a terminal: the command that started it, with --resume.",
        )

    def move_to(self, folder: str) -> None:
        """Keep runs in another folder, and look for them there; a refusal is told."""
        try:
            self.place.move_to(folder)
        except SimCroPError as e:
            self.refused.emit(e)

    # -- looking --------------------------------------------------------------------------------

    def choose(self, folders: Sequence[Path]) -> None:
        """Look closely at these runs, of too many at the first ones."""
        wanted = tuple(folders)[:MOST_CHOSEN]
        if wanted != self.chosen:
            self.chosen = wanted
            self.chosen_changed.emit()
            self.look()

    def look(self) -> None:
        """See how the runs stand, unless that is being done; :attr:`looked` tells when it is."""
        if self._looking:
            return
        self._looking = True
        for folder, process in list(self._processes.items()):
            if process.poll() is not None:  # nobody else buries it
                del self._processes[folder]
        place, chosen = self.place.folder, self.chosen

        def take(seen: Seen) -> None:
            self._looking, self._trouble = False, ""
            if (place, chosen) != (self.place.folder, self.chosen):
                self.look()
                return
            self.seen = seen
            self.form.looked()
            self.looked.emit()

        def fail(error: SimCroPError) -> None:
            self._looking = False
            if str(error) != self._trouble:  # once, though it is looked at twice a second
                self._trouble = str(error)
                self.refused.emit(error)

        self._jobs.start(
            "Look at the runs",
            lambda tell: self._watch.look(place, chosen),
            take,
            lane=_WATCH,
            failed=fail,
            quiet=True,
        )

    def row(self, folder: Path) -> RunSummary | None:
        """How a run stood at the last look."""
        return next((row for row in self.seen.rows if row.folder == folder), None)

    def _moved(self) -> None:
        self.form.put_in(self.place.folder)
        self.chosen = ()
        self.chosen_changed.emit()
        self.look()


def _recipes(tell: Tell) -> tuple[Recipe, ...]:
    return recipes_from(ask(["recipes", "--json"], tell))
