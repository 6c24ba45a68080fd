"""What another precision than 32 bits does to answers, measured once and told with the results."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis.representation import spread
from ..clip.classifier import ClipClassifier
from ..clip.evaluate import share_changed
from ..data.labels import LabelSpace
from ..data.tasks import Images

# Images at most that are answered twice.
COMPARED = 1024


@dataclass(frozen=True)
class ChangedAnswers:
    """How many answers of a model are others in a precision than in 32 bits.

    Attributes:
        set: whose images were asked about.
        images: how many, evenly spread over it.
        share: of them, in 0..1, the answer to which is another one.
    """

    set: str
    images: int
    share: float

    def told(self, precision: str) -> str:
        """In a sentence."""
        return (
            f"measured in {precision}: {100 * self.share:.2f} % of {self.images:,} answers on '{self.set}'"
            " are others than in fp32"
        )


def changed_answers(
    classifier: ClipClassifier, name: str, images: Images, space: LabelSpace, precision: str
) -> ChangedAnswers | None:
    """Answer some images of a set twice; None where it has none.

    Args:
        classifier: the model.
        name, images, space: of the set.
        precision: ``tf32`` or ``bf16``.
    """
    if not len(images):
        return None
    asked = images.pixels[spread(len(images), COMPARED)]
    return ChangedAnswers(name, len(asked), share_changed(classifier, asked, space, precision))
