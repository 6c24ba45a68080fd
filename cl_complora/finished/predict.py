"""What a run's model sees in pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..clip.heads.head import Answering, ClosedHead, answered, features_for
from ..clip.heads.linear import RowHead
from ..clip.heads.several import SeveralHeads
from ..clip.text import evaluating
from ..config.faults import suggest
from ..data.beside_tasks import REFERENCE
from ..data.images.picture_files import find_pictures, image_suffixes
from ..data.images.value_range import ValueRange
from ..data.labels import LabelSpace, name_fault
from ..errors import MOST_FAULTS, UserError, raise_all
from ..files import is_utf8
from .given_pictures import conversion_of
from .prompt_option import check_prompts
from .states import State, finished_tasks, joined


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture.

    Attributes:
        path: the file.
        classes: (name, probability), likeliest first; empty where the file cannot be read.
        error: why it cannot be read.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """What is asked about pictures.

    Attributes:
        classes: names of the user's own, which their texts answer; the classes of all tasks by default.
        task: a task or zero-shot set of the run, whose classes are asked for instead.
        prompts: templates for the names; the scenario's by default.
        top: classes to name for every picture.
        values: stored values that become black and white, of pictures of more than eight bits a channel.

    Raises:
        UserError: for classes beside a task.
    """

    classes: Sequence[str] = ()
    task: str | None = None
    prompts: Sequence[str] = ()
    top: int = 5
    values: ValueRange | None = None

    def __post_init__(self) -> None:
        if self.classes and self.task is not None:
            raise UserError("--classes and --task: give one of the two")


def classify(
    open_state: Callable[[], State],
    given: Sequence[Path],
    question: Question,
    latest: bool,
    tell: Callable[[str], None],
) -> Iterator[Prediction]:
    """Answer a question about files and folders of pictures.

    Args:
        open_state: the run's state; it takes seconds, so it is opened when the paths were found to be good.
        given: files and folders.
        question: what is asked.
        latest: whether the state is the latest because nobody named another.
        tell: given a sentence where something is not what one may take it for.

    Raises:
        UserError: as :func:`pictures` and :func:`label_space`.
    """
    files = pictures(given, tell)
    state = open_state()
    if latest:
        for note in (unfinished(state), whose_model(state, question.task)):
            if note:
                tell(note)
    if question.classes and state.has_head:
        tell("--classes are answered by their texts, not by the run's head")
    space = label_space(state, question.classes, question.prompts, question.task)
    head = answering(state, question.classes, question.task)
    if note := texts_tell_tasks(head):
        tell(note)
    values, task = question.values, question.task
    return predict(state, files, space, question.top, head=head, values=values, tell=tell, task=task)


def label_space(
    state: State, classes: Sequence[str] = (), prompts: Sequence[str] = (), task: str | None = None
) -> LabelSpace:
    """The classes to tell apart: the named ones, those of a task, or those of all tasks merged so far.

    Args:
        state: the run's state.
        classes: names of the user's own.
        prompts: templates for them; the scenario's by default.
        task: a task or zero-shot set of the run instead.

    Raises:
        UserError: for an unknown task, a template without a place for the name, and templates where a head
            answers that reads no texts.
    """
    check_prompts(prompts)
    if classes:
        raise_all([f"--classes: {fault}" for name in classes if (fault := name_fault(name))][:MOST_FAULTS])
        twice = next((name for name in classes if list(classes).count(name) > 1), None)
        if twice is not None:
            raise UserError(f"--classes: {twice!r} stands twice")
        return LabelSpace.from_templates(classes, prompts or state.scenario.value.prompts)
    spaces = state.spaces()
    if task in state.captioned:
        raise UserError(
            f"--task {task}: has pictures with captions and no classes to tell apart; give --classes"
        )
    if task is not None and task not in spaces:
        named = [name for name in spaces if name != REFERENCE]
        raise UserError(f"--task {task}: this run has {', '.join(named)}{suggest(task, named)}")
    learned = learned_tasks(state)
    if task is None and not learned:
        raise UserError(
            f"{state.folder.root}: its tasks have pictures with captions and no classes to tell apart; give"
            " --classes, or --task and one of its zero-shot sets"
        )
    space = joined(spaces, [task] if task is not None else learned)
    if not prompts:
        return space
    head = answering(state, task=task)
    if head is not None and not reads_texts(head, space.class_names):
        one = "the head of this run" if task is None else f"the head of task '{task}'"
        who = "the heads of this run answer" if isinstance(head, SeveralHeads) else f"{one} answers"
        raise UserError(
            f"--prompt: has no effect, since {who} for all of these classes without reading a text; leave it"
            " out, or name the classes with --classes, which texts answer"
        )
    return LabelSpace.from_templates(space.class_names, prompts)


def learned_tasks(state: State) -> list[str]:
    """Tasks with classes whose classes are told apart together: those learned so far, or all of the stream
    for the untouched model."""
    return [name for name in state.after or state.results["tasks"] if name not in state.captioned]


def unfinished(state: State) -> str | None:
    """That a run is not finished, in a sentence; None where it is."""
    if state.results["status"] == "done":
        return None
    done, tasks = len(finished_tasks(state.folder, state.results)), len(state.results["tasks"])
    what = "the model that it has now" if done else "the untouched model"
    return f"{state.folder.root} is not finished: {done} of {tasks} tasks are done, and this is {what}"


def whose_model(state: State, task: str | None = None) -> str | None:
    """Which task's model answers, in a sentence; None where none but one can be meant.

    Args:
        state: the run's state.
        task: that is asked about.
    """
    several = state.scenario.value.independent and len(state.results["tasks"]) > 1
    if not several or not state.after or task in state.after:
        return None
    return (
        f"the tasks are independent, with a model each: that of '{state.after[-1]}' answers; --after chooses"
        " another"
    )


def pictures(paths: Sequence[Path], tell: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Files as given, and all pictures below folders.

    Args:
        paths: files and folders.
        tell: given a sentence where files of a folder are passed over.

    Raises:
        UserError: for a path that is not there or no file, a folder without pictures, a name that is not
            UTF-8.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            looked = find_pictures(path)
            inside = looked.pictures
            if not inside:
                raise UserError(f"{path}: holds no pictures ({', '.join(sorted(image_suffixes()))})")
            for line in looked.notes(str(path)):
                tell(line)
            found += inside
        elif not path.exists():
            raise UserError(f"{path}: there is no such file or folder")
        elif not path.is_file() or not is_utf8(str(path)):
            raise UserError(f"{path}: {'the name is not UTF-8' if path.is_file() else 'is no regular file'}")
        else:
            found.append(path)
    return found


def answering(state: State, classes: Sequence[str] = (), task: str | None = None) -> Answering | None:
    """What answers in place of texts where :func:`label_space` was asked for the same.

    Args:
        state: the run's state.
        classes: names of the user's own, which their texts answer.
        task: a task, which its head answers if it has one; a zero-shot set has none. By default the heads of
            all tasks so far answer together.
    """
    heads = {} if classes else state.heads()
    if task is not None:
        return heads.get(task)
    distinct = list(dict.fromkeys(heads.values()))
    return SeveralHeads(distinct) if len(distinct) > 1 else next(iter(distinct), None)


def texts_tell_tasks(head: Answering | None) -> str | None:
    """That texts choose among the tasks whose heads are asked together, in a sentence; None where class means
    do, or a single head is asked."""
    if not isinstance(head, SeveralHeads) or head.has_means:
        return None
    return (
        "texts tell which task a picture is of, since a head of this run keeps no class means, as none did"
        " before 2026-11-30"
    )


def reads_texts(head: Answering, names: Sequence[str]) -> bool:
    """Whether what a head says of classes follows from their texts, too.

    Args:
        head: one, or several.
        names: of the classes to choose among.
    """
    if isinstance(head, SeveralHeads) and head.has_means:
        asked = head.asked(names)
        known = {place for _, places in asked for place in places}
        return len(known) < len(names) or any(reads_texts(one, one.classes) for one, _ in asked)
    if isinstance(head, SeveralHeads):
        # Texts say which task, unless the latest head that is asked knows every class.
        latest = next((one for one in reversed(head.heads) if one.known(names)), None)
        return latest is None or reads_texts(latest, names)
    if not isinstance(head, RowHead | ClosedHead) or len(head.known(names)) < len(names):
        return True
    return isinstance(head, ClosedHead) and head.share < 1.0


@torch.no_grad()
def predict(
    state: State,
    paths: Sequence[Path],
    space: LabelSpace,
    top: int = 5,
    batch: int = 64,
    head: Answering | None = None,
    values: ValueRange | None = None,
    tell: Callable[[str], None] = lambda line: None,
    task: str | None = None,
) -> Iterator[Prediction]:
    """Classify pictures; one that cannot be read is told and does not stop the others.

    They are read as the run read its own, or those of the task that is named: more than eight bits a channel
    in the range of its tasks (in that of the given pictures, where the tasks had several or none, or where
    the pictures have quite another), transparent ones on its background.

    Args:
        state: the run's state.
        paths: the pictures.
        space: classes to tell apart.
        top: classes to name for each.
        batch: pictures at a time.
        head: what answers in place of texts.
        values: stored values that become black and white, of pictures of more than eight bits a channel.
        tell: given a sentence where the pictures' values are not those of the run, and one where its tasks
            have several backgrounds.
        task: a task or zero-shot set, as whose pictures they are read.
    """
    classifier = state.classifier()
    conversion = conversion_of(state, paths, values, tell, task)
    pixels = replace(state.loaded.pixels, conversion=conversion)
    with evaluating(classifier):
        for start in range(0, len(paths), batch):
            read: dict[Path, torch.Tensor] = {}
            faults: dict[Path, str] = {}
            for path in paths[start : start + batch]:
                try:
                    read[path] = pixels.read(path)
                except UserError as error:
                    faults[path] = error.messages[0]
            seen = features_for(classifier, torch.stack(list(read.values())), head) if read else None
            shares = [] if seen is None else answered(classifier, seen, space, head).softmax(1)
            likeliest = dict(zip(read, shares, strict=True))
            for path in paths[start : start + batch]:
                if path in faults:
                    yield Prediction(path, error=faults[path])
                else:
                    values, labels = likeliest[path].topk(min(top, len(space)))
                    pairs = zip(labels.tolist(), values.tolist(), strict=True)
                    yield Prediction(path, tuple((space.class_names[label], value) for label, value in pairs))
