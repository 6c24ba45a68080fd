"""Folders as they are found in the world: every mode and format of picture, odd names, some files cut off."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from builders.commands import cli
from builders.images import paint
from builders.processes import ended
from cl_complora.config import load_scenario
from cl_complora.data.checks.verify import verify
from cl_complora.data.discovery.discover import describe
from cl_complora.data.folders import Folder
from cl_complora.data.images import pixels
from cl_complora.data.images.cache import load_cached, usage
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

COLOURS = {"Große Katze": (200, 50, 50), "<b>x": (50, 200, 50), "日本 語": (50, 50, 200)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three classes of nine pictures; of each one is cut off, and of the first another is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        where = tmp_path / "My Bilder ünï" / name
        where.mkdir(parents=True)
        noisy = np.clip(np.array(colour) + rng.normal(0, 30, (60, 70, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(noisy)
        image.convert("L").save(where / "grey one.JPG")
        image.convert("CMYK").save(where / "print.JPEG")
        image.convert("P").save(where / "palette.PNG")
        image.convert("LA").save(where / "see through.Png")
        image.save(where / "anim.GIF", save_all=True, append_images=[image.rotate(90)])
        image.convert("RGBA").save(where / "ü.webp")
        turned = Image.Exif()
        turned[0x0112] = 6
        image.save(where / "turned.jpg", exif=turned)
        Image.fromarray(noisy[..., 0].astype(np.uint16) * 256).save(where / "sixteen.png")
        image.save(where / "cut off.JPG")
        whole = (where / "cut off.JPG").read_bytes()
        (where / "cut off.JPG").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "My Bilder ünï" / "Große Katze" / "empty.jpeg").write_bytes(b"")
    return tmp_path


def scenario_of(folder, broken):
    text, notes = describe([folder / "My Bilder ünï"], folder / "mine.yaml", shots=2)
    (folder / "mine.yaml").write_text(text.replace("broken: skip", f"broken: {broken}"))
    return notes


def test_init_names_them_and_leaves_them_out(folder):
    notes = scenario_of(folder, "skip")
    assert [("cut off.JPG" in note, "empty.jpeg" in note) for note in notes[:4]].count((True, False)) == 3
    assert sum("empty.jpeg: cannot be read as an image: it is empty" in note for note in notes) == 1
    assert notes[-1].startswith("My Bilder uni: 3 classes, ")
    scenario = load_scenario("mine.yaml")
    assert scenario.value.broken == "skip" and scenario.value.tasks[0].name == "My Bilder uni"
    plans = plan(scenario, 0)
    used = {item.key for chosen in plans.tasks for item in (*chosen.train, *chosen.test)}
    assert len(plans.skipped) == 4 and not any("cut off" in key or "empty" in key for key in used)
    assert usage()[0] > 0  # found once for all runs
    assert plan(scenario, 0).skipped == plans.skipped


def test_what_is_skipped_is_told_once_and_is_none_of_all(folder):
    scenario_of(folder, "skip")
    text = (folder / "mine.yaml").read_text().replace("{kind: world, domain: general}", "SOURCE")
    source = "{kind: folder, root: My Bilder ünï, test_fraction: 1}"
    (folder / "mine.yaml").write_text(text.replace("SOURCE", source))
    lines = verify("mine.yaml").lines
    assert len([line for line in lines if line.startswith("skipped: ")]) == 4
    sizes = [line for line in lines if "can be read" in line]
    assert len(sizes) == 3 and all("all of these can be read" in line for line in sizes)
    for path in folder.glob("My*/*/*.*"):
        if path.name in ("cut off.JPG", "empty.jpeg"):
            path.unlink()
    assert "images, all can be read" in "".join(verify("mine.yaml").lines)


def test_pictures_that_only_another_seed_draws_are_opened_too(folder):
    scenario_of(folder, "refuse")
    drawn = {}
    for seed in (0, 1):
        (chosen,) = plan(load_scenario("mine.yaml"), seed).tasks
        drawn[seed] = {item.key for item in (*chosen.train, *chosen.test)}
    whole = [key for key in sorted(drawn[1] - drawn[0]) if "cut off" not in key and "empty" not in key]
    broken = next(path for path in (folder / "My Bilder ünï").glob("*/*") if path.match(f"*/{whole[0]}"))
    broken.write_bytes(broken.read_bytes()[:20])
    one, more = verify("mine.yaml", 0), verify("mine.yaml")
    assert not any(broken.name in fault and broken.parent.name in fault for fault in one.faults)
    assert any(broken.name in fault and broken.parent.name in fault for fault in more.faults)
    assert not any(line.startswith("seed") for line in one.lines)
    assert any(line.startswith("seeds 1, 2: ") and "cannot be read" in line for line in more.lines)


def test_a_picture_that_was_mended_is_found_again(folder):
    scenario_of(folder, "skip")
    broken = folder / "My Bilder ünï" / "<b>x" / "cut off.JPG"
    (broken.parent / "turned.jpg").rename(broken)
    assert len(plan(load_scenario("mine.yaml"), 0).skipped) == 3


def test_without_a_cache_they_are_looked_at_anew(folder, monkeypatch):
    monkeypatch.setenv("CL_COMPLORA_CACHE", "off")
    scenario_of(folder, "skip")
    assert len(plan(load_scenario("mine.yaml"), 0).skipped) == 4 and not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("read_bytes", OSError(errno.EIO, "Input/output error")),
        ("read_bytes", PermissionError(errno.EACCES, "Permission denied")),
        ("_check_cost", MemoryError()),
        ("_check_cost", OSError(errno.EMFILE, "Too many open files")),
    ],
)
def test_a_fault_that_may_pass_is_looked_at_again_and_no_other_picture_is(folder, monkeypatch, where, fault):
    victim = folder / "My Bilder ünï" / "<b>x" / "flaky.jpg"
    paint(victim, (1, 2, 3), 0)
    content, looked = victim.read_bytes(), []
    scenario_of(folder, "skip")
    real, load = getattr(pixels, where), Folder.load

    def flaky(first, second):
        if getattr(first, "name", "") == victim.name or second == content:
            raise fault
        return real(first, second)

    def remembered(source, items, size):
        looked.extend(Path(item.key).name for item in items)
        return load(source, items, size)

    monkeypatch.setattr(pixels, where, flaky)
    monkeypatch.setattr(Folder, "load", remembered)
    for again in (False, True):
        skipped = plan(load_scenario("mine.yaml"), 0).skipped
        assert len(skipped) == 5 and any(victim.name in line for line in skipped)
        assert (looked == [victim.name]) == again
        looked.clear()
    monkeypatch.setattr(pixels, where, real)
    for again in (True, False):
        assert len(plan(load_scenario("mine.yaml"), 0).skipped) == 4
        assert looked == [victim.name] * again
        looked.clear()


@pytest.mark.parametrize("changed", ["version", "formats"])
def test_another_pillow_and_other_formats_look_again(folder, monkeypatch, changed):
    scenario_of(folder, "skip")
    plan(load_scenario("mine.yaml"), 0)
    before = usage()[0]
    known = pixels.formats()
    if changed == "version":
        monkeypatch.setattr(PIL, "__version__", "0.0")
    else:
        monkeypatch.setattr(pixels, "formats", lambda: (*known, "HEIF"))
    assert len(plan(load_scenario("mine.yaml"), 0).skipped) == 4 and usage()[0] > before


def test_a_table_that_names_a_missing_picture_is_used_without_it_also_where_pictures_may_be_deep(
    folder, tmp_path
):
    rows = ["path,label,split"]
    for name in ("cat", "dog"):
        for number in range(4):
            paint(tmp_path / f"{name}{number}.png", (90, 90, 90), number)
            rows.append(f"{name}{number}.png,{name},{'train' if number < 2 else 'test'}")
    (tmp_path / "t.csv").write_text("\n".join([*rows, "gone.png,cat,train"]) + "\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 2\nbroken: skip\ntasks: [{name: t, source: {kind: manifest, file: t.csv}}]\n"
    )
    plans = plan(load_scenario("s.yaml"), 0)
    assert len(plans.skipped) == 1 and "gone.png" in plans.skipped[0]
    task = plans.tasks[0]
    assert load_cached(task.source, task.test, Pixels((32, 32))).shape == (4, 3, 32, 32)


def words(*arguments):
    done = ended(*arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_whole_way(folder):
    scenario_of(folder, "skip")
    quick = ("--set", "training.steps=2", "--set", "zero_shot.0.images=10", "-s", "lora")
    code, out, err = words("run", "mine.yaml", *quick)
    assert code == 0, out[-800:] + err[-3000:]
    assert out.count("skipped: ") == 4 and "empty.jpeg" in out and "Traceback" not in err
    code, out, err = words("predict", "runs/mine/lora/seed0", "My Bilder ünï", "--top", "1")
    assert code == 1 and len(out.splitlines()) == 24 and err.count("cannot be read as an image") == 4
    code, out, _ = words("check", "mine.yaml")
    assert code == 0 and out.count("skipped: ") == 4

    scenario_of(folder, "refuse")
    code, out, err = words("run", "mine.yaml", *quick, "--out", "refused", "--set", "shots=all")
    assert code == 2 and "cannot be read as an image" in err and "broken: skip of a scenario" in err
    assert all(line.startswith("error: ") for line in err.splitlines())
    assert not (folder / "refused" / "mine" / "lora" / "seed0" / "results.json").exists()


def test_every_broken_picture_of_a_part_is_named_at_once(folder):
    scenario_of(folder, "refuse")
    chosen = plan(load_scenario("mine.yaml", ["shots=all"]), 0).tasks[0]
    with pytest.raises(UserError) as told:
        chosen.source.load([*chosen.train, *chosen.test], Pixels((32, 32)))
    assert len(told.value.messages) == 4


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    """Pillow's own conversion makes them white."""
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "flat.png")
    size = Pixels((64, 64))
    assert torch.equal(size.read(tmp_path / "deep.png"), size.read(tmp_path / "flat.png"))
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match="floating-point pixels"):
        size.read(tmp_path / "float.tiff")


def test_a_check_of_the_data_says_what_leaves_broken_pictures_out(folder, monkeypatch, capsys):
    scenario_of(folder, "refuse")
    code, _, err = cli(monkeypatch, capsys, "data", "check", "mine.yaml")
    assert code == 2 and err.startswith("note: broken: skip in a scenario")
    assert "cannot be read as an image" in err
    scenario_of(folder, "skip")
    code, _, err = cli(monkeypatch, capsys, "data", "check", "mine.yaml")
    assert code == 0 and "broken: skip" not in err
