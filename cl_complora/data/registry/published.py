"""Zero-shot accuracies that CLIP's authors published, to be stated beside what is measured."""

from __future__ import annotations

# Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
# table 11: ImageNet, all 50,000 validation images, ensemble of 80 prompts. Keys are open_clip's resolved
# names.
_IMAGENET = {
    "RN50-quickgelu": 59.6,
    "RN101-quickgelu": 62.2,
    "RN50x4-quickgelu": 65.8,
    "RN50x16-quickgelu": 70.5,
    "RN50x64-quickgelu": 73.6,
    "ViT-B-32-quickgelu": 63.2,
    "ViT-B-16-quickgelu": 68.6,
    "ViT-L-14-quickgelu": 75.3,
    "ViT-L-14-336-quickgelu": 76.2,
}


def beside(dataset: str, model: str, pretrained: str, measured: float) -> str | None:
    """A line that sets a measured accuracy beside the published one; None where nothing was published.

    Args:
        dataset: name in the registry.
        model, pretrained: resolved, as open_clip calls them.
        measured: fraction.
    """
    value = _IMAGENET.get(model) if (dataset, pretrained) == ("imagenet", "openai") else None
    if value is None:
        return None
    apart = 100 * measured - value
    told = f"{dataset}: {100 * measured:.1f} % before the first task; published for {model}: {value} %"
    told += " (80 prompts, 50,000 images)"
    if abs(apart) > 1:
        told += (
            f"; {apart:+.1f} points apart: fewer prompts or images explain some of it, other weights or"
            " pixels more"
        )
    return told
