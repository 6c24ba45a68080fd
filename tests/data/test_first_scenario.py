"""A scenario written for somebody's folders: the model asked for, what is retained, and what suits the
pictures."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.models import TINY
from cl_complora.compare.tuning import TuningRequest, prepare
from cl_complora.config import load_scenario
from cl_complora.data.discovery.retention import _tested
from cl_complora.data.planning import plan


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Here are pets and no ImageNet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path / "data"))
    classes(tmp_path / "animals", ("cat", "dog"))
    return tmp_path


def classes(root, names, each: int = 4, size: int = 80) -> None:
    for label, name in enumerate(names):
        for number in range(each):
            paint(
                root / name / f"{number}.png", list(COLOURS.values())[label % 4], 100 * label + number, size
            )


@pytest.fixture
def init(monkeypatch, capsys):
    def init(*words):
        code, out, err = cli(monkeypatch, capsys, "init", *words, "-o", "s.yaml", "--force")
        assert code == 0, err
        return load_scenario("s.yaml"), out

    return init


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    def refused(*words):
        code, _, err = cli(monkeypatch, capsys, "init", *words, "-o", "s.yaml")
        assert code == 2 and err.count("\n") == 1 and not (folder / "s.yaml").exists()
        return err

    return refused


def test_another_model_gets_a_scenario_of_its_own_and_never_the_embedded_worlds_set(init, folder):
    located, out = init("animals", "--model", "ViT-B-16", "--pretrained", "openai")
    model = located.value.model
    assert (model.name, model.pretrained, located.value.zero_shot) == ("ViT-B-16", "openai", [])
    assert "world" not in (folder / "s.yaml").read_text()
    assert "retention is not measured: there is no ImageNet" in out and "--zero-shot FOLDER" in out
    assert located.value.shots == 2 and len(plan(located, 0).tasks[0].train) == 4
    located, out = init("animals", "--model", "ViT-B-16")
    assert located.value.model.pretrained == "openai" and "the tag openai is taken" in out
    located, _ = init("animals")
    assert located.value.model.name == "embedded" and located.value.zero_shot[0].source.kind == "world"


def test_uneven_shots_are_told_with_the_strategy_for_them(init, folder):
    _, out = init("animals")
    assert "complora-balanced" not in out + (folder / "s.yaml").read_text()
    classes(folder / "animals", ("cow",), each=2)
    located, out = init("animals")
    assert located.value.tasks[0].shots == [2, 1, 2]
    assert "run s.yaml --strategy complora-balanced" in out
    assert "# Some classes have fewer shots than others;" in (folder / "s.yaml").read_text()


def test_files_of_ones_own_are_named_so_that_they_are_found(init, folder, tmp_path_factory):
    far = tmp_path_factory.mktemp("far") / "w.safetensors"
    far.write_bytes(b"")
    (folder / "models").mkdir()
    (folder / "models" / "mine.json").write_text(json.dumps(TINY))
    located, out = init("animals", "--model-config", "models/mine.json", "--pretrained", far)
    model = located.value.model
    assert (model.name, model.config, model.pretrained) == ("mine", "models/mine.json", str(far))
    assert "does not say how pixels are normalised" in out
    assert "# mean: [0, 0, 0]" in (folder / "s.yaml").read_text()
    told = {**TINY, "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    (folder / "models" / "mine.json").write_text(json.dumps({"model_cfg": TINY, **told}))
    _, out = init("animals", "--model-config", "models/mine.json", "--pretrained", far)
    assert "normalised" not in out and "# mean" not in (folder / "s.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["--model", "ViT-B-99"], "error: --model ViT-B-99: 'ViT-B-99' is not an open_clip model"),
        (["--model", "ViT-B-32", "--pretrained", "opnai"], "error: --pretrained opnai: ViT-B-32 has no"),
        (["--model", "ViT-B-32", "--pretrained", "w.pt"], "error: --pretrained w.pt: there is no file"),
        (["--pretrained", "openai"], "error: --pretrained openai: the embedded model brings its own"),
        (["--model-config", "no.json"], "error: --model-config no.json: there is no file"),
        (["--zero-shot", "nowhere"], "error: --zero-shot "),
        (["--zero-shot", "animals"], "error: --zero-shot animals: holds the pictures of a task"),
        (["--zero-shot", "."], "error: --zero-shot .: holds the pictures of a task"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_written(refused, words, start):
    assert refused("animals", *words).startswith(start)


def test_of_a_held_out_folder_something_is_left_for_tuning(init, folder):
    classes(folder / "held" / "animals", ("owl", "elk"), each=3)
    located, out = init(
        "animals", "--model", "ViT-B-16", "--pretrained", "openai", "--zero-shot", "held/animals"
    )
    assert located.value.zero_shot[0].name == "animals-2"
    assert "2 classes, 6 pictures, of which tests use 4 and cl-complora tune 2 others" in out
    (held_out,) = plan(located, 0).zero_shot
    assert [item.label for item in held_out.test] == [0, 0, 1, 1]
    assert held_out.prompts == ("a photo of a {}.",)
    for others in ("held/animals/elk", "held/animals/owl"):
        for number in (1, 2):
            (folder / others / f"{number}.png").unlink()
    located, out = init("animals", "--zero-shot", "held/animals")
    assert located.value.zero_shot[0].images == 2 and "cannot be by cl-complora tune" in out


@pytest.mark.parametrize(
    ("pictures", "classes", "tested"),
    [(1, 1, 1), (3, 2, 3), (4, 2, 2), (12, 2, 8), (100, 3, 75), (1200, 10, 900), (5000, 1000, 1000)],
)
def test_tests_use_three_quarters_of_a_held_out_set_and_as_many_of_every_class(pictures, classes, tested):
    assert _tested(pictures, classes) == tested


def test_what_is_written_can_be_tuned(init, folder):
    classes(folder / "animals", ("cat", "dog"), each=8)
    classes(folder / "held", ("owl", "elk"), each=4)
    located, out = init("animals", "--zero-shot", "held")
    assert located.value.shots == 3 and "beside one for validation" in (folder / "s.yaml").read_text()
    tuning = prepare(TuningRequest("s.yaml", "lora"))
    assert (tuning.validation, tuning.held_out, tuning.unmeasured) == (2, ("held",), "")
    assert "tune needs" not in out
    located, out = init("animals", "--shots", "4")
    assert located.value.shots == 4  # as asked for
    assert "'cat', 'dog' of animals have none left: take fewer shots" in out


@pytest.mark.parametrize(
    ("pictures", "shots", "comment", "task", "way"),
    [
        (
            (4, 4),
            2,
            "what half of the classes of every task have; the",
            None,
            "take fewer shots (shots: in the",
        ),
        ((6, 6), 2, "have, beside one for validation (cl-complora tune); the", None, None),
        ((2, 2), 1, "what half of the classes of every task have; the", None, "left: add pictures\n"),
        ((6, 6, 2), 2, "have, beside one for", "for validation where it has 3 or more, at", "left: add pict"),
        ((8, 8, 6), 3, "have, beside one for", "each class has, but one for validation, at most", None),
    ],
)
def test_what_is_left_for_tuning_is_told_as_it_is(init, folder, pictures, shots, comment, task, way):
    for name, each in zip(("cat", "dog", "elk"), pictures, strict=False):
        classes(folder / "mine", (name,), each=each)
    located, out = init("mine")
    text = (folder / "s.yaml").read_text()
    assert located.value.shots == shots and comment in text and (task or "") in text
    assert ("tune needs" in out) == (way is not None) and (way or "") in out


def test_the_poorest_classes_are_named(init, folder):
    classes(folder / "animals", ("cat", "dog", "elk"), each=12)
    classes(folder / "animals", ("owl",), each=6)
    located, out = init("animals")
    assert located.value.tasks[0].shots == [5, 5, 5, 2]
    assert "animals: 'owl' has 3 training images, others more; shots: [5, 5, 5, 2]" in out
    _, out = init("animals", "--shots", "8")
    assert "animals: 'owl' has 3 training images, others more; shots: [6, 6, 6, 3]" in out
    classes(folder / "even", ("cat", "dog"))
    _, out = init("even", "--shots", "8")
    assert "even: every class has 2 training images; shots: 2" in out
    classes(folder / "animals", [f"fish {number}" for number in range(6)], each=8)
    _, out = init("animals", "--shots", "8")
    assert "others more; shots: 6 (of 3 classes), 4 (of 6 classes), 3 (of 1 class)" in out


def test_imagenet_is_proposed_where_the_registry_finds_it(init, folder):
    info = ImageNetInfo()
    picture = folder / "one.jpg"
    Image.new("RGB", (8, 8)).save(picture)
    for place in range(1000):
        for where in (folder / "data" / "imagenet" / "val", folder / "sample"):
            synset = where / info.index_to_label_name(place)
            synset.mkdir(parents=True)
            (synset / "1.JPEG").write_bytes(picture.read_bytes())
    model = ("--model", "ViT-B-16", "--pretrained", "openai")
    located, out = init("animals", *model)
    source = located.value.zero_shot[0].source
    assert (source.kind, source.name) == ("dataset", "imagenet") and "ImageNet (ILSVRC 2012)" in out
    located, _ = init("animals", *model, "--zero-shot", "sample")
    assert located.value.zero_shot[0].source.names == "imagenet"
    (held_out,) = plan(located, 0).zero_shot
    assert "tench" in held_out.class_names and len(held_out.test) == 1000


@pytest.mark.parametrize(
    ("name", "names", "size", "prompt", "flip", "why"),
    [
        ("things", ("cat", "dog"), 80, None, True, "the shorter side is 80 px"),
        (
            "my-flowers12",
            ("rose", "tulip"),
            80,
            "a photo of a {}, a type of flower.",
            True,
            "speaks of flowers",
        ),
        ("EuroSAT", ("forest", "river"), 48, "a satellite photo of {}.", True, "views from above"),
        (
            "traffic_signs",
            ("stop", "yield"),
            32,
            'a photo of a "{}" traffic sign.',
            False,
            "traffic signs are",
        ),
        ("kinds", ("cats", "dogs", "bus"), 80, "a photo of {}.", True, "no article"),
        ("glyphs", ("a", "b"), 80, 'a photo of the letter "{}".', False, "'a' may be another"),
        ("arrows", ("turn left", "turn right"), 80, None, False, "'turn left' may be another"),
        ("codes", ("c0", "c1"), 80, None, True, "direction"),
        (
            "handwritten",
            ("one", "Two"),
            32,
            'a photo of the number: "{}".',
            False,
            "classes are called by numbers",
        ),
    ],
)
def test_prompts_and_augmentation_suit_what_is_there(init, folder, name, names, size, prompt, flip, why):
    classes(folder / name, names, size=size)
    located, out = init(name)
    (task,) = located.value.tasks
    assert task.prompts == ([prompt] if prompt else None)
    assert located.value.prompts == ["a photo of a {}."]
    assert located.value.zero_shot[0].prompts is None  # the embedded model's set brings its own
    augment = located.value.augment
    assert augment.flip == flip and augment.crop == ([0.9, 1.0] if size < 64 else [0.7, 1.0])
    assert why in (folder / "s.yaml").read_text()
    assert ("classes are called by codes" in out) == (name == "codes")


def test_grey_pictures_and_tasks_of_other_kinds(init, folder):
    classes(folder / "birds", ("owl", "jay"), size=32)
    for path in sorted((folder / "animals").rglob("*.png")):
        Image.open(path).convert("L").convert("RGB").save(path)
    located, _ = init("animals", "birds")
    animals, birds = located.value.tasks
    assert animals.prompts == ["a photo of a {}.", "a black and white photo of a {}."]
    assert birds.augment.crop == [0.9, 1.0] and animals.augment is None
