"""CLIPs with random weights, class names and pictures, and the plainest classifier that a script would
write."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import open_clip
import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor, nn
from torch.nn import functional as F

from cl_complora.config.scenario import Augmentation
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, TaskData

TEMPLATE = "a photo of a {}."

# Sizes that open_clip has no name for; the context stays CLIP's own 77 tokens.
OWN = {
    "tiny": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "small-224": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 224, "layers": 4, "width": 128, "head_width": 32, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
    },
}


def random_clip(name: str, seed: int = 0) -> nn.Module:
    """An open_clip model of the named architecture, or one of ours, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return open_clip.model.CLIP(**OWN[name]) if name in OWN else open_clip.create_model(name)


def tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    """CLIP's."""
    return open_clip.tokenizer.SimpleTokenizer()


def image_size(clip: nn.Module) -> int:
    """Side of its pictures."""
    size = clip.visual.image_size
    return size if isinstance(size, int) else size[0]


@functools.cache
def class_names(number: int) -> tuple[str, ...]:
    """The first of ImageNet's names, which differ in length as those of real tasks do."""
    return tuple(dict.fromkeys(name.replace("{", "").replace("}", "") for name in IMAGENET_CLASSNAMES))[
        :number
    ]


def space_of(number: int) -> LabelSpace:
    """A label space of so many classes with CLIP-LoRA's one prompt."""
    return LabelSpace.from_templates(class_names(number), [TEMPLATE])


def pictures(number: int, side: int, classes: int, seed: int = 0) -> Images:
    """Noise with labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(number) % classes)


def task_of(images: Images, space: LabelSpace, index: int = 0) -> TaskData:
    """A task that trains and tests on the same pictures, without augmentation."""
    return TaskData(f"task{index}", index, space, space, images, images, images, Augmentation(), None)


class PlainClassifier(nn.Module):
    """CLIP with a text head as a script writes it: all prompts, all 77 tokens, every time.

    Args:
        clip: an open_clip model.
        names: of the classes.
    """

    def __init__(self, clip: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.clip = clip
        self.tokenize = tokenizer()
        self.show(names)

    def show(self, names: Sequence[str]) -> None:
        """Other classes from now on."""
        device = next(self.clip.parameters()).device
        self.tokens = self.tokenize([TEMPLATE.replace("{}", name) for name in names]).to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        texts = F.normalize(self.clip.encode_text(self.tokens), dim=-1)
        return self.clip.logit_scale.exp() * F.normalize(self.clip.encode_image(images), dim=-1) @ texts.mT
