"""Showing how a search goes: a live table on a terminal, a line for each verdict elsewhere."""

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from orchestrator.budget import Budget
from orchestrator.progress import Observer, training_line
from orchestrator.search.candidate import Candidate
from orchestrator.search.observer import SearchObserver, Unobserved
from orchestrator.search.stops import StopRules
from tasks.types import Accuracy, Failure, Latency, TrainingProgress, Variant, VerdictKind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Leader:
    """The fastest feasible variant."""

    label: str
    """Its label."""

    ratio: float
    """Its latency ratio."""

    loss: float | None
    """Its loss on every image, as the budget counts it."""

    @classmethod
    def of(cls, candidate: Candidate) -> "Leader":
        """Takes it from a candidate that was timed."""
        loss = None if candidate.interval is None else candidate.interval.loss
        return cls(candidate.variant.label, candidate.ratio, loss)

    @property
    def text(self) -> str:
        """Label, ratio and loss in words."""
        loss = "" if self.loss is None else f", loss {self.loss:+.4f}"
        return f"{self.label}: {self.ratio:.3f} of float32's time{loss}"


@dataclass
class Standing:
    """How a search stands: what is shown, and nothing of how."""

    name: str
    """Name of the study."""

    variants: int
    """Variants that it can choose from, the reference not counted."""

    budget: Budget | None
    """The largest loss of a feasible variant."""

    stops: StopRules
    """When it ends."""

    verdicts: dict[str, VerdictKind] = field(default_factory=dict)
    """What was decided, by label; earlier runs of the same study included."""

    trials: int = 0
    """Variants tried, without those that were known before the study; earlier runs included."""

    images: int = 0
    """Images inferred; earlier runs included."""

    earlier_seconds: float = 0.0
    """Wall time of earlier runs."""

    earlier_best: Leader | None = None
    """The best of earlier runs."""

    doing: str = "starting"
    """What is being done beside candidates."""

    clock: Callable[[], float] = time.monotonic
    """Seconds since whenever."""

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._began = self.clock()
        self._tried = set(self.verdicts)
        self._in_flight: dict[str, Candidate] = {}
        self._were_feasible: list[Candidate] = []
        self._here_trials = self._here_images = self._here_verdicts = 0
        # How many verdicts earlier runs had after their best is not known here.
        self._since_best: int | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all runs."""
        return self.earlier_seconds + self._here_seconds

    @property
    def images_per_second(self) -> float:
        """Images inferred a second in this run."""
        return self._here_images / self._here_seconds

    @property
    def best(self) -> Leader | None:
        """The fastest feasible candidate; a second measurement may have changed which one it is."""
        feasible = [Leader.of(candidate) for candidate in list(self._were_feasible) if candidate.is_feasible]
        feasible += [self.earlier_best] if self.earlier_best else []
        return min(feasible, key=lambda leader: leader.ratio, default=None)

    @property
    def in_flight(self) -> dict[str, int]:
        """Candidates without a verdict, counted by what they wait for."""
        return dict(Counter(_waits_for(candidate) for candidate in list(self._in_flight.values())))

    @property
    def counts(self) -> dict[str, int]:
        """Verdicts counted by kind, the commonest first."""
        return dict(Counter(list(self.verdicts.values())).most_common())

    def ask(self, candidate: Candidate) -> None:
        """Counts a candidate."""
        label = candidate.variant.label
        self._in_flight[label] = candidate
        if not candidate.ask.is_warm and label not in self._tried:
            self.trials += 1
            self._here_trials += 1
        self._tried.add(label)

    def infer(self, images: int) -> None:
        """Counts images."""
        self.images += images
        self._here_images += images

    def settle(self, candidate: Candidate) -> bool:
        """Takes a verdict.

        Args:
            candidate: One that has a verdict.

        Returns:
            Whether it is the best so far.
        """
        assert candidate.verdict is not None
        label = candidate.variant.label
        self._in_flight.pop(label, None)
        self._here_verdicts += label not in self.verdicts
        self.verdicts[label] = candidate.verdict.kind
        if candidate.is_feasible:
            self._were_feasible.append(candidate)
        is_best = candidate.is_feasible and self.best == Leader.of(candidate)
        if is_best:
            self._since_best = 0
        elif self._since_best is not None:
            self._since_best += 1
        return is_best

    def spent(self) -> list[str]:
        """Lists what was spent of what may be spent: `12 of 200 trials`."""
        stops = self.stops
        kinds = (
            (self.trials, stops.trials, "trials"),
            (self.seconds, stops.seconds, "s"),
            (self.images, stops.images, "images"),
        )
        found = [f"{used:,.0f}{f' of {limit:,.0f}' if limit is not None else ''} {what}" for used, limit, what in kinds]
        if stops.patience is not None and self._since_best is not None:
            found.append(f"{self._since_best} of {stops.patience} verdicts without a better one")
        return found

    def left(self) -> str | None:
        """Forecasts when the first stop rule will hold, by the pace of this run.

        Returns:
            Seconds and the rule, or None as long as there is no pace to go by.
        """
        stops, verdict = self.stops, self._pace(self._here_verdicts)
        times: list[tuple[float, str]] = []
        if stops.seconds is not None:
            times.append((stops.seconds - self.seconds, "then its time is over"))
        if verdict is not None:
            times.append(((self.variants - len(self.verdicts)) * verdict, "then every variant is decided"))
            if stops.trials is not None:
                settled = self._here_trials - sum(not each.ask.is_warm for each in list(self._in_flight.values()))
                trial = self._pace(settled) or verdict
                times.append(((stops.trials - self.trials + len(self._in_flight)) * trial, f"{stops.trials} trials"))
            if stops.patience is not None and self._since_best is not None:
                times.append(((stops.patience - self._since_best) * verdict, "unless a better one is found"))
        image = self._pace(self._here_images)
        if stops.images is not None and image is not None:
            times.append(((stops.images - self.images) * image, f"{stops.images} images"))
        if not times:
            return None
        seconds, why = min(times)
        return f"at most about {max(seconds, 0):.0f} s left: {why}"

    @property
    def _here_seconds(self) -> float:
        return max(self.clock() - self._began, 1e-9)

    def _pace(self, count: int) -> float | None:
        """Seconds for one, or None before the first."""
        return self._here_seconds / count if count > 0 else None


def _waits_for(candidate: Candidate) -> str:
    if candidate.artifact is None:
        return "to be built"
    if candidate.latency is None:
        return "to be timed"
    if candidate.is_untrained:
        return "in training" if candidate.training else "to be trained"
    return "to be scored further" if candidate.rungs else "to be scored"


class SearchView(SearchObserver, Protocol):
    """A watcher of a search that shows what it is told."""

    standing: Standing
    """What it shows."""

    @property
    def stages(self) -> Observer:
        """Takes the stages and the inferred images of the tasks behind the search."""

    def resume(self, earlier: Standing) -> None:
        """Starts from what earlier runs of the study have spent and decided."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class _View(Unobserved, ABC):
    """What both views share: they keep a `Standing` and say what is worth a line."""

    def __init__(self, standing: Standing) -> None:
        """Takes what it shows."""
        self.standing = standing

    @property
    def stages(self) -> Observer:
        """See `SearchView`."""
        return _Stages(self._stage, self._inferred)

    def resume(self, earlier: Standing) -> None:
        """See `SearchView`."""
        self.standing = earlier
        if earlier.verdicts:
            self._say(f"going on from what is decided: {_counted(earlier.counts)}")
        if earlier.best is not None:
            self._say(f"best so far: {earlier.best.text}")

    def asked(self, candidate: Candidate) -> None:
        """Counts it."""
        self.standing.ask(candidate)

    def settled(self, candidate: Candidate) -> None:
        """Says the verdict, and whether it is the best so far."""
        is_best = self.standing.settle(candidate)
        self._say(f"{len(self.standing.verdicts)}/{self.standing.variants} {verdict_of(candidate)}")
        if is_best:
            self._say(f"best so far: {Leader.of(candidate).text}")

    def confirmed(self, candidate: Candidate) -> None:
        """Says that the best was measured again."""
        own = candidate.own_latency
        how = ", though the machine was not quiet" if own is not None and own.noisy else ""
        self._say(f"measured again and confirmed{how}: {Leader.of(candidate).text}")

    def stopped(self, why: str) -> None:
        """Says why nothing more is asked for."""
        self._say(f"no more variants are asked for: {why}")

    def _stage(self, text: str) -> None:
        self.standing.doing = text

    def _inferred(self, images: int) -> None:
        self.standing.infer(images)

    @abstractmethod
    def _say(self, text: str) -> None:
        """Shows a line."""


class PlainSearchView(_View):
    """One line on standard error for each verdict and each improvement."""

    def close(self) -> None:
        """Does nothing."""

    def settled(self, candidate: Candidate) -> None:
        """Says the verdict and what was spent; see `SearchView`."""
        super().settled(candidate)
        left = self.standing.left()
        if len(self.standing.verdicts) % _EVERY == 0:
            self._say(f"spent {', '.join(self.standing.spent())}{f'; {left}' if left else ''}")

    def _stage(self, text: str) -> None:
        super()._stage(text)
        self._say(text)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{self.standing.seconds:6.1f} s] {text}\n")
        sys.stderr.flush()


_EVERY = 10
"""Verdicts from one plain line about what was spent to the next."""


class LiveSearchView(_View):
    """A table that is kept up to date, with verdicts scrolling by above it."""

    def __init__(self, standing: Standing, console: "Console | None" = None) -> None:
        """Opens the view.

        Args:
            standing: What is shown.
            console: Where to; standard error if None.
        """
        from rich.console import Console
        from rich.live import Live

        super().__init__(standing)
        self._live = Live(
            console=console or Console(stderr=True), get_renderable=self._table, transient=True, refresh_per_second=4
        )
        self._live.start()

    def close(self) -> None:
        """Takes the table away."""
        self._live.stop()

    def _say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows_of(self.standing):
            table.add_row(name, Text(text))
        return table


def open_search_view(standing: Standing) -> SearchView:
    """Opens the live view if standard error is a terminal, else the plain one."""
    return LiveSearchView(standing) if sys.stderr.isatty() else PlainSearchView(standing)


def rows_of(standing: Standing) -> Sequence[tuple[str, str]]:
    """Describes a standing as names and texts, the lines of the live view.

    Args:
        standing: How a search stands.

    Returns:
        Best so far, what was spent, verdicts, what is in flight, and the time left.
    """
    budget = "any loss" if standing.budget is None else standing.budget.text
    flight = standing.in_flight
    waiting = ", ".join(f"{count} {what}" for what, count in flight.items())
    rows = [
        (standing.name, f"{standing.variants} variants, {budget}; {standing.doing}"),
        ("best", standing.best.text if standing.best else "nothing is feasible yet"),
        ("spent", f"{', '.join(standing.spent())}; {standing.images_per_second:.0f} images/s"),
        ("verdicts", _counted(standing.counts) or "none yet"),
        ("in flight", f"{sum(flight.values())}: {waiting}" if flight else "nothing"),
    ]
    left = standing.left()
    return [*rows, ("left", left)] if left else rows


def verdict_of(candidate: Candidate) -> str:
    """Describes in one line how a candidate ended.

    Args:
        candidate: One that has a verdict.

    Returns:
        The line.
    """
    verdict = candidate.verdict
    assert verdict is not None
    kind = verdict.kind.replace("_", " ")
    return f"{candidate.variant.label}: {kind}: {verdict.because}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())


@dataclass(frozen=True)
class _Stages:
    """An `Observer` of the tasks behind a search, which settle no variants by themselves."""

    say: Callable[[str], None]
    count: Callable[[int], None]

    def began(self, variants: int, settled: int, images: int) -> None:
        """Says how much there may be to do; see `Observer`."""
        known = f", {settled} of them decided already" if settled else ""
        self.say(f"a space of {variants} variants{known}, on {images} images")

    def stage(self, text: str) -> None:
        """Says what is being done."""
        self.say(text)

    def inferred(self, images: int) -> None:
        """Counts images."""
        self.count(images)

    def will_train(self, name: str) -> None:
        """Does nothing: what is to be trained is said of candidates."""

    def ended_training(self, name: str) -> None:
        """Does nothing: verdicts tell."""

    def trained(self, name: str, progress: TrainingProgress) -> None:
        """Says how far a training is."""
        self.say(f"training {name}: {training_line(progress)}")

    def settled(
        self, variant: Variant, accuracy: Accuracy | None, latency: Latency | None, failure: Failure | None
    ) -> None:
        """Does nothing: searches settle candidates."""
