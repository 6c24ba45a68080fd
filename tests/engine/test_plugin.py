"""CompLoRAPlugin inside a stock Avalanche strategy: the contract that other people's scripts rely on."""

from __future__ import annotations

import runpy
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import TensorDataset

from builders.models import tiny_clip
from builders.places import LONG, ROOT
from builders.processes import Process, completed
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.subspace import Keep, principal

SPACE = LabelSpace.from_templates(["red", "green", "blue"], ["a photo of a {}", "a {} thing"])


def dataset(seed: int, shape=(3, 32, 32), classes: int = 3) -> AvalancheDataset:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(12, *shape, generator=generator), torch.arange(12) % classes
    return AvalancheDataset([TensorDataset(x, y)], data_attributes=[DataAttribute(y.tolist(), "targets")])


def naive(model: nn.Module, plugin, optimizer=torch.optim.SGD, **options) -> Naive:
    return Naive(
        model=model,
        optimizer=optimizer(model.parameters(), lr=0.05, **options),
        train_mb_size=4,
        train_epochs=1,
        plugins=[plugin],
        evaluator=EvaluationPlugin(loggers=[]),
    )


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


class Recorder(CompLoRAPlugin):
    """Looks at the model just before the merge."""

    def after_training_exp(self, strategy, **kwargs):
        strategy.model.eval()
        self.images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            self.adapted = strategy.model(self.images)
        self.moved = [
            bool(block.B.detach().any()) and block.A.grad is not None for block in self.blocks.values()
        ]
        super().after_training_exp(strategy, **kwargs)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}), (torch.optim.AdamW, {"weight_decay": 0.1})],
)
def test_in_stock_naive_all_factors_move_and_nothing_else_does(tokenizer, optimizer, options):
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    slots = open_slots(model.clip)
    adapted_parameters = {slot.parameter for slot in slots}
    plugin = Recorder(rank=2, energy=0.5)
    strategy = naive(model, plugin, optimizer, **options)
    for step, experience in enumerate(
        benchmark_from_datasets(train=[dataset(1), dataset(2)]).streams["train"]
    ):
        before = state(model.clip)
        flags = {name: p.requires_grad for name, p in model.named_parameters()}
        strategy.train(experience, eval_streams=[])
        after = state(model.clip)
        assert plugin.moved and all(plugin.moved)
        assert after.keys() == before.keys()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == adapted_parameters
        assert flags == {name: p.requires_grad for name, p in model.named_parameters()}
        with torch.no_grad():
            merged = model(plugin.images)
        assert torch.allclose(merged, plugin.adapted, atol=1e-5 * float(merged.abs().max()))
        assert len(plugin.deltas) == step + 1


def test_deltas_add_up_to_the_merged_weights(tokenizer):
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    start = state(model.clip)
    plugin = CompLoRAPlugin(rank=2, energy=0.6)
    naive(model, plugin).train(
        benchmark_from_datasets(train=[dataset(1), dataset(2)]).streams["train"], eval_streams=[]
    )
    for delta in plugin.deltas:
        delta.add_to(start)
    for name, value in state(model.clip).items():
        assert torch.equal(value, start[name]), name


def test_a_kind_of_parameters_that_there_is_not_is_refused():
    with pytest.raises(
        ValueError, match="whole: must be of weights, biases, norms, positions, tokens, got 'norm'"
    ):
        CompLoRAPlugin(rank=2, whole=["norm"])
    plugin = CompLoRAPlugin(rank=2, whole=["tokens"], towers=["vision"])
    with pytest.raises(ValueError, match=r"no parameter of the towers \(vision\) is one of \['tokens'\]"):
        plugin.prepare(tiny_clip())


def test_top_triples_stay_exact_after_every_experience(tokenizer):
    """Recomputed from the stored deltas alone, as an outsider would."""
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    weights = state(model.clip)
    keep = Keep("energy", 0.5)
    plugin = CompLoRAPlugin(rank=2, keep=keep)
    naive(model, plugin).train(
        benchmark_from_datasets(train=[dataset(s) for s in range(3)]).streams["train"], eval_streams=[]
    )
    for delta, geometry in zip(plugin.deltas, plugin.geometry, strict=True):
        for slot in plugin.slots:
            w = weights[slot.parameter][slot.rows]
            split = principal(w, keep, room=plugin.rank)
            b, a = delta.factors[slot.key]
            merged = w + b @ a
            error = torch.linalg.matrix_norm(merged @ split.v_k - split.u_k * split.sigma[: split.k])
            assert float(error) <= 1e-5 * float(torch.linalg.matrix_norm(w))
            record = geometry[slot.name]
            assert record["k"] == split.k and record["protected_overlap"] <= 1e-5 and record["delta_norm"] > 0
        delta.add_to(weights)


def test_protecting_updates_makes_later_tasks_orthogonal_to_earlier_ones(tokenizer):
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    plugin = CompLoRAPlugin(rank=2, constraint=Constraint(keep=Keep("energy", 0.3), updates=True))
    naive(model, plugin).train(
        benchmark_from_datasets(train=[dataset(1), dataset(2)]).streams["train"], eval_streams=[]
    )
    first, second = plugin.deltas
    for key, (b, a) in second.factors.items():
        earlier_b, earlier_a = first.factors[key]
        size = float(torch.linalg.matrix_norm(b) * torch.linalg.matrix_norm(earlier_b))
        assert float(torch.linalg.matrix_norm(earlier_b.mT @ b)) <= 1e-4 * size
        size = float(torch.linalg.matrix_norm(a) * torch.linalg.matrix_norm(earlier_a))
        assert float(torch.linalg.matrix_norm(earlier_a @ a.mT)) <= 1e-4 * size


SIDES, SELECTED = ("both", "in", "out"), ("complement", "top", "random")
# In short: which side is confined does not hang on whose decomposition it is, and with "none" no side is.
CONTROLS = [
    *product(("merged",), SIDES, SELECTED),
    ("merged", "both", "none"),
    *product(("pretrained",), ("both",), SELECTED),
]
if LONG:
    CONTROLS = list(product(("merged", "pretrained"), SIDES, (*SELECTED, "none")))


@pytest.mark.parametrize(("of", "sides", "select"), CONTROLS)
def test_every_control_trains_and_merges(tokenizer, select, sides, of):
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    constraint = Constraint(select=select, sides=sides, of=of, keep=Keep("fraction", 0.4))
    plugin = CompLoRAPlugin(rank=2, constraint=constraint, matrices=["q", "fc"], towers=["vision"])
    naive(model, plugin).train(
        benchmark_from_datasets(train=[dataset(1), dataset(2)]).streams["train"], eval_streams=[]
    )
    for geometry in plugin.geometry:
        for record in geometry.values():
            assert record["delta_norm"] > 0
            if select == "complement" and sides != "out" and of == "merged":
                assert record["overlap_input"] <= 1e-5
            if select == "top" and sides == "both":
                assert record["overlap_input"] == pytest.approx(1, abs=1e-4)


def test_a_model_without_towers(tokenizer):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))
    plugin = CompLoRAPlugin(rank=1, energy=0.5)
    strategy = naive(model, plugin)
    strategy.train(benchmark_from_datasets(train=[dataset(1, (12,))]).streams["train"], eval_streams=[])
    assert len(plugin.deltas[0].factors) == 2


def test_an_optimiser_that_misses_the_factors_is_told():
    class Late(CompLoRAPlugin):
        """Attaches in the hook that comes after the optimiser was made."""

        def before_train_dataset_adaptation(self, strategy, **kwargs):
            pass

        def before_training_exp(self, strategy, **kwargs):
            self.attach(strategy.model)
            super().before_training_exp(strategy, **kwargs)

    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(RuntimeError, match="optimiser does not hold"):
        naive(model, Late(rank=1)).train(
            benchmark_from_datasets(train=[dataset(1, (12,))]).streams["train"], eval_streams=[]
        )


@pytest.mark.parametrize(
    "given, told",
    [
        ({"energy": 2}, "energy: must be greater than 0 and at most 1, got 2"),
        ({"energy": 0.0}, "energy: must be greater than 0 and at most 1, got 0.0"),
        ({"rank": 0}, "rank: must be a whole number, at least 1, got 0"),
        ({"rank": 2.5}, "rank: must be a whole number, at least 1, got 2.5"),
        ({"rank_last": True}, "rank_last: must be a whole number, at least 1, got True"),
        ({"matrices": ["q", "vv"]}, "matrices: must be of q, k, v, o, fc, proj, other, got 'vv'"),
        ({"matrices": "fc"}, "matrices: must be of q, k, v, o, fc, proj, other, got 'f'"),
        ({"towers": ["vision", "image"]}, "towers: must be of vision, text, got 'image'"),
    ],
)
def test_what_the_plugin_cannot_use_is_refused_when_it_is_made(given, told):
    with pytest.raises(ValueError) as refused:
        CompLoRAPlugin(**given)
    assert str(refused.value) == told


def shortened(folder: Path, example: Path, *changes: tuple[str, str]) -> Path:
    """An example with less to train; the long form runs it as it is."""
    text = example.read_text(encoding="utf-8")
    for written, less in changes:
        assert text.count(written) == 1
        text = text if LONG else text.replace(written, less)
    (folder / example.name).write_text(text, encoding="utf-8")
    return folder / example.name


def test_replay_ewc_and_loggers_of_avalanche_stand_beside_it(tmp_path):
    example = ROOT / "examples" / "avalanche_replay_ewc.py"
    example = shortened(tmp_path, example, ("CompLoRAPlugin(rank=8", "CompLoRAPlugin(rank=8, layers=[-1]"))
    done = completed(Process(_script, str(example), str(tmp_path), "1"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split()[0] for line in done.stdout.strip().splitlines()] == [
        "naive",
        "ewc",
        "replay",
        "figures",
    ]
    for name in ("naive", "ewc", "replay"):
        assert "forgetting" in (tmp_path / name / "eval_results.csv").read_text()
        assert list((tmp_path / name / "tensorboard").glob("events.out.*"))


def _script(*words: str) -> None:
    sys.argv = list(words)
    runpy.run_path(words[0], None, "__main__")


def test_the_example_runs_and_is_short(tmp_path):
    example = ROOT / "examples" / "plugin_in_naive.py"
    assert len(example.read_text().splitlines()) < 60
    example = shortened(tmp_path, example, ("train_epochs=10", "train_epochs=1"))
    done = completed(Process(runpy.run_path, str(example), None, "__main__"))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("after 0 experiences") and lines[-1].startswith("size of the two updates")
