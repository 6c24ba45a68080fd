"""Writes models.md: every model of open_clip, what of it can be adapted and what cannot.

Run: python docs/write_models.py [FILE [NAME…]]

Models are built from their configurations on the device meta: shapes without numbers, so that the largest of
them take neither memory nor weights. With names, only their rows are written.
"""

import json
import logging
import sys
import warnings
from collections import Counter

import open_clip
import torch
from written_pages import output

from cl_complora.clip.slots import open_slots

OUT = output("models.md")
ASKED = sys.argv[2:] or open_clip.list_models()

PAGE = """\
# Models

What of open_clip's {number} models a low-rank update can be added to; any of them can be named as
`model.name`. This page is written by `docs/write_models.py` from the configurations of open_clip {version}:
change the words there, not here.

A model may also be named by the address of what was published: `hf-hub:owner/name`, or `local-dir:folder`
for the same files on disk (`open_clip_config.json` and weights; tokeniser files beside them are used, as
are byte pairs of one's own in open_clip's form, `bpe.txt.gz`, beside any configuration). `export` takes
such files along under the model's name (`NAME.bpe.txt.gz`, `NAME-tokenizer/`), where they are looked for
first, and its page has the line that reads them.
Weight files are read as open_clip, its training script (`epoch_*.pt`), transformers (safetensors of
`CLIPModel`) and OpenAI (TorchScript archives, whose code is not run) write them.

**matrices** counts the linear maps of each tower that can carry factors: q, k, v, o of attention, fc and
proj of MLPs, other (heads, pools, embeddings of patches that are linear). **share** is what part of the
tower's parameters they are; the rest are convolutions, embeddings, norms and biases, which low-rank
strategies leave as they are. Convolutions carry no factors, and maps that a module reads instead of calling
them get none either: of a ResNet only the text tower adapts, of a ConvNeXt the MLPs (stored as linear
layers), of a MobileCLIP or another convolutional hybrid its few linear maps. Full fine-tuning (strategy
`finetune`) trains them all. EVA and SwiGLU towers have two fc in a block.

**tokeniser**: `own` needs nothing; `transformers` needs `pip install 'cl_complora[transformers]'` and
either the network once or the tokeniser's files beside the config. Text towers marked † are themselves a
model of transformers, whose shape is fetched: their row says what is known without it.

| model | pixels | image tower | matrices | share | text tower | matrices | share | tokeniser |
|---|--:|---|---|--:|---|---|--:|---|
{rows}
"""

KINDS = ("q", "k", "v", "o", "fc", "proj", "other")


def row(name):
    """A line of the table."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    size = vision.get("image_size", 224)
    cells = [f"`{name}`", str(size if isinstance(size, int) else "×".join(map(str, size)))]
    foreign = "hf_model_name" in text
    towers = ("–", "–"), ("–", "–")
    if not foreign:
        towers = told(name, json.dumps([config["embed_dim"], vision, text]))
    cells += [family(vision), *towers[0]]
    cells += [f"{text['hf_model_name'].split('/')[-1]} †" if foreign else "transformer", *towers[1]]
    cells.append("transformers" if "hf_tokenizer_name" in text else "own")
    return f"| {' | '.join(cells)} |"


def family(vision):
    """What kind of tower a configuration describes."""
    if "timm_model_name" in vision:
        return vision["timm_model_name"]
    return "ResNet" if isinstance(vision.get("layers"), list) else "ViT"


_KNOWN = {}


def told(name, shape):
    """(matrices, share) of the image tower and of the text tower; models of one shape are built once."""
    if shape not in _KNOWN:
        with torch.device("meta"):
            model = open_clip.create_model(name, load_weights=False, device="meta")
        _KNOWN[shape] = measured(model)
    return _KNOWN[shape]


def measured(model):
    """(matrices, share) of the towers of a model."""
    slots = open_slots(model)
    found = []
    for tower in ("vision", "text"):
        own = [slot for slot in slots if slot.tower == tower]
        counts = Counter(slot.matrix for slot in own)
        shown = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "none"
        weights = model.named_parameters()
        here = [w.numel() for key, w in weights if key.startswith("visual.") == (tower == "vision")]
        adapted = sum(slot.weight.numel() for slot in own)
        found.append((shown, f"{100 * adapted / sum(here):.0f} %"))
    return found


logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
rows = [row(name) for name in ASKED]
OUT.write_text(
    PAGE.format(number=len(open_clip.list_models()), version=open_clip.__version__, rows="\n".join(rows)),
    encoding="utf-8",
)
