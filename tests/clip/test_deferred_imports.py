"""Libraries that are loaded only when they are used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from builders.processes import Process
from cl_complora.clip.deferred_imports import deferred

LIBRARY = {
    "slow/__init__.py": "print('slow')\n__version__ = '7'\nfrom .inner import Thing, twice\n",
    "slow/inner.py": "class Thing:\n    kind = 'a thing'\n\ndef twice(x):\n    return 2 * x\n",
    "user.py": (
        "from typing import Union\nimport slow\nimport slow.inner as inner\n"
        "from slow import Thing, twice\nfrom slow.inner import Thing as Same\n"
        "Either = Union[int, Thing]\nmaybe: Thing | None = None\nother: None | Thing = None\n"
        "def is_thing(x): return isinstance(x, (str, Thing))\n"
    ),
    "heir.py": "from slow import Thing\nclass Child(Thing): pass\n",
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    for name, text in LIBRARY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("slow", "slow.inner", "user", "heir"):
        sys.modules.pop(name, None)


def test_what_is_used_is_loaded_then(library, capsys):
    with deferred("slow", "no_such_library"):
        import user
    assert "slow" not in sys.modules and not user.is_thing(3) and user.is_thing("")
    assert capsys.readouterr().out == ""
    assert user.twice(4) == 8 and user.slow.__version__ == "7" and user.inner.twice(1) == 2
    assert capsys.readouterr().out == "slow\n"
    from slow.inner import Thing

    assert user.is_thing(Thing()) and isinstance(user.Same(), Thing) and user.Thing.kind == "a thing"


def test_a_base_class_is_loaded_at_once(library):
    with deferred("slow"):
        import heir
    assert heir.Child.__mro__[1].__module__ == "slow.inner"


def test_a_part_of_a_library_alone_is_deferred(tmp_path, monkeypatch, capsys):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "__init__.py").write_text("")
    (tmp_path / "large" / "part.py").write_text("print('part')\ndef one(): return 1\n")
    (tmp_path / "large" / "partner.py").write_text("two = 2\n")
    (tmp_path / "asks.py").write_text("import large.part, large.partner\nfrom large.part import one\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with deferred("large.part"):
        import asks
    import large

    assert "large.part" not in sys.modules and "part" not in vars(large) and large.partner.two == 2
    assert capsys.readouterr().out == ""
    assert asks.one() == 1 and large.part is sys.modules["large.part"]
    assert capsys.readouterr().out == "part\n"
    for name in ("large", "large.part", "large.partner", "asks"):
        del sys.modules[name]


def test_what_is_loaded_or_missing_stays_what_it_is(library):
    import slow

    with deferred("slow", "no_such_library"):
        import user

        with pytest.raises(ImportError):
            import no_such_library  # noqa: F401
    assert user.slow is slow


def test_transformers_beside_open_clip_wait_too(tmp_path):
    """open_clip imports them where they are installed; they compute with classes of the hub's client."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text(
        "from huggingface_hub import HfApi\n_api: HfApi.__class__ = HfApi\nassert issubclass(HfApi, object)\n"
        "class PretrainedConfig:\n    model_type = 'real'\n"
    )
    code = (
        "import sys, cl_complora.clip\n"
        "print('transformers' in sys.modules)\n"
        "from open_clip.hf_model import PretrainedConfig\n"
        "print(PretrainedConfig().model_type, 'huggingface_hub' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.stdout.splitlines() == ["False", "real True"], done.stderr


def test_they_are_there_when_they_are_used():
    """That a run begins without them is told in ``test_without_compiler``."""
    code = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        # What all processes of the tests begin with has loaded none of these.
        "print(sorted({'timm', 'torch._dynamo', 'torchmetrics'} & set(sys.modules)))\n"
        "import open_clip.timm_model as t\n"
        "print(type(t.TimmModel('resnet18', 8, 64).trunk).__name__)\n"
        "from avalanche.evaluation.metrics import TopkAccuracy\n"
        "import torch\n"
        "m = TopkAccuracy(2); m.update(torch.eye(4), torch.arange(4), 0); print(m.result())\n"
        "from torchvision.ops import roi_align\n"
        "print(roi_align(torch.ones(1, 1, 4, 4), [torch.tensor([[0.0, 0, 2, 2]])], 2).mean().item())\n"
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item())\n"
    )
    out, err = Process(exec, code, {}).communicate()
    first, *rest = out.splitlines()
    assert first == "[]", err
    assert rest[0] == "ResNet" and "1.0" in rest[1] and rest[2:] == ["1.0", "2.0"], err
