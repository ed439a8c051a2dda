"""A checkpoint holds a training to the bit."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save

from tasks.detector.weights import metadata_of, with_metadata
from tasks.training import checkpoint
from tasks.training.checkpoint import Checkpoint, Standing, Stretch, versions_of
from tasks.training.learner import Losses
from tasks.types import TrainingPoint, TrainingProgress

POINTS = (
    TrainingPoint(0, 0.1 + 0.2, None, None, None, None, None, None, 1.5, 2.5),
    TrainingPoint(4, 1 / 3, 2 / 3, 0.1, 0.2, 0.0, 1e-3, 123.4, 3.5, 6.5),
)
PROGRESS = TrainingProgress(POINTS, 20, 23, 2, "cpu", 4, "ab" * 32)
STANDING = Standing(7, PROGRESS, 4.25, 8.125, Stretch(3, 24, 0.7, 0.1, 0.2, 0.3, 1e-300))

KINDS = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])
STATES = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
    arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    max_size=5,
)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A checkpoint with another header."""
    data = Checkpoint(STANDING, {"a": np.ones(3)}).to_bytes({})
    record = json.loads(metadata_of(data, "it")["quantsweep.training"])
    change(record)
    return with_metadata(data, "quantsweep.training", json.dumps(record))


def again(found: Checkpoint) -> Checkpoint:
    read = Checkpoint.from_bytes(found.to_bytes({"numpy": "2"}))
    assert read is not None
    return read


@given(STATES)
def test_every_array_comes_back_to_the_bit(state):
    read = again(Checkpoint(STANDING, state)).state
    assert read.keys() == state.keys()
    for name, array in state.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


def test_arrays_that_do_not_lie_in_order_and_numpy_scalars_come_back_too():
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T[::-1]
    read = again(Checkpoint(STANDING, {"turned": turned, "scalar": np.float32(0.1)})).state
    assert np.array_equal(read["turned"], turned)
    assert read["scalar"].shape == () and read["scalar"] == np.float32(0.1)


def test_where_it_stands_comes_back_to_the_bit():
    assert again(Checkpoint(STANDING, {})).standing == STANDING


@given(st.floats(0, 1e300), st.floats(-1e300, 1e300))
def test_sums_of_losses_come_back_to_the_bit(seconds, loss):
    stretch = Stretch().after(Losses(loss, loss / 3, loss / 7, loss / 11), 8, seconds)
    standing = Standing(1, PROGRESS, seconds, seconds, stretch)
    assert again(Checkpoint(standing, {})).standing == standing


def test_equal_checkpoints_have_equal_bytes_which_name_the_versions():
    state = {"b": np.ones(3, np.float32), "a": np.zeros(2, np.int64)}
    data = Checkpoint(STANDING, state).to_bytes({"tensorflow": "2.21.0"})
    assert data == Checkpoint(STANDING, dict(sorted(state.items()))).to_bytes({"tensorflow": "2.21.0"})
    assert b"2.21.0" in data
    assert {"tensorflow", "tf-keras", "numpy"} <= versions_of("keras").keys()


def test_one_of_another_format_is_none(monkeypatch):
    data = Checkpoint(STANDING, {"a": np.ones(3)}).to_bytes({})
    assert Checkpoint.from_bytes(data) is not None
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    assert Checkpoint.from_bytes(data) is None


def without(part: dict[str, Any], name: str) -> None:
    del part[name]


@pytest.mark.parametrize("name", ["format", "progress", "stretch", "step", "seconds"])
def test_one_that_lacks_a_field_is_none(name):
    assert Checkpoint.from_bytes(changed(lambda record: without(record, name))) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda record: without(record["progress"], "points"),
        lambda record: without(record["progress"], "device"),
        lambda record: without(record["progress"]["points"][0], "step"),
        lambda record: record["progress"].update(colour="red"),
        lambda record: record["progress"]["points"][0].update(colour="red"),
        lambda record: record["stretch"].update(colour="red"),
        lambda record: record.update(progress=[]),
        lambda record: record.update(stretch=None),
    ],
)
def test_one_whose_fields_have_other_fields_is_none(change):
    assert Checkpoint.from_bytes(changed(change)) is None


@pytest.mark.parametrize("text", ["[]", "1", "null", '"checkpoint"'])
def test_one_whose_header_is_no_record_is_none(text):
    assert Checkpoint.from_bytes(with_metadata(save({"best": np.ones(3)}), "quantsweep.training", text)) is None


def test_one_without_weights_is_none():
    data = Checkpoint(STANDING, {}).to_bytes({})
    header = metadata_of(data, "it")["quantsweep.training"]
    assert Checkpoint.from_bytes(with_metadata(save({"other": np.ones(3)}), "quantsweep.training", header)) is None


@pytest.mark.parametrize(
    "data", [b"", b"no safetensors at all", save({"a": np.ones(3, np.float32)}), save({"a": np.ones(3)})[:-8]]
)
def test_what_is_no_checkpoint_is_none(data):
    assert Checkpoint.from_bytes(data) is None
