"""The few-shot domains of the embedded world: fixed pictures, honest splits, labels that match."""

import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest

from cl_complora.world.domains import DOMAINS
from cl_complora.world.domains.digits import POOL, source_indices
from cl_complora.world.domains.greek import FONTS
from cl_complora.world.domains.new_objects import NEW_OBJECTS
from cl_complora.world.domains.textures import TEXTURES
from cl_complora.world.objects import OBJECTS, SHAPES
from cl_complora.world.patterns import PATTERNS
from cl_complora.world.scenes import SCENES

STREAM = ("objects", "digits", "greek", "textures", "sketches", "flags", "aerial")
STYLES = ("style-photo", "style-chalk", "style-blueprint", "style-neon", "style-silhouette")

every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


def pictures(name: str, per_class: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    domain = DOMAINS[name]
    labels = np.repeat(np.arange(len(domain.class_names)), per_class)
    drawn = [domain.render(int(label), i % per_class, split) for i, label in enumerate(labels)]
    return np.stack(drawn), labels


def gradient_histograms(images: np.ndarray, cell: int = 8) -> np.ndarray:
    """Directions of edges in each cell of the picture, and the mean colours of the cell."""
    grey = images.mean(-1) / 255
    dy, dx = np.gradient(grey, axis=(1, 2))
    strength, direction = np.hypot(dx, dy), np.arctan2(dy, dx) % np.pi
    cells = (len(images), 48 // cell, cell, 48 // cell, cell)
    features = []
    for k in range(8):
        within = (direction // (np.pi / 8)).astype(int) == k
        features.append((strength * within).reshape(cells).mean((2, 4)).reshape(len(images), -1) * 8)
    colours = images.reshape(*cells, 3).mean((2, 4)).reshape(len(images), -1) / 255
    return np.concatenate([*features, colours], 1)


def test_registry_holds_the_stream_and_the_styles():
    assert tuple(DOMAINS) == STREAM + STYLES
    assert all(domain.name == name for name, domain in DOMAINS.items())


@every_domain
def test_names_and_prompts(domain):
    assert len(set(domain.class_names)) == len(domain.class_names) >= 10
    assert 3 <= len(domain.prompts) <= 4
    for prompt in domain.prompts:
        assert prompt.count("{}") == 1


def test_pretraining_knows_none_of_the_new_concepts():
    assert not set(NEW_OBJECTS) & (set(OBJECTS) | set(SHAPES) | set(SCENES) | set(PATTERNS))
    assert not set(TEXTURES) & set(PATTERNS)
    assert not set(FONTS["train"]) & set(FONTS["test"])


def test_styles_share_their_classes():
    assert len({DOMAINS[name].class_names for name in STYLES}) == 1


@every_domain
def test_a_picture_is_fixed_and_can_be_drawn_alone(domain):
    last = len(domain.class_names) - 1
    first_time = domain.render(last, 5, "train")
    for other in range(4):
        domain.render(other, other, "test")
    assert first_time.shape == (48, 48, 3) and first_time.dtype == np.uint8
    assert np.array_equal(first_time, domain.render(last, 5, "train"))


@every_domain
def test_pictures_differ_within_and_between_splits(domain):
    seen = {
        domain.render(label, sample, split).tobytes()
        for label in range(len(domain.class_names))
        for sample in range(2)
        for split in ("train", "test")
    }
    assert len(seen) == len(domain.class_names) * 2 * 2


@every_domain
def test_every_class_has_something_to_see(domain):
    for label in range(len(domain.class_names)):
        assert domain.render(label, 0, "train").std() > 5


@every_domain
def test_unknown_pictures_are_refused(domain):
    with pytest.raises(IndexError):
        domain.render(len(domain.class_names), 0, "train")
    with pytest.raises(IndexError):
        domain.render(0, -1, "train")
    with pytest.raises(ValueError, match="split"):
        domain.render(0, 0, "validation")


@every_domain
def test_domains_can_be_sent_to_another_process(domain):
    copy = pickle.loads(pickle.dumps(domain))
    assert np.array_equal(copy.render(1, 2, "test"), domain.render(1, 2, "test"))


def test_a_fresh_interpreter_draws_the_same_picture():
    code = (
        "from cl_complora.world.domains import DOMAINS; import zlib;"
        "print([zlib.crc32(d.render(3, 7, 'test').tobytes()) for d in DOMAINS.values()])"
    )
    here = [zlib.crc32(domain.render(3, 7, "test").tobytes()) for domain in DOMAINS.values()]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here)


def test_digits_are_the_scans_of_scikit_learn_dealt_into_halves():
    from sklearn.datasets import load_digits

    data = load_digits()
    train, test = source_indices()["train"], source_indices()["test"]
    assert train.shape == test.shape == (10, POOL)
    assert len(np.unique(np.concatenate([train, test]))) == 20 * POOL
    for label in range(10):
        assert (data.target[np.concatenate([train[label], test[label]])] == label).all()
    assert DOMAINS["digits"].pool == POOL == np.bincount(data.target).min() // 2
    for split, sources in source_indices().items():
        drawn = DOMAINS["digits"].render(8, 11, split)
        assert (drawn[..., :1] == drawn).all()
        scan = data.images[sources[8, 11]]
        grid = drawn[..., 0][np.ix_(*[((np.arange(8) + 1.5) * 4.8).astype(int)] * 2)]
        assert np.corrcoef(grid.ravel(), scan.ravel())[0, 1] > 0.97
    with pytest.raises(IndexError):
        DOMAINS["digits"].render(0, POOL, "train")


def test_no_two_scans_of_the_digits_are_the_same():
    images, _ = pictures("digits", POOL, "train")
    held_out, _ = pictures("digits", POOL, "test")
    assert len({image.tobytes() for image in [*images, *held_out]}) == 20 * POOL


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("digits", 0.8),
        ("flags", 0.4),
        ("textures", 0.35),
        ("aerial", 0.6),
        ("greek", 0.3),
        ("sketches", 0.3),
        ("style-silhouette", 0.35),
    ],
)
def test_labels_match_the_pictures(name, at_least):
    """A linear classifier on edges and colours, trained on a few shots, beats chance by far."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    images, labels = pictures(name, 12, "train")
    held_out, truth = pictures(name, 8, "test")
    scaler = StandardScaler().fit(gradient_histograms(images))
    learner = LogisticRegression(C=0.01, max_iter=60)
    learner.fit(scaler.transform(gradient_histograms(images)), labels)
    accuracy = learner.score(scaler.transform(gradient_histograms(held_out)), truth)
    assert accuracy > at_least, f"{accuracy:.2f}; chance is {1 / len(DOMAINS[name].class_names):.2f}"


def test_import_is_light():
    code = (
        "import sys, cl_complora.world.domains;"
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
