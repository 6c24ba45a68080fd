"""Heads that see images by the untouched image tower as well: what they are fitted to, and who asks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from builders.commands import cli
from builders.heads import PAIRED
from builders.interruptions import Said
from builders.measured import on_own_stream
from cl_complora.clip.evaluate import answers, image_features, seen_features
from cl_complora.clip.heads.linear import AffineHead, PairedHead
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.fitting.drift import drift_of
from cl_complora.errors import UserError
from cl_complora.finished.explain import explain
from cl_complora.finished.export import export
from cl_complora.finished.membership import audit
from cl_complora.finished.predict import answering, label_space, predict
from cl_complora.finished.states import find_state, open_run
from cl_complora.finished.update_curve import curves_along
from cl_complora.run.stream import run
from cl_complora.store.answers import load_answers
from cl_complora.store.folder import RunDir


@pytest.fixture(scope="module")
def strategy(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("strategies") / "paired.yaml"
    path.write_text(PAIRED)
    return path


@pytest.fixture(scope="module")
def paired(tmp_path_factory, tiny_scenario, strategy):
    out = tmp_path_factory.mktemp("paired")
    return run(load_scenario(str(tiny_scenario)), load_strategy(str(strategy)), out=out, analysis=False)


def shots_of(folder: Path, task: str, tiny_scenario) -> tuple[torch.Tensor, list[str]]:
    """A task's training images as pixels, and their classes."""
    state = open_run(folder, "0")
    rows = [row for row in RunDir(folder).read_split(task) if row["split"] == "train"]
    root = load_scenario(str(tiny_scenario)).value.tasks[0].source.root
    return torch.stack([state.loaded.pixels.read(f"{root}/{row['key']}") for row in rows]), [
        row["class"] for row in rows
    ]


def test_the_regression_is_that_on_the_features_of_both_towers(paired, tiny_scenario):
    """Against scikit-learn, on features of models that are rebuilt one by one; either tower alone, and the
    other order, give another."""
    for task, after in (("warm", "1"), ("cold", "2")):
        pixels, classes = shots_of(paired.folder, task, tiny_scenario)
        now, before = (
            image_features(open_run(paired.folder, state).classifier(), pixels) for state in (after, "0")
        )
        head = open_run(paired.folder, after).heads()[task]
        labels = [head.classes.index(name) for name in classes]

        def probabilities(*features: torch.Tensor, labels: list[int] = labels) -> torch.Tensor:
            x = torch.cat(features, 1).double().numpy()
            fitted = LogisticRegression(C=10.0, max_iter=10_000, tol=1e-10).fit(x, labels)
            return torch.from_numpy(fitted.predict_proba(x)).float()

        assert isinstance(head, PairedHead) and head.weight.shape == (2, 2 * now.shape[1])
        ours = head.scores(torch.cat([now, before], 1)).softmax(1)
        assert torch.allclose(ours, probabilities(now, before), atol=1e-3)
        assert not torch.allclose(now, before, atol=1e-3)
        turned = head.scores(torch.cat([before, now], 1)).softmax(1)
        for other in (probabilities(now), probabilities(before), turned):
            assert not torch.allclose(ours, other, atol=2e-3)


def test_whatever_asks_the_heads_afterwards_gets_what_the_run_got(paired, tiny_scenario, class_folders):
    for after in ("0", "warm", "cold"):
        measured = on_own_stream(open_run(paired.folder, after), True)
        assert all(one.accuracy == one.recorded for one in measured)
    folder, state = RunDir(paired.folder), open_run(paired.folder)
    tested = [row["key"] for row in folder.read_split("warm") if row["split"] == "test"]
    labels, shares = load_answers(folder.predictions(1, "cold"))["warm"]
    space, head = label_space(state, task="warm"), answering(state, task="warm")
    found = list(predict(state, [class_folders / key for key in tested], space, head=head))
    assert [one.classes[0][0] for one in found] == [space.class_names[label] for label in labels.tolist()]
    assert [one.classes[0][1] for one in found] == pytest.approx(shares.tolist(), abs=1e-4)
    # What is rebuilt step by step ends where the run did.
    (curve,) = curves_along(find_state(paired.folder), ["cold"], (0.0, 1.0))
    assert curve.accuracy["warm"][-1] == paired.results["accuracy"][2][0]
    audit(open_run(paired.folder, "0"))
    members = json.loads((paired.folder / "membership.json").read_text())["tasks"][0]
    assert members["trained_in_state"] == 1
    for pair in explain(open_run(paired.folder, "0")):
        place = {"warm": 0, "cold": 1}[pair.old]
        assert pair.accuracy_after == paired.results["accuracy"][2][place]


def test_an_exported_head_brings_the_untouched_tower(paired, tmp_path, monkeypatch, capsys, class_folders):
    out = tmp_path / "with-untouched.safetensors"
    assert cli(monkeypatch, capsys, "export", paired.folder, "-o", out)[0] == 0
    stored = load_file(tmp_path / "classifier.safetensors")
    before, now = (open_run(paired.folder, after).loaded.model.visual.state_dict() for after in ("0", "2"))
    assert all(torch.equal(stored[name], value) for name, value in before.items())
    assert not all(torch.equal(value, before[name]) for name, value in now.items())
    page = out.with_suffix(".md").read_text()
    assert "goes through two towers" in page
    picture = next((class_folders / "test" / "yellow").glob("*.png"))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for part in [part.split("```")[0] for part in page.split("```python\n")[1:]][:2]:
        exec(part.replace("picture.jpg", str(picture)), names)
    state = open_run(paired.folder)
    space, head = label_space(state, task="warm"), answering(state, task="warm")
    told = dict(next(iter(predict(state, [picture], space, head=head))).classes)
    mine = names["logits"].softmax(-1)[0].tolist()
    assert told == pytest.approx(dict(zip(head.classes, mine, strict=True)), abs=1e-4)
    # Halved like the model beside it, and as it is asked for.
    assert cli(monkeypatch, capsys, "export", paired.folder, "-o", out, "--half")[0] == 0
    assert load_file(tmp_path / "classifier.safetensors")["conv1.weight"].dtype == torch.float16


def test_no_optimiser_and_no_state_meets_it(paired):
    classifier = open_run(paired.folder, "0").classifier()
    assert classifier.untouched is not None
    plain = open_run(paired.folder, "0").loaded
    assert list(classifier.clip.state_dict()) == list(plain.model.state_dict())
    own = {id(value) for value in classifier.parameters()}
    tower = classifier.untouched.tower
    assert not own & {id(value) for value in tower.parameters()}
    assert not any(value.requires_grad for value in tower.parameters())
    # Its texts are the model's own: one text tower serves both.
    assert classifier.untouched.clip.transformer is classifier.clip.transformer


def test_it_stays_while_the_model_learns(paired, tiny_scenario):
    pixels, _ = shots_of(paired.folder, "warm", tiny_scenario)
    state = open_run(paired.folder, "0")
    classifier = state.classifier()
    before = image_features(classifier, pixels)
    with torch.no_grad():
        for value in classifier.clip.visual.parameters():
            value.mul_(1.5)
    seen = seen_features(classifier, pixels)
    now, untouched = seen.tensor_split(2, dim=1)
    assert torch.equal(untouched, before) and not torch.allclose(now, before, atol=1e-3)
    assert torch.allclose(classifier.seen(pixels), seen, atol=1e-6)


def test_texts_answer_from_the_model_as_it_is(paired, tiny_scenario, strategy, tmp_path):
    """Zero-shot sets and unlearned tasks are answered as by the same strategy without the untouched tower."""
    settings = ["head.with_untouched=false"]
    plain = run(
        load_scenario(str(tiny_scenario)),
        load_strategy(str(strategy), settings),
        out=tmp_path,
        analysis=False,
    )
    assert plain.results["zero_shot"] == paired.results["zero_shot"]
    assert plain.results["accuracy"][1][1] == paired.results["accuracy"][1][1]
    # What is trained does not depend on it.
    one, other = (load_file(RunDir(each.folder).delta(1, "cold")) for each in (plain, paired))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_only_the_present_features_are_carried_over_to_towers_that_moved():
    generator = torch.Generator().manual_seed(0)
    before, now, kept = (F.normalize(torch.randn(9, 4, generator=generator), dim=1) for _ in range(3))
    untouched = torch.randn(9, 4, generator=generator)
    carry = drift_of(before, now, 0.1)
    found = carry(torch.cat([kept, untouched], 1))
    assert torch.equal(found[:, :4], carry(kept)) and torch.equal(found[:, 4:], untouched)


def test_one_head_for_all_keeps_both(tiny_scenario, strategy, tmp_path):
    found = run(
        load_scenario(str(tiny_scenario), ["protocol=class-incremental"]),
        load_strategy(str(strategy)),
        out=tmp_path,
        analysis=False,
    )
    head = open_run(found.folder).heads()["warm"]
    width = open_run(found.folder).loaded.model.visual.output_dim
    assert set(head.classes) == {"red", "yellow", "green", "blue"} and head.weight.shape == (4, 2 * width)
    assert all(one.accuracy == one.recorded for one in on_own_stream(open_run(found.folder), True))


@pytest.mark.parametrize(
    ("strategy", "setting", "told"),
    [
        ("linear-probe", "head.with_untouched=true", "adapter kind none"),
        ("complora", "adapter.towers=[text]", r"adapter.towers: \[text\]"),
    ],
)
def test_it_is_refused_where_the_image_tower_stays(strategy, setting, told):
    with pytest.raises(UserError, match=rf"head.with_untouched\S*: has no effect with {told}"):
        load_strategy(strategy, ["head.with_untouched=true", setting])


def test_a_head_that_reads_it_says_so_where_it_is_missing(paired):
    state = open_run(paired.folder)
    classifier, head = state.classifier(), state.heads()["warm"]
    classifier.untouched = None
    space = label_space(state, task="warm")
    with pytest.raises(ValueError, match="which this classifier lacks"):
        answers(classifier, torch.zeros(1, 3, *state.loaded.pixels.size, dtype=torch.uint8), space, head)


def test_the_copy_is_never_in_training_mode_and_goes_where_the_images_are(paired):
    state = open_run(paired.folder, "0")
    classifier = state.classifier().train()
    tower = classifier.untouched.tower
    assert classifier.clip.training and not classifier.untouched.clip.training and not tower.training
    went = []
    tower.to = lambda device: went.append(device)
    images = torch.zeros(1, 3, *state.loaded.pixels.size, dtype=torch.uint8)
    assert classifier.untouched_features(images).shape == (1, tower.output_dim) and went == [images.device]


def test_a_tower_that_stays_is_not_asked_twice(tiny_scenario, tmp_path):
    """Features beside themselves would be the same regression at twice the C, for a second pass."""
    text = PAIRED.replace("{kind: lowrank, rank: 2}", "{kind: full, whole: [tokens]}")
    (tmp_path / "words.yaml").write_text(text)
    said = Said()
    found = run(
        load_scenario(str(tiny_scenario)),
        load_strategy(str(tmp_path / "words.yaml")),
        out=tmp_path,
        progress=said,
        analysis=False,
    )
    told = "head.with_untouched has no effect where nothing of the image tower is trained"
    assert any(told in line for line in said.lines)
    state = open_run(found.folder)
    head, width = state.heads()["warm"], state.loaded.model.visual.output_dim
    assert type(head) is AffineHead and head.weight.shape == (2, width)
    assert all(one.accuracy == one.recorded for one in on_own_stream(state, True))
    export(state, tmp_path / "words.safetensors")
    assert all("/" in name for name in load_file(tmp_path / "classifier.safetensors"))
