"""docs/clusters.md: every file in it is one, and every command of ours parses."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest
import typer
import yaml

from builders.places import ROOT
from cl_complora.cli import app

PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every ``cl-complora …`` in a block, to the end of its command."""
    texts = [text.replace("\\\n", " ") for text in blocks("bash")]
    texts += [job["spec"]["entrypoint"] for text in blocks("yaml") for job in yaml.safe_load_all(text)]
    return [found for text in texts for found in re.findall(r"cl-complora (?!\[)[^\n>|&]*", text)]


def parsed(words: list[str]) -> tuple[str, dict]:
    """Name of a command and its options, read as the command line reads them and not run."""
    group = typer.main.get_command(app)
    with group.make_context("cl-complora", list(words)) as context:
        name, command, rest = group.resolve_command(context, words)
        return name, command.make_context(name, rest, parent=context).params


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_are_scripts(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_is_one_of_each_kind():
    scripts = blocks("bash")
    assert sum(text.startswith("#!/bin/bash\n#SBATCH") for text in scripts) == 3
    assert any("ray symmetric-run" in text for text in scripts) and len(blocks("yaml")) == 1


def test_jobs_of_kubernetes_are_whole():
    (job,) = yaml.safe_load_all(blocks("yaml")[0])
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_our_commands_parse():
    found = [parsed(shlex.split(command)[1:]) for command in commands()]
    compared = [options for name, options in found if name == "compare"]
    evaluated = [options for name, options in found if name == "eval"]
    assert len(found) >= 9 and len(compared) + len(evaluated) == len(found)
    assert sum(options["list_"] for options in compared) == 2
    assert {options["cluster"] for options in compared} == {None, "auto"}
    assert any(options["gpus_per_run"] == 0.5 for options in compared)
    assert {options["shards"] for options in evaluated} == {None, 8}
    assert {options["cluster"] for options in evaluated} == {None, "auto"}


def test_options_that_are_named_exist():
    compare = typer.main.get_command(app).commands["compare"]
    others = [typer.main.get_command(app).commands[name] for name in ("run", "eval")]
    known = {option for command in (compare, *others) for p in command.params for option in p.opts}
    # Of Ray's own commands.
    named = set(re.findall(r"`(?:compare )?(--[a-z-]+)", PAGE)) - {"--object-store-memory"}
    assert named and named <= known
