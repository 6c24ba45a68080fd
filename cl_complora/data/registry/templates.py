"""CLIP's published prompt templates, data set by data set (openai/CLIP: data/prompts.md and the ImageNet
notebook).

The article is doubled there ("a photo of a {}.", "a photo of the {}."), which is written here as a product.
"""

from __future__ import annotations

_A_THE = ("a", "the")

A_PHOTO = ("a photo of a {}.",)
A_OR_THE_PHOTO = ("a photo of a {}.", "a photo of the {}.")

AIRCRAFT = ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft.")

CALTECH = tuple(
    form.replace("*", article)
    for article in _A_THE
    for form in (
        "a photo of * {}.",
        "a painting of * {}.",
        "* plastic {}.",
        "a sculpture of * {}.",
        "a sketch of * {}.",
        "a tattoo of * {}.",
        "* toy {}.",
        "a rendition of * {}.",
        "* embroidered {}.",
        "* cartoon {}.",
        "* {} in a video game.",
        "* plushie {}.",
        "* origami {}.",
        "art of * {}.",
        "graffiti of * {}.",
        "a drawing of * {}.",
        "a doodle of * {}.",
    )
)

CIFAR = tuple(
    form.replace("*", article)
    for article in _A_THE
    for form in (
        "a photo of * {}.",
        "a blurry photo of * {}.",
        "a black and white photo of * {}.",
        "a low contrast photo of * {}.",
        "a high contrast photo of * {}.",
        "a bad photo of * {}.",
        "a good photo of * {}.",
        "a photo of * small {}.",
        "a photo of * big {}.",
    )
)

COUNTRY = (
    "a photo i took in {}.",
    "a photo i took while visiting {}.",
    "a photo from my home country of {}.",
    "a photo from my visit to {}.",
    "a photo showing the country of {}.",
)

TEXTURES = tuple(
    f"a photo of {article} {{}} {thing}."
    for article in _A_THE
    for thing in ("texture", "pattern", "thing", "object")
)

SATELLITE = (
    "a centered satellite photo of {}.",
    "a centered satellite photo of a {}.",
    "a centered satellite photo of the {}.",
)

FLOWERS = ("a photo of a {}, a type of flower.",)
FOOD = ("a photo of {}, a type of food.",)
PETS = ("a photo of a {}, a type of pet.",)
DIGITS = ('a photo of the number: "{}".',)
REVIEWS = ("a {} review of a movie.",)

SIGNS = tuple(f'a {view} photo of a "{{}}" traffic sign.' for view in ("zoomed in", "centered", "close up"))

CARS = (
    *A_OR_THE_PHOTO,
    "a photo of my {}.",
    "i love my {}!",
    "a photo of my dirty {}.",
    "a photo of my clean {}.",
    "a photo of my new {}.",
    "a photo of my old {}.",
)

ACTIONS = tuple(
    f"a {kind} of {article} person {verb}{{}}."
    for verb in ("", "using ", "doing ", "during ", "performing ", "practicing ")
    for article in _A_THE
    for kind in ("photo", "video", "example", "demonstration")
)

# The seven of CLIP's eighty that its notebook found by forward selection.
IMAGENET = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
