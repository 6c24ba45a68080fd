"""torch's compiler is not loaded by a run that compiles nothing, and is all there for who asks for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

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
"""
TELL = "\nprint(json.dumps(told))\n"


def told(program: str) -> dict:
    done = subprocess.run([sys.executable, "-c", STEP + program + TELL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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


def test_a_run_leaves_it_out(tiny_scenario, tiny_strategy, tmp_path):
    found = told(f"""
from pathlib import Path
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run
for name, edit in (({str(tiny_strategy)!r}, "training.steps=2"), ("text-head", "head.steps_per_shot=2")):
    located = load_strategy(name, [edit])
    run(load_scenario({str(tiny_scenario)!r}), located, out=Path({str(tmp_path)!r}))
    told[located.value.name] = loaded()
import gc
told["collects"] = gc.isenabled()
""")
    assert found.pop("collects") and set(found.values()) == {0}
