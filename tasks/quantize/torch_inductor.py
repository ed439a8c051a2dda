"""The inductor toolchain: torch's AOTInductor compiles a detector into a package of machine code for this CPU."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.detector.weights import Detector
from tasks.errors import CompilerMissing
from tasks.host import this_host
from tasks.quantize.builders import Builder, BuildFunction, Limit, Material, register
from tasks.quantize.exported_program import described, exported
from tasks.quantize.formats.pt2 import ROOT, packed
from tasks.quantize.schemes import BFloat16, DynamicInt8, Float16, Float32, MemoryLayout, Scheme

_CONFIGURATION: dict[str, Any] = {
    # Weights become constants, which oneDNN's blocked order and its int8 kernels need.
    "freezing": True,
    # Else constants of up to 8 elements become code and lose their names, by which the audit knows the layers.
    "always_keep_tensor_constants": True,
    # The package is made once and run with any number of threads.
    "cpp.dynamic_threads": True,
    # `native` would use what `tasks.host.ISA_FLAGS` does not name, so that two hosts of equal flags could differ;
    # inductor itself adds the flags of the vector instructions that it writes.
    "cpp.march": "",
    # Weights in a file beside the library: in it they would stay mapped, since torch never unloads a library.
    "aot_inductor.package_constants_in_so": False,
    "aot_inductor.package_constants_on_disk_format": "binary_blob",
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
    # They would save 3 s of 20, and leave 300 MB in the system's temporary folder.
    "aot_inductor.precompile_headers": False,
}


def package(program: Any, memory_layout: MemoryLayout) -> bytes:
    """Compiles an exported program into an AOTInductor package for this machine's CPU.

    Args:
        program: A `torch.export.ExportedProgram` of a detector, with float weights or after torchao's `convert_pt2e`,
            that takes one float32 image (1, 3, S, S).
        memory_layout: What the program was exported in: its example input and the weights.

    Returns:
        Content of a .pt2 file. Programs that differ only in values give packages of one structure, though not of
        equal bytes: inductor writes addresses of the compiling process into the code.

    Raises:
        CompilerMissing: If this machine has no C++ compiler.
    """
    check_compiler()
    import torch
    from torch._inductor.utils import fresh_cache

    description = {
        "memory_layout": memory_layout,
        "isa": this_host().properties["isa"],
        "torch": torch.__version__,
        "configuration": _CONFIGURATION,
        "program": described(program),
    }
    with tempfile.TemporaryDirectory(prefix="quantsweep-inductor-") as folder, torch.no_grad():
        path = Path(folder) / f"{ROOT}.pt2"
        with fresh_cache(dir=folder), _one_thread():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=dict(_CONFIGURATION)
            )
        return packed(path.read_bytes(), description)


def check_compiler() -> None:
    """Refuses to go on without a C++ compiler.

    Raises:
        CompilerMissing: If there is none where torch looks for it.
    """
    wanted = os.environ.get("CXX", "g++")
    if shutil.which(wanted) is None:
        raise CompilerMissing(
            f"torch needs a C++ compiler and this machine has no {wanted}; install g++, or name another in the "
            "environment variable CXX"
        )


def build_float32(material: Material, scheme: Float32) -> bytes:
    """Compiles a detector in float32."""
    return _compiled(material.detector, scheme, "float32")


def build_float16(material: Material, scheme: Float16) -> bytes:
    """Compiles a detector in half precision, weights and activations."""
    return _compiled(material.detector, scheme, "float16")


def build_bfloat16(material: Material, scheme: BFloat16) -> bytes:
    """Compiles a detector in bfloat16, weights and activations."""
    return _compiled(material.detector, scheme, "bfloat16")


def build_quantize_dynamic(material: Material, scheme: DynamicInt8) -> bytes:
    """Compiles what the textbook example makes of a detector, which has no linear layers to quantize."""
    import torch
    from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

    from tasks.detector.torch_model import build_torch

    setting = default_dynamic_qconfig if scheme.granularity == "per_tensor" else per_channel_dynamic_qconfig
    kept = dict.fromkeys(material.kept_float)
    module = quantize_dynamic(build_torch(material.detector), {torch.nn.Linear: setting, **kept})
    program = exported(module, material.detector.spec.image_size, scheme.memory_layout)
    return package(program, scheme.memory_layout)


def _compiled(detector: Detector, scheme: Scheme, element_type: str) -> bytes:
    import torch

    from tasks.detector.torch_model import build_torch

    check_compiler()
    module = build_torch(detector).to(getattr(torch, element_type))
    return package(exported(module, detector.spec.image_size, scheme.memory_layout), scheme.memory_layout)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compiles as on one thread, by whose number inductor cuts loops, so that the code is the same everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _register(scheme: type[Scheme], toolchain: str, build: BuildFunction, *limits: Limit) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain=toolchain,
            runtimes=("torch",),
            framework="torch",
            build=build,
            format="pt2",
            is_compiled=True,
            packages=("torch",),
            limits=limits,
        )
    )


_register(Float32, "inductor", build_float32)
_register(Float16, "inductor", build_float16)
_register(BFloat16, "inductor", build_bfloat16)
_register(
    DynamicInt8,
    "quantize_dynamic",
    build_quantize_dynamic,
    Limit("weight_algorithm", ("min_max",), "quantize_dynamic takes the range of the weights"),
)
