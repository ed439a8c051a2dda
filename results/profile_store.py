"""Profiles: where the time of an artifact goes, written and found by the latency that it belongs to."""

from datetime import UTC, datetime

from sqlalchemy import delete, select

from results.rows import fields_in, row_of
from results.schema import operator_times, profiles
from results.transactions import Transactions, upsert
from tasks.types import OperatorTime, Profile


class ProfileStore(Transactions):
    """Writes profiles, and finds them by key."""

    def put_profile(self, latency_key: str, profile: Profile) -> None:
        """Stores where the time goes; replaces the profile that is stored under the key.

        Args:
            latency_key: Key of a latency that is stored already.
            profile: The time of each operator.
        """
        row = row_of(profile, profiles) | {
            "key": latency_key,
            "fallback_share": profile.fallback_share,
            "conversion_share": profile.conversion_share,
            "created_at": datetime.now(UTC),
        }
        with self.writing() as connection:
            upsert(connection, profiles, row)
            connection.execute(delete(operator_times).where(operator_times.c.profile_key == latency_key))
            for position, operator in enumerate(profile.operators):
                place = {"profile_key": latency_key, "position": position}
                upsert(connection, operator_times, place | row_of(operator, operator_times))

    def profile_of(self, latency_key: str) -> Profile | None:
        """Finds where the time goes.

        Args:
            latency_key: Key of the latency.

        Returns:
            The profile; None if it must be taken.
        """
        operators = select(operator_times).where(operator_times.c.profile_key == latency_key)
        with self.reading() as connection:
            found = connection.execute(select(profiles).where(profiles.c.key == latency_key)).mappings().one_or_none()
            if found is None:
                return None
            rows = connection.execute(operators.order_by(operator_times.c.position)).mappings().all()
        times = tuple(OperatorTime(**fields_in(OperatorTime, row)) for row in rows)
        return Profile(**fields_in(Profile, found), operators=times)
