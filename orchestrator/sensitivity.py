"""Sensitivities of a plan: one layer at a time quantized, each analysis made once."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.executor import Ref
from cluster.lanes import LANES_BY_FRAMEWORK, Lane
from orchestrator.accuracies import Accuracies
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import RANKING_IMAGES, Plan
from orchestrator.space import REFERENCE
from results.store import Store
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.quantize.artifact import toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.schemes import Scheme
from tasks.steps import artifacts as steps
from tasks.types import Accuracy, Artifact, Failure, LayerSensitivity

_PRIORITY = 2

Continuation = Callable[["tuple[str, ...] | Failure"], None]
"""Gets the layers, the most sensitive first, or why there is no ranking."""


@dataclass
class _Analysis:
    """How far one analysis is."""

    key: str
    scheme: Scheme
    missing: int
    probes: dict[str, LayerSensitivity] = field(default_factory=dict)
    reference_ap: float | None = None
    failure: Failure | None = None
    waiting: list[Continuation] = field(default_factory=list)


class Sensitivities:
    """Analyses what the database does not know yet."""

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        store: Store,
        detector: Ref,
        ground_truth: Ref,
        images: PreparedImages,
        accuracies: Accuracies,
    ) -> None:
        """Takes what is analysed.

        Args:
            plan: What is to be done; schemes that its spec names under `sensitivity` are scored, too.
            graph: Where the work goes.
            store: Where results go.
            detector: A ref to the detector.
            ground_truth: A ref to the annotations of the evaluation images.
            images: Where preprocessed images come from.
            accuracies: Where the AP of float artifacts comes from, with which those of the layers are compared.
        """
        self._plan, self._graph, self._store, self._accuracies = plan, graph, store, accuracies
        self._detector, self._truth, self._images = detector, ground_truth, images
        self._running: dict[str, _Analysis] = {}

    def ranking(self, scheme: Scheme, source: Artifact, statistics: Ref | None, then: Continuation) -> None:
        """Asks for the order of the layers by sensitivity.

        Args:
            scheme: How one layer at a time is quantized; it keeps no layer in float.
            source: The float32 .tflite that it starts from.
            statistics: A ref to the statistics, if the scheme is calibrated.
            then: Gets the names, the most sensitive first, or a `Failure`.
        """
        scored = scheme in self._plan.spec.sensitivity
        key = self._plan.sensitivity_key(scheme, scored)
        known = self._store.sensitivity_of(key)
        if known is not None:
            then(ranked(known))
            return
        if key in self._running:
            self._running[key].waiting.append(then)
            return
        table = layers(self._plan.detector.spec)
        analysis = self._running[key] = _Analysis(key, scheme, len(table) + scored, waiting=[then])
        for layer in table:
            self._probe(analysis, layer.name, source, statistics, scored)
        if scored:
            self._accuracies.evaluate(source, REFERENCE.settings, lambda _, result: self._take(analysis, result))

    def _probe(self, analysis: _Analysis, layer: str, source: Artifact, statistics: Ref | None, scored: bool) -> None:
        plan, seed = self._plan, analysis.scheme.axes().get("calibration_seed", 0)
        assert plan.calibration is not None
        images = self._images.sample(seed, min(RANKING_IMAGES, len(plan.calibration)))
        self._graph.once(
            f"probe {analysis.key} {layer}", _PRIORITY, self._lane(analysis.scheme), "sensitivity", steps.probe,
            self._detector, analysis.scheme, layer, source, statistics, plan.storage, images, self._truth,
            plan.spec.postprocessing, *(self._images.evaluation if scored else ()),
            then=lambda result: self._take(analysis, result),
        )  # fmt: skip

    def _take(self, analysis: _Analysis, result: LayerSensitivity | Accuracy | Failure) -> None:
        analysis.missing -= 1
        if isinstance(result, Failure):
            analysis.failure = result
        elif isinstance(result, LayerSensitivity):
            analysis.probes[result.layer] = result
        else:
            analysis.reference_ap = result.statistics[0]
        if not analysis.missing:
            self._finish(analysis)

    def _finish(self, analysis: _Analysis) -> None:
        del self._running[analysis.key]
        outcome: tuple[str, ...] | Failure
        if analysis.failure is not None:
            self._store.put_failure(analysis.key, analysis.failure)
            outcome = analysis.failure
        else:
            found = self._with_losses(analysis)
            self._keep(analysis, found)
            outcome = ranked(found)
        for then in analysis.waiting:
            then(outcome)

    def _with_losses(self, analysis: _Analysis) -> tuple[LayerSensitivity, ...]:
        """The probes in the network's order, with AP losses."""
        names = [layer.name for layer in layers(self._plan.detector.spec)]
        probes = [analysis.probes[name] for name in names]
        reference = analysis.reference_ap
        return tuple(
            replace(each, ap_loss=reference - each.ap) if reference is not None and each.ap is not None else each
            for each in probes
        )

    def _keep(self, analysis: _Analysis, found: tuple[LayerSensitivity, ...]) -> None:
        plan = self._plan
        assert plan.calibration is not None
        scored: dict[str, Any] = {}
        if analysis.reference_ap is not None:
            scored = {
                "dataset_fingerprint": plan.evaluation.fingerprint,
                "images": len(plan.evaluation),
                "reference_ap": analysis.reference_ap,
            }
        calibration = {"fingerprint": plan.calibration.fingerprint, "images": RANKING_IMAGES}
        self._store.put_sensitivity(
            analysis.key, plan.detector.sha256, analysis.scheme, toolchain_versions(analysis.scheme), calibration,
            found, **scored,
        )  # fmt: skip

    def _lane(self, scheme: Scheme) -> Lane:
        return LANES_BY_FRAMEWORK[builder_of(scheme).framework]


def ranked(probes: tuple[LayerSensitivity, ...]) -> tuple[str, ...]:
    """Orders layers by sensitivity.

    Args:
        probes: The layers in the network's order.

    Returns:
        Their names, the lowest SQNR first; of equal ones, the first in the network.
    """
    return tuple(each.layer for each in sorted(probes, key=lambda each: each.sqnr_db))
