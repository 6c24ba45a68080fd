"""Prompts of one's own for a model whose heads answer: taken where texts have a say, refused where they have
none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from builders.commands import cli
from builders.heads import quick_head
from cl_complora.clip.heads.head import Answering, Question
from cl_complora.clip.heads.head_forms import FORMS
from cl_complora.clip.heads.key_cache import CacheHead
from cl_complora.clip.heads.linear import AffineHead, MeanHead, PairedHead, RowHead
from cl_complora.clip.heads.mask import PARTS, MaskHead
from cl_complora.clip.heads.regression import KernelHead, RandomFeatureHead
from cl_complora.clip.heads.several import SeveralHeads
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.finished.evaluation import sets_of
from cl_complora.finished.export import export
from cl_complora.finished.predict import label_space, reads_texts
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run

WIDTH = 8
NAMES = ("a", "b", "c", "d")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heads_of(names: tuple[str, ...]) -> list:
    """One of every form, closed ones also with texts that have a share."""
    count = len(names)
    weight, bias = drawn(count, WIDTH), drawn(count)
    keys, values = drawn(2 * count, WIDTH), torch.eye(count).repeat(2, 1)
    parts = {name: drawn(WIDTH, WIDTH + 1, seed=place) for place, name in enumerate(PARTS)}
    closed = [
        head
        for share in (1.0, 0.8)
        for head in (
            AffineHead(names, share, weight, bias),
            MeanHead(names, share, weight, 10.0),
            RandomFeatureHead(names, share, drawn(20, WIDTH), drawn(20, count)),
            KernelHead(names, share, 0.1, keys, values),
        )
    ]
    return [
        *closed,
        RowHead(names, weight),
        CacheHead(names, 1.0, 2.0, keys, values),
        MaskHead(names, 2.0, 1.0, **parts),
        PairedHead(names, 1.0, drawn(count, 2 * WIDTH), bias),
    ]


HEADS = [*heads_of(NAMES), *heads_of(NAMES[:2]), *heads_of(("x", "y"))]
SEVERAL = [
    SeveralHeads([heads_of(first)[place], heads_of(second)[place]])
    for first, second in ((NAMES[:2], NAMES[2:]), (NAMES[:2], NAMES), (NAMES, NAMES[:2]), (NAMES, ("x",)))
    for place in (0, 4, 8, 9, 10)
]
# Heads that keep the class means of their tasks.
SEVERAL += [
    SeveralHeads([replace(one, means=drawn(len(one.classes), WIDTH)) for one in several.heads])
    for several in SEVERAL
]


def logits(head: Answering, seed: int) -> torch.Tensor:
    """What a head says of the same images, with texts that follow from the seed."""
    features = F.normalize(drawn(200, WIDTH, seed=99), dim=-1)
    texts, scale = F.normalize(drawn(len(NAMES), WIDTH, seed=seed), dim=-1), torch.tensor(10.0)
    untouched = features.flip(1)
    return head.logits(Question(features, NAMES, texts, scale * features @ texts.mT, scale, untouched))


def test_whether_texts_are_read_is_what_every_form_does():
    assert {type(head) for head in HEADS} == set(FORMS.values())
    for head in (*HEADS, *SEVERAL):
        alike = torch.allclose(logits(head, 1).softmax(1), logits(head, 2).softmax(1), atol=1e-6)
        assert reads_texts(head, NAMES) is not alike, head
    assert len({reads_texts(head, NAMES) for head in SEVERAL}) == 2


@pytest.fixture(scope="module")
def probed(tmp_path_factory, tiny_scenario):
    """The folder of a run with a logistic regression, by protocol."""

    def finished(protocol: str):
        settings = quick_head(load_strategy("linear-probe").value.head)
        scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}"])
        out = tmp_path_factory.mktemp("probed")
        return run(scenario, load_strategy("linear-probe", settings), out=out, analysis=False).folder

    return {protocol: finished(protocol) for protocol in ("task-incremental", "class-incremental")}


def test_a_prompt_is_refused_where_a_head_answers_alone(probed, class_folders, monkeypatch, capsys):
    picture = class_folders / "test" / "red" / "0.png"

    def shares(protocol: str, *words: str) -> dict[str, float]:
        code, out, err = cli(monkeypatch, capsys, "predict", probed[protocol], picture, "--json", *words)
        assert code == 0, err
        return {one["class"]: one["probability"] for one in json.loads(out)[0]["classes"]}

    odd = ("--prompt", "xyzzy nothing {}")
    for protocol, words, whose in (
        ("task-incremental", ("--task", "warm"), "the head of task 'warm' answers"),
        ("task-incremental", (), "the heads of this run answer"),  # their class means say which task
        ("class-incremental", (), "the head of this run answers"),
        ("class-incremental", ("--task", "cold"), "the head of task 'cold' answers"),
        ("class-incremental", ("--after", "warm"), "the head of this run answers"),
    ):
        assert shares(protocol, *words)
        code, out, err = cli(monkeypatch, capsys, "predict", probed[protocol], picture, *words, *odd)
        assert code == 2 and not out and err.count("\n") == 1
        assert (
            f"--prompt: has no effect, since {whose} for all of these classes without reading a text" in err
        )
        assert "--classes, which texts answer" in err
    for protocol, words in (
        ("task-incremental", ("--without", "warm")),  # whose classes have no head then
        ("task-incremental", ("--task", "colours")),
        ("task-incremental", ("--classes", "red,blue")),
        ("class-incremental", ("--classes", "red,blue")),
        ("class-incremental", ("--after", "0")),
    ):
        assert shares(protocol, *words, *odd) != pytest.approx(shares(protocol, *words), abs=1e-6), words


def test_classes_of_ones_own_are_said_to_be_answered_by_texts(probed, class_folders, monkeypatch, capsys):
    picture = class_folders / "test" / "red" / "0.png"
    words = (monkeypatch, capsys, "predict", probed["task-incremental"], picture)
    told = "note: --classes are answered by their texts, not by the run's head\n"
    assert told in cli(*words, "--classes", "red,blue")[2]
    assert told not in cli(*words, "--task", "warm")[2]
    assert told not in cli(*words, "--classes", "red,blue", "--after", "0")[2]


@pytest.mark.parametrize("protocol", ["class-incremental", "domain-incremental"])
def test_a_class_that_recurs_has_the_prompts_that_the_run_measures_it_with(protocol, tiny_scenario, tmp_path):
    """Among all tasks those of the first that has it; of domains each has its own where it alone is asked."""
    joint = protocol == "class-incremental"
    later = ["red", "yellow", "blue"] if joint else ["red", "yellow"]
    scenario = load_scenario(
        str(tiny_scenario), [f"protocol={protocol}", f"tasks.1.classes=[{', '.join(later)}]"]
    )
    strategy = load_strategy("tip-adapter")
    settings = quick_head(strategy.value.head)
    made = run(scenario, load_strategy("tip-adapter", settings), out=tmp_path / "runs", analysis=False)
    state = open_run(made.folder)
    everywhere, alone = label_space(state), label_space(state, task="cold")
    assert everywhere.prompts[0] == ("a photo of a red.",) and alone.class_names == tuple(later)
    measured = {one.name: one.space for one in sets_of(state)}["cold"]
    assert measured.of(alone.class_names) == alone
    assert alone.prompts[0] == (("a photo of a red.",) if joint else ("a photo of red", "red paint"))
    *_, page, _, heads = export(state, tmp_path / "mine.safetensors")
    with safe_open(heads, "pt") as file:
        about = json.loads(file.metadata()["heads"])["all"]
    told = dict(zip(about["classes"], map(tuple, about["prompts"]), strict=True))
    assert told == dict(zip(everywhere.class_names, everywhere.prompts, strict=True))
    assert ("stands in it with the prompts of the first" in page.read_text()) is not joint


def test_a_caller_is_told_as_well(probed):
    state = open_run(probed["task-incremental"])
    with pytest.raises(UserError, match="--prompt: has no effect, since the head of task 'cold' answers"):
        label_space(state, prompts=["so {}"], task="cold")
    assert label_space(state, prompts=["so {}"], task="colours").prompts[0] == ("so blue",)
