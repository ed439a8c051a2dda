"""One exception tree for all rooms.

A `UserMistake` is the user's to correct: the command line prints its one message and exits with code 2.
A `TaskFailure` is a result: it is stored with its `reason` and shown beside the variants that worked.
Every error takes one message, so that it survives pickling between processes.
"""

from typing import ClassVar


class QuantsweepError(Exception):
    """Base of every error that quantsweep raises on purpose."""


class UserMistake(QuantsweepError):
    """Something the user named is wrong. The message names the rule, the value got and the choices."""


class SpecMistake(UserMistake):
    """A spec file breaks the rules of the spec format."""


class DataMistake(UserMistake):
    """Images or annotations are missing, damaged or do not belong together."""


class ModelMistake(UserMistake):
    """A model file is not a detector that can be read."""


class DatabaseMistake(UserMistake):
    """A database cannot be opened, written or is of another schema version."""


class ClusterMistake(UserMistake):
    """A cluster address cannot be reached, or no node can meet a request."""


class TaskFailure(QuantsweepError):
    """A task could not give its result; stored as a `Failure` under `reason`."""

    reason: ClassVar[str] = "task_failed"


class UnsupportedScheme(TaskFailure):
    """The toolchain cannot make this scheme."""

    reason = "unsupported_scheme"


class QuantizationFailed(TaskFailure):
    """The toolchain raised an error while it made the artifact."""

    reason = "quantization_failed"


class TrainingFailed(TaskFailure):
    """A training came to nothing: its loss is no number any more."""

    reason = "training_failed"


class TrainingImageUnreadable(TaskFailure):
    """A training image is missing, damaged or not of its annotated size."""

    reason = "training_image_unreadable"


class TrainingStopped(TaskFailure):
    """A training was ended before its time, since nobody waits for its result any more."""

    reason = "training_stopped"


class CompilerMissing(TaskFailure):
    """The node has no C++ compiler, and the toolchain compiles."""

    reason = "compiler_missing"


class AuditMismatch(TaskFailure):
    """What the artifact really holds is not what its scheme promises."""

    reason = "audit_mismatch"


class ArtifactUnreadable(TaskFailure):
    """An artifact cannot be loaded: it is missing, damaged or of another format."""

    reason = "artifact_unreadable"


class InferenceFailed(TaskFailure):
    """A runtime failed on real input, or gave outputs of the wrong shape or with values that are not numbers."""

    reason = "inference_failed"


class ScoringFailed(TaskFailure):
    """Detections could not be scored, or the fast scorer disagrees with the reference scorer."""

    reason = "scoring_failed"


class BenchmarkFailed(TaskFailure):
    """The benchmark process died or ran past its time limit."""

    reason = "benchmark_failed"


class WorkerLost(TaskFailure):
    """The worker process died (out of memory, killed, node lost) more often than the retries allow."""

    reason = "worker_lost"


class NeverStarted(TaskFailure):
    """The cluster did not start a task within its deadline: the node is gone, or others hold what the task claims."""

    reason = "never_started"


class UnexpectedError(TaskFailure):
    """A task raised an error that nobody planned for: a bug in quantsweep or in a library below it."""

    reason = "unexpected_error"
