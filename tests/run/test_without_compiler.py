"""torch's compiler is not loaded by a run that compiles nothing, and is all there for who asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from builders.places import TESTS
from builders.processes import Process
from cl_complora.run.without_compiler import NAME, compiler_left_out

STEP = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from cl_complora.run.without_compiler import NAME, compiler_left_out

def step():
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    weight.square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    return weight.tolist()

def loaded():
    return sum(name.startswith(NAME) for name in sys.modules)

told = {}
assert not loaded(), "what all processes of the tests begin with has loaded it"
"""
TELL = "\nprint(json.dumps(told))\n"


def told(program: str) -> dict:
    """By a process that has imported everything and run nothing."""
    process = Process(exec, STEP + program + TELL, {})
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_a_step_is_the_same_and_loads_nothing():
    found = told("""
with compiler_left_out():
    told["without"] = step()
    told["within"] = loaded()
told["after"] = loaded()
of_torch = torch.optim.Optimizer.zero_grad.__wrapped__
told["left"] = vars(of_torch).get("__dynamo_disable") is of_torch
""")
    assert (found["within"], found["after"], found["left"]) == (1, 0, False)
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    weight.square().sum().backward()
    optimiser.step()
    assert found["without"] == weight.tolist()


@pytest.mark.parametrize(
    "asking",
    [
        "import torch._dynamo.config",
        "told['compiled'] = torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item()",
    ],
)
def test_who_asks_for_the_compiler_gets_it_whole_and_once(asking):
    found = told(f"""
with compiler_left_out():
    told["before"] = step()
    {asking}
    import torch._dynamo.eval_frame
    parts = [sys.modules[NAME + ".eval_frame"].config, sys.modules[NAME + ".config"], torch._dynamo.config]
    told["same"] = parts[0] is parts[1] is parts[2] and callable(torch._dynamo.disable())
    told["after"] = step()
told["stays"] = loaded() > 20 and sys.modules[NAME] is torch._dynamo
told["finders"] = sum(type(one).__module__.startswith("cl_complora") for one in sys.meta_path)
""")
    assert found["before"] == found["after"] and found["same"] and found["stays"] and found["finders"] == 0
    assert found.get("compiled", 2.0) == 2.0


def test_one_that_is_loaded_stays():
    import torch._dynamo as real

    with compiler_left_out():
        assert sys.modules[NAME] is torch._dynamo is real


# A process begins with nothing imported for this alone, so that it answers for all that is about that: what a
# run imports when it begins, what it has loaded at its end, and whether any of it needs what Windows lacks.
A_RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
# Libraries whose builds for Linux look at Linux while they are imported.
import subprocess, tempfile, torch
from builders import windows

windows.stand_in()
import cl_complora.run.trainer, cl_complora.run.learner, cl_complora.run.measuring

late = {"timm", "torch._dynamo", "matplotlib", "wandb", "torchmetrics", "scipy.signal", "sklearn"}
told = {"loaded at once": sorted(late & set(sys.modules)), "compiler": {}}

import gc
from pathlib import Path
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run
from cl_complora.run.without_compiler import NAME

scenario, strategy, out = sys.argv[1:]
for name, edit in ((strategy, "training.steps=2"), ("text-head", "head.steps_per_shot=2")):
    located = load_strategy(name, [edit])
    run(load_scenario(scenario), located, out=Path(out))
    told["compiler"][located.value.name] = sum(module.startswith(NAME) for module in sys.modules)
told["collects"] = gc.isenabled()

from cl_complora.cli import main

words = ["run", scenario, "-s", "zeroshot", "--no-analysis", "--set", "test_limit=4", "--out", out]
sys.argv = ["cl-complora", *words]
try:
    main()
except SystemExit as ended:
    told["code"] = ended.code
"""


def test_a_run_leaves_it_out_begins_without_others_and_needs_nothing_that_windows_lacks(
    tiny_scenario, tiny_strategy, tmp_path
):
    done = subprocess.run(
        [sys.executable, "-c", A_RUN + TELL, tiny_scenario, tiny_strategy, tmp_path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded at once"] == []
    assert found["compiler"] == {"quick": 0, "text-head": 0} and found["collects"]
    assert found["code"] in (None, 0) and (tmp_path / "tiny/zeroshot/seed0/results.json").exists()
