"""The kinds of sources: which function opens which, and the one way to open any.

A new kind is a schema in ``config.sources``, a class in a module of its own and a line here; a room above
this one registers its own (the embedded world does, in ``cl_complora/__init__.py``). Modules are named,
not imported, so that nobody loads what he does not open and no kind imports another.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .telling import Faults

if TYPE_CHECKING:
    from ..config.sources import SourceConfig
    from .items import Source

_OPENERS: dict[str, str] = {
    "folder": "cl_complora.data.folders:open_folder",
    "manifest": "cl_complora.data.tables.manifests:open_manifest",
    "coop": "cl_complora.data.tables.coop_splits:open_coop",
    "shards": "cl_complora.data.archives.shards:open_shards",
    "parquet": "cl_complora.data.hub.parquet:open_parquet",
    "huggingface": "cl_complora.data.hub.hugging_face:open_hugging_face",
    "multi-label": "cl_complora.data.captions.multi_label:open_multi_label",
    "captions": "cl_complora.data.captions.captioned:open_captions",
    "dataset": "cl_complora.data.registry:open_named",
}


def register(kind: str, opener: str) -> None:
    """Make a kind known.

    Args:
        kind: its name in ``source: {kind: …}``.
        opener: ``module:function``; the function takes the configuration and the folder that relative
            paths start from, and returns a :class:`~cl_complora.data.images.pictures.Source`.
    """
    _OPENERS[kind] = opener


def open_source(config: SourceConfig, folder: Path) -> Source:
    """The source that a configuration describes; relative paths start from ``folder``.

    Raises:
        UserError: for a missing folder, an unknown domain, a class name that cannot be one…
    """
    from ..config.sources import PictureSource
    from .labels import name_fault

    module, _, function = _OPENERS[config.kind].partition(":")
    source = getattr(import_module(module), function)(config, folder)
    if isinstance(config, PictureSource):
        source.range, source.background = config.range, config.background
    where = str(getattr(source, "root", "")) or source.origin.partition(" ")[2] or config.kind
    faults = Faults(where)
    faults.add(*(f"{where}: {fault}" for name in source.class_names if (fault := name_fault(name))))
    faults.refuse()
    return source
