"""The format `torch.safetensors`: detectors that torch runs without a compiler, read back from the exported module."""

from collections import Counter

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import AuditMismatch
from tasks.identity import key_of
from tasks.quantize.exported_program import described, exported
from tasks.quantize.formats.base import Format, register
from tasks.runtimes.torch import opened
from tasks.types import Audit


def audit(data: bytes) -> Audit:
    """Reads an artifact back: its stored tensors, and the graph that torch exports of the module. Runs nothing.

    Args:
        data: Content of a detector's safetensors file that names a memory layout.

    Returns:
        What it holds. The arithmetic of a layer is the element type that its convolution has in the graph.

    Raises:
        ArtifactUnreadable: If the content is not a detector, or has no memory layout that torch has.
        AuditMismatch: If the graph does not have one convolution for each layer.
    """
    detector, memory_layout = opened(data)
    from tasks.detector.torch_model import build_torch

    program = described(exported(build_torch(detector), detector.spec.image_size, memory_layout))
    found = {item["layer"]: item for item in program["convolutions"]}
    table = layers(detector.spec)
    if set(found) != {layer.name for layer in table} or len(program["convolutions"]) != len(table):
        raise AuditMismatch(f"the graph has {len(program['convolutions'])} convolutions for {len(table)} layers")
    macs, weights = Counter[str](), Counter[str]()
    for name, item in found.items():
        macs[item["arithmetic"]] += item["macs"]
        weights[str(detector.tensors[f"{name}/weights"].dtype)] += item["elements"]
    return Audit(
        mac_share={name: count / macs.total() for name, count in macs.most_common()},
        weight_share={name: count / weights.total() for name, count in weights.most_common()},
        granularity=None,
        operators=program["operators"],
        macs=macs.total(),
        input_type=program["input"],
        output_types=program["outputs"],
        layers={layer.name: found[layer.name]["arithmetic"] for layer in table},
        codebook_size=max(item["codebook"] for item in found.values()),
    )


def structure_sha256(data: bytes) -> str:
    """Hashes what the latency of an artifact depends on: its layers, which of them have caps, and the memory layout.

    Args:
        data: Content of a detector's safetensors file that names a memory layout.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtifactUnreadable: If the content is not a detector, or has no memory layout that torch has.
    """
    detector, memory_layout = opened(data)
    table = layers(detector.spec)
    capped = [layer.name for layer in table if f"{layer.name}/cap" in detector.tensors]
    return key_of("torch", memory_layout, detector.spec.image_size, len(detector.spec.class_ids), table, capped)


register(Format("torch.safetensors", audit, structure_sha256))
