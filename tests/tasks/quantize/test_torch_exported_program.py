"""The description of an exported program names what each convolution computes in."""

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operations below

from tasks.identity import key_of
from tasks.quantize.exported_program import described, exported

CHANNELS = 4
QUANTIZED = torch.ops.quantized_decomposed


class OneConvolution(torch.nn.Module):
    """A 3x3 convolution of quantized numbers, under the name of a layer."""

    def __init__(self, activations: str, weights: str, zero_point: int = 3, scale: float = 0.1) -> None:
        super().__init__()
        self.kinds = (activations, weights)
        self.ends = (scale, zero_point)
        self.layer = torch.nn.Conv2d(3, CHANNELS, 3)
        integers = torch.arange(CHANNELS * 27, dtype=torch.int32).remainder(7).to(torch.int8)
        self.register_buffer("integers", integers.reshape(CHANNELS, 3, 3, 3))
        self.register_buffer("scales", torch.full((CHANNELS,), scale))
        self.register_buffer("zero_points", torch.zeros(CHANNELS, dtype=torch.int64))

    def forward(self, images):
        result = torch.nn.functional.conv2d(self.activations(images), self.weights(), self.layer.bias)
        flat = result.reshape(1, -1, CHANNELS)
        return flat, torch.sigmoid(flat)

    def activations(self, images):
        if self.kinds[0] == "float":
            return images
        if self.kinds[0] == "dynamic":
            scale, zero_point = QUANTIZED.choose_qparams.tensor(images, 0, 255, 1e-6, torch.uint8)
            ends = (scale, zero_point, 0, 255, torch.uint8)
            integers = QUANTIZED.quantize_per_tensor.tensor(images, *ends)
            return QUANTIZED.dequantize_per_tensor.tensor(integers, *ends)
        ends = (*self.ends, 0, 255, torch.uint8)
        integers = QUANTIZED.quantize_per_tensor.default(images, *ends)
        padded = torch.nn.functional.pad(integers, (0, 1, 0, 1), value=self.ends[1])
        return QUANTIZED.dequantize_per_tensor.default(padded, *ends)

    def weights(self):
        if self.kinds[1] == "float":
            return self.layer.weight
        if self.kinds[1] == "per_channel":
            ends = (self.scales, self.zero_points, 0, -128, 127, torch.int8)
            return QUANTIZED.dequantize_per_channel.default(self.integers, *ends)
        return QUANTIZED.dequantize_per_tensor.default(self.integers, 0.1, 0, -128, 127, torch.int8)


def description(*arguments, **options):
    return described(exported(OneConvolution(*arguments, **options), 8, "contiguous"))


def convolution(*arguments):
    (found,) = description(*arguments)["convolutions"]
    return found


@pytest.mark.parametrize(
    ("activations", "weights", "arithmetic", "stored", "granularity"),
    [
        ("float", "float", "float32", "float32", None),
        ("static", "per_channel", "int8", "int8", "per_channel"),
        ("static", "per_tensor", "int8", "int8", "per_tensor"),
        ("dynamic", "per_channel", "dynamic_int8", "int8", "per_channel"),
        ("float", "per_channel", "weight_only_int8", "int8", "per_channel"),
        ("static", "float", "float32", "float32", None),
    ],
)
def test_arithmetic_follows_from_both_inputs(activations, weights, arithmetic, stored, granularity):
    found = convolution(activations, weights)
    assert (found["layer"], found["arithmetic"], found["stored"]) == ("layer", arithmetic, stored)
    assert found["granularity"] == granularity
    assert found["elements"] == CHANNELS * 27
    side = 7 if activations == "static" else 6
    assert found["macs"] == side * side * CHANNELS * 27


def test_the_codebook_is_that_of_the_stored_integers():
    assert convolution("static", "per_channel")["codebook"] == 7


@pytest.mark.parametrize(("zero_point", "symmetric"), [(0, True), (128, True), (3, False)])
def test_activations_are_symmetric_about_zero_or_the_middle(zero_point, symmetric):
    assert description("static", "per_channel", zero_point=zero_point)["symmetric"] is symmetric


def test_what_is_found_at_run_time_or_float_is_neither():
    assert description("dynamic", "per_channel")["symmetric"] is None
    assert description("float", "float")["symmetric"] is None


def test_scales_and_zero_points_are_not_part_of_the_graph_but_whether_there_is_a_zero_point():
    one, other, without = (
        key_of(description("static", "per_channel", zero_point=zero_point, scale=scale)["nodes"])
        for zero_point, scale in ((3, 0.1), (7, 0.2), (0, 0.1))
    )
    assert one == other != without


def test_half_precision_is_named():
    module = OneConvolution("float", "float").to(torch.bfloat16)
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16),))
    assert described(program)["convolutions"][0]["arithmetic"] == "bfloat16"
    assert described(program)["convolutions"][0]["codebook"] > 7


def test_names_of_operations_are_those_of_torch():
    assert description("dynamic", "per_channel")["operators"] == {
        "aten.conv2d.default": 1,
        "aten.reshape.default": 1,
        "aten.sigmoid.default": 1,
        "getitem": 2,
        "quantized_decomposed.choose_qparams.tensor": 1,
        "quantized_decomposed.dequantize_per_channel.default": 1,
        "quantized_decomposed.dequantize_per_tensor.tensor": 1,
        "quantized_decomposed.quantize_per_tensor.tensor": 1,
    }
