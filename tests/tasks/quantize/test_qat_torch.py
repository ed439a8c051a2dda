"""Training in torch: its simulation computes what the quantized program does, and whoever resumes it sees no seam."""

import dataclasses

import numpy as np
import pytest
import torch

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.torch_model import TrainableSSDMobileNetV1, build_torch
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.qat_torch import TorchLearner
from tasks.quantize.schemes import QatInt8
from tasks.quantize.torch_pt2e import static_program
from tasks.quantize.torch_simulation import (
    ActivationFakeQuantize,
    SimulatedDetector,
    SimulationQuantizer,
    WeightFakeQuantize,
)
from tasks.quantize.transforms.base import transformed
from tasks.training.learner import Batch, Simulation
from tasks.training.recipe import Recipe
from tasks.training.targets import BACKGROUND, IGNORED
from tests.detectors import tiny_detector

RATE = 1e-3
RECIPE = Recipe(epochs=1, learning_rate=RATE)
INT8 = Simulation(weight_bits=8, depthwise_bits=8, is_per_channel=True, is_symmetric=False)
DETECTOR = tiny_detector()
TABLE = layers(DETECTOR.spec)
HEADS = {role: [layer.name for layer in TABLE if layer.name.endswith(role)] for role in ("boxes", "scores")}
ANCHORS = sum(layer.out_size**2 * layer.out_channels // 4 for layer in TABLE if layer.name.endswith("boxes"))


def batch(images: int = 2, seed: int = 0) -> Batch:
    random, spec = np.random.default_rng(seed), DETECTOR.spec
    columns = np.full((images, ANCHORS), BACKGROUND, np.int32)
    columns[:, ::5] = random.integers(0, len(spec.class_ids), columns[:, ::5].shape)
    columns[:, 1::5] = IGNORED
    codes = random.normal(0, 1, (images, ANCHORS, 4)).astype(np.float32)
    return Batch(random.integers(0, 256, (images, 64, 64, 3), dtype=np.uint8), codes, columns)


def real_images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)).permute(0, 3, 1, 2)


def first_ranges(detector: Detector = DETECTOR, pixels: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
    """The extremes of each layer's output, those of the heads of a role joined."""
    module, found = build_torch(detector), {"image": (-1.0, 1.0)}
    for name, layer in module.named_children():
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: found.update({name: (output.min().item(), output.max().item())})
        )
    with torch.no_grad():
        module(real_images(batch(8).pixels if pixels is None else pixels))
    for names in HEADS.values():
        lows, highs = zip(*(found[name] for name in names), strict=True)
        found |= dict.fromkeys(names, (min(lows), max(highs)))
    return found


RANGES = first_ranges()


def learner(simulation: Simulation | None = INT8, detector: Detector = DETECTOR, **settings: object) -> TorchLearner:
    recipe = dataclasses.replace(RECIPE, **settings)
    return TorchLearner(detector, recipe, simulation, None if simulation is None else RANGES)


def mean_difference(ones: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...]) -> list[float]:
    return [float(np.abs(one - other).mean()) for one, other in zip(ones, others, strict=True)]


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("symmetry", ["asymmetric", "symmetric"])
def test_untrained_outputs_are_those_of_the_quantized_program_of_the_same_ranges(granularity, symmetry):
    scheme = QatInt8(toolchain="pt2e", epochs=0, granularity=granularity, symmetry=symmetry)
    module = static_program(DETECTOR, scheme, RANGES).module()
    simulation = Simulation(8, 8, granularity == "per_channel", symmetry == "symmetric")
    pixels = batch(4).pixels
    with torch.no_grad():
        converted = [module(image[None]) for image in real_images(pixels)]
    boxes, scores = (torch.cat(parts).numpy() for parts in zip(*converted, strict=True))
    codes, logits = learner(simulation).outputs(pixels)
    float_codes, float_logits = learner(None).outputs(pixels)
    wanted = boxes, np.log(scores / (1 - scores))
    for ours, theirs, exact, names in zip(
        (codes, logits), wanted, (float_codes, float_logits), HEADS.values(), strict=True
    ):
        low, high = RANGES[names[0]]
        # The simulation alone rounds the joined heads: by a quarter of a step in the mean.
        step = (high - low) / 255
        assert np.abs(ours - theirs).mean() < 0.4 * step
        assert np.abs(ours - theirs).max() < 6 * step
        assert np.abs(ours - theirs).mean() < 0.35 * np.abs(ours - exact).mean()


@pytest.mark.parametrize("is_per_channel", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_rounded_over_their_greatest_magnitude_as_it_is_now(bits, is_per_channel):
    simulation = Simulation(bits, 8, is_per_channel, is_symmetric=False)
    module = TrainableSSDMobileNetV1(DETECTOR)
    simulated, rounded = SimulatedDetector(module, 64, simulation, RANGES), []
    for fake in simulated.graph.modules():
        if isinstance(fake, WeightFakeQuantize):
            fake.register_forward_hook(lambda _, inputs, output: rounded.append((inputs[0], output)))
    with torch.no_grad():
        for factor in (1.0, 0.5):
            for parameter in module.parameters():
                parameter.mul_(factor)
            rounded.clear()
            simulated.graph(real_images(batch().pixels))
            assert len(rounded) == len(TABLE)
            for weights, found in rounded:
                bound = 127 if weights.shape[1] == 1 else 2 ** (bits - 1) - 1
                dimensions = (1, 2, 3) if is_per_channel else (0, 1, 2, 3)
                scale = weights.abs().amax(dimensions, keepdim=True) / bound
                torch.testing.assert_close(found, (weights / scale).round() * scale, rtol=0, atol=1e-6)


def test_activations_are_rounded_as_torch_does_it_and_let_gradients_through_within_their_range():
    values = (torch.randn(2, 5, 7, 3) * 2).to(memory_format=torch.channels_last).requires_grad_()
    fake = ActivationFakeQuantize(dtype=torch.uint8, qscheme=torch.per_tensor_affine)
    fake.activation_post_process.min_val.fill_(-1.0)
    fake.activation_post_process.max_val.fill_(2.0)
    fake.enable_observer(False)
    fake.take_scale()
    scale, zero_point = fake.scale.item(), fake.zero_point.item()
    found = fake(values)
    assert torch.equal(found, torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255))
    found.sum().backward()
    is_inside = (values >= -zero_point * scale) & (values <= (255 - zero_point) * scale)
    assert torch.equal(values.grad, is_inside.float())
    assert 0 < is_inside.float().mean() < 1


@pytest.mark.parametrize("simulation", [None, INT8, Simulation(4, 8, False, True)])
def test_a_step_changes_every_tensor_of_weights(simulation):
    student = learner(simulation, optimizer="sgd", weight_decay=0.0)
    losses = student.evaluate(batch())
    first = student.step(batch(), RATE, is_observing=False)
    assert first == losses
    assert first.total == pytest.approx(first.box + first.score)
    trained = student.detector()
    unchanged = [name for name, tensor in trained.tensors.items() if np.array_equal(tensor, DETECTOR.tensors[name])]
    assert not unchanged


@pytest.mark.parametrize(
    ("optimizer", "rate", "simulation"),
    [
        ("adamw", 1e-3, None),
        ("sgd", 1e-2, None),
        ("adamw", 1e-3, INT8),
        pytest.param("sgd", 1e-2, INT8, marks=pytest.mark.slow),
    ],
)
def test_updates_lower_the_loss_of_a_batch_that_comes_again(optimizer, rate, simulation):
    student = learner(simulation, optimizer=optimizer)
    before = student.evaluate(batch()).total
    for step in range(12):
        student.step(batch(), rate, is_observing=step < 6)
    assert student.evaluate(batch()).total < 0.8 * before


def test_ranges_follow_the_batches_slowly_while_they_may_and_then_stay():
    student, first = learner(), RANGES["Conv2d_0"]
    dark = dataclasses.replace(batch(), pixels=batch().pixels // 4)
    brightest = float(dark.pixels.max()) / 127.5 - 1
    student.step(dark, RATE, is_observing=True)
    moved = student.ranges()
    assert moved["image"] == pytest.approx((-1.0, 0.99 + 0.01 * brightest), abs=1e-6)
    assert moved["Conv2d_0"][1] < first[1]
    for names in HEADS.values():
        assert len({moved[name] for name in names}) == 1
        assert moved[names[0]] != RANGES[names[0]]
    student.step(dark, RATE, is_observing=False)
    student.evaluate(dark)
    student.outputs(dark.pixels)
    assert student.ranges() == moved
    assert moved.keys() == RANGES.keys()


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("simulation", "distillation"), [(INT8, 0.5), (None, 0.0)])
def test_a_learner_that_takes_over_a_state_goes_on_bit_for_bit(optimizer, simulation, distillation):
    settings = {"optimizer": optimizer, "distillation_weight": distillation}

    def steps(student: TorchLearner, numbers: range) -> list[float]:
        return [
            student.step(batch(2 + step % 2, step), RATE * (step + 1), is_observing=step < 3).total for step in numbers
        ]

    torch.set_num_threads(1)
    undisturbed = learner(simulation, **settings)
    losses = steps(undisturbed, range(5))
    killed = learner(simulation, **settings)
    untouched = killed.state()
    assert steps(killed, range(2)) == losses[:2]
    state = killed.state()
    steps(killed, range(2, 3))
    heir = learner(simulation, **settings)
    heir.step(batch(), RATE, is_observing=True)
    heir.restore(state)
    assert steps(heir, range(2, 5)) == losses[2:]
    ours, theirs = heir.state(), undisturbed.state()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    heir.restore(untouched)
    assert steps(heir, range(5)) == losses


def test_a_state_of_another_learner_is_refused():
    with pytest.raises(ValueError, match="another learner"):
        learner(None).restore(learner().state())


def test_an_untrained_learner_gives_back_its_detector_caps_and_all():
    detector = transformed(DETECTOR, "equalized")
    assert any(name.endswith("/cap") for name in detector.tensors)
    student = TorchLearner(detector, RECIPE, INT8, first_ranges(detector))
    assert student.detector().sha256 == detector.sha256
    wanted = build_torch(detector)(real_images(batch().pixels))[0].numpy()
    assert mean_difference((student.outputs(batch().pixels)[0],), (wanted,))[0] < 0.2 * np.abs(wanted).mean()


def test_images_of_a_batch_do_not_see_each_other():
    student, pixels = learner(), batch(3).pixels
    together = student.outputs(pixels)
    alone = [student.outputs(image[None]) for image in pixels]
    for ours, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(ours, np.concatenate(parts), atol=0.05)
        assert np.mean(ours == np.concatenate(parts)) > 0.9


def test_with_all_layers_kept_nothing_is_rounded_but_ranges_are_watched():
    kept = dataclasses.replace(INT8, kept_float=frozenset(layer.name for layer in TABLE))
    student = learner(kept)
    for ours, theirs in zip(student.outputs(batch().pixels), learner(None).outputs(batch().pixels), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    student.step(batch(seed=9), RATE, is_observing=True)
    assert all(student.ranges()[name] != RANGES[name] for name in RANGES if name != "image")


def test_an_activation_is_rounded_unless_all_its_readers_are_kept():
    source = "Conv2d_11_pointwise"
    readers = {layer.name for layer in TABLE if layer.source == source}
    assert len(readers) == 3

    def rounded(kept: set[str]) -> set[str]:
        simulation = dataclasses.replace(INT8, kept_float=frozenset(kept))
        simulated = SimulatedDetector(TrainableSSDMobileNetV1(DETECTOR), 64, simulation, RANGES)
        return {name for name, fake in simulated.activations.items() if fake.fake_quant_enabled[0] == 1}

    everything = {layer.name for layer in TABLE if layer.kind != "head"} | {"image", "boxes", "scores"}
    assert rounded(set()) == everything
    assert rounded(readers - {"Conv2d_12_depthwise"}) == everything
    assert rounded(readers) == everything - {source}
    assert rounded({"Conv2d_0", *HEADS["scores"]}) == everything - {"image", "scores"}
    assert rounded({"BoxPredictor_0_scores"}) == everything


def test_a_layer_without_a_range_is_named():
    ranges = {name: range_ for name, range_ in RANGES.items() if name != "Conv2d_3_depthwise"}
    with pytest.raises(QuantizationFailed, match="Conv2d_3_depthwise"):
        TorchLearner(DETECTOR, RECIPE, INT8, ranges)


@pytest.mark.parametrize(("dropped", "message"), [("weights", "Conv2d_5_pointwise"), ("activations", "Conv2d_")])
def test_what_torchao_leaves_out_without_a_word_is_found(dropped, message, monkeypatch):
    annotate = SimulationQuantizer.annotate

    def forgetful(self: SimulationQuantizer, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        for node in annotate(self, model).graph.nodes:
            found = node.meta.get("quantization_annotation")
            if found and dropped == "activations":
                found.output_qspec = None
            elif found and "Conv2d_5_pointwise.bias" in [str(getattr(item, "target", "")) for item in node.args]:
                found.input_qspec_map = {}
        return model

    monkeypatch.setattr(SimulationQuantizer, "annotate", forgetful)
    with pytest.raises(QuantizationFailed, match=message):
        learner()


def test_a_teacher_is_the_float_detector_and_stays_what_it_is():
    student = learner(None, distillation_weight=1.0)
    first = student.step(batch(), RATE, is_observing=False)
    assert first.distillation == first.total == pytest.approx(0, abs=1e-5)
    quantized = learner(Simulation(4, 8, False, False), distillation_weight=1.0)
    losses = [quantized.step(batch(), 3e-4, is_observing=False) for _ in range(12)]
    assert losses[-1].total < 0.7 * losses[0].total
    mixed = learner(None, distillation_weight=0.25)
    mixed.step(batch(), RATE, is_observing=False)
    later = mixed.evaluate(batch())
    assert later.distillation > 1e-3
    assert later.total == pytest.approx(0.75 * (later.box + later.score) + 0.25 * later.distillation)


def test_weight_decay_shrinks_kernels_alone_and_whatever_the_gradient():
    rate, decay = 0.01, 0.5
    plain, decayed = (learner(None, optimizer="sgd", weight_decay=value) for value in (0.0, decay))
    for student in (plain, decayed):
        student.step(batch(), rate, is_observing=False)
    without, found = plain.detector().tensors, decayed.detector().tensors
    for name, tensor in DETECTOR.tensors.items():
        loss = rate * decay * tensor if name.endswith("/weights") else 0.0
        np.testing.assert_allclose(found[name], without[name] - loss, rtol=1e-4, atol=1e-6)


def test_great_gradients_are_scaled_down_to_the_norm_of_the_recipe():
    student = learner(INT8, optimizer="sgd", weight_decay=0.0, largest_gradient=0.1)
    student.step(batch(), 1.0, is_observing=False)
    moves = [tensor - DETECTOR.tensors[name] for name, tensor in student.detector().tensors.items()]
    # Nesterov's first update is 1 + momentum times the gradient.
    assert np.sqrt(sum(float((move.astype(np.float64) ** 2).sum()) for move in moves)) == pytest.approx(0.19, rel=1e-3)
