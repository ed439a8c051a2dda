"""What is swept, and the keys that name sweeps and variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from results.schema import KINDS, STATISTICS
from tasks.identity import key_of
from tasks.types import Variant


def variant_key(detector_sha256: str, variant: Variant) -> str:
    """Returns the key of a variant of a detector. Axes that do not exist under its scheme have no part in it."""
    return key_of("variant", detector_sha256, variant.scheme.name, variant.scheme.axes(), variant.settings)


@dataclass(frozen=True)
class SweepRecord:
    """What is swept. Equal records (but for `artifacts_url`) are the same sweep."""

    name: str
    """Name given in the spec."""

    spec: str
    """Text of the spec file."""

    detector_sha256: str
    """The detector."""

    dataset_fingerprint: str
    """The evaluation set."""

    variants: Sequence[Variant]
    """The list, in order, without repeats, with the reference."""

    reference: Variant
    """The variant that losses refer to."""

    artifacts_url: str
    """Where the artifacts are kept."""

    provenance: Mapping[str, Any]
    """Seeds, calibration images, versions: plain values that the results depend on."""

    budget_metric: str | None = None
    """A COCO statistic such as `AP` or `ap_small`, upper or lower case; None for no budget."""

    budget_max_loss: float | None = None
    """Largest loss allowed, with `budget_metric`."""

    budget_relative: bool = False
    """Whether that is a share of the reference's value instead of points in [0, 1]."""

    kind: str = "sweep"
    """What measures the variants: one of `results.schema.KINDS`."""

    confirm_fingerprint: str | None = None
    """Further images that the winner is confirmed on; None if there are none."""

    def __post_init__(self) -> None:
        """Checks the reference, the kind and the budget."""
        if self.reference not in self.variants:
            raise ValueError(f"the reference {self.reference.label} is not among the variants")
        if self.kind not in KINDS:
            raise ValueError(f"the kind is {self.kind!r}; choices: {', '.join(KINDS)}")
        metric = self.budget_metric
        if metric is not None and (metric.lower() not in STATISTICS or self.budget_max_loss is None):
            raise ValueError(f"no budget of {self.budget_max_loss} on {metric!r}; metrics: {', '.join(STATISTICS)}")

    @property
    def budget(self) -> tuple[str | None, float | None, bool | None]:
        """Metric, limit and whether it is relative, as they are stored."""
        if self.budget_metric is None:
            return None, None, None
        return self.budget_metric.lower(), self.budget_max_loss, self.budget_relative

    @property
    def variant_keys(self) -> list[str]:
        """Keys of the variants, in order."""
        return [variant_key(self.detector_sha256, variant) for variant in self.variants]

    @cached_property
    def key(self) -> str:
        """Names the sweep. What sweeps did not have before they had kinds has no part in the keys of such sweeps."""
        own = (self.kind, self.confirm_fingerprint)
        return key_of(
            "sweep", self.name, self.spec, self.detector_sha256, self.dataset_fingerprint, self.provenance,
            self.variant_keys, self.budget, *(() if own == ("sweep", None) else own),
        )  # fmt: skip
