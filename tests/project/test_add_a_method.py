"""docs/add-a-method.md, built as it stands there, from outside the package."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import cl_complora
from builders.commands import cli
from builders.interruptions import ask_after, same_bits
from builders.places import ROOT
from cl_complora.cli import main
from cl_complora.compare.results_files import Identities
from cl_complora.compare.study import Request, compare
from cl_complora.compare.trials import trial
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine import external_plugin as external
from cl_complora.errors import UserError
from cl_complora.progress import Quiet
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.run.trainer import Trainer
from cl_complora.store.folder import RunDir

PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
QUICK = ["training.steps=8", "training.batch_size=4", "adapter.rank=2", "optimiser.lr=1e-2"]


@pytest.fixture
def method(tmp_path) -> Path:
    for name in ("feature_anchor.py", "feature-anchor.yaml"):
        (text,) = re.findall(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "feature-anchor.yaml"


def test_it_has_forty_lines(method):
    lines = [len(path.read_text().splitlines()) for path in (method, method.with_name("feature_anchor.py"))]
    assert sum(lines) <= 40


def test_it_trains_resumes_and_does_what_it_says(method, tiny_scenario, tmp_path):
    scenario = load_scenario(str(tiny_scenario))

    def finish(strength: float, out: str, **options):
        strategy = load_strategy(str(method), [*QUICK, f"settings.strength={strength}"])
        return run(scenario, strategy, out=tmp_path / out, allow_plugins=True, **options)

    free, held = finish(0.0, "free"), finish(1000.0, "held")
    norms = [[d["delta_norm"] for d in r.results["tasks_detail"]] for r in (free, held)]
    assert all(h < f for f, h in zip(*norms, strict=True))

    class Stop(Quiet):
        def task(self, index, total, name, steps):
            if index == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(1000.0, "cut", progress=Stop())
    assert finish(1000.0, "cut").results["accuracy"] == held.results["accuracy"]


def test_a_signal_within_a_task_saves_nothing_of_what_does_not_say_how_it_changed(
    method, tiny_scenario, tmp_path, monkeypatch
):
    """The run goes on after the last whole task, to the same end."""
    scenario, strategy = load_scenario(str(tiny_scenario)), load_strategy(str(method), QUICK)
    whole = run(scenario, strategy, out=tmp_path / "whole", allow_plugins=True)
    ask_after(monkeypatch, 12)
    with pytest.raises(Stopped):
        run(scenario, strategy, out=tmp_path / "cut", allow_plugins=True)
    monkeypatch.undo()
    assert not list((tmp_path / "cut").rglob("inside-*/*"))
    resumed = run(scenario, strategy, out=tmp_path / "cut", allow_plugins=True)
    assert resumed.reused == 1 and same_bits(resumed.folder, whole.folder)


def test_it_can_be_compared(method, tiny_scenario, tmp_path):
    request = Request(
        str(tiny_scenario), ("zeroshot", str(method)), seeds=(0,), strategy_settings=("training.steps=2",)
    )
    found = compare(request, tmp_path / "runs", allow_plugins=True)
    assert not found.methods[1].failed and found.methods[1].updates["norm"] > 0


def test_changed_code_is_another_method(method, tiny_scenario, tmp_path):
    """Nothing that the old code made stands for the new one's."""
    scenario, strategy = load_scenario(str(tiny_scenario)), load_strategy(str(method), QUICK)
    first = run(scenario, strategy, out=tmp_path / "runs", allow_plugins=True)
    before = Identities().of(trial(str(method), (), 0, scenario))
    assert before == Identities().of(trial(str(method), (), 0, scenario))
    file = method.with_name("feature_anchor.py")
    file.write_text(file.read_text() + "\nraise RuntimeError('the new code ran')\n")
    assert before != Identities().of(trial(str(method), (), 0, scenario))
    with pytest.raises(UserError, match="the new code ran"):
        run(scenario, strategy, out=tmp_path / "others", allow_plugins=True)
    file.write_text(file.read_text().replace("raise RuntimeError('the new code ran')", "# a comment"))
    told = "file of strategy .*: plugin: feature_anchor:FeatureAnchor is not what it was when this run began"
    with pytest.raises(UserError, match=told):
        run(scenario, strategy, out=tmp_path / "runs", allow_plugins=True)
    assert first.results["status"] == "done"


def test_code_runs_only_where_it_was_allowed(method, tiny_scenario, tmp_path, monkeypatch, capsys):
    method.with_name("feature_anchor.py").write_text("raise SystemExit('ran')")
    out = tmp_path / "runs"
    words = ["cl-complora", "run", str(tiny_scenario), "--strategy", str(method), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2 and "allow it with --allow-plugins" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("plugin", "code", "told"),
    [
        ("gone:Plugin", None, "cannot be loaded: No module named 'gone'"),
        ("feature_anchor:Other", None, "cannot be loaded: feature_anchor has no Other"),
        ("feature_anchor:FeatureAnchor", "def FeatureAnchor(", "was never closed"),
        (
            "feature_anchor:FeatureAnchor",
            "FeatureAnchor = 3",
            "must be a class derived from avalanche's Supervised",
        ),
        ("feature_anchor:FeatureAnchor", "\nx = 1 / 0", "feature_anchor.py:2: ZeroDivisionError"),
        ("feature_anchor:FeatureAnchor", "import sys\n\nsys.exit(0)", "feature_anchor.py:3: SystemExit: 0"),
        ("my name", None, "plugin: must have the form module:Class, or be the name of an entry point ("),
        ("nobody-s:Plugin", None, "plugin: must have the form module:Class"),
        ("my-name", None, "no entry point of this name"),
    ],
)  # fmt: skip
def test_what_is_no_plugin_is_told_in_one_line(method, tiny_scenario, tmp_path, plugin, code, told):
    if code is not None:
        method.with_name("feature_anchor.py").write_text(code)
    method.write_text(method.read_text().replace("feature_anchor:FeatureAnchor", plugin))
    with pytest.raises(UserError) as refused:
        strategy = load_strategy(str(method), QUICK)
        run(load_scenario(str(tiny_scenario)), strategy, out=tmp_path / "runs", allow_plugins=True)
    assert told in refused.value.messages[0] and "\n" not in refused.value.messages[0]
    assert not (tmp_path / "runs").exists()


# What the method is spoilt by: replaced, with what, what is then told first, and of which lines.
FAILS = {
    "hook": (
        "        images, now = strategy.mb_x, strategy.mb_features\n",
        "        images, now = self.halves(strategy.mb_x), 0\n\n"
        "    def halves(self, images):\n        return images @ torch.ones(2, 2)\n",
        "penalty failed: RuntimeError: ",
        ["in penalty: images, now = ", "in halves: return images @ torch.ones(2, 2)"],
    ),
    "recursion": (
        "        images, now = strategy.mb_x, strategy.mb_features\n",
        "        return self.penalty(strategy)\n",
        "penalty failed: RecursionError: ",
        ["in penalty: return"] * 12 + ["more …"] + ["in penalty: return"] * 6,
    ),
    "end": (
        "        images, now = strategy.mb_x, strategy.mb_features\n",
        "        raise SystemExit(0)\n",
        "penalty failed: SystemExit: 0",
        ["in penalty: raise SystemExit(0)"],
    ),
    "decomposition": (
        "        images, now = strategy.mb_x, strategy.mb_features\n",
        "        torch.linalg.cholesky(torch.zeros(3, 3))\n",
        "penalty failed: _LinAlgError: ",
        ["in penalty: torch.linalg.cholesky(torch.zeros(3, 3))"],
    ),
    "constructor": (
        "        super().__init__()\n",
        "        super().__init__()\n        settings['weight']\n",
        "cannot be made with (settings, adapter, seed): KeyError: 'weight'",
        ["in __init__: settings['weight']"],
    ),
    "signature": (
        "adapter, seed: int)",
        "adapter)",
        "cannot be made with (settings, adapter, seed): TypeError: ",
        ["external_plugin.py"],
    ),
}


@pytest.mark.parametrize("case", FAILS)
def test_an_error_of_a_plugin_is_told_from_its_file_on(
    case, method, tiny_scenario, tmp_path, monkeypatch, capsys
):
    right, wrong, told, lines = FAILS[case]
    file = method.with_name("feature_anchor.py")
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))
    words = ["run", tiny_scenario, "-s", method, "--out", tmp_path / "runs", "--allow-plugins"]
    code, _, err = cli(monkeypatch, capsys, *words, "--set", "training.steps=1", "--set", "adapter.rank=2")
    name = f"error: {method}:4: strategy 'feature-anchor': plugin: feature_anchor:FeatureAnchor: "
    first, *others = err.strip().splitlines()
    assert code == 2 and first.startswith(f"{name}{told}")
    assert len(others) == len(lines)
    for line, part in zip(others, lines, strict=True):
        assert part in line and (str(file.resolve()) in line or "more" in part or case == "signature")
    assert "Traceback" not in err and "avalanche" not in err


PENALTY = "        return self.strength * (1 - (now * before).sum(1)).mean()\n"
ONE_NUMBER = "FeatureAnchor.penalty must return a tensor of one number, or None, got"

# What makes it one whose runs go on within a task.
STEPS = "\n    def load_step_state(self, tensors):\n        pass\n"

# What is put in place of the penalty's last line, and what is then told.
MISTAKES = {
    "a list": ("        return [1.0]\n", f"{ONE_NUMBER} list"),
    "no mean": (PENALTY.replace(".mean()", ""), f"{ONE_NUMBER} shape (4,)"),
    "hook": (
        f"{PENALTY}\n    def before_training_exp(self):\n        pass\n",
        "before_training_exp must take (self, strategy), got (self)",
    ),
    "restoring": (
        f"{PENALTY}\n    def load(self):\n        pass\n",
        "load must take (self, tensors), got (self)",
    ),
    "no tensor": (
        f"{PENALTY}\n    def tensors(self):\n        return {{'steps': 3}}\n",
        "FeatureAnchor.tensors must return a dict of tensors, got int for 'steps'",
    ),
    "no dict": (
        f"{PENALTY}\n    def tensors(self):\n        return [torch.zeros(1)]\n",
        "FeatureAnchor.tensors must return a dict of tensors, got list",
    ),
    "no name": (
        f"{PENALTY}\n    def tensors(self):\n        return {{3: torch.zeros(1)}}\n",
        "FeatureAnchor.tensors must return a dict of tensors, got the name 3, which is no text",
    ),
    "step state": (
        f"{PENALTY}{STEPS}\n    def step_state(self):\n        return {{'n': 3}}\n",
        "FeatureAnchor.step_state must return a dict of tensors, got int for 'n'",
    ),
    "a state's signature": (
        f"{PENALTY}{STEPS}\n    def step_state(self, strategy):\n        return {{}}\n",
        "step_state must take (self), got (self, strategy)",
    ),
    "model": (
        f"{PENALTY}\n    def fits(self, model):\n        raise ValueError('needs a ViT')\n",
        "needs a ViT",
    ),
    "fits": (
        f"{PENALTY}\n    def fits(self, model):\n        model.no_such_part\n",
        "fits failed: AttributeError: ",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_common_mistake_of_a_plugin_is_told_by_its_name(
    case, method, tiny_scenario, tmp_path, monkeypatch, capsys
):
    wrong, told = MISTAKES[case]
    file = method.with_name("feature_anchor.py")
    assert PENALTY in file.read_text()
    text = file.read_text().replace(PENALTY, wrong)
    if STEPS in wrong:
        text = text.replace("class FeatureAnchor(", "class FeatureAnchor(StepState, ")
        text = text.replace("\nclass ", "from cl_complora.engine.checkpoint import StepState\n\nclass ", 1)
    file.write_text(text)
    words = ["run", tiny_scenario, "-s", method, "--out", tmp_path / "runs", "--allow-plugins"]
    settings = ("training.steps=1", "training.batch_size=4", "adapter.rank=2")
    words += [word for setting in settings for word in ("--set", setting)] + ["--save-every", "0"]
    code, _, err = cli(monkeypatch, capsys, *words)
    name = f"error: {method}:4: strategy 'feature-anchor': plugin: feature_anchor:FeatureAnchor: "
    assert code == 2 and err.startswith(f"{name}{told}") and "Traceback" not in err


def test_in_python_the_error_of_a_plugin_is_the_cause_and_other_errors_stay_what_they_are(
    method, tiny_scenario, tmp_path, monkeypatch
):
    scenario, strategy = load_scenario(str(tiny_scenario)), load_strategy(str(method), QUICK)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Trainer, "_learned", lambda self, task: 1 / 0)
        run(scenario, strategy, out=tmp_path / "ours", allow_plugins=True)
    file = method.with_name("feature_anchor.py")
    # Of another length: of one length and one second, the compiled file of before would pass for it.
    file.write_text(file.read_text().replace("strategy.mb_x, strategy.mb_features\n", "{}['no such key']\n"))
    with pytest.raises(UserError) as told:
        run(scenario, strategy, out=tmp_path / "theirs", allow_plugins=True)
    assert isinstance(told.value.__cause__, KeyError)
    with pytest.raises(UserError) as told:
        cl_complora.run(tiny_scenario, method, settings=QUICK, out=tmp_path / "api", allow_plugins=True)
    assert isinstance(told.value.__cause__, KeyError) and "in penalty: " in str(told.value)
    broken = "def __init__(self, settings: dict, adapter, seed: int):\n        settings['no such setting']\n"
    constructor = re.search(r"def __init__\(.*\n", file.read_text())[0]
    file.write_text(file.read_text().replace(f"    {constructor}", f"    {broken}"))
    with pytest.raises(UserError) as told:
        run(scenario, strategy, out=tmp_path / "made", allow_plugins=True)
    assert isinstance(told.value.__cause__, KeyError)
    failed = RunDir.of(tmp_path / "theirs", "tiny", "feature-anchor", 0).read_failure()
    assert "penalty failed: KeyError: 'no such key'; at " in failed


def test_an_entry_point_is_found_by_its_name(method, tiny_scenario, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(method.parent))
    point = EntryPoint("my-anchor", "feature_anchor:FeatureAnchor", external.GROUP)
    monkeypatch.setattr(external, "entry_points", lambda group: [point] if group == external.GROUP else [])
    method.write_text(method.read_text().replace("feature_anchor:FeatureAnchor", "my-anchor"))
    strategy = load_strategy(str(method), QUICK)
    done = run(load_scenario(str(tiny_scenario)), strategy, out=tmp_path / "runs", allow_plugins=True)
    assert done.results["status"] == "done"


def test_a_method_that_needs_references_says_so_before_anything_is_written(tiny_scenario, tmp_path):
    text = re.sub(r"reference:\n(  .*\n)+", "", tiny_scenario.read_text())
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(UserError, match="has no reference set, which strategy 'zscl' needs"):
        run(load_scenario(str(tmp_path / "tiny.yaml")), load_strategy("zscl"), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
