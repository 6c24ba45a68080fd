"""A wider CLIP computes what the narrow one does, loads as any model, and its copies do not stay copies."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from torch.nn import functional as F

from cl_complora.clip.model import load_clip
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError
from cl_complora.world import ASSETS
from cl_complora.world.making.widen import main


@pytest.fixture(scope="module")
def wider(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wider")
    main(folder)
    return folder


def _model(folder):
    return Model(
        name="wider_clip",
        config=str(folder / "wider_clip.json"),
        pretrained=str(folder / "wider_clip.safetensors"),
    )


@torch.no_grad()
def test_it_computes_the_same_with_the_same_words(wider):
    narrow, wide = load_clip(Model()), load_clip(_model(wider))
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    texts = ["a drawing of a fish", "two red circles", "an unheard-of zyx"]
    tokens = wide.tokenizer(texts)
    assert torch.equal(tokens, narrow.tokenizer(texts))
    for name, given in (("encode_image", images), ("encode_text", tokens)):
        of_narrow, of_wide = (F.normalize(getattr(m.model, name)(given), dim=-1) for m in (narrow, wide))
        torch.testing.assert_close(of_wide, of_narrow, atol=1e-5, rtol=0)
    assert wide.model.visual.conv1.out_channels == 2 * narrow.model.visual.conv1.out_channels
    assert (wide.mean, wide.std) == (narrow.mean, narrow.std)


def test_no_two_columns_are_alike_so_that_the_copies_part_when_trained(wider):
    model = load_clip(_model(wider)).model
    matrix = model.visual.transformer.resblocks[0].mlp.c_fc.weight.detach()
    width = matrix.shape[1] // 2
    assert float((matrix[:, :width] - matrix[:, width:]).norm() / matrix.norm()) > 0.1
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    model.encode_image(images).square().sum().backward()
    # Both copies of an output have the same gradient by what they read, but not by what reads them.
    read_by = model.visual.transformer.resblocks[0].mlp.c_proj.weight.grad
    above, below = read_by.chunk(2)
    assert float((above - below).norm() / read_by.norm()) > 1e-3


def _beside(wider, tmp_path, content: bytes):
    for name in ("wider_clip.json", "wider_clip.safetensors"):
        (tmp_path / name).symlink_to(wider / name)
    (tmp_path / "bpe.txt.gz").write_bytes(content)
    return _model(tmp_path)


def test_merges_that_make_other_words_are_refused(wider, tmp_path):
    lines = gzip.decompress((ASSETS / "bpe.txt.gz").read_bytes()).decode().splitlines()
    fewer = gzip.compress("\n".join(lines[:-7]).encode())
    with pytest.raises(
        UserError, match=r"bpe\.txt\.gz: makes 1,5\d\d words, and the model was made for 1,565"
    ):
        load_clip(_beside(wider, tmp_path, fewer))


def test_merges_that_burst_are_refused(wider, tmp_path):
    with pytest.raises(UserError, match=r"is larger than 33,554,432 bytes"):
        load_clip(_beside(wider, tmp_path, gzip.compress(b"\0" * ((1 << 25) + 1))))


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"\xff\xfe\xff")], ids=["empty", "no gzip", "no text"]
)
def test_merges_that_cannot_be_read_are_named(wider, tmp_path, content):
    with pytest.raises(UserError, match=r"tokeniser of wider_clip cannot be loaded|bpe\.txt\.gz"):
        load_clip(_beside(wider, tmp_path, content))


def test_the_config_says_what_the_weights_are(wider):
    config = json.loads((wider / "wider_clip.json").read_text())["model_cfg"]
    assert config["vision_cfg"]["width"] == 256 and config["text_cfg"]["heads"] == 6
