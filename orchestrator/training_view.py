"""Showing how one training goes: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING, Protocol

from orchestrator.progress import training_line
from tasks.training.learner import Losses
from tasks.types import TrainingProgress

if TYPE_CHECKING:
    from rich.console import Console

_LINE_SECONDS = 60.0
_SMOOTHED_UPDATES = 20


class TrainingView(Protocol):
    """What wants to know how a training goes."""

    def stage(self, text: str) -> None:
        """Something is being done that is no update."""

    def updated(self, step: int, losses: Losses) -> None:
        """An update is done."""

    def reached(self, progress: TrainingProgress) -> None:
        """A point of the learning curve is reached, or known from an earlier run."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class Pace:
    """How fast a training goes, over the updates of this run."""

    def __init__(self, steps: int, images_per_update: float) -> None:
        """Waits for the first update.

        Args:
            steps: Updates of the whole training.
            images_per_update: Mean over an epoch.
        """
        self._steps, self._images = steps, images_per_update
        self._began = self._last = time.monotonic()
        self._first = self._step = 0
        self._loss: float | None = None

    def updated(self, step: int, losses: Losses) -> None:
        """Notes an update.

        Args:
            step: Number of those done.
            losses: Its losses.
        """
        self._last = time.monotonic()
        if self._loss is None:
            # The first update also waits for the graph to be built.
            self._began, self._first = self._last, step
        self._step = step
        share = 1 / _SMOOTHED_UPDATES
        self._loss = losses.total if self._loss is None else (1 - share) * self._loss + share * losses.total

    @property
    def words(self) -> str:
        """Recent loss, images a second and the time left, as far as they are known."""
        if self._loss is None:
            return ""
        words, done = [f"loss {self._loss:.3f}"], self._step - self._first
        seconds = max(self._last - self._began, 1e-9)
        if done:
            words.append(f"{done * self._images / seconds:.0f} images/s")
            words.append(f"about {seconds / done * (self._steps - self._step):.0f} s left")
        return ", ".join(words)


class PlainTraining:
    """A line for each point of the learning curve, and one a minute between them."""

    def __init__(self, pace: Pace, steps: int) -> None:
        """Starts the clock.

        Args:
            pace: Of the training.
            steps: Updates of the whole training.
        """
        self._pace, self._steps = pace, steps
        self._start = self._said = time.monotonic()

    def stage(self, text: str) -> None:
        """Says what is being done; see `TrainingView`."""
        self._say(text)

    def updated(self, step: int, losses: Losses) -> None:
        """Says how far it is, once a minute; see `TrainingView`."""
        self._pace.updated(step, losses)
        if time.monotonic() - self._said >= _LINE_SECONDS:
            self._say(f"update {step} of {self._steps}, {self._pace.words}")

    def reached(self, progress: TrainingProgress) -> None:
        """Says how far it is; see `TrainingView`."""
        self._say(training_line(progress))

    def close(self) -> None:
        """Does nothing."""

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"[{self._said - self._start:6.1f} s] {text}\n")
        sys.stderr.flush()


class LiveTraining:
    """A bar of updates with the recent loss, images a second and the time left; points scroll by above it."""

    def __init__(self, pace: Pace, steps: int, console: "Console | None" = None) -> None:
        """Opens the view.

        Args:
            pace: Of the training.
            steps: Updates of the whole training.
            console: Where to; standard error if None.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._pace = pace
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("updates"), TextColumn("{task.fields[pace]}"), TimeElapsedColumn(),
            console=console or Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar = self._progress.add_task("preparing", total=steps, pace="")
        self._progress.start()

    def stage(self, text: str) -> None:
        """Names what is being done; see `TrainingView`."""
        self._progress.update(self._bar, description=text)

    def updated(self, step: int, losses: Losses) -> None:
        """Moves the bar on; see `TrainingView`."""
        self._pace.updated(step, losses)
        self._progress.update(self._bar, description="training", completed=step, pace=self._pace.words)

    def reached(self, progress: TrainingProgress) -> None:
        """Prints the point above the bar; see `TrainingView`."""
        self._progress.console.print(training_line(progress), highlight=False, soft_wrap=True)
        self._progress.update(self._bar, completed=progress.step)

    def close(self) -> None:
        """Takes the bar away."""
        self._progress.stop()


def open_training_view(steps: int, images_per_update: float) -> TrainingView:
    """Opens the live view if standard error is a terminal, else the plain one.

    Args:
        steps: Updates of the whole training.
        images_per_update: Mean over an epoch.

    Returns:
        The view.
    """
    pace = Pace(steps, images_per_update)
    return LiveTraining(pace, steps) if sys.stderr.isatty() else PlainTraining(pace, steps)
