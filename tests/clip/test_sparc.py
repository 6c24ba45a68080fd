"""SPARC's scores and mAP against the figures of the authors' code, and what must change nothing."""

from __future__ import annotations

import time

import pytest
import torch
from sklearn.metrics import average_precision_score

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.clip.sparc import compound_normalised, direction, normalised, sparc_scores
from cl_complora.data.names.compound_prompts import classes_in, matched, pairs
from cl_complora.metrics import average_precision, mean_average_precision


class File:
    """The authors' figures."""

    def __init__(self, form: str) -> None:
        self.file = golden("sparc", form) | {"tolerance": {"rtol": 1e-8, "atol": 1e-9}}
        given = self.file["inputs"]
        self.classes, self.labels = given["classes"], tensor(given["labels"]).bool()
        names = ("ensemble_single", "simple_single", "compound")
        self.single, self.plain, self.compound = (tensor(given[name]) for name in names)
        place = {text: n for n, text in enumerate(given["compound_prompts"])}
        own = given["prompts_of_class"]
        self.prompts_of = [[place[text] for text in own[name]] for name in self.classes]

    def scores(self) -> torch.Tensor:
        return sparc_scores(self.single, self.plain, self.compound, self.prompts_of)


@pytest.fixture(params=FORMS)
def theirs(request) -> File:
    return File(request.param)


def test_normalised_scores_as_the_authors(theirs):
    out = theirs.file["outputs"]
    agrees(theirs.file, normalised(theirs.single), out["single_normalised"], "S̃")
    found = compound_normalised(theirs.compound, theirs.plain)
    agrees(theirs.file, found, out["compound_normalised"], "C̃")
    # The statistics are those of the plain class names, not the prompts' own.
    own = compound_normalised(theirs.compound, theirs.compound)
    assert not torch.allclose(own, found, atol=1e-3)


def test_directions_and_final_scores_as_the_authors(theirs):
    out, together = theirs.file["outputs"], compound_normalised(theirs.compound, theirs.plain)
    for column, name in enumerate(theirs.classes):
        if name in out["pca_direction"]:
            ranked = together[:, theirs.prompts_of[column]].sort(1).values
            matrix = torch.cat([ranked, normalised(theirs.single)[:, [column]]], 1)
            agrees(theirs.file, direction(matrix), out["pca_direction"][name], name)
    agrees(theirs.file, theirs.scores(), out["final"], "final")


def test_average_precision_as_the_authors(theirs):
    out = theirs.file["outputs"]
    for figures, scores in (("", theirs.scores()), ("_plain", theirs.single)):
        for column, name in enumerate(theirs.classes):
            found = average_precision(scores[:, column], theirs.labels[:, column])
            assert found == pytest.approx(out[f"average_precision{figures}"][name], rel=1e-8)
        found = mean_average_precision(scores, theirs.labels)
        assert found == pytest.approx(out[f"mAP{figures}"], rel=1e-8)


def test_a_text_names_classes_as_the_authors_find_them(theirs):
    for text, names in theirs.file["string_match"]["matches"].items():
        assert classes_in(text, theirs.file["string_match"]["classes"]) == names
    for text, names in theirs.file["matches_of_prompts"].items():
        assert classes_in(text, theirs.classes) == names
    given = theirs.file["inputs"]
    found = matched(theirs.classes, given["compound_prompts"])
    assert [sorted(own) for own in found.of] == [sorted(own) for own in theirs.prompts_of]


def test_a_class_without_prompts_has_its_normalised_score():
    file = File("extract")
    assert file.prompts_of[-1] == []
    assert torch.equal(file.scores()[:, -1], normalised(file.single)[:, -1])
    none = sparc_scores(file.single, file.plain, file.compound[:, :0], [[]] * 5)
    assert torch.equal(none, normalised(file.single))


def test_a_constant_on_all_scores_of_an_image_changes_nothing():
    file = File("extract")
    more = torch.linspace(-0.3, 0.7, len(file.single), dtype=torch.float64)[:, None]
    moved = sparc_scores(file.single + more, file.plain + more, file.compound + more, file.prompts_of)
    assert torch.allclose(moved, file.scores(), atol=1e-10)


def test_other_images_change_the_scores_of_an_image():
    """It is transductive: what an image gets depends on the set that it is scored with."""
    file = File("extract")
    fewer = normalised(file.single[:7])
    assert not torch.allclose(fewer, normalised(file.single)[:7], atol=1e-3)


def test_more_prompts_than_images_are_refused_and_equal_scores_are_no_nan():
    file = File("extract")
    with pytest.raises(ValueError, match="2 compound prompts of a class need more than 3 images"):
        sparc_scores(file.single[:3], file.plain[:3], file.compound[:3], file.prompts_of)
    assert torch.equal(normalised(torch.ones(4, 3)), torch.zeros(4, 3, dtype=torch.float64))


def test_pairs_name_both_classes():
    found = pairs(["cat", "owl", "dog"], "a photo of a {}.")
    assert found.texts == (
        "a photo of a cat and an owl.",
        "a photo of a cat and a dog.",
        "a photo of a owl and a dog.",
    )
    assert found.of == ((0, 1), (0, 2), (1, 2)) and found.most == 2
    assert matched(["cat", "owl", "dog"], found.texts).of == found.of
    assert pairs(["cat", "dog"], "a {sharp} {}").texts == ("a {sharp} cat and a dog",)


def test_pairs_of_many_classes_are_found_in_one_pass():
    began = time.process_time()
    found = pairs([f"class {number}" for number in range(800)], "a {}")
    assert time.process_time() - began < 4
    assert [len(own) for own in found.of] == [799] * 800
    assert all("class 7 " in f"{found.texts[place]} " for place in found.of[7])


def test_names_of_digits_are_found_where_they_stand():
    names = ["cat", "dog", "747", "A320", "Boeing 737", "–"]
    assert classes_in("a photo of a cat and a dog", names) == ["cat", "dog"]
    assert classes_in("an a320 beside two 747s", names) == ["A320", "747"]
    assert classes_in("a Boeing-737, and 7475 seats", names) == ["Boeing 737"]
    assert matched(names, ["a cat and a dog", "–"]).of == ((0,), (0,), (), (), (), ())


class TestAveragePrecision:
    def test_it_is_that_of_scikit_learn_without_ties(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            scores = torch.rand(30, generator=generator)
            positive = torch.rand(30, generator=generator) < 0.3
            expected = average_precision_score(positive.numpy(), scores.numpy())
            assert average_precision(scores, positive) == pytest.approx(expected)

    def test_of_equal_scores_the_later_image_comes_first(self):
        positive = [True] + 9 * [False]
        assert average_precision([0.5] * 10, positive) == 0.1
        assert average_precision([0.5] * 10, positive[::-1]) == 1.0

    def test_classes_without_positives_are_left_out(self):
        scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]])
        positive = torch.tensor([[False, False], [True, False], [False, False]])
        assert mean_average_precision(scores, positive) == 0.5
        none = mean_average_precision(scores, torch.zeros(3, 2, dtype=torch.bool))
        assert none != none

    def test_no_number_comes_last(self):
        assert average_precision([float("nan"), 0.1], [True, False]) == 0.5
