"""Steps of images: their names, and those that latency is measured on."""

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import ArtifactUnreadable
from tasks.identity import key_of
from tasks.latency.scene import SCENE, Scene
from tasks.storage import ArtifactStorage
from tasks.types import ImageShard


def shard_key(*shards: ImageShard) -> str:
    """Names preprocessed images without moving their pixels.

    Args:
        *shards: Preprocessed images.

    Returns:
        A sha256 of their fingerprints.
    """
    return key_of([shard.fingerprint for shard in shards])


def keep_scene(storage: ArtifactStorage, key: str, spec: SSDMobileNetV1Spec, shard: ImageShard) -> None:
    """Sees to it that the images of benchmarks are in storage, where later comparisons find them, too.

    Args:
        storage: Where they are kept.
        key: Names everything that they depend on.
        spec: Architecture of the detector.
        shard: Preprocessed images; the first ones are taken.
    """
    if storage.recall(key, SCENE) is None:
        storage.keep(key, Scene.of(shard, spec).to_bytes(), SCENE)


def kept_scene(storage: ArtifactStorage, key: str) -> Scene:
    """Reads the images of benchmarks.

    Args:
        storage: Where they are kept.
        key: As `keep_scene` had it.

    Returns:
        The scene.

    Raises:
        ArtifactUnreadable: If it is gone.
    """
    data = storage.recall(key, SCENE)
    if data is None:
        raise ArtifactUnreadable(f"the images that latency is measured on are no longer in {storage.url}")
    return Scene.from_bytes(data)
