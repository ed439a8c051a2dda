import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.coco.synthetic import CATEGORIES
from tasks.detector.anchors import anchors
from tasks.detector.boxes import decode
from tasks.detector.demo import DEMO_FILE, demo_detector
from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec
from tasks.detector.train import (
    DEMO_SPEC,
    EVALUATION_IMAGES,
    EVALUATION_SEED,
    DemoRecipe,
    TrainingImages,
    batches,
    main,
    render_images,
    train,
)
from tasks.training.targets import BACKGROUND

TINY = SSDMobileNetV1Spec(
    depth_multiplier=0.05,
    image_size=48,
    class_ids=tuple(CATEGORIES),
    anchors=AnchorSpec(aspect_ratios=(1.0, 2.0)),
    min_depth=4,
    source_blocks=(11, 13),
    extra_depths=(128,),
)
RECIPE = DemoRecipe(steps=3, seed=5, images=8, batch_size=4)


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    return render_images(TINY, seed=5, images=8)


@pytest.fixture(scope="module")
def learner(images: TrainingImages) -> Any:
    return train(TINY, images, RECIPE)


def test_a_folded_detector_gives_the_outputs_of_the_training_graph(learner: Any, images: TrainingImages) -> None:
    codes, logits = learner.outputs(images.pixels[:4])
    build = build_keras(learner.detector())
    for index, pixels in enumerate(images.pixels[:4].astype(np.float32) / 127.5 - 1):
        folded = build(pixels[None])
        np.testing.assert_allclose(folded["boxes"][0], codes[index], atol=1e-4)
        np.testing.assert_allclose(folded["scores"][0], 1 / (1 + np.exp(-logits[index])), atol=1e-4)


def test_training_moves_the_batch_norms_so_that_folding_has_something_to_fold(learner: Any) -> None:
    state, firsts = learner.state(), {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    for name, first in firsts.items():
        norms = [values for key, values in state.items() if key.endswith(f"_norm/{name}")]
        assert len(norms) == 27 + 2
        assert all((values != first).any() for values in norms)


def test_batch_norms_stay_as_they_are_where_nothing_may_be_observed(learner: Any, images: TrainingImages) -> None:
    batch = next(batches(images, anchors(TINY), RECIPE))
    before = learner.state()
    learner.step(batch, 1e-3, is_observing=False)
    after = learner.state()
    learner.restore(before)
    moved = {name for name, values in after.items() if (values != before[name]).any()}
    assert "Conv2d_0_norm/gamma" in moved
    assert not {name for name in moved if "moving" in name}


def test_equal_seeds_give_equal_weights_to_the_bit(learner: Any, images: TrainingImages) -> None:
    assert learner.detector().sha256 == train(TINY, images, RECIPE).detector().sha256


def test_the_demos_learning_rate_warms_up_and_falls_to_nothing() -> None:
    recipe = DemoRecipe()
    rates = [recipe.shared.learning_rate_at(step, recipe.steps) for step in range(recipe.steps)]
    assert rates.index(max(rates)) in (359, 360)
    assert max(rates) == pytest.approx(3e-3)
    assert rates[0] == pytest.approx(3e-3 / 360)
    assert rates[-1] < 1e-9


def test_equal_recipes_draw_equal_batches_and_other_seeds_draw_others(images: TrainingImages) -> None:
    def drawn(seed: int) -> list[bytes]:
        recipe = DemoRecipe(steps=3, seed=seed, batch_size=4)
        return [part.tobytes() for batch in batches(images, anchors(TINY), recipe) for part in astuple(batch)]

    assert drawn(5) == drawn(5)
    assert all(one != other for one, other in zip(drawn(5), drawn(6), strict=True))


def test_rendering_in_several_processes_gives_the_same_images(images: TrainingImages) -> None:
    again = render_images(TINY, seed=5, images=8, workers=2)
    assert np.array_equal(again.pixels, images.pixels)
    for one, other in zip((*images.boxes, *images.columns), (*again.boxes, *again.columns), strict=True):
        assert np.array_equal(one, other)


def test_batches_hold_mirrored_images_with_mirrored_targets() -> None:
    pixels = np.zeros((1, 48, 48, 3), np.uint8)
    pixels[0, 10:30, 4:20] = 255
    box = np.array([10, 4, 30, 20], np.float32) / 48
    one = TrainingImages(pixels, (box[None],), (np.array([2], np.int32),))
    places = anchors(TINY)
    seen = set()
    for batch in batches(one, places, DemoRecipe(steps=8, batch_size=2)):
        for image, image_codes, image_columns in zip(batch.pixels, batch.codes, batch.columns, strict=True):
            rows, across = np.nonzero(image[..., 0])
            expected = np.array([rows.min(), across.min(), rows.max() + 1, across.max() + 1]) / 48
            matched = image_columns != BACKGROUND
            assert set(image_columns[matched]) == {2}
            for found in decode(image_codes, places)[matched]:
                np.testing.assert_allclose(found, expected, atol=1e-5)
            seen.add(int(across.min()))
    assert seen == {4, 28}


def test_the_seeds_of_the_demos_own_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path / "x.safetensors"), "--seed", str(EVALUATION_SEED)])
    assert exit_.value.code == 2
    assert "evaluation images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_demos_detector_is_small_and_its_record_is_of_these_weights() -> None:
    detector = demo_detector()
    record = json.loads(DEMO_FILE.with_name("demo_training.json").read_text())
    assert DEMO_FILE.stat().st_size < 3_000_000
    assert detector.spec == DEMO_SPEC
    assert record["sha256"] == detector.sha256
    assert record["evaluation"] == {"images": EVALUATION_IMAGES, "seed": EVALUATION_SEED}
    assert record["statistics"]["AP"] >= 0.5


@pytest.mark.slow
def test_the_demos_detector_reaches_its_recorded_ap() -> None:
    from tasks.detector.train import evaluate

    record = json.loads(DEMO_FILE.with_name("demo_training.json").read_text())
    assert evaluate(demo_detector(), EVALUATION_IMAGES, EVALUATION_SEED)[0] == pytest.approx(
        record["statistics"]["AP"], abs=0.005
    )
