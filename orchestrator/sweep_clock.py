"""How long a sweep has taken, and how long it will go on."""

import time

from tasks.types import TrainingProgress


def seconds_left(progress: TrainingProgress) -> float | None:
    """Estimates how long a training goes on.

    Args:
        progress: At a point of its learning curve.

    Returns:
        Wall seconds at the pace so far; None before the first update.
    """
    total = _seconds_of(progress)
    return None if total is None else total * (1 - progress.step / progress.steps)


class TrainingClock:
    """The trainings of a sweep that are not over."""

    def __init__(self) -> None:
        """Knows of none."""
        self._under_way: dict[str, TrainingProgress | None] = {}
        self._totals: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def await_training(self, name: str) -> None:
        """Counts a training that has not begun."""
        self._under_way.setdefault(name, None)

    def note(self, name: str, progress: TrainingProgress) -> None:
        """Takes a point of its learning curve."""
        self._under_way[name] = progress
        if (total := _seconds_of(progress)) is not None:
            self._totals[name] = total

    def forget(self, name: str) -> None:
        """Counts a training no longer."""
        self._under_way.pop(name, None)

    def left(self) -> float | None:
        """Estimates how long all of them go on, as many at a time as now; those without a pace as long as the others.

        Returns:
            Wall seconds; None if there are trainings and none of them has shown its pace yet.
        """
        if not self._under_way:
            return 0.0
        if not self._totals:
            return None
        typical = sum(self._totals.values()) / len(self._totals)
        seconds = 0.0
        for progress in self._under_way.values():
            left = seconds_left(progress) if progress else None
            seconds += typical if left is None else left
        beside = sum(progress is not None for progress in self._under_way.values())
        return seconds / max(1, beside)


class SweepClock:
    """Time, images and variants of a sweep."""

    def __init__(self) -> None:
        """Starts."""
        self.images = self.done = self.variants = self._known = 0
        self.trainings = TrainingClock()
        self._start = time.monotonic()

    def began(self, variants: int, settled: int) -> None:
        """Takes how many variants there are, and how many of them were settled before."""
        self.variants, self.done, self._known = variants, settled, settled

    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self._start

    def rate(self) -> float:
        """Images inferred a second."""
        return self.images / max(self.seconds(), 1e-9)

    def left(self) -> str:
        """Says how long the sweep goes on: variants at the pace so far, and trainings at theirs."""
        done, left = self.done - self._known, self.variants - self.done
        if not left:
            return "done"
        trainings = self.trainings.left()
        others = max(0, left - len(self.trainings))
        if trainings is None or not (done or trainings):
            count = len(self.trainings)
            return f"{count} {'training' if count == 1 else 'trainings'} left" if count else ""
        return f"about {trainings + (self.seconds() / done * others if done else 0):.0f} s left"


def _seconds_of(progress: TrainingProgress) -> float | None:
    """Wall seconds of a whole training at the pace so far."""
    first, now = progress.points[0], progress.points[-1]
    return (now.seconds - first.seconds) / now.step * progress.steps if now.step else None
