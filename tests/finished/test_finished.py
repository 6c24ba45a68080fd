"""A finished run put to use: states, an open_clip checkpoint, predictions, new measurements; a first
scenario."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from builders.commands import cli
from builders.images import COLOURS, paint
from cl_complora.clip.evaluate import accuracy
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.discover import describe
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load
from cl_complora.errors import UserError
from cl_complora.finished.evaluation import find_data, measure_data, measure_stream
from cl_complora.finished.export import export
from cl_complora.finished.model_files import open_model
from cl_complora.finished.peft import adapter_of
from cl_complora.finished.predict import label_space, pictures, predict
from cl_complora.finished.states import find_state, open_run
from cl_complora.finished.update_curve import Curve, curves_along
from cl_complora.progress import Quiet
from cl_complora.report.run.curve_figure import scaling_figure
from cl_complora.run.stream import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_scenario, tiny_strategy):
    out = tmp_path_factory.mktemp("runs")
    return run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out)


@pytest.mark.parametrize("after", [None, "0", "1", "2", "warm", "cold"])
def test_every_state_measures_what_the_run_recorded(finished, after):
    state = open_run(finished.folder, after)
    assert state.after == {None: ["warm", "cold"], "0": [], "1": ["warm"], "warm": ["warm"]}.get(
        after, ["warm", "cold"]
    )
    found = measure_stream(state, as_recorded=True)
    assert [one.name for one in found] == ["warm", "cold", "colours"]
    assert all(one.accuracy == one.recorded for one in found)


def test_a_task_left_out_is_the_other_one_alone(finished):
    both, without = open_run(finished.folder), open_run(finished.folder, scale={"warm": 0.0})
    half, start = open_run(finished.folder, scale={"warm": 0.5}), open_run(finished.folder, "0")
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    w = {name: s.loaded.model.state_dict()[key] for name, s in vars_of(both, without, half, start).items()}
    assert not torch.equal(w["both"], w["without"])
    assert torch.allclose(w["half"], (w["both"] + w["without"]) / 2, atol=1e-6)
    assert not torch.equal(w["without"], w["start"])


def test_of_independent_tasks_every_state_is_one_task_alone(tmp_path, tiny_scenario, tiny_strategy):
    located = load_scenario(str(tiny_scenario), ["independent=true"])
    out = run(located, load_strategy(str(tiny_strategy)), out=tmp_path)
    for number, name in enumerate(("warm", "cold"), start=1):
        state = open_run(out.folder, str(number))
        assert state.after == [name] and state.row == number
        recorded = {one.name: one.recorded for one in measure_stream(state, True) if one.recorded is not None}
        assert set(recorded) == {name, "colours"}
        assert all(
            one.accuracy == recorded.get(one.name, one.accuracy) for one in measure_stream(state, True)
        )
    with pytest.raises(UserError, match="no task 'warm' among those merged: cold"):
        open_run(out.folder, scale={"warm": 0.0})


def vars_of(both, without, half, start) -> dict:
    return {"both": both, "without": without, "half": half, "start": start}


SCRIPT = """
import json, sys
import open_clip, torch
from PIL import Image
name, out, files, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
open_clip.add_model_config(f"{out}/{name}.json")
page = open(f"{out}/{name}.md").read()
start = page.index("model, _, preprocess"); end = page.index("model.eval()")
import os; os.chdir(out)
exec(page[start:end])
model.eval()
with torch.no_grad():
    text = model.encode_text(tokenizer(texts), normalize=True)
    image = torch.stack([preprocess(Image.open(f).convert("RGB")) for f in files])
    print(json.dumps((model.encode_image(image, normalize=True) @ text.T).argmax(1).tolist()))
assert not any(m.startswith("cl_complora") for m in sys.modules)
"""


def test_the_exported_file_gives_the_same_answers_in_plain_open_clip(finished, tmp_path, class_folders):
    state = open_run(finished.folder)
    files = export(state, tmp_path / "mine.safetensors")
    assert [f.name for f in files] == [
        "mine.safetensors",
        "mine.json",
        "mine.md",
        "mine.open_clip_config.json",
    ]
    images = sorted((class_folders / "test").glob("*/*.png"))
    space = label_space(state, task="cold")
    texts = [prompts[0] for prompts in space.prompts]
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        "mine",
        str(tmp_path),
        json.dumps(list(map(str, images))),
        json.dumps(texts),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [one.classes[0][0] for one in predict(state, images, space.with_template(0), top=1)]
    assert [space.class_names[i] for i in json.loads(done.stdout)] == expected


def test_the_embedded_model_is_exported_with_its_tokenizer(tmp_path):
    out = run(
        load_scenario("embedded", ["test_limit=16", "zero_shot.0.images=154", "reference=null"]),
        load_strategy("complora", ["training.steps=2"]),
        out=tmp_path / "runs",
        progress=Quiet(),
    )
    state = open_run(out.folder)
    files = export(state, tmp_path / "out" / "small.safetensors")
    assert files[-1].name == "small.bpe.txt.gz"
    digits = find_data("digits")
    assert measure_data(open_model(str(files[0])), digits) == measure_data(state.loaded, digits)
    assert measure_data(open_model(str(files[0])), digits) != measure_data(open_model("embedded"), digits)
    data = load(plan(state.scenario, 0), "task-incremental", state.loaded.pixels)
    task, images = data.tasks[2], []
    for index in range(16):
        path = tmp_path / f"{index}.png"
        Image.fromarray(task.test.pixels[index].permute(1, 2, 0).numpy()).save(path)
        images.append(str(path))
    texts = [prompts[0] for prompts in task.space.prompts]
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        "small",
        str(tmp_path / "out"),
        json.dumps(images),
        json.dumps(texts),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    right = (torch.tensor(json.loads(done.stdout)) == task.test.labels[:16]).double().mean()
    assert right == accuracy(
        state.classifier(), task.test.pixels[:16], task.test.labels[:16], task.space.with_template(0)
    )


def test_half_precision_halves_the_file(finished, tmp_path):
    state = open_run(finished.folder)
    whole, half = (
        export(state, tmp_path / f"{n}.safetensors", n == "half")[0].stat().st_size for n in ("whole", "half")
    )
    assert half < 0.6 * whole


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "{run}", "-o", "x.pt"], "must end in .safetensors"),
        (["export", "{run}", "-o", "ViT-B-16.safetensors"], "choose another"),
        (["export", "{run}", "--after", "hot"], "has finished warm, cold"),
        (["export", "nowhere"], "there is no such folder"),
        (["eval", "{run}/.."], "is no run"),
        (["eval", "{run}", "--without", "hot"], "no task 'hot'"),
        (["eval", "{run}", "--scale", "warm"], "must have the form TASK=FACTOR"),
        (["eval", "{run}", "--curve", "hot"], "no task 'hot' among those merged: warm, cold"),
        (
            ["eval", "{run}", "--curve", "warm", "--without", "warm"],
            "'warm' is to be scaled by 0 and to have a curve",
        ),
        (["eval", "{run}", "--curve", "each", "--after", "0"], "--curve: this state holds no task's update"),
        (
            ["eval", "{run}", "--curve", "warm", "--factors", "0,much"],
            "--factors 0,much: must have the form 0,0.5,1",
        ),
        (["eval", "{run}", "--curve", "warm", "--factors", "nan"], "--factors nan: must"),
        (["eval", "{run}", "--curve", "warm", "--plot", "curve.txt"], "must end in .svg, .png, .pdf"),
        (["eval", "{run}", "--curve", "warm", "--plot", "gone/curve.svg"], "in a folder that exists"),
        (["eval", "{run}", "--curve", "warm", "--data", "digits"], "--data: is not for --curve"),
        (["eval", "{run}", "--factors", "0,1"], "--factors: is for --curve"),
        (["eval", "embedded", "--curve", "warm"], "--curve: is for a run"),
        (
            ["eval", "{run}", "--data", "nowhere"],
            "there is no such folder, and nothing of that name; scenarios: ",
        ),
        (["eval", "{run}", "--data", "eurosat"], "expected below"),
        (["eval", "{run}", "--data", "digit"], "did you mean digits?"),
        (["eval", "{run}", "--data", "no.yaml"], "there is no such file"),
        (["eval", "{run}", "--data", "digits", "--prompt", "photo"], "must hold {{}} once"),
        (["eval", "{run}", "--prompt", "a {{}}"], "is for --data"),
        (["eval", "{run}", "--pretrained", "openai"], "--pretrained: is for a model"),
        (
            ["eval", "nowhere", "--data", "digits"],
            "neither a run's folder nor a model; a model is embedded, ",
        ),
        (["eval", "ViT-B-33", "--data", "digits"], "did you mean ViT-B-32?"),
        (["eval", "nowhere.safetensors", "--data", "digits"], "there is no such file"),
        (
            ["eval", "{weights}", "--data", "digits"],
            "open_clip_config.json, which 'cl-complora export' writes",
        ),
        (["eval", "{weights}", "--data", "digits", "--pretrained", "openai"], "brings its own"),
        (["eval", "embedded"], "no stream of its own; give --data"),
        (["eval", "embedded", "--data", "digits", "--after", "1"], "--after: is for a run"),
        (["eval", "embedded", "--data", "digits", "--pretrained", "openai"], "brings its own weights"),
        (["export", "{run}", "--peft", "--after", "0"], "--peft: this state has no update"),
        (["predict", "{run}", "nowhere.png"], "there is no such file"),
        (["predict", "{run}", "{run}"], "holds no pictures"),
        (["predict", "{run}", "{png}", "--task", "hot"], "this run has warm, cold, colours"),
        (["predict", "{run}", "{png}", "--task", "warm", "--classes", "a"], "one of the two"),
        (["predict", "{run}", "{png}", "--classes", "a,a"], "stands twice"),
        (["predict", "{run}", "{png}", "--classes", "a", "--prompt", "photo"], "must hold {{}} once"),
        (["init", "nowhere"], "there is no such folder"),
        (["init", "{run}", "-o", "x.txt"], "must end in .yaml"),
        (["init", "{run}"], "holds no class folders"),
    ],
)
def test_bad_input_is_told_in_one_line(
    words, told, finished, class_folders, tiny_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path))
    places = {
        "run": finished.folder,
        "png": class_folders / "test" / "red" / "0.png",
        "weights": tiny_files[1],
    }
    code, out, err = cli(monkeypatch, capsys, *(word.format(**places) for word in words))
    assert code == 2 and told.format(**places) in err and err.count("\n") == 1, err
    assert not out and not list(tmp_path.iterdir())


def test_predictions_of_all_kinds_of_files(finished, tmp_path, monkeypatch, capsys, class_folders):
    folder = tmp_path / "some pictures"
    folder.mkdir()
    source = Image.open(class_folders / "test" / "red" / "0.png")
    for mode, name in (
        ("L", "grey.PNG"),
        ("CMYK", "print.JPG"),
        ("P", "Palette ü.gif"),
        ("RGBA", "see-through.png"),
    ):
        source.convert(mode).save(folder / name)
    (folder / "cut off.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = cli(monkeypatch, capsys, "predict", finished.folder, folder, "--top", "2")
    assert code == 1 and "cut off.jpg: cannot be read as an image" in err
    assert len(out.splitlines()) == 4 and all(line.count("%") == 2 for line in out.splitlines())
    code, out, err = cli(
        monkeypatch,
        capsys,
        "predict",
        finished.folder,
        folder / "grey.PNG",
        "--classes",
        "sky, sea",
        "--json",
    )
    (row,) = json.loads(out)
    assert code == 0 and {c["class"] for c in row["classes"]} == {"sky", "sea"}
    assert sum(c["probability"] for c in row["classes"]) == pytest.approx(1, abs=1e-5)
    state = open_run(finished.folder)
    assert label_space(state).class_names == ("red", "yellow", "green", "blue")
    assert label_space(state, prompts=["so {}"]).prompts[0] == ("so red",)
    assert len(pictures([folder, folder / "grey.PNG"])) == 6


def test_other_folders_are_measured_with_their_interval(finished, monkeypatch, capsys, class_folders):
    state = open_run(finished.folder)
    (whole,) = measure_data(state.loaded, find_data(str(class_folders)))
    assert whole.images == 24 and 0 <= whole.accuracy <= 1 and whole.recorded is None
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--data", class_folders)
    assert code == 0 and "95 % interval" in out and class_folders.name in out
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--without", "warm", "--json")
    assert code == 0 and [row["recorded"] for row in json.loads(out)] == [None] * 3


def test_a_curve_begins_without_the_task_and_ends_at_the_run(finished):
    curves = curves_along(find_state(finished.folder), ["warm", "cold"], (1.0, 0.0, 0.5, 1.0))
    results = finished.results
    recorded = dict(zip(results["tasks"], results["accuracy"][-1], strict=True))
    recorded["colours"] = results["zero_shot"]["colours"][-1]
    for curve in curves:
        assert curve.factors == (0.0, 0.5, 1.0)
        for place, factor in enumerate(curve.factors):
            alone = measure_stream(open_run(finished.folder, scale={curve.task: factor}), as_recorded=False)
            assert {name: values[place] for name, values in curve.accuracy.items()} == {
                one.name: one.accuracy for one in alone
            }
        assert {name: values[-1] for name, values in curve.accuracy.items()} == recorded
    warm, cold = curves
    assert (warm.earlier, warm.later) == ((), ("cold",)) and (cold.earlier, cold.later) == (("warm",), ())
    assert list(cold.lines()) == ["this task", "earlier tasks", "zero-shot colours"]
    assert cold.lines()["earlier tasks"] == cold.accuracy["warm"]


def test_other_edits_hold_along_a_curve(finished):
    told: list[str] = []
    state = find_state(finished.folder, scale={"cold": 0.0})
    (curve,) = curves_along(state, ["warm"], (0.0, 1.0), told.append)
    assert len(told) == 2
    for place, after in enumerate(("0", "1")):
        alone = {one.name: one.accuracy for one in measure_stream(open_run(finished.folder, after), False)}
        assert {name: values[place] for name, values in curve.accuracy.items()} == alone


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_curves_are_printed_and_drawn(form, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("eval", finished.folder, "--curve", "each", "--factors", "0,1,1.5", "--plot", f"curve.{form}")
    code, out, err = cli(monkeypatch, capsys, *words)
    assert code == 0, err
    assert out.count("accuracy % along the update of") == 2 and f"curve.{form} written" in out
    drawn = (tmp_path / f"curve.{form}").read_bytes()
    assert drawn.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[form])
    code, out, err = cli(monkeypatch, capsys, *words, "--json")
    assert code == 0 and [one["task"] for one in json.loads(out)] == ["warm", "cold"]
    assert set(json.loads(out)[0]["accuracy"]) == {"warm", "cold", "colours"}
    assert not (finished.folder / "curve.svg").exists()


def test_a_curve_of_strange_names_is_drawn():
    names = ("$x^$ <b>&", "this task", "\x1b[31m" + "long " * 40)
    accuracy = {name: (0.25, 0.5) for name in (*names, "earlier tasks")}
    curve = Curve(names[0], (0.0, 1.0), accuracy, (names[1],), (names[2],), ("earlier tasks",))
    drawn = scaling_figure(curve.factors, dict.fromkeys([*names, "a", "b"], curve.lines()), "svg").decode()
    assert "\x1b" not in drawn and "<b>" not in drawn
    assert list(curve.lines()) == ["this task", "earlier tasks", "later tasks", "zero-shot earlier tasks"]


def evaluated(monkeypatch, capsys, *words) -> dict[str, float]:
    code, out, err = cli(monkeypatch, capsys, "eval", *words, "--json")
    assert code == 0, err
    return {row["name"]: row["accuracy"] for row in json.loads(out)}


def test_a_model_of_no_run_is_measured_on_a_whole_scenario(
    finished, tiny_scenario, tiny_files, tmp_path, monkeypatch, capsys
):
    """Three ways to a model, each with what the run recorded of the same weights."""
    config, weights = tiny_files
    rows = finished.results["accuracy"]
    before, _, last = (
        {"tiny/warm": row[0], "tiny/cold": row[1], "tiny/colours": zero_shot}
        for row, zero_shot in zip(rows, finished.results["zero_shot"]["colours"], strict=True)
    )
    scenario = ("--data", tiny_scenario)
    named = ("tiny_clip", "--model-config", config, "--pretrained", weights)
    assert evaluated(monkeypatch, capsys, *named, *scenario) == before
    assert evaluated(monkeypatch, capsys, finished.folder, "--after", "0", *scenario) == before
    assert evaluated(monkeypatch, capsys, finished.folder, *scenario) == last
    file = export(open_run(finished.folder), tmp_path / "again.safetensors")[0]
    assert evaluated(monkeypatch, capsys, file, *scenario) == last
    asked = find_data(str(tiny_scenario), prompts=["so {}"]).plans
    assert {one.prompts for one in (*asked.tasks, *asked.zero_shot)} == {("so {}",)}


def test_an_export_keeps_its_normalisation_and_its_way_to_resize(
    tiny_files, tmp_path, tiny_scenario, tiny_strategy
):
    settings = ["model.mean=[0,0.1,0.2]", "model.std=[1,1,1]", "model.image_size=40"]
    quick = load_strategy(str(tiny_strategy), ["training.steps=1"])
    out = run(load_scenario(str(tiny_scenario), settings), quick, out=tmp_path / "runs")
    state = open_run(out.folder)
    loaded = open_model(str(export(state, tmp_path / "resized.safetensors")[0]))
    assert loaded.mean == state.loaded.mean == (0, 0.1, 0.2) and loaded.std == (1, 1, 1)
    assert loaded.pixels == state.loaded.pixels and loaded.pixels.size == (40, 40)
    assert loaded.sha256 == open_model(str(tmp_path / "resized.safetensors")).sha256


def test_data_are_found_by_name(tmp_path, monkeypatch, class_folders):
    """A world domain and a registered data set come with prompts; a folder of such a name is not taken for
    either."""
    (digits,) = find_data("digits", default=["so {}"]).plans.zero_shot
    assert digits.name == "digits" and len(digits.test) == 400 and digits.prompts != ("so {}",)
    for number, name in enumerate(["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
                                   "PermanentCrop", "Residential", "River", "SeaLake"]):  # fmt: skip
        for picture in range(2):
            paint(tmp_path / "eurosat" / "2750" / name / f"{picture}.jpg", (20 * number, 90, 20), picture)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path))
    (satellite,) = find_data("eurosat").plans.zero_shot
    assert "annual crop land" in satellite.class_names and "satellite" in satellite.prompts[0]
    assert find_data("eurosat", prompts=["a {}"]).plans.zero_shot[0].prompts == ("a {}",)
    (folder,) = find_data(str(class_folders), default=["so {}"]).plans.zero_shot
    assert folder.prompts == ("so {}",) and folder.name == class_folders.name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a data set, and a folder here; write ./eurosat for the folder"):
        find_data("eurosat")
    assert find_data("./eurosat").plans.zero_shot[0].class_names == ("2750",)
    paint(tmp_path / "twice" / "a b" / "0.png", (1, 2, 3), 0)
    paint(tmp_path / "twice" / "a_b" / "0.png", (1, 2, 3), 0)
    with pytest.raises(UserError, match="two classes are both called 'a b'"):
        find_data("twice")


def trained(tiny_scenario, tiny_strategy, out, *settings):
    return run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy), settings), out=out).folder


def test_the_adapter_multiplied_out_is_what_the_tasks_added(finished, tmp_path):
    """Read as PEFT's documentation has it: B A · lora_alpha / r, ranks by pattern, one pair a module."""
    files = export(open_run(finished.folder), tmp_path / "low.safetensors", peft=True)
    assert [f.relative_to(tmp_path).as_posix() for f in files[-2:]] == [
        "low-peft/adapter_model.safetensors",
        "low-peft/adapter_config.json",
    ]
    config, tensors = json.loads(files[-1].read_text()), load_file(files[-2])
    assert "low-peft" in (tmp_path / "low.md").read_text()
    before, after = open_run(finished.folder, "0").loaded.model, open_run(finished.folder).loaded.model
    modules, seen = dict(before.named_modules()), set()
    for path in [path for path in modules if re.fullmatch(config["target_modules"], path)]:
        a, b = (tensors.pop(f"base_model.model.{path}.lora_{half}.weight") for half in "AB")
        rank = next(
            (r for k, r in config["rank_pattern"].items() if re.match(rf"(.*\.)?({k})$", path)), config["r"]
        )
        assert len(a) == b.shape[1] == rank and config["lora_alpha"] == config["r"]
        assert config["alpha_pattern"] == config["rank_pattern"] and not config["use_rslora"]
        fused = isinstance(modules[path], nn.MultiheadAttention)
        assert rank == (8 if fused else 4)  # two tasks of rank 2; q and v
        name = f"{path}.in_proj_weight" if fused else f"{path}.weight"
        seen.add(name)
        moved = after.get_parameter(name) - before.get_parameter(name)
        assert moved.any() and torch.allclose(b @ a, moved, atol=1e-6)
        if fused:
            width = a.shape[1]
            assert not b[width : 2 * width].any()  # k
            assert not any(
                tensors.pop(f"base_model.model.{path}.base_layer.out_proj.lora_{h}.weight").any()
                for h in "AB"
            )
    still = {
        name for name, value in before.named_parameters() if torch.equal(value, after.get_parameter(name))
    }
    assert not tensors and seen == {name for name, _ in before.named_parameters()} - still


PEFT_RUNS = {
    "factors": (),
    "all": ("adapter.matrices=[q,k,v,o,fc,proj]", "adapter.whole=[tokens,norms]"),
    "text": ("adapter.towers=[text]", "adapter.matrices=[k,o]"),
    "many": ("adapter.rank=9", "adapter.matrices=[q,k,v]", "adapter.towers=[text]"),
    "tokens": ("adapter={kind: full, whole: [tokens]}",),
}


@pytest.mark.parametrize("settings", PEFT_RUNS.values(), ids=PEFT_RUNS)
def test_peft_gives_the_merged_logits(settings, tiny_scenario, tiny_strategy, tmp_path):
    peft = pytest.importorskip("peft")
    folder = trained(tiny_scenario, tiny_strategy, tmp_path / "runs", *settings)
    state, base = open_run(folder), open_run(folder, "0").loaded.model
    adapter_of(state).write(tmp_path / "adapter")
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(4, 3, 32, 32, generator=generator),
        state.loaded.tokenizer(["so red", "blue", "a photo"]),
    )

    def logits(model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            image, text, scale = model(*inputs)
        return scale * image @ text.T

    merged, untouched = logits(state.loaded.model), logits(base)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.allclose(logits(adapted), merged, atol=1e-4) and not torch.allclose(
        merged, untouched, atol=1e-3
    )
    with adapted.disable_adapter():
        assert torch.allclose(logits(adapted), untouched, atol=1e-4)
    assert torch.allclose(logits(adapted.merge_and_unload()), merged, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("adapter={kind: full}",), "the update of positional_embedding, text_projection, "),
        (("adapter.whole=[biases]",), " and 13 more is no low-rank one"),
    ],
)
def test_what_peft_cannot_hold_is_refused(
    settings, told, tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    folder = trained(tiny_scenario, tiny_strategy, tmp_path / "runs", *settings)
    code, out, err = cli(monkeypatch, capsys, "export", folder, "--peft", "-o", tmp_path / "x.safetensors")
    assert code == 2 and told in err and err.count("\n") == 1 and not out, err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_peft_would_wrap_to_no_effect_is_refused(finished):
    """A layer whose weight the model reads without calling it, as BEiT does with qkv, and an attention of its
    own."""
    state = open_run(finished.folder)
    block = state.loaded.model.visual.transformer.resblocks[0]
    layers = dict(block.mlp.named_children())
    block.mlp.forward = lambda x: layers["c_proj"](
        layers["gelu"](nn.functional.linear(x, layers["c_fc"].weight))
    )
    with pytest.raises(
        UserError, match=r"would leave visual.transformer.resblocks.0.mlp.c_fc unchanged: it wraps"
    ):
        adapter_of(state)

    state = open_run(finished.folder)
    block = state.loaded.model.transformer.resblocks[1]
    foreign = nn.Module()
    foreign.in_proj_weight, foreign.out_proj = block.attn.in_proj_weight, block.attn.out_proj
    block.attn = foreign
    with pytest.raises(UserError, match="would leave transformer.resblocks.1.attn.in_proj_weight unchanged"):
        adapter_of(state)


def test_pictures_that_were_exchanged_are_noticed(tmp_path, tiny_strategy, tiny_files):
    for split in ("train", "test"):
        for name, colour in list(COLOURS.items())[:2]:
            for number in range(3):
                paint(tmp_path / "set" / split / name / f"{number}.png", colour, number)
    config, weights = tiny_files
    (tmp_path / "s.yaml").write_text(
        f"name: s\nmodel: {{name: tiny_clip, config: {config}, pretrained: {weights}}}\nshots: 2\n"
        "tasks:\n  - name: one\n    source: {kind: folder, root: set}\n"
    )
    out = run(
        load_scenario(str(tmp_path / "s.yaml")), load_strategy(str(tiny_strategy)), out=tmp_path / "runs"
    )
    assert measure_stream(open_run(out.folder), True)[0].images == 6
    paint(tmp_path / "set" / "test" / "red" / "9.png", (1, 2, 3), 9)
    with pytest.raises(UserError, match="'one' has other pictures now"):
        measure_stream(open_run(out.folder), True)


def test_init_writes_a_scenario_that_runs(tmp_path, monkeypatch, capsys):
    """Folders with spaces, unicode and upper-case suffixes, divided or not, one of them a folder of
    folders."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        for name in ("Große Katze", "dog"):
            paint(tmp_path / "my pets" / name / f"{number}.PNG", (50 * number, 90, 20), number)
        for name in ("1", "2"):
            for split in ("train", "test"):
                paint(
                    tmp_path / "sets" / "yes" / split / name / f"{number}.jpeg",
                    (200, 40 * number, 20),
                    number,
                )
            paint(tmp_path / "sets" / "other" / name / f"{number}.png", (20, 20, 50 * number), number)
    code, out, _ = cli(monkeypatch, capsys, "init", "my pets", "sets", "-o", "mine.yaml")
    assert code == 0 and "my pets: 2 classes, 4 training and 4 test images" in out
    scenario = load_scenario("mine.yaml").value
    assert [task.name for task in scenario.tasks] == ["my pets", "other", "yes"] and scenario.shots == 2
    code, out, _ = cli(monkeypatch, capsys, "check", "mine.yaml")
    assert code == 0 and "is fine (3 tasks, 12 training images)" in out
    quick = ["--set", "training.steps=2", "--set", "zero_shot.0.images=20"]
    code, out, err = cli(monkeypatch, capsys, "run", "mine.yaml", "-s", "lora", *quick)
    assert code == 0 and "Retention general" in out, err
    code, _, err = cli(monkeypatch, capsys, "init", "my pets", "-o", "mine.yaml")
    assert code == 2 and "--force overwrites it" in err
    text, _ = describe([tmp_path / "my pets", tmp_path / "my pets"], tmp_path / "a.yaml", shots=1)
    assert 'name: "my pets-2"' in text and "shots: 1" in text
