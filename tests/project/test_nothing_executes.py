"""Nothing executes from data: no module runs what it reads, and foreign code runs only where it is
allowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from builders.commands import cli
from builders.places import PACKAGE
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.registry import check as check_registered

pytestmark = pytest.mark.usefixtures("never_hangs")


# Modules that run what they are given, or load code.
RUNNING = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "code",
    "runpy",
    "pty",
    "subprocess",
    "importlib",
}


RUNNING |= {"ctypes", "imp", "codeop"}


CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "breakpoint",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
}


CALLS |= {
    "yaml.full_load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.ops.load_library",
    "torch.package.PackageImporter",
}


CALLS |= {
    f"os.{name}"
    for name in ("system", "popen", "execv", "execve", "execvp", "spawnv", "spawnl", "posix_spawn")
}


SAFELY = {("torch.load", "weights_only", "True"), ("np.load", "allow_pickle", "False")}


# What of them the package uses nevertheless, and what for.
ALLOWED = {
    ("engine/external_plugin.py", "importlib"): "the one door for foreign code, which --allow-plugins opens",
    ("store/provenance.py", "importlib"): "versions of the installed packages",
    ("store/provenance.py", "ctypes"): "malloc_trim of the C library",
    ("run/allocator.py", "ctypes"): "mallopt of the C library",
    ("clip/torch_files.py", "pickle"): "the error that weights_only raises, and opcodes read, not run",
    ("clip/checkpoint_files.py", "pickle"): "the error that weights_only raises",
    ("config/model_names.py", "importlib"): "where open_clip lies, without importing it",
    ("data/images/picture_files.py", "importlib"): "whether pillow-heif is installed",
    ("data/hub/hub_pictures.py", "importlib"): "whether pyarrow and datasets are installed",
    ("data/kinds.py", "importlib"): "our own modules by names that stand in our own code",
    ("__init__.py", "importlib"): "our own modules by names that stand there",
    ("clip/deferred_imports.py", "importlib"): "timm, wandb and the like, when they are used",
    ("run/without_compiler.py", "importlib"): "torch's compiler, for who asks for more than a stand-in",
    ("clip/tokenizers.py", "importlib"): "whether transformers is installed",
    ("report/trackers.py", "importlib"): "wandb, mlflow and trackio by names that stand there",
    ("compare/publishing.py", "subprocess"): "git, for the commit of the package's own folder",
    ("engine/stock_plugins.py", "importlib"): "whether quadprog is installed",
}


def dangers(path: Path) -> Iterator[str]:
    """Everything in a module that can execute what it reads."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] in RUNNING
            )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.split(".")[0] in RUNNING:
                yield node.module.split(".")[0]
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in CALLS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called in CALLS or called.endswith((".extract", ".extractall")):
                yield called
            if any(called == name and options.get(option) != value for name, option, value in SAFELY):
                yield called
            if (
                options.get("shell", "False") != "False"
                or options.get("trust_remote_code", "False") != "False"
            ):
                yield called


def test_no_module_executes_what_it_reads():
    found = {
        (path.relative_to(PACKAGE).as_posix(), danger)
        for path in sorted(PACKAGE.rglob("*.py"))
        for danger in dangers(path)
    }
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import importlib",
        "from importlib import import_module", "eval(x)", "exec(x)", "__import__(x)",
        "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x)", "np.load(x, allow_pickle=True)",
        "yaml.load(x, Loader=y)", "yaml.unsafe_load(x)",
        "os.system(x)", "os.popen(x)", "import subprocess", "from subprocess import run",
        "archive.extractall(x)", "torch.jit.load(x)", "from os import system",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=True)", "import ctypes",
    ],
)  # fmt: skip
def test_the_search_finds_them(tmp_path, code):
    (tmp_path / "m.py").write_text(f"def f(x, y):\n    {code}\n")
    assert list(dangers(tmp_path / "m.py"))


PLUGIN = """
name: mine
adapter: {kind: lowrank, rank: 2}
plugin: mine:Plugin
optimiser: {lr: 1e-3}
training: {steps: 1}
"""


def test_a_plugin_runs_where_it_is_allowed_and_nowhere_else(tmp_path, tiny_scenario, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(PLUGIN)
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nPlugin = 3\n")
    for words in (["check", "mine.yaml"], ["run", tiny_scenario, "-s", "mine.yaml"]):
        code, _, err = cli(monkeypatch, capsys, *words)
        assert (code == 0) == (words[0] == "check") and not (tmp_path / "ran").exists(), err
        assert words[0] == "check" or "--allow-plugins" in err
    code, _, err = cli(monkeypatch, capsys, "run", tiny_scenario, "-s", "mine.yaml", "--allow-plugins")
    assert code == 2 and (tmp_path / "ran").exists() and "must be a class derived from avalanche's" in err
    assert not (tmp_path / "runs").exists()


def test_pickles_among_the_data_sets_are_compared_before_they_are_opened(tmp_path, monkeypatch):
    """CIFAR comes as pickles; torchvision knows the checksum of every file of it."""

    class Code:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps({"data": Code()}))
    (line,) = check_registered("cifar10", tmp_path)
    assert line.startswith("cifar10: ") and not (tmp_path / "ran").exists()


def test_tensorboards_text_shows_names_and_runs_none(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugin_util import markdown_to_safe_html
    from tensorboard.util.tensor_util import make_ndarray

    from cl_complora.report.tensorboard.layout import MeasuredNames
    from cl_complora.report.tensorboard.writer import BoardWriter
    from cl_complora.store.folder import RunDir

    evil = "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))"
    scenario = load_scenario("embedded").value.model_dump(mode="json")
    scenario["tasks"][0]["classes"] = [
        evil,
        f"a\n\n{evil}",
        f"b\u2028{evil}",
        f"c\u0085{evil}",
        f"d\r\r{evil}",
    ]
    config = {
        "scenario": scenario,
        "strategy": load_strategy("lora").value.model_dump(mode="json"),
        "description": evil,
        "seed": 0,
        "model": {"name": "embedded", "sha256": "0"},
        "splits": {},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    names = MeasuredNames(["<script>", "$(x)"], ["</script>"])
    BoardWriter(RunDir(tmp_path), names, False, lambda name, places: None).writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    texts = [make_ndarray(event.tensor_proto).item() for event in events.Tensors("config/text_summary")]
    shown = markdown_to_safe_html(texts[0])
    assert len(texts) == 1 and b"alert(1)" in texts[0] and "alert(1)" in shown
    assert shown.count("<pre>") == shown.count("<code>") == 1 and shown.count("<") == 4, (
        "one block of text, no other tag"
    )
