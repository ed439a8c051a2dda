"""The packages that AOTInductor compiles of the tiny detector, each one once: it takes some 20 s."""

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable

from tasks.quantize.artifact import make
from tasks.quantize.schemes import Float32, Scheme
from tests.once import once
from tests.tasks.runtimes.tiny_detector import tiny_detector

DESCRIPTION = "model/extra/quantsweep.json"


@functools.cache
def tiny_package(scheme: Scheme | None = None) -> bytes:
    """Float32 in channels_last, unless another scheme is given."""
    wanted = scheme or Float32(toolchain="inductor")
    name = hashlib.sha256(repr(wanted).encode()).hexdigest()
    return once(f"{name}.pt2", lambda: make(tiny_detector(), wanted))


def rewritten(data: bytes, change: Callable[[dict], None]) -> bytes:
    """A whole zip file with another description, as a liar would make it."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as found, zipfile.ZipFile(target, "w") as made:
        for name in found.namelist():
            content = found.read(name)
            if name == DESCRIPTION:
                description = json.loads(content)
                change(description)
                content = json.dumps(description).encode()
            made.writestr(name, content)
    return target.getvalue()
