"""The Custom Scalars page: which curves stand together, and which of them may be smoothed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...store.forms import DIRECTIONS

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar.layout_pb2 import Chart

# More tasks than this are drawn without numbers and names: a picture that grew with them would take a
# gigabyte at 200.
LEGIBLE = 24
# A regular expression that finds the curves of a chart whose tags are not known at the beginning.
Prefix = str


@dataclass(frozen=True)
class MeasuredNames:
    """What a run is measured on.

    Attributes:
        tasks: in order.
        zero_shot: zero-shot sets.
        retrieval: retrieval sets.
        multi_label: multi-label sets.
        captioned: those of the tasks that have captions and no classes.
    """

    tasks: Sequence[str]
    zero_shot: Sequence[str] = ()
    retrieval: Sequence[str] = ()
    multi_label: Sequence[str] = ()
    captioned: Sequence[str] = ()

    def tags(self) -> dict[str, str]:
        """Name → what TensorBoard takes as a part of a tag, no two alike; tasks by their place, as it
        sorts."""
        tags: dict[str, str] = {}
        digits = len(str(len(self.tasks)))
        places = {name: f"{place:0{digits}}_" for place, name in enumerate(self.tasks, start=1)}
        for name in (*self.tasks, *self.zero_shot, *self.retrieval, *self.multi_label):
            tag = clean = places.get(name, "") + re.sub(r"[^-\w.]", "_", name)
            counter = 1
            while tag in tags.values():
                counter += 1
                tag = f"{clean}_{counter}"
            tags[name] = tag
        return tags


def custom_scalars(names: MeasuredNames, headlines: Sequence[str]) -> Summary:
    """The layout as the summary that TensorBoard reads it from.

    TensorBoard smooths with a weight of 0.6 unless told otherwise, which turns a curve of seven tasks that
    ends at 0.93 into one that ends at 0.42. Charts with margins are the ones that it never smooths: every
    curve over tasks is drawn as one whose margins are its values.

    Args:
        names: of what is measured.
        headlines: numbers of the stream that are defined: of forgetting, where one task is learned after
            another.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Layout

    categories = [
        Category(title=title, chart=[_chart(name, tags) for name, tags in charts.items()])
        for title, charts in _charts(names, headlines).items()
    ]
    content = Layout(category=categories).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="custom_scalars")
    tensor = TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=TensorShapeProto())
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag="custom_scalars__config__", tensor=tensor, metadata=metadata)])


def _chart(title: str, tags: list[str] | Prefix) -> Chart:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Chart, MarginChartContent, MultilineChartContent

    if isinstance(tags, Prefix):
        return Chart(title=title, multiline=MultilineChartContent(tag=[tags]))
    series = [MarginChartContent.Series(value=tag, lower=tag, upper=tag) for tag in tags]
    return Chart(title=title, margin=MarginChartContent(series=series))


def _charts(names: MeasuredNames, headlines: Sequence[str]) -> dict[str, dict[str, list[str] | Prefix]]:
    def of(group: str, parts: Sequence[str]) -> list[str]:
        return [f"{group}/{part}" for part in parts]

    def ways(sets: Sequence[str]) -> list[str]:
        return [f"{tags[name]}/{direction}" for name in sets for direction in DIRECTIONS]

    tags = names.tags()
    tasks, zero_shot, labelled = (
        [tags[name] for name in part] for part in (names.tasks, names.zero_shot, names.multi_label)
    )
    asked = ways([*names.captioned, *names.retrieval])
    # Nothing is forgotten by models of their own, nor by tasks that were trained together.
    forgetting = "forgetting" in headlines
    changes = {
        "forgetting by task": of("forgetting", tasks),
        "backward transfer by task": of("bwt", tasks),
        "forgetting and backward transfer so far": of("stream", ("forgetting", "bwt")),
    }
    levels = [name for name in ("transfer", "average", "last") if name in headlines]
    found: dict[str, dict[str, list[str] | Prefix]] = {
        "Forgetting" if forgetting else "Accuracy": {
            "accuracy on every task": of("accuracy", tasks),
            **(changes if forgetting else {}),
            f"{', '.join(map(str.capitalize, levels))} so far": of("stream", levels),
        },
        "Zero-shot": {
            "accuracy": of("zero_shot", zero_shot),
            "retention in points": of("retention", zero_shot),
        },
        "Retrieval": {
            "R@1": of("retrieval", [f"{way}/R1" for way in asked]),
            "R@5": of("retrieval", [f"{way}/R5" for way in asked]),
            "R@10": of("retrieval", [f"{way}/R10" for way in asked]),
            "retention of R@1 in points": of("retrieval_retention", ways(names.retrieval)),
        },
        "Several classes": {
            "mAP": of("multi_label", [f"{name}/mAP" for name in labelled]),
            "mAP of normalised scores (transductive)": of(
                "multi_label", [f"{name}/mAP_normalised" for name in labelled]
            ),
            "mAP of SPARC's scores (transductive)": of(
                "multi_label", [f"{name}/mAP_sparc" for name in labelled]
            ),
            "retention of mAP in points": of("multi_label_retention", labelled),
        },
        "Training": {
            "loss": f"^{re.escape('train/loss')}$",
            "accuracy on the batches": f"^{re.escape('train/accuracy')}$",
        },
        "Geometry": {
            "size of the update": of("update", ("delta_norm",)),
            "size by part, embeddings and other whole parameters among them": "^norm/",
            "change of the protected part": of("update", ("protected_overlap",)),
            "overlap with earlier updates": of("overlap_with", tasks[:-1]),
            "similarity of old tasks' features": of("feature_similarity", tasks[:-1]),
            "rank of half the energy by layer": "^half_energy_rank/",
            "drift of the principal subspace by layer": "^subspace_drift/",
            "effective rank by layer": "^effective_rank/",
        },
    }
    there = {part: {title: tags for title, tags in charts.items() if tags} for part, charts in found.items()}
    return {part: charts for part, charts in there.items() if charts}
