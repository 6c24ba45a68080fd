"""Help pages for 80 columns: two columns, no types, examples, commands by what they are for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from ..errors import UserError

# What the commands are for, in the order of a first day.
SECTIONS = {
    "Begin": ("init", "check", "list", "data"),
    "Run": ("run", "compare", "tune"),
    "Look": ("report", "tensorboard", "leaderboard", "explain", "audit", "curvature", "regions"),
    "Use": ("eval", "predict", "export"),
}
# What other programs call them.
OTHER_NAMES = {
    "train": "run",
    "fit": "run",
    "evaluate": "eval",
    "test": "eval",
    "sweep": "compare",
    "ls": "list",
    "show": "report",
    "html": "report",
    "classify": "predict",
    "save": "export",
    "new": "init",
}
EXAMPLES = {
    "run": (
        "cl-complora run                               the embedded scenario with complora",
        "cl-complora run mine.yaml -s lora --seed 1",
        "cl-complora run embedded --set training.steps=40 --set shots=4",
    ),
    "compare": (
        "cl-complora compare embedded -s zeroshot,lora,complora --seeds 0,1,2",
        "cl-complora compare mine.yaml -s lora,complora --sweep lr=1e-4,3e-4",
    ),
    "init": (
        "cl-complora init flowers/ birds/ --model ViT-B-16 --pretrained openai -o mine.yaml",
        "cl-complora init pictures/ --zero-shot others/",
    ),
    "check": ("cl-complora check mine.yaml", "cl-complora check mine.yaml --measure"),
    "data check": ("cl-complora data check mine.yaml",),
    "eval": (
        "cl-complora eval runs/embedded/complora/seed0",
        "cl-complora eval ViT-B-32 --pretrained openai --data pictures/",
    ),
    "predict": ("cl-complora predict embedded/complora picture.jpg --task flags",),
    "export": ("cl-complora export embedded/complora -o model.safetensors",),
    "report": ("cl-complora report embedded/complora", "cl-complora report runs/embedded"),
    "tensorboard": ("cl-complora tensorboard", "cl-complora tensorboard runs/embedded --port 0"),
    "tune": ("cl-complora tune mine.yaml -s lora --budget 60",),
}
# Options whose values are one word with commas, where other programs take several words.
_WITH_COMMAS = {"--strategies", "-s", "--seeds", "--sweep-seeds", "--factors"}
# The parser's words for a refused value, and those of our other messages.
_SAID_OTHERWISE = {
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


class HelpfulCommand(TyperCommand):
    """A command whose help has no types, and whose mistakes get a hint."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS] SCENARIO``."""
        return ["[OPTIONS]", *(_argument(p) for p in self.get_params(ctx) if _is_argument(p))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options and examples, two columns each."""
        params = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        arguments = [(_argument(p), _told(p)) for p in params if _is_argument(p)]
        options = [(_option(p), _told(p)) for p in params if not _is_argument(p)]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=26)
        of_group = ctx.parent is not None and ctx.parent.parent is not None
        if examples := EXAMPLES.get(f"{ctx.parent.info_name} {self.name}" if of_group else self.name):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command; a value that is refused is named, a list given as several words gets a hint."""
        given = list(args)
        _refuse_twice(self.get_params(ctx), given)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            told = str(getattr(error, "message", ""))
            if "extra argument" in told:
                _refuse_several_words(given)
            value = _value_of(getattr(error, "param", None), given)
            if value is None or not told:
                raise
            raise UserError(f"{value}: {_as_a_demand(told)}") from None


def _refuse_twice(params: Iterable[Any], given: list[str]) -> None:
    """Refuse an option that takes one value and has two, of which only the last would count."""
    options = {name: param for param in params if not _is_argument(param) for name in param.opts}
    seen: set[str] = set()
    words = iter(given)
    for word in words:
        if word == "--":
            return
        name, equals, _ = word.partition("=")
        param = options.get(name)
        if param is None or param.is_flag or param.name == "help":
            continue
        if not equals:
            next(words, None)
        if param.name in seen and not param.multiple:
            commas = "; put commas between its values" if name in _WITH_COMMAS else ""
            raise UserError(f"{name}: is given twice{commas or ', and takes one value'}")
        seen.add(param.name)


def _refuse_several_words(given: list[str]) -> None:
    for place, word in enumerate(given[:-2]):
        values = given[place + 1 : place + 3]
        if word in _WITH_COMMAS and not any(value.startswith("-") for value in values):
            joined = ",".join(values)
            raise UserError(
                f"{word} {' '.join(values)}: put commas between them, no spaces: {word} {joined}"
            ) from None


def _value_of(option: Any, given: list[str]) -> str | None:
    """``--seed abc``, as it was given last; None of an argument, or of a mistake about no value."""
    for place in reversed(range(len(given))):
        word, equals, value = given[place].partition("=")
        if word not in getattr(option, "opts", ()):
            continue
        if equals:
            return f"{word} {value}"
        return f"{word} {given[place + 1]}" if place + 1 < len(given) else None
    return None


def _as_a_demand(told: str) -> str:
    """What the parser says of a value, in the words of the other messages: ``must be a valid integer``."""
    told = told.split(", unable to parse")[0]
    for theirs, ours in _SAID_OTHERWISE.items():
        told = told.replace(theirs, ours)
    return told


class HelpfulGroup(TyperGroup):
    """A group whose help says what its commands are for, and that knows what others call them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands by what they are for, then the options."""
        rest = self.list_commands(ctx)
        for title, names in SECTIONS.items() if ctx.parent is None else ():
            here = [name for name in names if name in rest]
            rest = [name for name in rest if name not in here]
            self._section(ctx, formatter, title, here)
        self._section(ctx, formatter, "Commands", rest)
        rows = [(_option(p), _told(p)) for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        with formatter.section("Options"):
            formatter.write_dl(rows, col_max=26)

    def _section(self, ctx: Any, formatter: Any, title: str, names: list[str]) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in names]
        rows = [(name, command.get_short_help_str(200)) for name, command in commands if command is not None]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As any group; an unknown command is told with the nearest known one."""
        known = self.list_commands(ctx)
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            near = OTHER_NAMES.get(name, close[0] if close else None)
            hint = f"; did you mean '{near}'?" if near in known else ""
            raise UserError(f"there is no command '{name}'{hint or '; there are ' + ', '.join(known)}")
        return super().resolve_command(ctx, args)


def _is_argument(param: Any) -> bool:
    return param.param_type_name == "argument"


def _argument(param: Any) -> str:
    name = (param.metavar or param.name).strip("[]{}").upper()
    several = "..." if param.nargs == -1 else ""
    return f"{name}{several}" if param.required else f"[{name}{several}]"


def _option(param: Any) -> str:
    opts = sorted(param.opts, key=len)
    if param.secondary_opts:
        return f"{opts[-1]} / {param.secondary_opts[0]}"
    words = ", ".join(opts)
    if param.is_flag or param.name == "help":
        return words
    return f"{words} {param.metavar or _placeholder(param)}"


def _placeholder(param: Any) -> str:
    """``N`` for numbers, else the last word of the option; how types are told differs by version of typer."""
    numeric = isinstance(param.default, (int, float)) or getattr(param, "min", None) is not None
    return "N" if numeric else max(param.opts, key=len).lstrip("-").rpartition("-")[2].upper()


def _told(param: Any) -> str:
    told = param.help or ""
    default = param.default
    if callable(default) or default in (None, "", (), []) or isinstance(default, bool):
        return told
    return f"{told}  [default: {default}]"
