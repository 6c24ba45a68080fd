"""The peers of a training step, re-created from their published algorithm or taken as installed.

All sides of a step answer the same questions (:class:`StepSide`), so that they can be held against one
another.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.nn import functional as F

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.clip.text import TextEncoder
from cl_complora.config.training import Optimiser, Schedule, Training
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.experience import ClipExperience, as_avalanche
from cl_complora.engine.training.optimisers import optimizer_factory
from cl_complora.engine.training.schedule import CurvePlugin, SchedulePlugin
from cl_complora.engine.updates.complora import CompLoRAPlugin

from .clips import TEMPLATE, PlainClassifier, image_size, pictures, space_of, task_of, tokenizer

MATRICES = ("q", "k", "v")
RANK = 2
SCALING = 1 / math.sqrt(RANK)  # CLIP-LoRA's: alpha 1 over the root of the rank
LR, DECAY = 2e-4, 1e-2
PEFT_MISSING = "peft is not installed (pip install -e '.[bench]')"


def has_peft() -> bool:
    """Whether PEFT can be imported."""
    return importlib.util.find_spec("peft") is not None


class OneBatch(list):
    """What a strategy reads batches from; no captions were drawn for any."""

    drawn: dict = {}


class StepSide(ABC):
    """One way to train on one batch, over and over.

    Attributes:
        name: in tables.
        logits: of the batch before its last step.
    """

    name: str
    logits: Tensor

    @abstractmethod
    def show(self, images: Tensor, labels: Tensor, classes: int) -> None:
        """The batch and the number of classes from now on."""

    @abstractmethod
    def step(self) -> None:
        """Forward, backward, update."""

    @abstractmethod
    def gradients(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Slot name → gradient of the last step by B at B = 0, with ``factors`` as A."""

    def factors(self) -> dict[str, Tensor] | None:
        """Slot name → A (``r × in``); None for a side without factors, which can be held against any."""
        return None

    def updates(self) -> dict[str, Tensor] | None:
        """Slot name → ΔW so far, where it should be ours."""
        return None


class Engine(StepSide):
    """Ours, through the engine: ClipStrategy, the adapter plugin, schedule and curve.

    Args:
        clip: the model; opened here.
        constraint: of the low-rank updates; ``Constraint(select="none")`` is plain LoRA.
        device: where.
        tokenize: of the model; that of open_clip where None.
        precision: that the towers compute in while training.
        compiled: whether torch.compile makes the towers' programs.
    """

    def __init__(
        self,
        name: str,
        clip: nn.Module,
        constraint: Constraint,
        device: str = "cpu",
        tokenize: Callable[..., Tensor] | None = None,
        precision: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self.name, self.device = name, device
        self.classifier = ClipClassifier(clip, tokenize or tokenizer(), precision=precision).to(device)
        open_slots(clip)
        self.adapter = CompLoRAPlugin(rank=RANK, scaling=SCALING, matrices=MATRICES, constraint=constraint)
        optimiser = Optimiser(name="adamw", lr=LR, weight_decay=DECAY, clip_norm=None)
        self.make_optimizer = optimizer_factory(optimiser, self.adapter, self.classifier)
        self.strategy = ClipStrategy(
            model=self.classifier,
            make_optimizer=self.make_optimizer,
            training=Training(steps=1, batch_size=1, prompts="first", compile=compiled),
            device=device,
            plugins=[
                self.adapter,
                SchedulePlugin(Schedule(name="constant", warmup=0.0), optimiser),
                CurvePlugin(lambda step, loss, images: None),
            ],
        )
        begin(self.strategy, ClipExperience([task_of(pictures(1, image_size(clip), 1), space_of(1))], 0))

    def show(self, images: Tensor, labels: Tensor, classes: int) -> None:
        """As in the base class."""
        self.batch = [images, labels, torch.zeros_like(labels)]
        self.strategy.experience.spaces = [space_of(classes)]

    def start(self, factors: Mapping[str, Tensor] | None = None) -> None:
        """B = 0 and a fresh optimiser, with the given A where some are given."""
        with torch.no_grad():
            for name, block in self.adapter.blocks.items():
                block.B.zero_()
                if factors is not None:
                    block.A.copy_(factors[name])
        self.strategy.optimizer = self.make_optimizer(self.strategy.trainable)

    def step(self) -> None:
        """As in the base class."""
        self.strategy.dataloader = OneBatch([self.batch])
        self.strategy.training_epoch()
        self.logits = self.strategy.mb_output.detach()

    def factors(self) -> dict[str, Tensor]:
        """As in the base class; for a constrained block A V_cᵀ."""
        return {name: block.factors()[1].detach().clone() for name, block in self.adapter.blocks.items()}

    def gradients(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the base class; for a constrained block in the coordinates of U_c."""
        return {name: block.B.grad.clone() for name, block in self.adapter.blocks.items()}

    def confined(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients by a full-size B in the coordinates that the constraint leaves: U_cᵀ G."""
        blocks = self.adapter.blocks
        return {
            n: g if blocks[n].output_basis is None else blocks[n].output_basis.mT @ g
            for n, g in gradients.items()
        }

    def updates(self) -> dict[str, Tensor]:
        """As in the base class."""
        pairs = {name: block.factors() for name, block in self.adapter.blocks.items()}
        return {name: (b @ a).detach() for name, (b, a) in pairs.items()}


def begin(strategy, experience) -> None:
    """Bring an Avalanche strategy to where the steps of an experience begin."""
    strategy.is_training, strategy.experience = True, experience
    strategy.model.train()
    strategy._before_training_exp()


class DenseLoRA(nn.Module):
    """CLIP-LoRA's linear layer: W x + b and a second, dense product x (B A)ᵀ · alpha/√r."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.A = nn.Parameter(torch.empty(RANK, weight.shape[1]))
        self.B = nn.Parameter(torch.zeros(weight.shape[0], RANK))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """``… × in`` → ``… × out``."""
        return F.linear(x, self.weight, self.bias) + (x @ (self.B @ self.A).mT) * SCALING


class FourLinearAttention(nn.Module):
    """CLIP-LoRA's attention: four linear layers cut out of the fused ones, the first three with factors."""

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = original.num_heads
        weights, biases = original.in_proj_weight.chunk(3), original.in_proj_bias.chunk(3)
        self.q, self.k, self.v = (DenseLoRA(w, b) for w, b in zip(weights, biases, strict=True))
        self.out = original.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """``N × L × E`` in and out."""
        batch, length, width = query.shape
        heads = [
            layer(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for layer, x in ((self.q, query), (self.k, key), (self.v, value))
        ]
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=attn_mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width)), None


class ClipLoRALoop(StepSide):
    """The loop of CLIP-LoRA (MaxZanella/CLIP-LoRA, lora.py): prompts tokenised and encoded at every step.

    In the CPU's 32 bits, and with its dropout off, so that the numbers can be compared.
    """

    name = "CLIP-LoRA's loop"

    def __init__(self, clip: nn.Module, device: str = "cpu") -> None:
        self.clip = clip.to(device).requires_grad_(False).train()
        self.attentions = {}
        for path, module in list(clip.named_modules()):
            if isinstance(module, nn.MultiheadAttention):
                parent, _, leaf = path.rpartition(".")
                self.attentions[path] = FourLinearAttention(module).to(device)
                setattr(clip.get_submodule(parent), leaf, self.attentions[path])
        self.tokenize, self.device = tokenizer(), device
        trained = [p for p in clip.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=DECAY)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 8000, eta_min=1e-6)
        self.scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=device.startswith("cuda"))

    def show(self, images: Tensor, labels: Tensor, classes: int) -> None:
        """As in the base class."""
        self.images, self.labels, self.names = images, labels, space_of(classes).class_names

    def step(self) -> None:
        """As in the base class."""
        tokens = self.tokenize([TEMPLATE.replace("{}", name) for name in self.names]).to(self.device)
        texts = self.clip.encode_text(tokens)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        features = self.clip.encode_image(self.images)
        features = features / features.norm(dim=-1, keepdim=True)
        logits = self.clip.logit_scale.exp() * features @ texts.mT
        loss = F.cross_entropy(logits, self.labels)
        self.right = float((logits.argmax(1) == self.labels).float().mean())
        self.loss = loss.item()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.logits = logits.detach()

    def _layers(self) -> dict[str, DenseLoRA]:
        return {
            f"{path}.{name}": getattr(m, name) for path, m in self.attentions.items() for name in MATRICES
        }

    def factors(self) -> dict[str, Tensor]:
        """As in the base class."""
        return {name: layer.A.detach().clone() for name, layer in self._layers().items()}

    def gradients(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the base class."""
        return {name: layer.B.grad for name, layer in self._layers().items()}

    def updates(self) -> dict[str, Tensor]:
        """As in the base class."""
        return {name: (layer.B @ layer.A).detach() * SCALING for name, layer in self._layers().items()}


class PeftStep(StepSide):
    """PEFT's LoRA on nn.MultiheadAttention, in a plain loop.

    PEFT has one A for q, k and v together and cannot leave out_proj out; it merges and unmerges around every
    call.

    Args:
        clip: the model; wrapped here.
        trimmed: give it our text encoding, which stops at the longest prompt.
    """

    def __init__(self, clip: nn.Module, device: str = "cpu", trimmed: bool = False) -> None:
        import peft
        from peft.tuners.lora.layer import MultiheadAttention

        self.name = "PEFT, with our trimmed prompts" if trimmed else "PEFT"
        config = peft.LoraConfig(r=RANK, lora_alpha=1, use_rslora=True, target_modules=["attn"])
        self.plain = PlainClassifier(clip, ["thing"]).to(device)
        peft.inject_adapter_in_model(config, clip)
        self.text = TextEncoder(clip, tokenizer()) if trimmed else None
        self.wrapped = {path: m for path, m in clip.named_modules() if isinstance(m, MultiheadAttention)}
        self.plain.train()
        trained = [p for p in clip.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=DECAY)

    def show(self, images: Tensor, labels: Tensor, classes: int) -> None:
        """As in the base class."""
        self.images, self.labels, self.space = images, labels, space_of(classes)
        self.plain.show(self.space.class_names)

    def step(self) -> None:
        """As in the base class."""
        logits = self.plain(self.images) if self.text is None else self._trimmed(self.space)
        loss = F.cross_entropy(logits, self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.logits = logits.detach()

    def _trimmed(self, space: LabelSpace) -> Tensor:
        clip = self.plain.clip
        return (
            clip.logit_scale.exp()
            * clip.encode_image(self.images, normalize=True)
            @ self.text.features(space).mT
        )

    def factors(self) -> dict[str, Tensor]:
        """As in the base class."""
        return {
            f"{path}.{name}": m.lora_A["default"].weight.detach().clone()
            for path, m in self.wrapped.items()
            for name in MATRICES
        }

    def _rows(self, of: str) -> dict[str, Tensor]:
        found = {}
        for path, module in self.wrapped.items():
            weight = module.lora_B["default"].weight
            parts = (weight.grad if of == "grad" else weight.detach()).chunk(3)
            found |= {f"{path}.{name}": part for name, part in zip(MATRICES, parts, strict=True)}
        return found

    def gradients(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the base class."""
        return self._rows("grad")

    def updates(self) -> dict[str, Tensor]:
        """As in the base class, of q, k and v."""
        now = self.factors()
        return {name: SCALING * b @ now[name] for name, b in self._rows("value").items()}


class FullAvalanche(StepSide):
    """Full fine-tuning of both towers in Avalanche's Naive strategy, with its metrics."""

    name = "full fine-tuning, plain Avalanche"

    def __init__(self, clip: nn.Module, device: str = "cpu") -> None:
        self.clip, self.plain = clip, PlainClassifier(clip, ["thing"]).to(device)
        clip.logit_scale.requires_grad_(False)
        metrics = [*accuracy_metrics(minibatch=True, epoch=True), *loss_metrics(minibatch=True, epoch=True)]
        self.strategy = Naive(
            model=self.plain,
            optimizer=torch.optim.AdamW(self.plain.parameters(), lr=LR, weight_decay=DECAY),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=1,
            device=device,
            evaluator=EvaluationPlugin(*metrics, loggers=[]),
        )
        dataset = as_avalanche(pictures(1, image_size(clip), 1))
        begin(self.strategy, benchmark_from_datasets(train=[dataset]).train_stream[0])

    def show(self, images: Tensor, labels: Tensor, classes: int) -> None:
        """As in the base class."""
        self.batch = [images, labels, torch.zeros_like(labels)]
        self.plain.show(space_of(classes).class_names)

    def step(self) -> None:
        """As in the base class."""
        self.strategy.dataloader = OneBatch([self.batch])
        self.strategy.training_epoch()
        self.logits = self.strategy.mb_output.detach()

    def gradients(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in the base class: s · (∂loss/∂W) Aᵀ."""
        found = {}
        for path, module in self.clip.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                for name, part in zip(MATRICES, module.in_proj_weight.grad.chunk(3), strict=True):
                    found[f"{path}.{name}"] = SCALING * part @ factors[f"{path}.{name}"].mT
        return found
