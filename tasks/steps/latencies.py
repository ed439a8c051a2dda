"""Steps that time artifacts, on a machine of their own."""

from dataclasses import dataclass

from tasks.benchmark import benchmark, compare_latency
from tasks.host import this_host
from tasks.latency.duel import Contender, DuelOptions
from tasks.latency.profiling import profile
from tasks.steps.content import content_of
from tasks.steps.images import kept_scene
from tasks.storage import ArtifactStorage
from tasks.types import (
    Artifact,
    Comparison,
    Host,
    Latency,
    Postprocessing,
    Profile,
    RuntimeSettings,
)


@dataclass(frozen=True)
class Measured:
    """A latency, and where it was measured."""

    host: Host
    """The machine."""

    latency: Latency
    """The measurement."""


@dataclass(frozen=True)
class Compared:
    """A direct comparison, and where it was measured."""

    host: Host
    """The machine."""

    comparison: Comparison
    """The measurement."""


@dataclass(frozen=True)
class Profiled:
    """A profile, and where it was taken."""

    host: Host
    """The machine."""

    profile: Profile
    """The measurement."""


def measure(
    storage: ArtifactStorage,
    reference: Artifact,
    artifact: Artifact,
    settings: RuntimeSettings,
    scene_key: str,
    postprocessing: Postprocessing,
    options: DuelOptions,
) -> Measured:
    """Measures the latency of an artifact beside the reference on this machine.

    Args:
        storage: Where both artifacts are.
        reference: The LiteRT float32 build.
        artifact: What to measure.
        settings: How to run it.
        scene_key: What `keep_scene` kept.
        postprocessing: How raw outputs become detections.
        options: Time cap and wanted precision.

    Returns:
        The latency and this machine.
    """
    base, variant = (content_of(storage, item.sha256, item.format) for item in (reference, artifact))
    latency = benchmark(base, variant, settings, kept_scene(storage, scene_key), postprocessing, options)
    return Measured(this_host(), latency)


def compare_directly(
    storage: ArtifactStorage,
    first: tuple[Artifact, RuntimeSettings],
    second: tuple[Artifact, RuntimeSettings],
    scene_key: str,
    options: DuelOptions,
) -> Compared:
    """Times two artifacts in turn on this machine.

    Args:
        storage: Where both are.
        first: One artifact, and how to run it.
        second: The other.
        scene_key: What `keep_scene` kept.
        options: Time cap and wanted precision.

    Returns:
        The comparison and this machine.
    """
    one, other = (
        Contender(content_of(storage, item.sha256, item.format), settings) for item, settings in (first, second)
    )
    return Compared(this_host(), compare_latency(one, other, kept_scene(storage, scene_key), options))


def take_profile(
    storage: ArtifactStorage, artifact: Artifact, settings: RuntimeSettings, scene_key: str, seconds: float
) -> Profiled:
    """Times each operator of an artifact on this machine.

    Args:
        storage: Where the artifact is.
        artifact: What to profile.
        settings: How to run it.
        scene_key: What `keep_scene` kept.
        seconds: Time to spend, about.

    Returns:
        The profile and this machine.
    """
    content = content_of(storage, artifact.sha256, artifact.format)
    return Profiled(this_host(), profile(content, settings, kept_scene(storage, scene_key).pixels, seconds))
