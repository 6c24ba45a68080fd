"""The domains that a stream is made of, none of which pretraining has seen.

``DOMAINS`` holds seven families for a stream of new domains, and one set of objects in five styles for a
stream in which only the style changes.
"""

from __future__ import annotations

from . import aerial, digits, flags, greek, new_objects, sketches, styles, textures
from .domain import SPLITS, Domain

__all__ = ["DOMAINS", "SPLITS", "Domain"]

DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        new_objects.DOMAIN,
        digits.DOMAIN,
        greek.DOMAIN,
        textures.DOMAIN,
        sketches.DOMAIN,
        flags.DOMAIN,
        aerial.DOMAIN,
        *styles.DOMAINS,
    )
}
