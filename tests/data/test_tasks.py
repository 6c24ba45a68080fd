"""What images are labelled in every protocol, with which prompts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from builders.images import COLOURS, paint
from builders.streams import planned, scenario, touch_all
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.checks.plausibility import doubts
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.labels import LabelSpace
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load
from cl_complora.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return touch_all(tmp_path_factory.mktemp("folders"))


# Prompts
def test_the_nearest_prompts_win(tmp_path, folders):
    def prompts(own: str, of_all: str, source: str) -> tuple[str, ...]:
        path = tmp_path / "prompts.yaml"
        path.write_text(f"name: x\nshots: 1\n{of_all}\ntasks:\n  - name: a\n    source: {source}\n{own}")
        return plan(load_scenario(str(path)), 0).tasks[0].prompts

    folder, world = f"{{kind: folder, root: {folders / 'whole'}}}", "{kind: world, domain: digits}"
    own, of_all = '    prompts: ["own {}"]\n', 'prompts: ["all {}"]'
    for source in (folder, world):
        assert prompts(own, of_all, source) == prompts(own, "", source) == ("own {}",)
        assert prompts("", of_all, source) == ("all {}",)
    said = 'prompts: ["a photo of a {}."]'
    assert prompts("", "", folder) == prompts("", said, folder) == prompts("", said, world)
    assert prompts("", "", folder) == ("a photo of a {}.",) and prompts(own, said, world) == ("own {}",)
    assert len(prompts("", "", world)) > 1


@pytest.mark.parametrize(
    ("names", "templates", "told"),
    [
        (["red"], "a photo of a {}", "templates: must be a list of one text or more, got 'a photo of a {}'"),
        ("red", ["a {}"], "class_names: must be a list of one text or more, got 'red'"),
        ([], ["a {}"], "class_names: must be a list of one text or more, got []"),
        (["red"], (), "templates: must be a list of one text or more, got ()"),
        (["red"], ["a {}", "no brace"], "templates: 'no brace' must hold {} once, where the class name goes"),
        (["red"], ["{} and {}"], "templates: '{} and {}' must hold {} once, where the class name goes"),
        (["red", " "], ["a {}"], "class_names: a class name is empty"),
        (["red", "blue", "red"], ["a {}"], "class_names: 'red' stands twice"),
    ],
)
def test_what_makes_no_label_space_is_refused(names, templates, told):
    with pytest.raises(ValueError) as refused:
        LabelSpace.from_templates(names, templates)
    assert str(refused.value) == told


# Images and label spaces
def loaded(class_folders: Path, folder: Path, protocol: str, tasks: str, loss_classes: str = "seen"):
    tasks = "\n".join(line.replace(";", f"; {class_folders};", 1) for line in tasks.splitlines())
    more = f"protocol: {protocol}\nshots: 2\nvalidation_shots: 1\ntest_limit: 6"
    return load(planned(folder, tasks, more), protocol, Pixels((8, 8)), loss_classes)


def named_after_colour(images, space) -> bool:
    """Whether every picture has the colour that its label stands for."""
    means = images.pixels.float().mean((2, 3))
    palette = torch.tensor(list(COLOURS.values())).float()
    found = [list(COLOURS)[int((palette - mean).norm(dim=1).argmin())] for mean in means]
    return found == [space.class_names[int(label)] for label in images.labels] and len(found) > 0


STEPS = "a; classes: [yellow, red]\nb; classes: [green]\nc; classes: [blue, red]"


def test_task_incremental_tasks_have_label_spaces_of_their_own(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "task-incremental", STEPS)
    assert [task.space.class_names for task in data.tasks] == [("yellow", "red"), ("green",), ("blue", "red")]
    for index, task in enumerate(data.tasks):
        assert task.index == index and task.train_space == task.space
        assert (len(task.train), len(task.validation), len(task.test)) == (
            2 * len(task.space),
            len(task.space),
            6,
        )
        for images in (task.train, task.validation, task.test):
            assert named_after_colour(images, task.space)
            assert images.pixels.dtype == torch.uint8 and images.pixels.shape[1:] == (3, 8, 8)
            assert images.labels.dtype == torch.int64


def test_class_incremental_tasks_share_a_space_that_grows(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "class-incremental", STEPS)
    joint = ("yellow", "red", "green", "blue")
    assert [task.space.class_names for task in data.tasks] == [joint] * 3
    assert [task.train_space.class_names for task in data.tasks] == [joint[:2], joint[:3], joint]
    # A class that comes again keeps its label.
    assert [sorted(set(task.test.labels.tolist())) for task in data.tasks] == [[0, 1], [2], [1, 3]]
    for task in data.tasks:
        assert task.train_space.prompts == task.space.prompts[: len(task.train_space)]
        assert named_after_colour(task.train, task.train_space) and named_after_colour(task.test, task.space)
        assert named_after_colour(task.validation, task.space)


def test_a_class_incremental_loss_may_contrast_the_tasks_own_classes(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "class-incremental", STEPS, "task")
    assert [task.train_space.class_names for task in data.tasks] == [
        ("yellow", "red"),
        ("green",),
        ("blue", "red"),
    ]
    for task in data.tasks:
        assert len(task.space) == 4
        assert named_after_colour(task.train, task.train_space) and named_after_colour(task.test, task.space)
        assert named_after_colour(task.validation, task.space)
    assert data.tasks[2].train.labels.max() == 1 and data.tasks[2].test.labels.max() == 3
    # A head that all tasks share still has to tell all classes so far apart.
    assert [len(task.seen_space) for task in data.tasks] == [2, 3, 4]


def test_classes_of_joint_spaces_keep_their_own_prompts(class_folders, tmp_path):
    steps = (
        'a; classes: [red]; prompts: ["a {}", "the {}", "{}"]\nb; classes: [blue]; prompts: ["one {}", "two'
        ' {}"]'
    )
    data = loaded(class_folders, tmp_path, "class-incremental", steps)
    space = data.tasks[1].space
    assert space.prompts == (("a red", "the red", "red"), ("one blue", "two blue"))
    assert data.tasks[0].train_space.templates == 3 and space.templates == 6 and not space.even
    # With as many prompts for both, every one has the same weight in the mean of its class as before.
    red, blue = space.evened().prompts
    assert Counter(red) == dict.fromkeys(space.prompts[0], 2)
    assert Counter(blue) == dict.fromkeys(space.prompts[1], 3)
    for index in range(6):
        assert space.with_template(index) == space.evened().with_template(index)
    even = space.evened()
    assert even.even and even.evened() is even
    alone = loaded(class_folders, tmp_path, "task-incremental", steps)
    assert [task.space.templates for task in alone.tasks] == [3, 2]


def test_classes_of_several_tasks_that_are_one_are_told(class_folders, tmp_path):
    steps = f"a; {class_folders}; classes: [red, blue]\nb; {class_folders}; classes: [green, blue]"
    told = "classes of several tasks count as one, with the prompts of the first: 'blue'"
    for protocol in ("class-incremental", "task-incremental"):
        located = load_scenario(str(scenario(tmp_path, steps, f"shots: 2\nprotocol: {protocol}")))
        assert (told in doubts(located, plan(located, 0))) == (protocol == "class-incremental")


def test_domain_incremental_tasks_have_the_same_classes(class_folders, tmp_path):
    steps = 'a; classes: [red, blue]\nb; classes: [red, blue]; prompts: ["b {}"]'
    for loss_classes in ("seen", "task"):
        data = loaded(class_folders, tmp_path, "domain-incremental", steps, loss_classes)
        assert [task.space.class_names for task in data.tasks] == [("red", "blue")] * 2
        assert data.tasks[1].space.prompts == (("b red",), ("b blue",)) != data.tasks[0].space.prompts
        assert all(
            task.train_space == task.space and named_after_colour(task.test, task.space)
            for task in data.tasks
        )
    for other, told in (("[blue, red]", "their order"), ("[red, green]", "blue', 'green'")):
        with pytest.raises(UserError, match=rf":\d+: tasks\[1\]: .*'b' and 'a' differ in '?{told}"):
            loaded(
                class_folders, tmp_path, "domain-incremental", f"a; classes: [red, blue]\nb; classes: {other}"
            )


def test_zero_shot_images_and_those_that_are_not_there(class_folders, tmp_path):
    zero_shot = f"zero_shot: [{{name: z, source: {{kind: folder, root: {class_folders}}}, images: 5}}]"
    plans = planned(tmp_path, f"a; {class_folders}", f"shots: all\n{zero_shot}")
    data = load(plans, "class-incremental", Pixels((8, 6)))
    images, space = data.zero_shot["z"]
    assert len(images) == 5 and len(space) == 4 and named_after_colour(images, space)
    nothing = data.tasks[0].validation
    assert len(nothing) == 0 and nothing.pixels.shape == (0, 3, 8, 6) and nothing.labels.dtype == torch.int64


def test_the_embedded_world_is_drawn_in_the_size_of_the_model(tmp_path):
    path = tmp_path / "world.yaml"
    path.write_text(
        "name: x\nshots: 1\ntest_limit: 3\ntasks: [{name: a, source: {kind: world, domain: digits}}]\n"
    )
    plans = plan(load_scenario(str(path)), 0)
    first, again = (load(plans, "task-incremental", Pixels((24, 24))).tasks[0] for _ in range(2))
    assert first.train.pixels.shape == (10, 3, 24, 24) and torch.equal(first.train.pixels, again.train.pixels)
    assert first.test.pixels.shape == (3, 3, 24, 24) and len(first.space) == 10


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    paint(tmp_path / "data" / "train" / "ant" / "0.png", (1, 2, 3), 0)
    (tmp_path / "data" / "test" / "ant").mkdir(parents=True)
    (tmp_path / "data" / "test" / "ant" / "0.png").write_text("no image")
    with pytest.raises(UserError, match=r"test/ant/0\.png: cannot be read as an image"):
        load(planned(tmp_path, "a; data", "shots: 1"), "task-incremental", Pixels((8, 8)))


def test_imagenet_folders_are_called_by_their_words(tmp_path):
    for index in range(1000):
        (tmp_path / "images" / f"n{index:08d}").mkdir(parents=True)
    named = open_source(FolderSource(kind="folder", root="images", names="imagenet"), tmp_path)
    assert len(set(named.class_names)) == 1000 and named.class_names[0] == "tench"
    assert named.class_names[744] == "projectile" and named.class_names[657] == "missile"
    (tmp_path / "images" / "n00000999").rename(tmp_path / "images" / "toilet paper")
    with pytest.raises(UserError, match="names: imagenet needs the 1000 folders"):
        open_source(FolderSource(kind="folder", root="images", names="imagenet"), tmp_path)


def test_a_folder_may_be_all_for_testing(class_folders, tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / "all" / name / "0.png", (200, 0, 0), 0)
    source = open_source(FolderSource(kind="folder", root="all", test_fraction=1.0), tmp_path)
    assert len(source.items("test")) == 2 and not source.items("train")
