"""LiteRT: runs .tflite flatbuffers with XNNPACK on the CPU."""

from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.runtimes.base import Runtime, checked, input_table, register, run_each
from tasks.types import Profile, RuntimeSettings

_IDENTIFIER = b"TFL3"


class LiteRTSession:
    """An interpreter with its tensors allocated."""

    def __init__(self, data: bytes, settings: RuntimeSettings) -> None:
        """Loads a flatbuffer.

        Args:
            data: Content of a .tflite file.
            settings: Number of threads.

        Raises:
            ArtifactUnreadable: If the content is not a flatbuffer that LiteRT can load, or not a detector.
        """
        from ai_edge_litert.interpreter import Interpreter

        if data[4:8] != _IDENTIFIER:
            raise ArtifactUnreadable("the artifact is not a .tflite file: it lacks the identifier TFL3")
        try:
            self._interpreter = Interpreter(model_content=data, num_threads=settings.threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ArtifactUnreadable(f"LiteRT cannot load the artifact: {error}") from error
        self._input, self._boxes, self._scores = _roles(self._interpreter)
        self._table = input_table(np.dtype(self._input["dtype"]), *_quantization(self._input))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """See `Session.prepare`."""
        return self._table[pixels]

    def infer(self, prepared: np.ndarray) -> None:
        """See `Session.infer`."""
        try:
            self._interpreter.set_tensor(self._input["index"], prepared)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InferenceFailed(f"LiteRT failed: {error}") from error

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.outputs`."""
        return checked(self._read(self._boxes), self._read(self._scores))

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        return run_each(self, pixels)

    def close(self) -> None:
        """See `Session.close`."""
        self._interpreter = None

    def _read(self, tensor: dict[str, Any]) -> np.ndarray:
        values = self._interpreter.get_tensor(tensor["index"])
        if values.dtype == np.float32:
            return values
        scale, zero_point = _quantization(tensor)
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def imported() -> Any:
    """Imports LiteRT.

    Returns:
        The module `ai_edge_litert.interpreter`.
    """
    from ai_edge_litert import interpreter

    return interpreter


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times each operator of an artifact; see `tasks.profiles.litert.profile`."""
    from tasks.profiles.litert import profile

    return profile(data, settings, pixels, seconds)


def _quantization(tensor: dict[str, Any]) -> tuple[float, int]:
    scale, zero_point = tensor["quantization"]
    return float(scale) or 1.0, int(zero_point)


def _roles(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shapes = [tuple(tensor["shape"]) for tensor in (*inputs, *outputs)]
    if len(inputs) != 1 or len(outputs) != 2 or [len(shape) for shape in shapes] != [4, 3, 3]:
        raise ArtifactUnreadable(
            f"the artifact is not a detector: it has {len(inputs)} inputs and {len(outputs)} outputs of the shapes"
            f" {shapes}; one image (1, S, S, 3), boxes (1, A, 4) and scores (1, A, C) are wanted"
        )
    named = _signature_indices(interpreter)
    for boxes, scores in (outputs, outputs[::-1]):
        by_name = named.get("boxes") == boxes["index"] and named.get("scores") == scores["index"]
        if by_name or (not named.keys() >= {"boxes", "scores"} and boxes["shape"][-1] == 4):
            return inputs[0], boxes, scores
    raise ArtifactUnreadable(f"the artifact is not a detector: no output of {shapes[1:]} holds boxes (1, A, 4)")


def _signature_indices(interpreter: Any) -> dict[str, int]:
    signatures = interpreter.get_signature_list()
    if not signatures:
        return {}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return {name: tensor["index"] for name, tensor in runner.get_output_details().items()}


register(
    Runtime(
        "litert",
        ("tflite",),
        "none",
        LiteRTSession,
        ("ai-edge-litert",),
        imported=imported,
        profile=profile,
    )
)
