"""Training in torch, of float detectors and, with torchao, of quantized ones."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.training.learner import Batch, Losses, Ranges, Simulation
from tasks.training.loss_torch import detection_loss, distillation_loss
from tasks.training.recipe import Recipe
from tasks.training.targets import background_column

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-7
_MOMENTUM = 0.9
_SECOND_DECAY = 0.999
"""Second beta of AdamW."""


class TorchLearner:
    """A detector that learns in torch; see `tasks.training.learner.Learner`."""

    def __init__(
        self,
        detector: Detector,
        recipe: Recipe,
        simulation: Simulation | None = None,
        ranges: Ranges | None = None,
        teacher: Detector | None = None,
    ) -> None:
        """Builds the module; see `tasks.training.learners.learner_of`.

        Args:
            detector: Where training starts.
            recipe: How it is trained.
            simulation: What is quantized; None trains a float detector.
            ranges: First ranges of activations, for every layer and `image`; needed with a simulation.
            teacher: The float detector to learn from, if the recipe distils; `detector` if None.

        Raises:
            QuantizationFailed: If a range is missing, or torchao left out something that is to be quantized.
        """
        import torch

        from tasks.detector.torch_model import TrainableSSDMobileNetV1

        self._place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.cuda.get_device_name() if self._place.type == "cuda" else "cpu"
        self._detector = detector
        self._recipe = recipe
        self._background = background_column(detector.spec)
        layout = torch.channels_last
        module: Any = TrainableSSDMobileNetV1(detector).to(self._place, memory_format=layout)
        self._simulated = None
        if simulation is not None:
            from tasks.quantize.torch_simulation import SimulatedDetector

            self._simulated = SimulatedDetector(module, detector.spec.image_size, simulation, ranges or {})
            module = self._simulated.graph
        self._module = module
        self._teacher: Any = None
        if recipe.distillation_weight:
            self._teacher = TrainableSSDMobileNetV1(teacher or detector).to(self._place, memory_format=layout)
        self._parameters = dict(self._module.named_parameters())
        self._optimizer = _optimizer(self._parameters, recipe)

    def step(self, batch: Batch, learning_rate: float, is_observing: bool) -> Losses:
        """See `Learner.step`."""
        import torch

        self._observe(is_observing)
        losses = self._losses(batch)
        self._observe(False)
        self._optimizer.zero_grad()
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._recipe.largest_gradient)
        self._update(learning_rate)
        return _numbers(losses)

    def evaluate(self, batch: Batch) -> Losses:
        """See `Learner.evaluate`."""
        import torch

        with torch.no_grad():
            return _numbers(self._losses(batch))

    def outputs(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the module, quantized as in training, without changing anything.

        Args:
            pixels: (B, S, S, 3) uint8 RGB.

        Returns:
            Codes (B, A, 4) and logits (B, A, classes) float32, the scores before the sigmoid.
        """
        import torch

        with torch.no_grad():
            codes, logits = self._module(self._images(pixels))
        return codes.cpu().numpy(), logits.cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """See `Learner.state`."""
        found = {f"parameters/{name}": _array(parameter) for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            slots = self._optimizer.state.get(parameter, {})
            found |= {f"optimizer/{name}/{slot}": _array(value) for slot, value in slots.items()}
        if self._simulated is not None:
            ranges = self._simulated.activation_ranges()
            found |= {f"ranges/{name}": np.array(range_, np.float32) for name, range_ in ranges.items()}
        return found

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """See `Learner.restore`.

        Raises:
            ValueError: If the state is of a learner that was made otherwise.
        """
        import torch

        found: dict[str, dict[str, np.ndarray]] = {"parameters": {}, "optimizer": {}, "ranges": {}}
        for key, value in state.items():
            kind, name = key.split("/", 1)
            found[kind][name] = value
        ranges = {} if self._simulated is None else self._simulated.activation_ranges()
        if found["parameters"].keys() != self._parameters.keys() or found["ranges"].keys() != ranges.keys():
            raise ValueError("the state is of another learner: its parameters or ranges are others")
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(found["parameters"][name]))
        self._restore_optimizer(found["optimizer"])
        if self._simulated is not None:
            self._simulated.set_activation_ranges({name: tuple(found["ranges"][name].tolist()) for name in ranges})

    def detector(self) -> Detector:
        """See `Learner.detector`."""
        tensors = dict(self._detector.tensors)
        for layer in layers(self._detector.spec):
            weights, bias = (_array(self._parameters[f"{layer.name}.{role}"]) for role in ("weight", "bias"))
            # HWC1 and HWIO, of torch's (channels, 1, H, W) and (out, in, H, W).
            order = (2, 3, 0, 1) if layer.kind == "depthwise" else (2, 3, 1, 0)
            tensors[f"{layer.name}/weights"] = np.ascontiguousarray(weights.transpose(order))
            tensors[f"{layer.name}/bias"] = bias
        return replace(self._detector, tensors=tensors)

    def ranges(self) -> Ranges:
        """See `Learner.ranges`."""
        return {} if self._simulated is None else self._simulated.ranges()

    def _observe(self, is_observing: bool) -> None:
        if self._simulated is not None:
            self._simulated.observe(is_observing)

    def _images(self, pixels: np.ndarray) -> "torch.Tensor":
        """Returns (B, 3, S, S) float32 in [-1, 1], in the memory layout channels_last."""
        import torch

        return torch.from_numpy(pixels).to(self._place).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0

    def _losses(self, batch: Batch) -> "tuple[torch.Tensor, ...]":
        """Returns the fields of `Losses` in their order."""
        import torch

        images = self._images(batch.pixels)
        codes, logits = self._module(images)
        target_codes, target_columns = (torch.from_numpy(item).to(self._place) for item in (batch.codes, batch.columns))
        settings, share = self._recipe.loss, self._recipe.distillation_weight
        box, score = detection_loss(codes, logits, target_codes, target_columns, settings, self._background)
        wanted = settings.box_weight * box + settings.score_weight * score
        if self._teacher is None:
            return box, score, torch.zeros(()), wanted
        with torch.no_grad():
            teacher_codes, teacher_logits = self._teacher(images)
        distillation = distillation_loss(codes, logits, teacher_codes, teacher_logits, self._background)
        # Without labels theirs is no loss at all, and must not even be multiplied by 0.
        total = distillation if share == 1 else (1 - share) * wanted + share * distillation
        return box, score, distillation, total

    def _update(self, learning_rate: float) -> None:
        if self._recipe.optimizer == "sgd":
            self._scale_for_sgd(learning_rate)
        else:
            # Keras adds epsilon to the root of the second moment before its bias is corrected, torch after that.
            epsilon = _EPSILON / math.sqrt(1 - _SECOND_DECAY ** (self._updates() + 1))
            for group in self._optimizer.param_groups:
                group.update(lr=learning_rate, eps=epsilon)
        self._optimizer.step()

    def _scale_for_sgd(self, learning_rate: float) -> None:
        """Brings the learning rate into the gradients, so that the momentum is one of updates, as Keras has it.

        And shrinks the kernels: torch's own weight decay would be part of the momentum.
        """
        import torch

        with torch.no_grad():
            torch._foreach_mul_([parameter.grad for parameter in self._parameters.values()], learning_rate)
            torch._foreach_mul_(
                self._optimizer.param_groups[0]["params"], 1 - learning_rate * self._recipe.weight_decay
            )

    def _updates(self) -> int:
        """Returns how many updates AdamW has made."""
        return next((int(slots["step"].item()) for slots in self._optimizer.state.values()), 0)

    def _restore_optimizer(self, slots: dict[str, np.ndarray]) -> None:
        """Takes over slots by `PARAMETER/SLOT`."""
        import torch

        indices = {name: index for index, name in enumerate(_in_groups(self._parameters))}
        state: dict[int, dict[str, Any]] = {}
        for key, value in slots.items():
            name, slot = key.rsplit("/", 1)
            given = torch.from_numpy(value.copy())
            like = torch.empty_like(self._parameters[name], device="cpu", requires_grad=False)
            # Slots have the memory layout of their parameters, as the update wants it.
            state.setdefault(indices[name], {})[slot] = given if given.ndim == 0 else like.copy_(given)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _in_groups(parameters: dict[str, Any]) -> list[str]:
    """Returns the names of parameters in the order in which the optimizer has them: kernels, then biases."""
    return sorted(parameters, key=lambda name: name.endswith(".bias"))


def _optimizer(parameters: dict[str, Any], recipe: Recipe) -> "torch.optim.Optimizer":
    """Makes the optimizer of a recipe, with the kernels in its first group and the biases in its second."""
    import torch

    names = _in_groups(parameters)
    kernels = [parameters[name] for name in names if not name.endswith(".bias")]
    biases = [parameters[name] for name in names if name.endswith(".bias")]
    if recipe.optimizer == "sgd":
        groups: list[dict[str, Any]] = [{"params": kernels}, {"params": biases}]
        return torch.optim.SGD(groups, lr=1.0, momentum=_MOMENTUM, nesterov=True, fused=True)
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate, (_MOMENTUM, _SECOND_DECAY), _EPSILON, fused=True)


def _array(tensor: "torch.Tensor") -> np.ndarray:
    """Copies a tensor."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _numbers(losses: "tuple[torch.Tensor, ...]") -> Losses:
    return Losses(*(loss.item() for loss in losses))
