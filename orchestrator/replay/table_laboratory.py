"""The laboratory of a replay: measurements are looked up in a table."""

from collections import deque
from collections.abc import Callable

from orchestrator.replay.drawn_images import DrawnImages
from orchestrator.search.candidate import Candidate
from orchestrator.search.rungs import Rung
from tasks.types import Artifact, Failure, Latency, LossInterval, RuntimeSettings, TrainingProgress

_NOT_MEASURED = Failure("replay", "unexpected_error", "the sweep has no such result and no failure")


class TableLaboratory:
    """Answers from a table, one request after the other; implements `orchestrator.search.laboratory.Laboratory`."""

    def __init__(self, drawn: DrawnImages, width: int = 1, times_elsewhere: bool = False) -> None:
        """Takes the images to score on.

        Args:
            drawn: Images of a table.
            width: See `Laboratory`.
            times_elsewhere: See `Laboratory`.
        """
        self.images, self.width, self.times_elsewhere = len(drawn), width, times_elsewhere
        self.training_width = 1
        self._drawn, self._table = drawn, drawn.table
        self._queue: deque[Callable[[], None]] = deque()
        self._inferred: dict[str, int] = {}
        self._timed: set[tuple[str, RuntimeSettings]] = set()

    @property
    def images_inferred(self) -> int:
        """Images inferred so far: of each build, and of the reference, the greatest number that was looked at."""
        return sum(self._inferred.values())

    @property
    def structures_timed(self) -> int:
        """Latencies measured so far: variants of one structure and of equal settings share one."""
        return len(self._timed)

    def needs_training(self, candidate: Candidate) -> bool:
        """Says no: what was trained is in the table like anything else."""
        return False

    def training_key(self, candidate: Candidate) -> str:
        """Is not asked for: nothing is trained."""
        raise AssertionError("nothing is trained in a replay")

    def train(
        self,
        candidate: Candidate,
        watch: Callable[[TrainingProgress], str | None],
        then: Callable[[Artifact | Failure], None],
    ) -> None:
        """Looks up the artifact."""
        self.make(candidate, then)

    def make(self, candidate: Candidate, then: Callable[[Artifact | Failure], None]) -> None:
        """Looks up the artifact."""
        entry = self._table.entry_of(candidate.variant)
        self._queue.append(lambda: then(entry.artifact or entry.failure or _NOT_MEASURED))

    def time(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        """Looks up the latency."""
        entry = self._table.entry_of(candidate.variant)

        def answer() -> None:
            assert candidate.artifact is not None
            self._timed.add((candidate.artifact.structure_sha256, candidate.variant.settings))
            then(entry.latency or entry.failure or _NOT_MEASURED)

        self._queue.append(answer)

    def look(self, candidate: Candidate, rung: Rung, then: Callable[[LossInterval | Failure], None]) -> None:
        """Scores the candidate on the first drawn images."""
        entry = self._table.entry_of(candidate.variant)

        def answer() -> None:
            if entry.build is None:
                then(entry.failure or _NOT_MEASURED)
                return
            for build in (self._table.reference_build, entry.build):
                self._inferred[build] = max(rung.images, self._inferred.get(build, 0))
            then(self._drawn.interval(entry.build, rung.images, rung.level))

        self._queue.append(answer)

    def confirm(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        """Looks up the second latency; where the sweep measured none, the first stands."""
        entry = self._table.entry_of(candidate.variant)
        self._queue.append(lambda: then(entry.own_latency or entry.latency or _NOT_MEASURED))

    def run(self) -> None:
        """Answers until nothing is asked any more."""
        while self._queue:
            self._queue.popleft()()
