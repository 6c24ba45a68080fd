"""The heads of a run's tasks beside its exported model: one file, and how to use it without cl_complora."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..clip.heads.head import ClosedHead, Head
from ..clip.heads.several import SeveralHeads
from ..errors import UserError
from ..files import write_bytes
from ..report.markdown_text import escaped

HEAD_FILE = "classifier.safetensors"

SNIPPET = """\
{imports}
from safetensors import safe_open
from torch.nn import functional as F

with safe_open("{file}", "pt") as file:
    head = json.loads(file.metadata()["heads"])[{key!r}]
    {tensors} = (file.get_tensor({key!r} + "/" + name) for name in {names!r})
{tower}{numbers}with torch.no_grad():
    image = model.encode_image(preprocess(picture)[None], normalize=True)
{untouched}{texts}{preamble}    logits = {formula}
    print(head["classes"], logits.softmax(-1))
"""

# What heads that read it need of the untouched image tower: its weights, and its features.
_TOWER = """\
    before = copy.deepcopy(model)
    before.visual.load_state_dict({name: file.get_tensor(name) for name in file.keys() if "/" not in name})
"""
_UNTOUCHED = """\
    untouched = before.encode_image(preprocess(picture)[None], normalize=True)
"""

# Which task a picture is of, where nobody says.
WHOSE = """\
with safe_open("{file}", "pt") as file:
    means = {{task: file.get_tensor(task + "/means") for task in json.loads(file.metadata()["heads"])}}
seen = F.normalize({seen}, dim=-1)[0]
print(max(means, key=lambda task: (means[task] @ seen).max()))
"""

_TEXTS = """\
    texts = [model.encode_text(tokenizer(prompts), normalize=True) for prompts in head["prompts"]]
    text = F.normalize(torch.stack([F.normalize(one.mean(0), dim=-1) for one in texts]), dim=-1)
"""


def write_heads(
    folder: Path,
    model: str,
    heads: Mapping[str, Head],
    prompts: Mapping[str, Sequence[Sequence[str]]],
    tower: Mapping[str, Tensor] = MappingProxyType({}),
) -> Path:
    """Write all heads into one file.

    Args:
        folder: of the exported model.
        model: its name.
        heads: key in the file → head.
        prompts: key → prompts of the head's classes.
        tower: weights of the untouched image tower, where the heads read it; no name has a slash, as those of
            heads do.

    Raises:
        UserError: if the file is there and belongs to another model.
    """
    path = folder / HEAD_FILE
    _check_owner(path, model)
    about = {
        key: {
            "kind": head.kind,
            "classes": head.classes,
            "prompts": prompts[key],
            "numbers": head.numbers(),
            "logits": head.formula,
        }
        for key, head in heads.items()
    }
    tensors = {
        f"{key}/{name}": value.detach().cpu().contiguous().clone()
        for key, head in heads.items()
        for name, value in head.tensors().items()
    }
    tensors |= tower
    metadata = {"format": "pt", "model": model, "heads": json.dumps(about, ensure_ascii=False)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))
    return path


def about_heads(files: Sequence[Path]) -> str | None:
    """What to know of an export with heads, in a sentence; None where it has none.

    Args:
        files: that were written, the checkpoint first.
    """
    if files[-1].name != HEAD_FILE:
        return None
    return (
        "an open_clip checkpoint cannot hold the heads that this run answers its tasks with; they stand in"
        f" {HEAD_FILE}, and {files[0].with_suffix('.md').name} says how to use them; the checkpoint alone"
        " answers with texts"
    )


def check_place(out: Path, model: str) -> None:
    """Refuse before anything is written what :func:`write_heads` would refuse.

    Args:
        out: file of the exported model.
        model: its name.

    Raises:
        UserError: as there, and for a model of the heads' own name.
    """
    if out.name.lower() == HEAD_FILE:  # one file where letters of either case are the same
        raise UserError(f"-o {out}: the heads of this run get that name, beside the model; choose another")
    _check_owner(out.parent / HEAD_FILE, model)


def _check_owner(path: Path, model: str) -> None:
    owner = _owner(path) if path.exists() else model
    if owner != model:
        whose = f"belongs to '{owner}'" if owner else "is there already, and no head of a model"
        raise UserError(f"{path}: {whose}; export into another folder, or move it away")


def heads_of(folder: Path, model: str) -> list[Path]:
    """The file of the heads of a model that was exported before; none where there is none."""
    path = folder / HEAD_FILE
    return [path] if path.is_file() and _owner(path) == model else []


def _owner(path: Path) -> str | None:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("model")
    except (OSError, SafetensorError):
        return None


def head_lines(heads: Mapping[str, Head], shared: bool) -> list[str]:
    """What the page beside the model says of the heads."""
    key, head = next(iter(heads.items()))
    paired = head.reads_both
    names = list(head.shapes())
    code = head.preamble + head.formula
    used = [name for name in head.numbers() if re.search(rf"\b{name}\b", code)]
    numbers = "".join(f"{name} = head['numbers'][{name!r}]\n" for name in used)
    snippet = SNIPPET.format(
        imports="import copy, json" if paired else "import json",
        tower=_TOWER if paired else "",
        untouched=_UNTOUCHED if paired else "",
        file=HEAD_FILE,
        key=key,
        tensors=", ".join(names) + ("," if len(names) == 1 else ""),
        names=names,
        numbers=numbers,
        texts=_TEXTS if re.search(r"\btext\b", code) else "",
        preamble=textwrap.indent(head.preamble, "    "),
        formula=head.formula,
    )
    of = "all classes" if shared else f"the classes of each task ({escaped(', '.join(heads))})"
    lines = [
        f"One open_clip checkpoint cannot hold what this run answers {of} with: that stands in"
        f" `{HEAD_FILE}`, and the checkpoint alone answers with texts. After the lines above:",
        "",
        "```python",
        snippet.rstrip(),
        "```",
        "",
    ]
    if paired:
        lines += [
            "The head also reads the image tower as it was before all tasks, whose weights stand in the same"
            " file: every picture goes through two towers.",
            "",
        ]
    if len(heads) > 1 and SeveralHeads(list(heads.values())).has_means:
        whose = WHOSE.format(file=HEAD_FILE, seen="torch.cat([image, untouched], -1)" if paired else "image")
        lines += [
            "Which task a picture belongs to, where nobody says, follows from the class means, as in"
            " `cl-complora predict` without `--task`: it is the task of the nearest one.",
            "",
            "```python",
            whose.rstrip(),
            "```",
            "",
        ]
    if isinstance(head, ClosedHead) and (shared or head.share < 1):
        mixed = f"the answer is {1 - head.share:g} of their probabilities and {head.share:g} of its own"
        answer = "its own is the answer" if head.share == 1 else mixed
        lines += [
            "Among classes that it does not know the texts decide first: where the likeliest by texts is"
            f" one that it knows, {answer}; else theirs alone.",
            "",
        ]
    return lines
