"""What ``training.loss`` may say, what of it is refused and why, and which loss a run will not take."""

from __future__ import annotations

import pytest

from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.losses import NAMES
from cl_complora.engine import clip_strategy
from cl_complora.errors import UserError
from cl_complora.run.stream import run


@pytest.mark.parametrize("name", [*NAMES, "cross-entropy"])
def test_a_name_is_a_section_with_its_defaults(name):
    short, whole = (
        load_strategy("lora", [f"training.loss={loss}"]).value.training
        for loss in (name, f"{{kind: {name}}}")
    )
    assert short == whole
    assert short.loss.kind == name.replace("cross-entropy", "classes")


def test_a_loss_without_settings_is_recorded_by_its_name():
    told = load_strategy("lora").value.model_dump(mode="json")["training"]["loss"]
    assert told == "classes"  # as before there were others
    told = load_strategy("lora", ["training.loss=focal"]).value.model_dump(mode="json")["training"]["loss"]
    assert told == {"kind": "focal", "gamma": 2.0}


@pytest.mark.parametrize(
    "name, loss, told",
    [
        ("lora", "fcal", "got 'fcal'; did you mean 'focal'?"),
        ("lora", "3", "'balanced-softmax', 'focal', 'ldam', 'class-weighted', 'lade', or a section"),
        ("lora", "[focal]", "or a section with kind, got ['focal']"),
        ("lora", "{gamma: 1}", "training.loss.kind: this key is missing"),
        ("lora", "{kind: focl}", "did you mean 'focal'?"),
        ("lora", "{kind: focal, gamma: -1}", "training.loss.gamma: must be at least 0, got -1"),
        ("lora", "{kind: focal, margin: 0.1}", "unknown key; it belongs to kind: ldam"),
        ("lora", "{kind: balanced-softmax, gamma: 1}", "it belongs to kind: focal; allowed: kind"),
        ("lora", "{kind: ldam, margin: 0}", "training.loss.margin: must be greater than 0"),
        ("lora", "{kind: class-weighted, beta: 1.0}", "training.loss.beta: must be less than 1"),
        ("lora", "{kind: class-weighted, beta: 0.9, power: 2}", "power: has no effect with beta"),
        ("zeroshot", "focal", "has no effect with adapter kind none, which trains nothing"),
        ("linear-probe", "{kind: ldam}", "ldam has no effect with adapter kind none"),
    ],
)
def test_what_no_loss_can_be_is_refused(name, loss, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, [f"training.loss={loss}"])
    assert told in str(refused.value)


def test_smoothing_is_for_cross_entropy():
    with pytest.raises(UserError, match="no effect with loss: lade, only with loss: classes"):
        load_strategy("lora", ["training.loss=lade", "training.label_smoothing=0.1"])


@pytest.mark.parametrize("loss", ["balanced-softmax", "ldam", "class-weighted", "lade"])
def test_classes_that_have_no_images_cannot_be_counted(loss, tmp_path, tiny_scenario, tiny_strategy):
    scenario = load_scenario(str(tiny_scenario), ["protocol=class-incremental"])
    strategy = load_strategy(str(tiny_strategy), [f"training.loss={loss}", "training.classes=seen"])
    with pytest.raises(UserError, match="set training.classes: task"):
        run(scenario, strategy, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "settings", "wanted"),
    [
        ("complora", [], "task"),
        ("lora", ["training.classes=seen"], "seen"),
        ("2sfs", [], "task"),
        ("text-head", [], "seen"),
        ("replay", [], "seen"),
        ("replay", ["training.classes=task"], "task"),
        ("cumulative", [], "seen"),
        ("joint", [], "seen"),
    ],
)
def test_old_classes_stand_in_the_loss_where_their_images_do(name, settings, wanted):
    assert load_strategy(name, settings).value.loss_classes == wanted


@pytest.mark.parametrize(("classes", "contrasted"), [("auto", 1), ("seen", 2)])
def test_a_later_task_of_a_joint_space_contrasts_its_own_classes(
    classes, contrasted, tmp_path, tiny_scenario, tiny_strategy, monkeypatch
):
    widths = []
    loss = clip_strategy.training_loss

    def watched(kind, batch):
        widths.append(batch.logits.shape[1])
        return loss(kind, batch)

    monkeypatch.setattr(clip_strategy, "training_loss", watched)
    scenario = load_scenario(str(tiny_scenario), ["protocol=class-incremental"])
    run(scenario, load_strategy(str(tiny_strategy), [f"training.classes={classes}"]), out=tmp_path)
    assert widths[0] * contrasted == widths[-1]
