"""Showing how a sweep goes: a live view on a terminal, plain lines elsewhere."""

import sys
from typing import TYPE_CHECKING, Protocol

from orchestrator.sweep_clock import SweepClock, seconds_left
from tasks.types import Accuracy, Failure, Latency, TrainingProgress, Variant

if TYPE_CHECKING:
    from rich.console import Console


class Observer(Protocol):
    """What wants to know how a sweep goes."""

    def began(self, variants: int, settled: int, images: int) -> None:
        """The sweep starts with so many variants, of which some were settled before, on so many images each."""

    def stage(self, text: str) -> None:
        """Something is being done that is not a variant yet."""

    def inferred(self, images: int) -> None:
        """So many more images went through a variant."""

    def will_train(self, name: str) -> None:
        """A training waits for its turn."""

    def trained(self, name: str, progress: TrainingProgress) -> None:
        """A training has reached a point of its learning curve."""

    def ended_training(self, name: str) -> None:
        """A training is over, or has failed, or was ended."""

    def settled(
        self, variant: Variant, accuracy: Accuracy | None, latency: Latency | None, failure: Failure | None
    ) -> None:
        """A variant has all its results, or has failed."""


class _Clocked:
    """What views have in common: a clock, and the trainings that it counts."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._clock = SweepClock()

    def will_train(self, name: str) -> None:
        """Counts a training; see `Observer`."""
        self._clock.trainings.await_training(name)

    def ended_training(self, name: str) -> None:
        """Counts it no longer; see `Observer`."""
        self._clock.trainings.forget(name)


class PlainProgress(_Clocked):
    """One line for each thing that happens."""

    def began(self, variants: int, settled: int, images: int) -> None:
        """Says how much there is to do; see `Observer`."""
        self._clock.began(variants, settled)
        known = f", {settled} of them known already" if settled else ""
        self._say(f"{variants} variants on {images} images each{known}")

    def stage(self, text: str) -> None:
        """Says what is being done."""
        self._say(text)

    def inferred(self, images: int) -> None:
        """Counts images."""
        self._clock.images += images

    def trained(self, name: str, progress: TrainingProgress) -> None:
        """Says how far a training is; see `Observer`."""
        self._clock.trainings.note(name, progress)
        self._say(f"training {name}: {training_line(progress)}")

    def settled(
        self, variant: Variant, accuracy: Accuracy | None, latency: Latency | None, failure: Failure | None
    ) -> None:
        """Says how a variant ended."""
        self._clock.done += 1
        clock = self._clock
        self._say(f"{clock.done}/{clock.variants} {ending_of(variant, accuracy, latency, failure)}; {clock.left()}")

    def close(self) -> None:
        """Does nothing."""

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{self._clock.seconds():6.1f} s] {text}\n")
        sys.stderr.flush()


class LiveProgress(_Clocked):
    """A progress bar with images a second and the time left; settled variants scroll by above it."""

    def __init__(self, console: "Console | None" = None) -> None:
        """Opens the view.

        Args:
            console: Where to; standard error if None.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        super().__init__()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("variants"), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console or Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar = self._progress.add_task("starting", total=None, rate="", left="")
        self._progress.start()

    def began(self, variants: int, settled: int, images: int) -> None:
        """Sets the length of the bar; see `Observer`."""
        self._clock.began(variants, settled)
        self._progress.update(self._bar, total=variants, completed=settled)

    def stage(self, text: str) -> None:
        """Names what is being done."""
        self._progress.update(self._bar, description=text)

    def inferred(self, images: int) -> None:
        """Updates images a second."""
        self._clock.images += images
        self._progress.update(self._bar, description="sweeping", rate=f"{self._clock.rate():.0f} images/s")

    def trained(self, name: str, progress: TrainingProgress) -> None:
        """Shows how far a training is, in place of what is being done."""
        self._clock.trainings.note(name, progress)
        self._progress.update(self._bar, description=f"{name}: {training_line(progress)}", left=self._clock.left())

    def settled(
        self, variant: Variant, accuracy: Accuracy | None, latency: Latency | None, failure: Failure | None
    ) -> None:
        """Moves the bar on."""
        self._clock.done += 1
        self._progress.console.print(ending_of(variant, accuracy, latency, failure), highlight=False)
        self._progress.update(self._bar, completed=self._clock.done, left=self._clock.left())

    def close(self) -> None:
        """Takes the bar away."""
        self._progress.stop()


class View(Observer, Protocol):
    """An observer that shows what it is told."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


def open_view() -> View:
    """Opens the live view if standard error is a terminal, else the plain one."""
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


def ending_of(variant: Variant, accuracy: Accuracy | None, latency: Latency | None, failure: Failure | None) -> str:
    """Describes in one line how a variant ended.

    Args:
        variant: The variant.
        accuracy: Its accuracy, if there is one.
        latency: Its latency, if there is one.
        failure: Why it failed, if it did.

    Returns:
        The line.
    """
    if failure is not None:
        return f"{variant.label}: failed ({failure.reason}): {failure.message}"
    shown = [f"AP {accuracy.statistics[0]:.4f}"] if accuracy else []
    shown += [f"{latency.latency_ms_p50:.2f} ms, {latency.ratio:.3f} of float32"] if latency else []
    return f"{variant.label}: {', '.join(shown)}"


def training_line(progress: TrainingProgress) -> str:
    """Describes in one line how far a training is.

    Args:
        progress: At a point of its learning curve.

    Returns:
        The line.
    """
    now, first = progress.points[-1], progress.points[0]
    words = [f"update {now.step} of {progress.steps}"]
    words += [f"loss {now.loss:.3f}"] if now.loss is not None else []
    words += [
        f"held-out {now.held_out_loss:.3f} (began at {first.held_out_loss:.3f}, best {progress.best.held_out_loss:.3f})"
    ]
    words += [f"{now.images_per_second:.0f} images/s"] if now.images_per_second else []
    if progress.is_over:
        words += [f"{'done' if progress.end == 'finished' else 'no better for long'} after {now.seconds:.0f} s"]
    elif (left := seconds_left(progress)) is not None:
        words += [f"about {left:.0f} s left"]
    return ", ".join(words)
