"""The eager toolchain: artifacts are the detector's own file and the memory layout that torch runs it in."""

from tasks.quantize.builders import Builder, Material, register
from tasks.quantize.schemes import Float32
from tasks.runtimes.torch import eager_file


def build_float32(material: Material, scheme: Float32) -> bytes:
    """Makes the artifact of torch without a compiler, in float32."""
    return eager_file(material.detector, scheme.memory_layout)


register(
    Builder(
        scheme=Float32,
        toolchain="eager",
        runtimes=("torch",),
        framework="torch",
        build=build_float32,
        format="torch.safetensors",
        packages=("torch", "safetensors"),
    )
)
