"""DenseVLM's loss and its dense features against what the authors' program computes; what must not pass does
not."""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision.ops import roi_align

from builders.golden import FORMS, agrees, golden, tensor
from builders.models import tiny_clip
from builders.places import TESTS
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.dense import box_weights, crops, dense_fault, dense_map, grid_boxes, pooled
from cl_complora.clip.slots import open_slots
from cl_complora.config.penalties import Crops, Regions
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.penalties.dense_regions import CropsPlugin, DenseRegionsPlugin, decoupled
from cl_complora.engine.updates.complora import CompLoRAPlugin

FILE = golden("densevlm")


def authors(form: str) -> dict:
    file = golden("densevlm", form)
    return file if "tolerance" in file else {**file, "tolerance": file["tolerances"]["float64"]}


def loss_of(file: dict, rows, things: int | None = None, **changed):
    """Loss and its gradient with respect to the student's regions, which are normalised here."""
    given = file["loss"]["inputs"]
    student = tensor(given["student_regions"])[rows].requires_grad_()
    teacher = F.normalize(tensor(given["teacher_regions"])[rows], dim=-1)
    texts = tensor(given["student_texts"]), tensor(given["teacher_texts"])
    things = given["threshold_used_by_the_code"] if things is None else things
    loss = decoupled(F.normalize(student, dim=-1), teacher, *texts, things, **changed)
    return loss, torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_and_its_gradient(form):
    file = authors(form)
    for case in file["loss"]["cases"]:
        loss, gradient = loss_of(file, case["rows"])
        agrees(file, loss, case["outputs"]["loss"], case["name"])
        agrees(file, gradient, case["outputs"]["grad_student"], case["name"])


def mutants():
    """Losses that are wrong in one thing each."""

    def sides(student, teacher, student_texts, teacher_texts, things):
        told = 100 * teacher @ teacher_texts.mT
        answered = 100 * student @ student_texts.mT
        sure, label = told.softmax(1).max(1)
        kept = (sure > 0.3) & (label < things)
        rest = (sure > 0.3) & (label >= things)
        return told, answered, kept, rest

    def swapped(*given):
        told, answered, kept, rest = sides(*given)
        m = given[4]
        return sum(
            F.kl_div(told[k, :w].log_softmax(1), answered[k, :w].softmax(1), reduction="batchmean")
            for k, w in ((kept, m), (rest, told.shape[1]))
        )

    def stuff_among_stuff(*given):
        told, answered, kept, rest = sides(*given)
        m = given[4]
        return sum(
            F.kl_div(answered[k, w].log_softmax(1), told[k, w].softmax(1), reduction="batchmean")
            for k, w in ((kept, slice(0, m)), (rest, slice(m, None)))
        )

    return {
        "sign": lambda *given: -decoupled(*given),
        "side": swapped,
        "temperature": lambda *given: decoupled(*given, scale=10.0),
        "confidence": lambda *given: decoupled(*given, confidence=0.0),
        "stuff among stuff": stuff_among_stuff,
        "things as declared": lambda *given: decoupled(*given[:4], given[4] + 1),
        "no things": lambda *given: decoupled(*given[:4], 0),
    }


@pytest.mark.parametrize("name", mutants())
def test_a_loss_that_is_wrong_in_one_thing_does_not_pass(name):
    given = FILE["loss"]["inputs"]
    student, teacher = (
        F.normalize(tensor(given[f"{who}_regions"]), dim=-1) for who in ("student", "teacher")
    )
    texts = tensor(given["student_texts"]), tensor(given["teacher_texts"])
    wrong = mutants()[name](student, teacher, *texts, given["threshold_used_by_the_code"])
    with pytest.raises(AssertionError):
        agrees(FILE, wrong, FILE["loss"]["cases"][0]["outputs"]["loss"], name)


def test_regions_that_the_teacher_is_not_sure_of_have_no_gradient_and_none_is_zero():
    sure = torch.tensor(FILE["loss"]["teacher_confidence"]) > 0.3
    _, gradient = loss_of(FILE, list(range(9)))
    assert torch.equal(gradient.abs().sum(1) > 0, sure)
    nothing = FILE["loss"]["no_region_kept"]["inputs"]
    texts = [tensor(FILE["loss"]["inputs"][f"{who}_texts"]) for who in ("student", "teacher")]
    student, teacher = (tensor(nothing[f"{who}_regions"]) for who in ("student", "teacher"))
    student, teacher = F.normalize(student, dim=-1).requires_grad_(), F.normalize(teacher, dim=-1)
    loss = decoupled(student, teacher, *texts, 3)
    assert loss == 0 and torch.isfinite(loss)


def test_the_teacher_has_no_gradient():
    given = FILE["loss"]["inputs"]
    teacher = F.normalize(tensor(given["teacher_regions"]), dim=-1).requires_grad_()
    student = F.normalize(tensor(given["student_regions"]), dim=-1).requires_grad_()
    decoupled(student, teacher, tensor(given["student_texts"]), tensor(given["teacher_texts"]), 3).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def authors_tower(opened: bool = False) -> VisionTransformer:
    """The file's tower, as it is or with split attention."""
    size = FILE["dense"]["config"]
    keys = ("image_size", "patch_size", "width", "layers", "heads", "mlp_ratio", "output_dim")
    tower = VisionTransformer(**{key: size[key] for key in keys})
    tower.load_state_dict(load_file(TESTS / "golden" / "densevlm.safetensors"))
    clip = tiny_clip()
    clip.visual = tower
    if opened:
        open_slots(clip)
    return clip.visual.double().eval()


@pytest.mark.parametrize("opened", [False, True])
def test_dense_features_and_those_of_boxes_and_masks(opened):
    given, expected = FILE["dense"]["inputs"], FILE["dense"]["outputs"]
    tower = authors_tower(opened)
    assert dense_fault(tower) is None
    images = tensor(given["images"])
    with torch.no_grad():
        agrees(FILE, tower(images), expected["global_features"], "class token")
        dense = dense_map(tower, images)
    agrees(FILE, dense, expected["dense_B_D_h_w"], "dense map")
    boxes = [tensor(one) for one in given["boxes_normalised_xyxy"]]
    found = [pooled(dense[place : place + 1], box_weights(own, (4, 4)))[0] for place, own in enumerate(boxes)]
    agrees(FILE, torch.cat(found), expected["roi_features"], "boxes")
    masks = tensor(given["masks"]).flatten(2)
    agrees(FILE, pooled(dense, masks / masks.sum(2, keepdim=True))[:, 0], expected["mask_pooled"], "masks")


def test_a_grid_parts_the_image_and_its_crops_are_the_cells():
    boxes = grid_boxes(2, 3)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert len(boxes) == 6 and torch.allclose(areas.sum(), torch.tensor(1.0))
    weights = box_weights(boxes, (4, 6))
    assert torch.allclose(weights.sum(1), torch.ones(6))
    whole = torch.zeros(1, 3, 8, 8)
    whole[..., :4, 4:] = 1.0
    cells = crops(whole, grid_boxes(2, 2).tolist())
    assert [round(float(cell.mean()), 6) for cell in cells] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    "model, told",
    [
        (lambda: open_clip.create_model("RN50"), "is ModifiedResNet"),
        (lambda: pooling("avg"), "does not read a class token"),
    ],
    ids=["resnet", "average"],
)
def test_towers_without_a_dense_map_are_refused(model, told, tokenizer):
    plugin = CropsPlugin(Crops(kind="crops"), None, 0)
    with pytest.raises(ValueError, match=told):
        plugin.fits(ClipClassifier(model(), tokenizer))


def pooling(kind: str):
    model = tiny_clip()
    model.visual.pool_type = kind
    return model


SPACE = LabelSpace.from_templates(["red", "sky", "blue"], ["a photo of {}", "{} paint"])


def learning(tokenizer, plugin_class, settings):
    """A classifier with factors that have moved, its plugin, and a step's strategy."""
    model = ClipClassifier(tiny_clip(), tokenizer)
    open_slots(model.clip)
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "v", "o"], towers=["vision", "text"])
    adapter.prepare(model)
    adapter.attach(model)
    plugin = plugin_class(settings, adapter, 0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    task = SimpleNamespace(train_space=SPACE)
    experience = SimpleNamespace(current_experience=0, parts=[task])
    strategy = SimpleNamespace(model=model, mb_x=images, experience=experience)
    plugin.before_training_exp(strategy)
    return model, adapter, plugin, strategy


@pytest.mark.parametrize(
    "plugin_class, settings",
    [
        (DenseRegionsPlugin, Regions(kind="regions", confidence=0.0)),
        (CropsPlugin, Crops(kind="crops")),
    ],
    ids=["regions", "crops"],
)
def test_the_teacher_is_the_model_before_the_task(tokenizer, plugin_class, settings):
    model, adapter, plugin, strategy = learning(tokenizer, plugin_class, settings)
    unmoved = float(plugin.penalty(strategy).detach())
    if plugin_class is DenseRegionsPlugin:
        assert unmoved == pytest.approx(0, abs=1e-6)
    plugin.before_training_exp(strategy)
    assert float(plugin.penalty(strategy).detach()) == unmoved  # the same grid again
    with torch.no_grad():
        for number, factor in enumerate(adapter.trained_factors()):
            factor.add_(0.3 * torch.randn(factor.shape, generator=torch.Generator().manual_seed(number)))
    model.train()
    moved = plugin.penalty(strategy)
    moved.backward()
    assert float(moved.detach()) > 0
    reached = {
        name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0
    }
    assert reached and all("visual" in name for name in reached)  # no gradient goes to the texts


def test_things_are_the_classes_met_so_far_and_no_background_word_twice(tokenizer):
    settings = Regions(kind="regions", background=["sky", "sand"])
    _, _, plugin, _ = learning(tokenizer, DenseRegionsPlugin, settings)
    plugin.remember(SimpleNamespace(train_space=LabelSpace.from_templates(["red", "green"], ["a {}"])))
    words = plugin.vocabulary()
    assert words.class_names == ("red", "sky", "blue", "green", "sand")
    assert [texts[0] for texts in words.prompts] == [
        "a photo of red",
        "a photo of sky",
        "a photo of blue",
        "a green",
        "a photo of sand",
    ]
    state = plugin.step_state()
    first = plugin._drawn()
    plugin.load_step_state(state)
    assert torch.equal(plugin._drawn(), first)


def test_clipself_is_its_equation(tokenizer):
    settings = Crops(kind="crops", strength=0.5, grid=[2, 2])
    model, _, plugin, strategy = learning(tokenizer, CropsPlugin, settings)
    images, clip = model.normalise(strategy.mb_x), model.clip
    distances = []
    with torch.no_grad():
        for image, dense in zip(images, dense_map(clip.visual, images), strict=True):
            for row in range(2):
                for column in range(2):
                    corner = [2.0 * column, 2.0 * row, 2.0 * column + 2, 2.0 * row + 2]
                    region = roi_align(dense[None], [torch.tensor([corner])], (1, 1), aligned=True).flatten()
                    cut = image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                    shown = F.interpolate(cut[None], (32, 32), mode="bicubic", antialias=True)
                    crop = clip.encode_image(shown)[0]
                    distances.append(1 - F.cosine_similarity(region, crop, dim=0))
        found = plugin.penalty(strategy)
    assert torch.allclose(found, 0.5 * torch.stack(distances).mean(), atol=1e-5)
