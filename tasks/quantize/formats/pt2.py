"""The format `pt2`: AOTInductor packages, read back from the generated code without running it."""

import json
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tasks.errors import ArtifactUnreadable
from tasks.identity import key_of
from tasks.quantize.formats.base import Format, register, shares
from tasks.types import Audit

ROOT = "model"
"""Name of the package without the suffix, which is the folder that all its files lie in."""

MODEL = "model"
"""Name of the one model in the package."""

_VERSION = 1
_DESCRIPTION = f"{ROOT}/extra/quantsweep.json"
_MODEL = f"{ROOT}/data/aotinductor/{MODEL}/"
_EPOCH = (1980, 1, 1, 0, 0, 0)

_CONSTANT = re.compile(
    r'constants_info_\[(\d+)\]\.name = "(?P<name>\w+)";'
    r".*?constants_info_\[\1\]\.dtype = cached_torch_dtype_(?P<type>\w+);"
    r'.*?constants_info_\[\1\]\.original_fqn = "(?P<origin>[^"]*)";',
    re.DOTALL,
)
_CALL = re.compile(r"\b(?P<kernel>aoti_torch_cpu_\w*conv\w*)\((?P<arguments>.*)\);$", re.MULTILINE)
_INTEGER_KERNEL = re.compile(r"aoti_torch_cpu_+qconv")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Package:
    """What is read of a package."""

    description: dict[str, Any]
    """What was written into it when it was made: see `tasks.quantize.torch_inductor.package`."""

    source: str
    """The C++ code that calls the kernels."""

    named: frozenset[str]
    """Kernels of torch that the machine code names."""

    @property
    def isa(self) -> frozenset[str]:
        """CPU features of the machine that it was compiled on and for, in the words of `tasks.host.ISA_FLAGS`."""
        return frozenset(self.description["isa"])

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return int(self.description["program"]["image_size"])

    @property
    def memory_layout(self) -> str:
        """`channels_last` or `contiguous`."""
        return str(self.description["memory_layout"])


@dataclass(frozen=True)
class Lowered:
    """What became of one convolution."""

    arithmetic: str
    """Element type that its kernel computes in."""

    stored: str
    """Element type of its weights in the package."""


def packed(data: bytes, description: dict[str, Any]) -> bytes:
    """Makes a package of ours of one of inductor's: adds a description, leaves out what nothing reads.

    Args:
        data: Content of the .pt2 file that inductor made under the name `ROOT`.
        description: Plain JSON values with `memory_layout`, `isa` and `program`.

    Returns:
        Content of a .pt2 file that torch loads as well.
    """
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as found, zipfile.ZipFile(target, "w") as made:
        for name in found.namelist():
            # The code of the small loops between kernels, which tells nothing about them.
            if not name.endswith(".kernel.cpp"):
                _add(made, name, _public(name, found.read(name)))
        _add(made, _DESCRIPTION, json.dumps({"version": _VERSION, **description}, sort_keys=True).encode())
    return target.getvalue()


def read_package(data: bytes) -> Package:
    """Reads a package without running it.

    Args:
        data: Content of a .pt2 file.

    Returns:
        What it says about itself.

    Raises:
        ArtifactUnreadable: If it is damaged, of another format, or not made by this toolchain.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as found:
            damaged = found.testzip()
            if damaged:
                raise ArtifactUnreadable(f"the artifact is damaged: the checksum of {damaged} is wrong")
            names = found.namelist()
            if _DESCRIPTION not in names:
                raise ArtifactUnreadable("the artifact is a zip file, but no package that quantsweep compiled")
            description = json.loads(found.read(_DESCRIPTION))
            source, library = (_only(found, names, suffix) for suffix in (".wrapper.cpp", ".so"))
    # A damaged header can name another compression (NotImplementedError) or a password (RuntimeError).
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise ArtifactUnreadable(f"the artifact is not a whole .pt2 file: {error}") from error
    if description.get("version") != _VERSION:
        raise ArtifactUnreadable(
            f"the artifact is a package of version {description.get('version')}; this quantsweep reads {_VERSION}"
        )
    named = frozenset(name.decode() for name in re.findall(rb"aoti_torch_cpu_\w+", library))
    return Package(description, source.decode(), named)


def lowered(package: Package) -> dict[str, Lowered]:
    """Tells which kernel each convolution became, from the generated code.

    A kernel is known by its bias, which has kept the name of its layer.

    Args:
        package: A package.

    Returns:
        What each convolution became, by layer. Layers that became no convolution kernel are absent.
    """
    constants = {found["name"]: found for found in _CONSTANT.finditer(package.source)}
    result = {}
    for call in _CALL.finditer(package.source):
        if call["kernel"] not in package.named:
            continue
        joined = [constants[word] for word in _WORD.findall(call["arguments"]) if word in constants]
        biases = [found for found in joined if found["origin"].endswith(".bias")]
        weights = [found for found in joined if found["name"].startswith("_frozen_param")]
        if not biases or not weights:
            continue
        stored = weights[0]["type"]
        is_integer = _INTEGER_KERNEL.match(call["kernel"]) is not None
        result[biases[0]["origin"].removesuffix(".bias")] = Lowered("int8" if is_integer else stored, stored)
    return result


def executed(data: bytes) -> dict[str, float]:
    """Tells what a package really computes in.

    Args:
        data: Content of a .pt2 file.

    Returns:
        Share of multiply-accumulates by arithmetic.

    Raises:
        ArtifactUnreadable: See `read_package`.
    """
    return audit(data).mac_share


def audit(data: bytes) -> Audit:
    """Reads a package back: the exported program that it was made of, held against the kernels that it calls.

    Args:
        data: Content of a .pt2 file.

    Returns:
        What it holds. A layer that the program quantizes counts as quantized only if its kernel does.

    Raises:
        ArtifactUnreadable: See `read_package`.
    """
    package = read_package(data)
    program, kernels = package.description["program"], lowered(package)
    macs, weights = Counter[str](), Counter[str]()
    layers, granularities = {}, set()
    for item in program["convolutions"]:
        kernel = kernels.get(item["layer"])
        arithmetic = _arithmetic(item, kernel)
        layers[item["layer"]] = arithmetic
        macs[arithmetic] += item["macs"]
        weights[kernel.stored if kernel else item["stored"]] += item["elements"]
        granularities |= {item["granularity"]} - {None}
    return Audit(
        mac_share=shares(macs),
        weight_share=shares(weights),
        granularity="mixed" if len(granularities) > 1 else next(iter(granularities), None),
        operators=program["operators"],
        macs=macs.total(),
        input_type=program["input"],
        output_types=program["outputs"],
        layers=layers,
        codebook_size=max((item["codebook"] for item in program["convolutions"]), default=0),
        symmetric_activations=program["symmetric"],
    )


def structure_sha256(data: bytes) -> str:
    """Hashes what the latency of a package depends on.

    In: the exported program's operations, arguments, shapes and types; the memory layout; the CPU that it is compiled
    for, by which compiler settings and version of torch; the kernel of each layer. Out: values of weights, biases,
    scales and zero points (but for whether they are 0), and the machine code, which differs from call to call.

    Args:
        data: Content of a .pt2 file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtifactUnreadable: See `read_package`.
    """
    package = read_package(data)
    program = {key: value for key, value in package.description["program"].items() if key != "convolutions"}
    kernels = {layer: [kernel.arithmetic, kernel.stored] for layer, kernel in lowered(package).items()}
    return key_of("pt2", {**package.description, "program": program}, kernels)


def _arithmetic(item: dict[str, Any], kernel: Lowered | None) -> str:
    promised = str(item["arithmetic"])
    if promised in ("int8", "dynamic_int8") and (kernel is None or kernel.arithmetic != "int8"):
        return "float32"
    return kernel.arithmetic if kernel and promised in ("float32", "float16", "bfloat16") else promised


def _only(found: zipfile.ZipFile, names: list[str], suffix: str) -> bytes:
    matching = [name for name in names if name.startswith(_MODEL) and name.endswith(suffix)]
    if len(matching) != 1:
        raise ArtifactUnreadable(f"the artifact has {len(matching)} files *{suffix}, where a package has one")
    return found.read(matching[0])


def _public(name: str, content: bytes) -> bytes:
    # The compiler's command line follows the code as a comment, with the paths of the machine that it ran on.
    return content.partition(b"// Compile cmd")[0] if name.endswith(".cpp") else content


def _add(made: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith((".cpp", ".json")) else zipfile.ZIP_STORED
    made.writestr(entry, content)


register(Format("pt2", audit, structure_sha256))
