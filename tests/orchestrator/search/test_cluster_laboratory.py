"""The laboratory of studies: an order of images that is cut once, looks that infer no image twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.inprocess import InProcessExecutor
from orchestrator.accuracies import Accuracies
from orchestrator.images import SHARD_IMAGES
from orchestrator.plan import prepare
from orchestrator.progress import PlainProgress
from orchestrator.search.cluster_laboratory import ClusterLaboratory
from orchestrator.search.image_order import ImageOrder
from orchestrator.search.rung_accuracies import RungAccuracies
from orchestrator.search.rungs import Rung, rungs
from orchestrator.space import REFERENCE
from orchestrator.spec import load_spec
from orchestrator.sweep import record_of
from orchestrator.workshop import open_workshop
from results.connect import open_database
from results.store import Store
from tasks.coco.dataset import Dataset
from tasks.coco.image_file import ImageFile
from tasks.coco.synthetic import write_synthetic
from tasks.storage import ArtifactStorage
from tests.detectors import tiny_detector

SPEC = """
name: laboratory
detector: detector.safetensors
evaluation: {images: val/images, annotations: val/annotations.json}
budget: {max_loss: 0.02}
latency: {max_seconds: 0.2, retries: 0}
space: [{scheme: float16, toolchain: litert_quantizer}]
"""


def _dataset(count):
    files = tuple(ImageFile(number, f"{number}.jpg", 1, 1) for number in range(1, count + 1))
    return Dataset("some", files, {}, None)


@given(st.integers(1, 700), st.integers(0, 5), st.integers(1, 70))
def test_an_order_holds_every_image_once_and_ends_a_shard_at_every_rung(images, seed, cpus):
    looks = rungs(images, 0.05)
    order = ImageOrder.of(_dataset(images), seed, looks, cpus)
    assert sorted(file.image_id for shard in order.shards for file in shard) == list(range(1, images + 1))
    assert all(0 < len(shard) <= SHARD_IMAGES for shard in order.shards)
    for rung in looks:
        assert sum(len(order.shards[position]) for position in order.within(rung.images)) == rung.images
    assert ImageOrder.of(_dataset(images), seed, looks, cpus) == order


@given(st.integers(1, 5000), st.integers(1, 16))
def test_one_shard_for_every_cpu_unless_it_would_be_tiny(images, cpus):
    order = ImageOrder.of(_dataset(images), 0, rungs(images, 0.05, looks_early=False), cpus)
    assert len(order.shards) >= min(cpus, images // 4)


def test_the_seed_decides_about_the_order():
    looks = rungs(100, 0.05)
    first, second = (ImageOrder.of(_dataset(100), seed, looks, 2) for seed in (0, 1))
    assert first != second


def test_no_rung_ends_within_a_shard():
    with pytest.raises(ValueError, match="no shard ends at image 3"):
        ImageOrder.of(_dataset(100), 0, rungs(100, 0.05), 2).within(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laboratory")
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    write_synthetic(folder / "val", images=40, seed=2)
    (folder / "spec.yaml").write_text(SPEC)
    return folder


class Bench:
    """A laboratory over a database and an artifact storage, with what it works on."""

    looks = (Rung(10, 0.99, False), Rung(20, 0.99, False), Rung(40, 0.95, True))

    def __init__(self, folder, place, owner="0" * 64, database="results.db"):
        plan = prepare(load_spec(folder / "spec.yaml"), ArtifactStorage(str(place / "artifacts")), place)
        executor = InProcessExecutor()
        self.order = ImageOrder.of(plan.evaluation, 0, self.looks, executor.cpus)
        self.shop = open_workshop(
            plan, record_of(plan, "study"), Store(open_database(str(place / database))), executor, PlainProgress(),
            plan.spec.space.variants, shards=self.order.shards,
            scoring=lambda *arguments: RungAccuracies(*arguments, order=self.order, owner=owner, level=0.95),
        )  # fmt: skip
        self.laboratory = ClusterLaboratory(self.shop, self.shop.accuracies, self.order, self.looks[0], inferred=0)
        made = {}
        for variant in plan.spec.space.variants:
            self.shop.artifacts.request(
                variant.scheme, lambda artifact, variant=variant: made.update({variant: artifact})
            )
        self.shop.graph.run()
        self.reference = made[REFERENCE], REFERENCE.settings
        (self.variant,) = (variant for variant in plan.spec.space.variants if variant != REFERENCE)
        self.subject = made[self.variant], self.variant.settings

    def look(self, number):
        found = []
        self.shop.accuracies.look(self.reference, self.subject, self.looks[number], found.append)
        self.shop.graph.run()
        return found[0]


def test_a_look_infers_only_what_no_look_inferred_before(folder, tmp_path):
    bench = Bench(folder, tmp_path)
    inferred = []
    for number in (0, 1, 1, 2, 2):
        assert bench.look(number).images == bench.looks[number].images
        inferred.append(bench.laboratory.images_inferred)
    assert inferred == [20, 40, 40, 80, 80]


def test_a_later_driver_counts_what_was_not_counted_and_infers_nothing_again(folder, tmp_path):
    first = Bench(folder, tmp_path)
    seen = first.look(1)
    again = Bench(folder, tmp_path)
    again.laboratory.begin()
    assert again.laboratory.images_inferred == 20  # the reference's; the variant's come with its next look
    submitted = again.shop.graph.submitted
    assert again.look(1) == seen
    assert again.laboratory.images_inferred == 40
    assert again.shop.graph.submitted > submitted


def test_what_verdicts_account_for_is_not_counted_again(folder, tmp_path):
    Bench(folder, tmp_path).look(1)
    again = Bench(folder, tmp_path)
    again.shop.accuracies.note_counted(again.subject, 20)
    again.shop.accuracies.note_counted(again.reference, 20)
    again.look(1)
    assert again.laboratory.images_inferred == 0


def test_what_another_study_inferred_is_used_and_not_counted(folder, tmp_path):
    seen = Bench(folder, tmp_path).look(1)
    other = Bench(folder, tmp_path, owner="1" * 64, database="other.db")
    assert other.look(1) == seen
    assert other.laboratory.images_inferred == 0
    other.look(2)
    assert other.laboratory.images_inferred == 40


def test_a_known_accuracy_answers_every_look(folder, tmp_path):
    bench = Bench(folder, tmp_path)
    last = bench.look(2)
    first = Bench(folder, tmp_path).look(0)
    assert first == last
    assert first.images == 40


def test_the_score_is_the_one_that_a_sweep_gives(folder, tmp_path):
    bench = Bench(folder, tmp_path)
    bench.look(2)
    shop = open_workshop(
        bench.shop.plan, record_of(bench.shop.plan), Store(open_database(str(tmp_path / "sweep.db"))),
        InProcessExecutor(), PlainProgress(), (),
    )  # fmt: skip
    assert type(shop.accuracies) is Accuracies
    found = []
    shop.artifacts.request(bench.variant.scheme, lambda artifact: None)
    shop.graph.run()
    shop.accuracies.evaluate(*bench.subject, lambda key, accuracy: found.append((key, accuracy)))
    shop.graph.run()
    key, accuracy = found[0]
    assert bench.shop.store.accuracy_of(key) == accuracy
