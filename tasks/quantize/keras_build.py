"""The Keras toolchain: artifacts are the detector's own file and the precision that Keras computes it in."""

from tasks.detector.keras_model import keras_file
from tasks.quantize.builders import Builder, BuildFunction, Material, register
from tasks.quantize.schemes import BFloat16, Float16, Float32, Scheme


def build_float32(material: Material, scheme: Float32) -> bytes:
    """Makes the artifact of Keras in float32: the detector's own file."""
    return keras_file(material.detector, "float32")


def build_float16(material: Material, scheme: Float16) -> bytes:
    """Makes the artifact of the policy mixed_float16: float32 variables, half-precision arithmetic."""
    return keras_file(material.detector, "mixed_float16")


def build_bfloat16(material: Material, scheme: BFloat16) -> bytes:
    """Makes the artifact of the policy mixed_bfloat16: float32 variables, bfloat16 arithmetic."""
    return keras_file(material.detector, "mixed_bfloat16")


def _register(scheme: type[Scheme], build: BuildFunction) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain="keras",
            runtimes=("keras",),
            # Making the file is NumPy's work, but its audit traces the function that the file stands for.
            framework="tensorflow",
            build=build,
            format="safetensors",
            packages=("tensorflow", "tf-keras", "safetensors"),
        )
    )


_register(Float32, build_float32)
_register(Float16, build_float16)
_register(BFloat16, build_bfloat16)
