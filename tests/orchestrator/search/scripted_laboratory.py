"""A laboratory that knows every answer, and can stop answering in the middle of a search."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.search.candidate import Candidate
from orchestrator.search.rungs import Rung
from tasks.types import Artifact, Audit, Failure, Latency, LossInterval, TrainingProgress, Variant

IMAGES = 128
UNSUPPORTED = Failure("quantize", "unsupported_scheme", "no such combination")


class Died(Exception):
    """The driver is gone."""


@dataclass(frozen=True)
class Truth:
    """What would be measured of one variant."""

    ratio: float
    loss: float
    failure: Failure | None = None
    noisy: tuple[str, ...] = ()


class ScriptedLaboratory:
    """Answers in the order of the questions."""

    images = IMAGES
    width = 2
    times_elsewhere = False
    training_width = 1

    def __init__(self, truths: Mapping[Variant, Truth], answers: int = 10**9) -> None:
        self._truths, self._answers = truths, answers
        self._queue: deque[Callable[[], None]] = deque()
        self.images_inferred = 0

    def make(self, candidate: Candidate, then: Callable[[Artifact | Failure], None]) -> None:
        truth = self._truths[candidate.variant]
        audit = Audit({}, {}, None, {}, 0, "float32", {}, {}, 0)
        self._queue.append(lambda: then(truth.failure or Artifact("a" * 64, "tflite", 1, 1, "b" * 64, audit)))

    def needs_training(self, candidate: Candidate) -> bool:
        return False

    def training_key(self, candidate: Candidate) -> str:
        raise AssertionError("nothing is trained here")

    def train(
        self,
        candidate: Candidate,
        watch: Callable[[TrainingProgress], str | None],
        then: Callable[[Artifact | Failure], None],
    ) -> None:
        raise AssertionError("nothing needs a training here")

    def time(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        truth = self._truths[candidate.variant]
        self._queue.append(lambda: then(latency(truth.ratio, truth.noisy)))

    def look(self, candidate: Candidate, rung: Rung, then: Callable[[LossInterval | Failure], None]) -> None:
        seen = candidate.interval.images if candidate.interval else 0
        self.images_inferred += rung.images - seen
        found = interval(self._truths[candidate.variant].loss, rung.images)
        self._queue.append(lambda: then(found))

    def confirm(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        assert candidate.latency is not None
        found = candidate.latency
        self._queue.append(lambda: then(found))

    def run(self) -> None:
        while self._queue:
            self._answers -= 1
            if self._answers < 0:
                raise Died
            self._queue.popleft()()


def latency(ratio: float, noisy: tuple[str, ...] = ()) -> Latency:
    return Latency(1, 1, 1, 1, ratio, ratio * 0.99, ratio * 1.01, 1, 1, 1, True, (), {}, noisy=noisy)


def interval(loss: float, images: int) -> LossInterval:
    half_width = 0.1 / images**0.5
    return LossInterval(loss, loss - half_width, loss + half_width, 0.95, 200, 0, images)
