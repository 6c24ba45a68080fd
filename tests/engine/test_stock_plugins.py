"""Avalanche's own plugins beside CompLoRAPlugin: each one acts, or is refused by name before any training."""

from __future__ import annotations

import importlib
import pkgutil
import warnings

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute, as_taskaware_classification_dataset
from avalanche.core import BasePlugin, SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import FeCAMClassifier, NCMClassifier, TrainEvalModel
from avalanche.training import plugins as stock
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import TensorDataset

from builders.models import tiny_clip
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.strategy import Strategy
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.external_plugin import build_external
from cl_complora.engine.stock_plugins import PENALTIES, REFUSED, WORKING
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.errors import UserError

SPACE = LabelSpace.from_templates(["red", "green", "blue", "grey"], ["a photo of a {}"])


def dataset(seed: int, shape=(12,), labels=(0, 1), task_labels: bool = True):
    """Twelve items of two classes that can be told apart."""
    x = torch.randn(12, *shape, generator=torch.Generator().manual_seed(seed))
    y = torch.tensor(labels).repeat(6)
    x += y.view(-1, *[1] * len(shape)) * 0.5
    targets = DataAttribute(y.tolist(), "targets")
    if not task_labels:
        return AvalancheDataset([TensorDataset(x, y)], data_attributes=[targets])
    tasks = DataAttribute([0] * 12, "targets_task_labels", use_in_getitem=True)
    data = AvalancheDataset([TensorDataset(x, y)], data_attributes=[targets, tasks])
    return as_taskaware_classification_dataset(data)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))


def strategy(model: nn.Module, *plugins, lr: float = 0.1, **options) -> Naive:
    options = {"train_mb_size": 4, "train_epochs": 3, "evaluator": stock.EvaluationPlugin(), **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        return Naive(model=model, optimizer=optimizer, plugins=list(plugins), **options)


def train(stream: Naive, experiences: int = 2, **data) -> None:
    torch.manual_seed(0)
    sets = [dataset(i, labels=[(0, 1), (2, 3)][i % 2], **data) for i in range(experiences)]
    for experience in benchmark_from_datasets(train=sets).streams["train"]:
        stream.train(experience, eval_streams=[])


def moved(*neighbours, model: nn.Module | None = None, lr: float = 0.1) -> float:
    """‖ΔW‖ of the second experience."""
    plugin = CompLoRAPlugin(rank=2, energy=0.3)
    train(strategy(model or small(), plugin, *neighbours, lr=lr))
    return plugin.deltas[1].norm()


def avalanches_plugins() -> dict[str, type]:
    """Every plugin class in Avalanche's package of plugins."""
    found = {}
    for module in pkgutil.iter_modules(stock.__path__):
        inside = importlib.import_module(f"{stock.__name__}.{module.name}")
        for name, value in vars(inside).items():
            own = isinstance(value, type) and value.__module__ == inside.__name__
            if own and (issubclass(value, BasePlugin) or name.endswith("Plugin")):
                found[name] = value
    return found


def test_every_plugin_of_avalanche_is_classified_once():
    tables = [set(WORKING), set(PENALTIES), set(REFUSED)]
    assert set().union(*tables) == set(avalanches_plugins())
    assert sum(map(len, tables)) == len(avalanches_plugins())


@pytest.mark.parametrize(
    "make",
    [
        lambda strength: stock.EWCPlugin(strength),
        lambda strength: stock.EWCPlugin(strength, mode="online", decay_factor=0.9),
        lambda strength: stock.MASPlugin(strength / 10),
        lambda strength: stock.LwFPlugin(alpha=strength, temperature=2),
    ],
    ids=["ewc", "ewc online", "mas", "lwf"],
)
def test_a_stronger_penalty_moves_effective_weights_less(make):
    sizes = [moved(make(strength)) for strength in (0.0, 100.0, 500.0)]
    assert sizes[0] > sizes[1] * 1.02 and sizes[1] > sizes[2] * 1.02


@pytest.mark.parametrize(("kind", "strong"), [(stock.EWCPlugin, 1000.0), (stock.MASPlugin, 1.0)])
def test_penalties_act_on_a_text_head_model_whose_weights_were_frozen(tokenizer, kind, strong):
    def size(strength: float) -> float:
        plugin = CompLoRAPlugin(rank=2, matrices=["q", "v", "fc"], towers=["vision"])
        model = ClipClassifier(tiny_clip(), tokenizer, SPACE).requires_grad_(False)
        train(strategy(model, plugin, kind(strength), lr=0.5), shape=(3, 32, 32))
        assert not any(p.requires_grad for p in model.parameters())
        return plugin.deltas[1].norm()

    assert size(0.0) > 1.02 * size(strong)


def test_the_penalty_is_the_formula_on_merged_weights():
    """λ Σ F (W + ΔW − W*)², with ΔW as the deltas have it."""

    class Watching(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            self.before = strategy.loss.clone()

    class Read(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            weights = {key: w.detach() for key, w in plugin.effective_weights().items()}
            self.penalty, self.weights = float((strategy.loss - watching.before).detach()), weights

    plugin, ewc, watching, read = CompLoRAPlugin(rank=2), stock.EWCPlugin(50.0), Watching(), Read()
    model = small()
    train(strategy(model, plugin, watching, ewc, read))
    expected = 0.0
    for slot in plugin.slots:
        saved, importance = ewc.saved_params[0][slot.parameter].data, ewc.importances[0][slot.parameter].data
        expected += float((importance * (read.weights[slot.key] - saved).square()).sum())
    assert expected > 0 and read.penalty == pytest.approx(50 * expected, rel=1e-4)
    assert set(ewc.saved_params[1]) == set(dict(model.named_parameters()))
    assert "named_parameters" not in vars(model)


def test_penalties_must_stand_after_the_adapter():
    for penalty in (stock.EWCPlugin(1.0), type("MyMas", (stock.MASPlugin,), {})(1.0)):
        with pytest.raises(UserError, match=f"{type(penalty).__name__}.* stands before CompLoRAPlugin"):
            train(strategy(small(), penalty, CompLoRAPlugin(rank=2)))


def made(name: str) -> SupervisedPlugin:
    arguments = {
        "SynapticIntelligencePlugin": (1.0,),
        "LFLPlugin": (1.0,),
        "CWRStarPlugin": (small(),),
        "MIRPlugin": (4,),
        "RARPlugin": (4,),
        "GEMPlugin": (4, 0.5),
    }
    return getattr(stock, name)(*arguments.get(name, ()))


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("derived", [False, True])
def test_refused_by_name_before_anything_is_trained(monkeypatch, tokenizer, name, derived):
    monkeypatch.setattr("cl_complora.engine.stock_plugins.find_spec", lambda name: None)
    neighbour, plugin = made(name), CompLoRAPlugin(rank=2)
    if derived:
        neighbour.__class__ = type("Mine", (type(neighbour),), {})
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    called = rf"Mine \(a {name}\)" if derived else name
    with pytest.raises(UserError, match=f"^{called} cannot be used beside CompLoRAPlugin: .*use instead: "):
        train(strategy(model, plugin, neighbour), shape=(3, 32, 32))
    assert not plugin.deltas and not plugin.blocks
    after = dict(model.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(p, after[key]) for key, p in before.items())


def test_all_refusals_are_told_at_once():
    with pytest.raises(UserError) as caught:
        train(strategy(small(), CompLoRAPlugin(rank=2), made("RWalkPlugin"), made("GDumbPlugin")))
    assert [message.split()[0] for message in caught.value.messages] == ["RWalkPlugin", "GDumbPlugin"]


def test_data_without_task_labels_is_told_before_training():
    plugin = CompLoRAPlugin(rank=2)
    with pytest.raises(UserError, match="LwFPlugin reads task labels"):
        train(strategy(small(), plugin, stock.LwFPlugin()), task_labels=False)
    assert not plugin.deltas and not plugin.blocks


def test_plugins_of_others_pass_and_a_new_one_of_avalanche_is_warned_about(recwarn):
    class Mine(SupervisedPlugin):
        """Somebody's own."""

    train(strategy(small(), CompLoRAPlugin(rank=2), Mine()), 1)
    assert not [w for w in recwarn if "has not been tried" in str(w.message)]
    Mine.__module__ = "avalanche.training.plugins.mine"
    with pytest.warns(UserWarning, match="Mine of this version of Avalanche has not been tried"):
        train(strategy(small(), CompLoRAPlugin(rank=2), Mine()), 1)


def test_a_strategy_file_cannot_name_one_of_avalanches_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from avalanche.training.plugins import EWCPlugin\n\n\nclass Mine(EWCPlugin):\n    pass\n"
    )
    strategy_file = Strategy.model_validate(
        {
            "name": "mine",
            "adapter": {"kind": "lowrank"},
            "plugin": "mine:Mine",
            "optimiser": {"name": "sgd", "lr": 0.1},
            "training": {"steps": 1},
        }
    )
    with pytest.raises(
        UserError, match=r"plugin: mine:Mine: is derived from Avalanche's EWCPlugin.*regularisers"
    ):
        build_external(strategy_file, CompLoRAPlugin(rank=2), 0, tmp_path)


class Batches(SupervisedPlugin):
    """What is trained on, and how fast."""

    def before_training_exp(self, strategy, **kwargs):
        self.labels, self.rates = set(), []

    def before_forward(self, strategy, **kwargs):
        self.labels |= set(strategy.mb_y.tolist())
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    "neighbour",
    [
        lambda: stock.ReplayPlugin(mem_size=6),
        lambda: stock.GSS_greedyPlugin(mem_size=60, input_size=[12]),
        lambda: stock.RARPlugin(4, mem_size=6, use_adversarial_replay=False),
    ],
)
def test_memories_rehearse_earlier_classes(neighbour):
    watching = Batches()
    assert moved(neighbour(), watching) > 0
    assert watching.labels == {0, 1, 2, 3}


def test_gradient_memories_turn_the_gradients_of_the_factors(monkeypatch):
    agem = stock.AGEMPlugin(6, 6)
    free, projected = moved(), moved(agem)
    assert float(agem.reference_gradients.norm()) > 0 and projected != free
    gem = stock.GEMPlugin(6, 0.5)
    monkeypatch.setattr("cl_complora.engine.stock_plugins.find_spec", lambda name: object())
    monkeypatch.setattr(
        stock.gem.qpsolvers, "solve_qp", lambda P, q, G, h, solver: -h.clip(max=0)
    )  # a feasible point
    assert moved(gem) > 0 and float(gem.G.norm()) > 0


def test_schedules_and_early_stopping_reach_the_factors():
    watching, plugin, model = Batches(), CompLoRAPlugin(rank=2), small()
    stream = strategy(model, plugin, watching)
    schedule = torch.optim.lr_scheduler.StepLR(stream.optimizer, 1, gamma=0.1)
    stream.plugins.insert(1, stock.LRSchedulerPlugin(schedule))
    train(stream)
    assert watching.rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)
    assert plugin.deltas[1].norm() > 0

    watching, plugin, model = Batches(), CompLoRAPlugin(rank=2), small()
    evaluator = stock.EvaluationPlugin(accuracy_metrics(stream=True))
    early = stock.EarlyStoppingPlugin(1, "train_stream", margin=1.0)
    stream = strategy(
        model, plugin, watching, early, evaluator=evaluator, eval_every=1, train_epochs=9, lr=1e-6
    )
    experience = benchmark_from_datasets(train=[dataset(0)]).streams["train"][0]
    stream.train(experience, eval_streams=[[experience]])
    assert len(watching.rates) < 27 and len(plugin.deltas) == 1


class Generator(nn.Module):
    def generate(self, count):
        return torch.randn(count, 12)


def test_generative_replay_with_a_generator_of_its_own():
    class Trained:
        model, times = Generator(), 0

        def train(self, experience):
            self.times += 1

    trained = Trained()
    neighbours = stock.GenerativeReplayPlugin(trained), stock.TrainGeneratorAfterExpPlugin()
    assert moved(*neighbours) > 0 and trained.times == 2


@pytest.mark.parametrize(
    ("head", "update"),
    [
        (NCMClassifier, stock.CurrentDataNCMUpdate),
        (NCMClassifier, stock.MemoryNCMUpdate),
        (NCMClassifier, stock.NCMOracle),
        (FeCAMClassifier, stock.CurrentDataFeCAMUpdate),
        (FeCAMClassifier, stock.MemoryFeCAMUpdate),
        (FeCAMClassifier, stock.FeCAMOracle),
    ],
)
def test_class_means_are_those_of_the_merged_model(head, update):
    model = TrainEvalModel(small()[:3], nn.Linear(9, 4), head())
    plugin = CompLoRAPlugin(rank=2)
    train(strategy(model, plugin, update()))
    assert len(plugin.deltas) == 2 and len(model.eval_classifier.class_means_dict) >= 2


def test_features_are_distilled_where_the_model_leaves_them():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = small()[:3], nn.Linear(9, 4)

        def forward(self, x):
            self.features = self.body(x)
            return self.head(self.features)

    def size(strength: float) -> float:
        torch.manual_seed(1)
        return moved(stock.FeatureDistillationPlugin(alpha=strength), model=Features())

    assert size(0.0) > 1.01 * size(10.0)
