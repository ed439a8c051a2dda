"""Latency: a variant timed beside the reference, or any two artifacts beside each other, in fresh processes."""

from dataclasses import asdict
from typing import Any

import numpy as np

from tasks.latency.conditions import complaints
from tasks.latency.duel import Contender, Duel, DuelOptions, duel
from tasks.latency.scene import Scene
from tasks.latency.throughput import throughput
from tasks.types import Comparison, Latency, Postprocessing, RuntimeSettings

REFERENCE_SETTINGS = RuntimeSettings("litert", threads=1)
"""How the reference runs in every benchmark, whatever the variant's settings: all ratios stand on one scale."""

_THROUGHPUT_SHARE = 0.05
"""Of the time cap, for which throughput is measured besides."""


def benchmark(
    reference: bytes,
    variant: bytes,
    settings: RuntimeSettings,
    scene: Scene,
    postprocessing: Postprocessing,
    options: DuelOptions | None = None,
) -> Latency:
    """Measures the latency of a variant and its ratio to the reference.

    Args:
        reference: Content of the LiteRT float32 artifact of the same detector.
        variant: Content of the variant's artifact.
        settings: How the variant is run. The reference runs with `REFERENCE_SETTINGS`.
        scene: A few preprocessed images, used in turn; each pair runs on one. A start takes the first ones.
        postprocessing: What is timed apart, on the variant's outputs.
        options: How long and how precisely.

    Returns:
        The latency.

    Raises:
        ArtifactUnreadable: If an artifact cannot be loaded.
        InferenceFailed: If a runtime fails.
        BenchmarkFailed: If a process dies or runs past its time limit.
    """
    options = options or DuelOptions()
    contender = Contender(variant, settings)
    questions: tuple[tuple[str, dict[str, Any]], ...] = (
        ("postprocess", {"postprocessing": asdict(postprocessing)}),
        ("executed", {}),
    )
    timed = duel((Contender(reference, REFERENCE_SETTINGS), contender), scene, options, questions)
    flow = throughput(contender, scene, _THROUGHPUT_SHARE * options.max_seconds, options.timeout_seconds)
    record = timed.second
    p50, p90, p99 = np.percentile(record.times_ms, [50, 90, 99]).tolist()
    return Latency(
        latency_ms_p50=p50,
        latency_ms_p90=p90,
        latency_ms_p99=p99,
        reference_ms_p50=float(np.median(timed.first.times_ms)),
        **_estimate(timed),
        postprocessing_ms_p50=record.extras["postprocess"],
        executed_mac_share=record.extras["executed"],
        load_ms=record.typical("load_ms"),
        first_inference_ms=record.typical("first_inference_ms"),
        import_ms=record.typical("import_ms") if record.starts[0]["import_ms"] is not None else None,
        peak_memory_bytes=int(record.typical("memory_bytes")),
        images_per_second=flow.images_per_second,
        copies=flow.copies,
    )


def compare_latency(
    first: Contender, second: Contender, scene: Scene, options: DuelOptions | None = None
) -> Comparison:
    """Times two artifacts of a detector in turn, directly.

    Args:
        first: One artifact and its settings.
        second: The other.
        scene: A few preprocessed images, used in turn.
        options: How long and how precisely.

    Returns:
        The comparison.

    Raises:
        TaskFailure: As `benchmark`.
    """
    timed = duel((first, second), scene, options or DuelOptions())
    return Comparison(
        first_ms_p50=float(np.median(timed.first.times_ms)),
        second_ms_p50=float(np.median(timed.second.times_ms)),
        **_estimate(timed),
    )


def _estimate(timed: Duel) -> dict[str, Any]:
    """Returns the fields that `Latency` and `Comparison` share."""
    return {
        "ratio": timed.ratio.ratio,
        "ratio_low": timed.ratio.low,
        "ratio_high": timed.ratio.high,
        "pairs": sum(len(each) for each in timed.rounds),
        "converged": timed.converged,
        "samples_ms": timed.rounds,
        "conditions": timed.conditions,
        "noisy": complaints(timed.conditions),
    }
