"""Sensitivities: what quantizing one layer alone does to a detector, written and found by key."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select

from results.rows import fields_in, row_of, scheme_row
from results.schema import layer_sensitivities, sensitivities
from results.transactions import Transactions, upsert
from tasks.identity import canonical
from tasks.types import LayerSensitivity, Scheme

_RATIOS = ("sqnr_db", "sqnr_boxes_db", "sqnr_scores_db")


class SensitivityStore(Transactions):
    """Writes sensitivities, and finds them by key."""

    def put_sensitivity(
        self,
        key: str,
        detector_sha256: str,
        scheme: Scheme,
        versions: Mapping[str, str],
        calibration: Any,
        layers: Sequence[LayerSensitivity],
        dataset_fingerprint: str | None = None,
        images: int | None = None,
        reference_ap: float | None = None,
    ) -> None:
        """Stores what quantizing one layer at a time does; replaces all layers that are stored under the key.

        Args:
            key: Key of the measurement.
            detector_sha256: A detector that is stored already.
            scheme: What one layer at a time was quantized with.
            versions: Versions of the packages that decide about the bytes.
            calibration: Images that ranges and noise were observed on: dataclasses or plain values.
            layers: Every layer, in the order of the network. Infinite ratios are allowed: nothing changed.
            dataset_fingerprint: An evaluation set that is stored already; None if AP was not measured.
            images: Number of images evaluated; None if AP was not measured.
            reference_ap: AP of the float detector on them; None if AP was not measured.

        Raises:
            ValueError: For another number that is not finite; then nothing is stored.
        """
        row = {
            "key": key,
            "detector_sha256": detector_sha256,
            **scheme_row(scheme),
            "versions": dict(versions),
            "calibration": canonical(calibration),
            "dataset_fingerprint": dataset_fingerprint,
            "images": images,
            "reference_ap": reference_ap,
            "created_at": datetime.now(UTC),
        }
        ranking = sorted(range(len(layers)), key=lambda position: (layers[position].sqnr_db, position))
        with self.writing() as connection:
            upsert(connection, sensitivities, row)
            connection.execute(delete(layer_sensitivities).where(layer_sensitivities.c.sensitivity_key == key))
            for rank, position in enumerate(ranking, start=1):
                place = {"sensitivity_key": key, "position": position, "rank": rank}
                upsert(connection, layer_sensitivities, place | _layer_row(layers[position]))

    def sensitivity_of(self, key: str) -> tuple[LayerSensitivity, ...] | None:
        """Finds what a measurement of sensitivity gave.

        Args:
            key: Key of the measurement.

        Returns:
            Every layer, in the order of the network; None if it must be measured.
        """
        known = select(sensitivities.c.key).where(sensitivities.c.key == key)
        rows = select(layer_sensitivities).where(layer_sensitivities.c.sensitivity_key == key)
        with self.reading() as connection:
            if connection.execute(known).scalar() is None:
                return None
            found = connection.execute(rows.order_by(layer_sensitivities.c.position)).mappings().all()
        return tuple(LayerSensitivity(**fields_in(LayerSensitivity, row) | _ratios(row)) for row in found)


def _layer_row(layer: LayerSensitivity) -> dict[str, Any]:
    row = row_of(layer, layer_sensitivities)
    # A layer of zeros is quantized without noise, and neither JSON nor most readers of SQL know infinity.
    return row | {name: None if row[name] == math.inf else row[name] for name in _RATIOS}


def _ratios(row: Mapping[Any, Any]) -> dict[str, float]:
    return {name: math.inf if row[name] is None else row[name] for name in _RATIOS}
