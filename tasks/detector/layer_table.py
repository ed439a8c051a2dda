"""The layer table of a detector as rows for people and programs."""

from tasks.detector.ssd_mobilenet_v1 import Layer, SSDMobileNetV1Spec, layers


def layer_rows(spec: SSDMobileNetV1Spec) -> list[dict[str, str | int]]:
    """Describes each convolution.

    Args:
        spec: The architecture.

    Returns:
        One flat object a layer, in order of execution: name, kind, source, kernel (side in pixels), stride,
        input_shape and output_shape (HEIGHTxWIDTHxCHANNELS), parameters, macs (for one image).
    """
    table = layers(spec)
    sizes = {"image": spec.image_size, **{layer.name: layer.out_size for layer in table}}
    return [_row(layer, sizes[layer.source]) for layer in table]


def _row(layer: Layer, in_size: int) -> dict[str, str | int]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "source": layer.source,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "input_shape": f"{in_size}x{in_size}x{layer.in_channels}",
        "output_shape": f"{layer.out_size}x{layer.out_size}x{layer.out_channels}",
        "parameters": layer.parameters,
        "macs": layer.macs,
    }
