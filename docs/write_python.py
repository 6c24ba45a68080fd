"""Writes python.md, what `import cl_complora` offers, from its signatures and docstrings.

Run: python docs/write_python.py [FILE]
"""

import inspect
import re
from collections.abc import Callable, Iterator

from written_pages import output, prose, table

import cl_complora
from cl_complora.api.table import LabelledTable
from cl_complora.finished.predict import Prediction

FUNCTIONS = (cl_complora.run, cl_complora.load_run, cl_complora.compare, cl_complora.load_comparison)
METHODS = (cl_complora.Run.predict, cl_complora.Run.export)
CLASSES = (cl_complora.Run, Prediction, cl_complora.ComparedMethods, LabelledTable)
# Beyond so many arguments a table of calls shows an ellipsis.
SOME = 4

PAGE = """\
# In Python and notebooks

This page is written by `docs/write_python.py` from the signatures and docstrings of the functions: change
those, or the words there, not this.

`import cl_complora` is light (no torch) and offers, typed and documented (`help(cl_complora.run)`):

{calls}

Settings that differ from the files are a dict: `{{"training.steps": 40}}` or `{{"training": {{"steps":
40}}}}`. `progress=True` shows what happens, in a terminal and in a notebook. Errors are
`cl_complora.UserError` and name arguments.

Both results show themselves in a notebook and have

* `.matrix`: names on both sides. A run's has accuracy in percent, a row for every state and a column for
  every task and zero-shot set (`matrix["digits"]` is a column, `matrix["greek", "digits"]` a cell); a
  comparison's has means over seeds, a row for every method. numpy takes it for an array.
* `.summary()`: a run's is one flat row (percent and points, changes with intervals that are paired by test
  image), so that `pandas.DataFrame([run.summary() for run in runs])` is a table; a comparison's is method →
  metric → mean, with difference, interval, p and verdict against the reference.
* `.to_frame()`: a tidy pandas frame (`pip install 'cl_complora[pandas]'`).
* `.plot()`: a matplotlib figure to change and save. `run.plot("matrix")` and `run.plot("zero_shot")` are
  the other two.
* `.report()`: the HTML file.

A run's model can be used from Python as well: `run.predict("new pictures/")` classifies pictures,
`run.export("mine.safetensors")` writes a checkpoint that plain open_clip loads.

`run.results` is `results.json` itself: fractions for accuracies and forgetting, points for retention.

`compare` starts processes: in a script, call it below `if __name__ == "__main__":`. In a notebook nothing
is needed.

[examples/your_own_pictures.ipynb](../examples/your_own_pictures.ipynb) goes from folders to figures.

{functions}

{classes}

## In a strategy of Avalanche's own

`cl_complora.CompLoRAPlugin`, `ClipClassifier`, `LabelSpace` and `open_model` are at top level too.
[examples/plugin_in_naive.py](../examples/plugin_in_naive.py) is the shortest script;
[examples/avalanche_replay_ewc.py](../examples/avalanche_replay_ewc.py) puts the plugin beside Avalanche's
own replay, EWC, metrics and loggers.
"""


def plain(text: str) -> str:
    """A docstring as Markdown on one line."""
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def parts(thing: object) -> dict[str, str]:
    """The sections of a docstring by their heads (``Args``); the text before them under none."""
    found = re.split(r"^(Args|Attributes|Returns|Raises):\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return {"": found[0], **dict(zip(found[1::2], found[2::2], strict=True))}


def entries(text: str) -> dict[str, str]:
    """``name: meaning`` of the lines of a section, continued by those that are indented further."""
    lines = inspect.cleandoc(text).split("\n")
    joined = re.sub(r"\n\s+", " ", "\n".join(lines)).split("\n")
    return {name: plain(said) for line in joined if line for name, _, said in [line.partition(": ")]}


def summary(thing: object) -> str:
    """The first paragraph of a docstring."""
    return plain(parts(thing)[""].split("\n\n")[0])


def default(parameter: inspect.Parameter) -> str:
    """What an argument is by default."""
    return "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def call(function: Callable) -> str:
    """A call with its first arguments."""
    names = list(inspect.signature(function).parameters)
    return f"`{function.__name__}({', '.join(names[:SOME] + ['…'] * (len(names) > SOME))})`"


def function_part(function: Callable) -> str:
    """Heading, meaning and arguments of a function."""
    said = {
        name: text for names, text in entries(parts(function)["Args"]).items() for name in names.split(", ")
    }
    parameters = {name: one for name, one in inspect.signature(function).parameters.items() if name != "self"}
    if missing := [name for name in parameters if name not in said]:
        raise SystemExit(f"{function.__name__}: Args does not say what {', '.join(missing)} is")
    listed = [(f"`{name}`", default(one), said[name]) for name, one in parameters.items()]
    text = "\n\n".join(map(plain, parts(function)[""].strip().split("\n\n")))
    heading = f"### {function.__qualname__}()\n\n{prose(text)}"
    return f"{heading}\n\n{table(('argument', 'default', 'meaning'), listed)}"


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Attributes, properties and methods of a class, with their meaning."""
    for name, said in entries(parts(kind).get("Attributes", "")).items():
        yield from ((f"`.{one}`", said) for one in name.split(", "))
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"`.{name}`", summary(member)
        elif inspect.isfunction(member):
            names = [one for one in inspect.signature(member).parameters if one != "self"]
            yield f"`.{name}({', '.join(names)})`", summary(member)


def class_part(kind: type) -> str:
    """Heading, meaning and members of a class."""
    heading = f"### {kind.__name__}\n\n{prose(summary(kind))}"
    return f"{heading}\n\n{table(('member', 'meaning'), members(kind))}"


def page() -> str:
    """The whole page."""
    calls = table(("call", "what it does"), [(call(one), summary(one)) for one in FUNCTIONS])
    functions = "\n\n".join(["## Functions", *map(function_part, FUNCTIONS)])
    methods = "\n\n".join(map(function_part, METHODS))
    classes = "\n\n".join(["## What they return", *map(class_part, CLASSES)])
    return PAGE.format(calls=calls, functions=functions, classes=f"{classes}\n\n{methods}")


output("python.md").write_text(page(), encoding="utf-8")
