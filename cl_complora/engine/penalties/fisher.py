"""The diagonal Fisher information of adapted weights, from true per-sample gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...clip.blocks import Computing
from ...clip.classifier import ClipClassifier
from ...delta import parse_rows
from ..adapter import clip_of
from ..experience import ClipExperience

# Per-sample gradients of q, k and v of both towers of a ViT-B/16 take 123 MB a sample.
GRADIENT_BYTES = 2**29


def diagonal_fisher(
    model: ClipClassifier,
    weights: Mapping[str, Tensor],
    experience: ClipExperience,
    samples: int,
    generator: torch.Generator,
    chunk: int = 16,
) -> dict[str, Tensor]:
    """F = E_x E_{y ~ p(y|x)} [∇ log p(y|x)²] per entry of the named weights.

    Args:
        model: merged classifier.
        weights: keys as in :class:`~cl_complora.delta.TaskDelta` (whole parameters or row blocks of them).
        experience: its images are used without augmentation.
        samples: how many images, drawn without replacement.
        generator: draws images and labels.
        chunk: samples whose gradients are held at once, fewer where they would take more than GRADIENT_BYTES.

    Returns:
        Key → F of the weight's shape.
    """
    parameters = dict(clip_of(model).named_parameters())
    wanted = {key: (key, None) if key in parameters else parse_rows(key) for key in weights}
    names = sorted({name for name, _ in wanted.values()})
    whole = {f"clip.{name}": parameters[name].detach() for name in names}
    total = {name: torch.zeros_like(value) for name, value in whole.items()}
    chunk = max(1, min(chunk, GRADIENT_BYTES // max(1, sum(value.nbytes for value in whole.values()))))
    was_training, computing = model.training, model.computing
    model.eval()
    model.compute_as(Computing())  # what is computed twice cannot be differentiated per sample
    seen = 0
    share = max(1, samples // len(experience.parts))
    for part in experience.parts:
        space = part.train_space.with_template(0)
        chosen = torch.randperm(len(part.train), generator=generator)[:share]
        device = next(model.parameters()).device

        head = _Logits(model, space)

        def log_likelihood(
            values: dict[str, Tensor], image: Tensor, label: Tensor, head: _Logits = head
        ) -> Tensor:
            logits = functional_call(head, {f"model.{k}": v for k, v in values.items()}, (image[None],))
            return torch.log_softmax(logits, 1)[0].gather(0, label[None]).squeeze(0)

        per_sample = vmap(grad(log_likelihood), in_dims=(None, 0, 0))
        for batch in chosen.split(chunk):
            images = model.normalise(part.train.pixels[batch].to(device))
            with torch.no_grad():
                p = torch.softmax(model(images, space), 1).cpu()
            labels = torch.multinomial(p, 1, generator=generator).squeeze(1).to(device)
            # Only the plain attention kernel has a rule for being differentiated per sample.
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                gradients = per_sample(whole, images, labels)
            for name, gradient in gradients.items():
                total[name] += gradient.square().sum(0)
            seen += len(batch)
    model.train(was_training)
    model.compute_as(computing)
    fisher = {}
    for key, (name, rows) in wanted.items():
        mean = total[f"clip.{name}"] / seen
        fisher[key] = (mean if rows is None else mean[rows]).clone()
    return fisher


class _Logits(torch.nn.Module):
    """Logits over one label space with the text encoded inside, so that gradients reach both towers."""

    def __init__(self, model: ClipClassifier, space) -> None:
        super().__init__()
        self.model, self.space = model, space

    def forward(self, images: Tensor) -> Tensor:
        return self.model.scores(self.model.image_features(images), self.model.text.encode_space(self.space))
