"""Trainings: how far each is, and its learning curve, written and found by key."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from results.kept_failures import kept_failure
from results.rows import fields_in, row_of
from results.schema import training_points, trainings
from results.transactions import Transactions, upsert
from tasks.identity import canonical
from tasks.types import Failure, TrainingPoint, TrainingProgress


class TrainingStore(Transactions):
    """Writes trainings, and finds them by key."""

    def put_training(
        self,
        key: str,
        detector_sha256: str,
        trainer: str,
        recipe: Any,
        dataset_fingerprint: str,
        versions: Mapping[str, str],
        progress: TrainingProgress,
        stopped_because: str | None = None,
    ) -> None:
        """Stores how far a training is; to be called after each point of its learning curve.

        No point is ever lost: of a training that is further already, since a run began anew what an earlier one had
        done, only the status is changed, and nothing if it is over.

        Args:
            key: Key of the training.
            detector_sha256: A detector that is stored already: where it starts.
            trainer: The framework.
            recipe: How: a dataclass or plain values.
            dataset_fingerprint: The training images and their annotations.
            versions: Versions of the packages that decide about the weights.
            progress: All points so far.
            stopped_because: Why it is ended before its time, in one line; None if it goes on, or is over. A training
                that was stopped may go on later.

        Raises:
            ValueError: If it is over and stopped, or for a number that is not finite; then nothing is stored.
        """
        if progress.is_over and stopped_because is not None:
            raise ValueError(f"the training is {progress.end} and cannot be stopped because {stopped_because!r}")
        standing = {
            "status": progress.end or ("running" if stopped_because is None else "stopped"),
            "stopped_because": stopped_because,
            "updated_at": datetime.now(UTC),
        }
        row = row_of(progress, trainings) | {
            "key": key,
            "detector_sha256": detector_sha256,
            "trainer": trainer,
            "recipe": canonical(recipe),
            "dataset_fingerprint": dataset_fingerprint,
            "step": progress.step,
            "best_held_out_loss": progress.best.held_out_loss,
            "first_held_out_loss": progress.points[0].held_out_loss,
            "seconds": progress.points[-1].seconds,
            "core_seconds": progress.points[-1].core_seconds,
            "versions": dict(versions),
            **standing,
        }
        with self.writing() as connection:
            known = _standing(connection, key)
            if known is None or (progress.step, progress.is_over) >= known:
                upsert(connection, trainings, row)
                for point in progress.points:
                    upsert(connection, training_points, {"training_key": key} | row_of(point, training_points))
            elif not known[1]:
                connection.execute(update(trainings).where(trainings.c.key == key).values(standing))

    def training_of(self, key: str) -> TrainingProgress | Failure | None:
        """Finds how far a training is.

        Args:
            key: Key of the training.

        Returns:
            The progress, whose `end` is None if it was interrupted or stopped; a failure that a rerun keeps (see
            `KEPT_FAILURES`), unless the training came to its end; or None if it must be started.
        """
        curve = select(training_points).where(training_points.c.training_key == key).order_by(training_points.c.step)
        with self.reading() as connection:
            row = connection.execute(select(trainings).where(trainings.c.key == key)).mappings().one_or_none()
            is_over = row is not None and row["status"] in _ENDS
            failure = None if is_over else kept_failure(connection, key)
            if row is None or failure is not None:
                return failure
            points = connection.execute(curve).mappings().all()
        return TrainingProgress(
            **fields_in(TrainingProgress, row),
            points=tuple(TrainingPoint(**fields_in(TrainingPoint, point)) for point in points),
            end=row["status"] if is_over else None,
        )


_ENDS = ("finished", "no_better")


def _standing(connection: Connection, key: str) -> tuple[int, bool] | None:
    """How many updates are stored, and whether it is over; None if it has not begun."""
    query = select(trainings.c.step, trainings.c.status).where(trainings.c.key == key).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.step, row.status in _ENDS)
