"""A laboratory whose results are made up, and whose answers come at once or late, in any order."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.observer import Unobserved
from orchestrator.search.rungs import Rung
from tasks.quantize.schemes import StaticInt8
from tasks.types import (
    Artifact,
    Audit,
    Failure,
    Latency,
    LossInterval,
    TrainingPoint,
    TrainingProgress,
    Variant,
)

AUDIT = Audit({}, {}, None, {}, 1, "float32", {})
BROKEN = Failure("quantize", "quantization_failed", "it cannot be made")
STOPPED = Failure("train", "training_stopped", "nobody waits for it")
LOST = Failure("benchmark", "worker_lost", "the worker died")


def variant(number: int) -> Variant:
    return Variant(StaticInt8(calibration_images=number + 1))


def latency(ratio: float, half_width: float = 0.0, noisy: tuple[str, ...] = ()) -> Latency:
    return Latency(
        1, 1, 1, 1, ratio, ratio - half_width, ratio + half_width, 1, 1, 1, True, (), {}, noisy=noisy
    )  # fmt: skip


def progress(*losses: float, steps: int | None = None) -> TrainingProgress:
    """A training with these held-out losses, of one update a point; over if that is all of its updates."""
    points = tuple(
        TrainingPoint(step, loss, None, None, None, None, None, None, step, step) for step, loss in enumerate(losses)
    )
    planned = len(losses) - 1 if steps is None else steps
    best = min(points, key=lambda point: point.held_out_loss).step
    end = "finished" if len(losses) > planned else None
    return TrainingProgress(points, planned, 10, 1, "cpu", best, "0" * 64, end)


@dataclass(frozen=True)
class Facts:
    """What is true of one variant."""

    ratio: float
    loss: float
    half_width: float = 0.0
    size: int = 1
    is_noisy: bool = False
    fails_at: str = ""
    """`make`, `time`, `look` or `confirm`; empty if it never fails."""

    is_own_fault: bool = True
    own_ratio: float | None = None
    """Of the second measurement; that of the first if None."""

    doubt: float = 0.1
    """Half-width of the interval of the loss on a quarter of the images; it shrinks with more."""

    bias: float = 0.0
    """What is added to the loss before all images are looked at."""

    curve: tuple[float, ...] = ()
    """Held-out losses of its training; empty if it takes none."""

    training: str = ""
    """Name of the training, if others share it."""

    @property
    def failure(self) -> Failure:
        return BROKEN if self.is_own_fault else LOST

    @property
    def can_win(self) -> bool:
        return not self.is_noisy and not self.fails_at

    def interval(self, images: int, all_images: int, level: float = 0.95) -> LossInterval:
        half = 0.0 if images == all_images else self.doubt * (all_images / images) ** 0.5 / 2
        loss = self.loss + (0.0 if images == all_images else self.bias)
        return LossInterval(loss, loss - half, loss + half, level, 200, 0, images)


@dataclass
class FakeLaboratory:
    """Implements `Laboratory`; fails where a search asks for what the protocol forbids."""

    facts: Sequence[Facts]
    images: int = 80
    width: int = 1
    times_elsewhere: bool = False
    random: Random | None = None
    """Puts answers out of order; None for the order of the requests."""

    share_at_once: float = 0.0
    """Share of the requests that are answered before the call returns; only with `random`."""

    images_inferred: int = 0
    looks: list[tuple[int, int]] = field(default_factory=list)
    """(number of the variant, images) of each look."""

    trained: list[tuple[int, int]] = field(default_factory=list)
    """(number of the variant, updates) of each training that began, when it ended."""

    training_width: int = 1
    training: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    timing: int = 0
    looking: int = 0
    _queue: list[Callable[[], None]] = field(default_factory=list)

    def make(self, candidate: Candidate, then: Callable[[Artifact | Failure], None]) -> None:
        facts = self._facts(candidate)
        self.timing += 1
        made = Artifact("0" * 64, "tflite", facts.size, facts.size, "0" * 64, AUDIT)
        self._answer(facts.failure if facts.fails_at == "make" else made, then, self._timed)

    def needs_training(self, candidate: Candidate) -> bool:
        return bool(self._facts(candidate).curve)

    def training_key(self, candidate: Candidate) -> str:
        return self._facts(candidate).training or candidate.variant.label

    def train(
        self,
        candidate: Candidate,
        watch: Callable[[TrainingProgress], str | None],
        then: Callable[[Artifact | Failure], None],
    ) -> None:
        assert candidate.is_untrained and candidate.latency is not None, "it trains what was not timed"
        assert not self.looking and not self.timing, "it trains while something cheaper is open"
        facts, number = self._facts(candidate), candidate.variant.scheme.calibration_images - 1  # type: ignore[attr-defined]
        self.training += 1
        assert self.training <= self.training_width, "it trains more at a time than there is room for"

        def advance(point: int) -> None:
            now = progress(*facts.curve[: point + 1], steps=len(facts.curve) - 1)
            why = watch(now)
            if not why and not now.is_over:
                self._queue.append(lambda: advance(point + 1))
                return
            self.training -= 1
            self.trained.append((number, point))
            made = Artifact("1" * 64, "tflite", facts.size, facts.size, "0" * 64, AUDIT)
            then(facts.failure if facts.fails_at == "train" else STOPPED if why else made)

        self._queue.append(lambda: advance(0))

    def time(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        facts = self._facts(candidate)
        self.timing += 1
        found = latency(facts.ratio, facts.half_width, ("busy",) if facts.is_noisy else ())
        self._answer(facts.failure if facts.fails_at == "time" else found, then, self._timed)

    def look(self, candidate: Candidate, rung: Rung, then: Callable[[LossInterval | Failure], None]) -> None:
        assert self.times_elsewhere or not self.timing, "it looks before all latencies are known"
        before = candidate.interval.images if candidate.interval else 0
        assert rung.images > before, "it looks again at what it has seen"
        assert rung.is_last == (rung.images == self.images)
        facts = self._facts(candidate)
        self.looking += 1
        assert self.looking <= self.width, "it looks at more candidates at a time than there is room for"
        self.images_inferred += rung.images - before
        self.looks.append((candidate.variant.scheme.calibration_images - 1, rung.images))  # type: ignore[attr-defined]
        found = facts.interval(rung.images, self.images, rung.level)
        self._answer(facts.failure if facts.fails_at == "look" else found, then, self._looked)

    def confirm(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        facts = self._facts(candidate)
        self.calls["confirm"] += 1
        own = latency(facts.ratio if facts.own_ratio is None else facts.own_ratio, facts.half_width)
        self._answer(facts.failure if facts.fails_at == "confirm" else own, then, lambda: None)

    def run(self) -> None:
        while self._queue:
            self._queue.pop(self.random.randrange(len(self._queue)) if self.random else 0)()

    def _timed(self) -> None:
        self.timing -= 1

    def _looked(self) -> None:
        self.looking -= 1

    def _facts(self, candidate: Candidate) -> Facts:
        return self.facts[candidate.variant.scheme.calibration_images - 1]  # type: ignore[attr-defined]

    def _answer(self, result: object, then: Callable[..., None], done: Callable[[], None]) -> None:
        def answer() -> None:
            done()
            then(result)

        if self.random and self.random.random() < self.share_at_once:
            answer()
        else:
            self._queue.append(answer)


class Listening:
    """A strategy that goes through a list and writes down what it hears."""

    def __init__(self, count: int, warm: int = 0) -> None:
        self._asks = iter([Ask(number, variant(number), is_warm=number < warm) for number in range(count)])
        self.noted: list[int] = []
        self.told: list[tuple[int, str]] = []

    def ask(self) -> Ask | None:
        return next(self._asks, None)

    def note(self, candidate: Candidate) -> None:
        assert candidate.verdict is None, "it is noted after its verdict"
        self.noted.append(candidate.ask.number)

    def tell(self, candidate: Candidate) -> None:
        assert candidate.verdict is not None
        self.told.append((candidate.ask.number, candidate.verdict.kind))


class Watching(Unobserved):
    """An observer that counts verdicts."""

    def __init__(self) -> None:
        self.settlements: list[tuple[int, str]] = []
        self.confirmations: list[int] = []
        self.stops: list[str] = []

    def settled(self, candidate: Candidate) -> None:
        assert candidate.verdict is not None
        self.settlements.append((candidate.ask.number, candidate.verdict.kind))

    def confirmed(self, candidate: Candidate) -> None:
        self.confirmations.append(candidate.ask.number)

    def stopped(self, why: str) -> None:
        self.stops.append(why)
