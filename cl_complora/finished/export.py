"""A run's weights as a checkpoint that plain open_clip loads, with everything needed to use it beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..clip.heads.head import Head
from ..clip.model import BUILT_IN, EMBEDDED, LoadedClip
from ..clip.tokenizers import load_tokenizer
from ..config.tokenizer_files import HUB_CONFIG
from ..errors import UserError
from ..files import write_bytes, write_text
from ..report.markdown_text import code, escaped
from .earlier_export import OURS, Earlier, adapter_folder, adapter_mark
from .given_pictures import background_of
from .head_export import HEAD_FILE, check_place, head_lines, heads_of, write_heads
from .model_files import hub_config
from .peft import FILES, Adapter, adapter_of
from .states import State, joined
from .tokenizer_export import copies, place_of, tokenizer_line

SNIPPET = """\
import open_clip, torch
from PIL import Image, ImageOps

open_clip.add_model_config("{name}.json")
model, _, preprocess = open_clip.create_model_and_transforms(
    "{name}", pretrained="{name}.safetensors", {preprocess}
)
{padding}tokenizer = {tokenizer}
model.eval()

picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGBA")
picture = Image.alpha_composite(Image.new("RGBA", picture.size, {background}), picture).convert("RGB")
with torch.no_grad():
    image = model.encode_image(preprocess(picture)[None], normalize=True)
    text = model.encode_text(tokenizer(["a photo of a cat", "a photo of a dog"]), normalize=True)
    print((model.logit_scale.exp() * image @ text.T).softmax(-1))
"""

_PADDING = """\
cfg = dict(model.visual.preprocess_cfg, fill_color={fill})
preprocess = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**cfg), is_train=False)
"""

PEFT_SNIPPET = """\
from peft import PeftModel

open_clip.add_model_config("base.json")
base = open_clip.create_model("base", pretrained="base.safetensors")
model = PeftModel.from_pretrained(base, "{folder}").eval()
"""


def export(state: State, out: Path, half: bool = False, peft: bool = False) -> list[Path]:
    """Write the state and check that open_clip reads the same model back.

    Args:
        state: from :func:`~cl_complora.finished.states.open_run`.
        out: ``….safetensors``; the files beside it have its name.
        half: 16-bit floats instead of 32.
        peft: also write the update as a PEFT adapter, in the folder ``<name>-peft``.

    Returns:
        The files: weights, open_clip model config, page with a snippet, the config with its preprocessing,
        a tokeniser of the model's own, those of the adapter, and ``classifier.safetensors`` with the
        heads of a strategy that has one.

    Raises:
        UserError: for a name that open_clip would not read, a folder that cannot be written, or an update
            that PEFT's format cannot hold, and where a file is there already that is no earlier export.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"-o {out}: must end in .safetensors")
    name = out.stem
    if name in BUILT_IN:
        raise UserError(f"-o {out}: open_clip has a model of the name {name}; choose another")
    # There is none on a drive of Windows that is not there.
    above = next((folder for folder in out.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"-o {out}: {above} is a file and no folder")
    heads = _heads(state)
    if heads:
        check_place(out, name)
    loaded, earlier = state.loaded, Earlier.at(out)
    own = copies(loaded, out)
    files = [out, *(out.with_suffix(end) for end in (".json", ".md", HUB_CONFIG)), *own]
    files += [adapter_folder(out) / one for one in FILES] if peft else []
    earlier.check(files, loaded.files)
    adapter = adapter_of(state) if peft else None
    config = model_config(state)
    weights = {key: _plain(value, half) for key, value in loaded.model.state_dict().items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / f"{name}.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        save_file(weights, folder / out.name, metadata={"format": "pt"})
        for file, source in copies(loaded, folder / out.name).items():
            file.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, file)
        _verify(folder / out.name, weights, loaded)
        out.parent.mkdir(parents=True, exist_ok=True)
        new = [*files, out.parent / HEAD_FILE] if heads else files
        old = [*new, *earlier.others(files), *heads_of(out.parent, name)]
        with _replacing(old, new):
            # First, since the next export replaces what an export's page stands beside, and nothing else.
            write_text(files[2], _page(state, name, half, adapter, heads))
            write_bytes(out, (folder / out.name).read_bytes())
            write_text(files[1], json.dumps(config, indent=1) + "\n")
            write_text(files[3], json.dumps(hub_config(config, loaded), indent=1) + "\n")
            for file, source in own.items():
                write_bytes(file, source.read_bytes())
            if adapter is not None:
                adapter.write(adapter_folder(out))
            if heads:
                prompts = {key: _prompts(state, key, head) for key, head in heads.items()}
                tower = _untouched(state, half) if any(head.reads_both for head in heads.values()) else {}
                files.append(write_heads(out.parent, name, heads, prompts, tower))
    return files


@contextmanager
def _replacing(old: Sequence[Path], new: Sequence[Path]) -> Iterator[None]:
    """Set the files of an earlier export aside until all new ones are written; if something stops that, the
    new ones are taken away and the earlier ones are put back, so that weights, heads and page are always of
    one export."""
    aside = {file: file.with_name(f".{file.name}.before") for file in old}
    for file, place in aside.items():
        if place.exists():  # of an export that was killed
            place.replace(file)
    written: Sequence[Path] = ()
    try:
        for file, place in aside.items():
            if file.exists():
                file.replace(place)
        written = new
        yield
    except BaseException:
        for file in written:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        for file, place in aside.items():
            with suppress(OSError):  # there was none
                place.replace(file)
        raise
    for file, place in aside.items():
        place.unlink(missing_ok=True)
        if file not in new:
            with suppress(OSError):  # not empty, as the folder of the export itself
                file.parent.rmdir()


# Key of the head that all tasks share.
_ALL = "all"


def _heads(state: State) -> dict[str, Head]:
    """Heads by the key that they have in the file: their task, or one for all."""
    heads = state.heads()
    return {_ALL: next(iter(heads.values()))} if heads and state.shares_head else heads


def _untouched(state: State, half: bool) -> dict[str, Tensor]:
    """Weights of the image tower of before all tasks."""
    return {key: _plain(value, half) for key, value in state.loaded.untouched.tower.state_dict().items()}


def _prompts(state: State, key: str, head: Head) -> list[tuple[str, ...]]:
    """Prompts of a head's classes; of a head of all tasks those that ``predict`` takes."""
    tasks = state.after if state.shares_head else [key]
    return list(joined(state.spaces(), tasks).of(head.classes).prompts)


def _whose_prompts(state: State) -> list[str]:
    """Whose prompts stand beside a head of all tasks, where these have several for a class."""
    spaces = state.spaces()
    together = joined(spaces, state.after)
    if all(together.of(spaces[task].class_names) == spaces[task] for task in state.after):
        return []
    return [
        "The run measures every task with the prompts of its own; one head has one set of them: a class that"
        " several tasks have stands in it with the prompts of the first.",
        "",
    ]


def model_config(state: State) -> dict[str, Any]:
    """The open_clip model config of the resolved architecture."""
    name = "embedded_clip" if state.loaded.name == EMBEDDED else state.loaded.name
    config = open_clip.get_model_config(name)
    config = {key: value for key, value in config.items() if key != "custom_text" or value}
    if state.scenario.value.model.image_size is not None:
        config["vision_cfg"]["image_size"] = state.scenario.value.model.image_size
    if config["vision_cfg"].get("timm_model_pretrained"):
        config["vision_cfg"]["timm_model_pretrained"] = (
            False  # or open_clip would fetch weights only to replace them
        )
    return config


def _plain(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous().clone()
    return value.half() if half and value.is_floating_point() else value


# Words that every tokeniser knows in its own way.
_SENTENCE = "A photo of two cats, 3 dogs and a red-and-white umbrella."


def _verify(out: Path, weights: dict[str, Tensor], loaded: LoadedClip) -> None:
    """Load the files as a stranger would and compare every weight, and the tokens of a sentence.

    Raises:
        UserError: naming the first weight that differs.
    """
    name = out.stem
    open_clip.add_model_config(out.with_suffix(".json"))
    model = open_clip.create_model(name, pretrained=str(out))
    for key, value in model.state_dict().items():
        if key not in weights or not torch.equal(value.float(), weights[key].float()):
            raise UserError(f"export: open_clip reads another {key} back; please report this model")
    tokens = load_tokenizer(name, place_of(loaded, out))([_SENTENCE])
    if not torch.equal(tokens, loaded.tokenizer([_SENTENCE])):
        raise UserError("export: open_clip reads other tokens of a text; please report this model")


def _page(state: State, name: str, half: bool, adapter: Adapter | None, heads: dict[str, Head]) -> str:
    loaded, results = state.loaded, state.results
    pixels = loaded.pixels
    preprocess = f"image_mean={tuple(map(float, loaded.mean))}, image_std={tuple(map(float, loaded.std))}"
    preprocess += f', image_resize_mode="{pixels.resize}", image_interpolation="{pixels.interpolation}"'
    tokenizer = tokenizer_line(name, loaded, model_config(state)["text_cfg"])
    merged = escaped(", ".join(state.merged())) or "none (the untouched model)"
    scenario, strategy = code(results["scenario"]), code(results["strategy"])
    ground, several = background_of(state.scenario.value.tasks)
    padding = _PADDING.format(fill=pixels.fill) if pixels.resize == "longest" and pixels.fill else ""
    lines = [
        f"# {name}",
        "",
        f"{code(loaded.name)} ({escaped(loaded.pretrained or 'random weights')}) after the tasks: {merged}.",
        (
            f"Scenario {scenario}, strategy {strategy}, seed {results['seed']};"
            f" {'16' if half else '32'}-bit floats. {OURS} to use it."
        ),
        "",
        "```python",
        SNIPPET.format(
            name=name, preprocess=preprocess, tokenizer=tokenizer, background=(*ground, 255), padding=padding
        ).rstrip(),
        "```",
        "",
        *_reading_lines(several, state.config.get("ranges") or {}),
        *(head_lines(heads, state.shares_head) if heads else []),
        *(_whose_prompts(state) if heads and state.shares_head else []),
        *(_adapter_lines(state, name, adapter) if adapter is not None else []),
        *_class_lines(state),
    ]
    return "\n".join(lines) + "\n"


def _reading_lines(several: bool, ranges: Mapping[str, Sequence[float]]) -> list[str]:
    """How the run read pictures that the lines of the page read otherwise."""
    lines = []
    if several:
        lines += [
            "The tasks put transparent pictures on several backgrounds; these lines put them on white.",
            "",
        ]
    if ranges:
        told = escaped(", ".join(f"{name}: {low:g} to {high:g}" for name, (low, high) in ranges.items()))
        lines += [
            "Pictures of more than 8 bits a channel have to be brought to 8 before: the run made 0 to 255 of"
            f" stored values ({told}).",
            "",
        ]
    return lines


def _class_lines(state: State) -> list[str]:
    """What the weights were trained on; nothing of tasks that they have never seen, or that were left out."""
    held = state.trained_on
    if not held:
        return []
    spaces = state.spaces()
    lines = ["Classes that it was trained on, and the prompts that the run measures them with:", ""]
    for task in (task for task in held if task not in state.captioned):
        told = escaped(f"{', '.join(spaces[task].class_names)} — e.g. “{spaces[task].prompts[0][0]}”")
        lines.append(f"* **{escaped(task)}**: {told}")
    captioned = [task for task in held if task in state.captioned]
    return [*lines, *(f"* **{escaped(task)}**: pictures with captions, no classes" for task in captioned)]


def _adapter_lines(state: State, name: str, adapter: Adapter) -> list[str]:
    whole, run = "modules_to_save" in adapter.config, quote(str(state.folder.root))
    return [
        f"{adapter_mark(Path(f'{name}.safetensors'))} as an adapter for PEFT (32-bit floats), on top of the"
        f" untouched model, which `cl-complora export {run} --after 0 -o base.safetensors`"
        " writes."
        + (" Norms, and attentions whose output projection was trained, stand in it whole." if whole else ""),
        "",
        "```python",
        PEFT_SNIPPET.format(folder=f"{name}-peft").rstrip(),
        "```",
        "",
    ]
