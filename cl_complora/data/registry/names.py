"""Class names in words, where a data set's own are codes, numbers or cut short: CLIP's published ones.

Every ``words`` function takes the data set's own class names (or nothing, where torchvision has none) in
label order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...errors import UserError
from .word_lists import COUNTRY211

Words = Callable[[Sequence[str]], list[str]]


def spaced(own: Sequence[str]) -> list[str]:
    """The data set's own names, ``_`` read as a space."""
    return [name.replace("_", " ") for name in own]


def scenes(own: Sequence[str]) -> list[str]:
    """SUN397's ``apartment_building/outdoor`` as CLIP writes it; elsewhere (F/A-18) a slash is part of the
    name."""
    return [name.replace("/", " ") for name in spaced(own)]


def fixed(names: Sequence[str]) -> Words:
    """Names by label, for data sets whose labels are bare numbers."""
    return lambda own: list(names)


def exchanged(better: Mapping[str, str]) -> Words:
    """The data set's own names, some of them replaced."""
    return lambda own: [better.get(name, spaced([name])[0]) for name in own]


# open_clip gives "missile" and "sunglasses" to two synsets each.
_TWICE = {744: "projectile", 836: "sunglass"}


def imagenet(own: Sequence[str]) -> list[str]:
    """open_clip's words for synsets (``n01440764``) or, as ImageNet-V2 names its folders, for places in their
    list.

    Raises:
        UserError: for a folder that is neither.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    places = {synset: place for place, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    places |= {str(place): place for place in range(len(IMAGENET_CLASSNAMES))}
    strange = [name for name in own if name not in places]
    if strange:
        raise UserError(f"the folder {strange[0]} is none of ImageNet's 1000 synsets")
    return [_TWICE.get(places[name], IMAGENET_CLASSNAMES[places[name]]) for name in own]


countries = exchanged(COUNTRY211)

caltech = exchanged(
    {
        "Faces": "off-center face",
        "Faces_easy": "centered face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
        "airplanes": "airplane",
        "car_side": "side of a car",
        "cougar_body": "body of a cougar cat",
        "cougar_face": "face of a cougar cat",
        "crocodile_head": "head of a crocodile",
        "flamingo_head": "head of a flamingo",
        "snoopy": "snoopy (cartoon beagle)",
        "yin_yang": "yin and yang symbol",
    }
)

satellite = exchanged(
    {
        "AnnualCrop": "annual crop land",
        "Forest": "forest",
        "HerbaceousVegetation": "brushland or shrubland",
        "Highway": "highway or road",
        "Industrial": "industrial buildings or commercial buildings",
        "Pasture": "pasture land",
        "PermanentCrop": "permanent crop land",
        "Residential": "residential buildings or homes or apartments",
        "River": "river",
        "SeaLake": "lake or sea",
    }
)
