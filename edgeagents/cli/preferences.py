"""`edgeagents explain-preferences`: what an agent's preferences file means, drawn for the terminal.

Source: docs/protocols.md; `model/preferences.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from edgeagents.adapters.files import load_model
from edgeagents.cli.lines import clean
from edgeagents.errors import InvalidInputError
from edgeagents.model.preferences import Part, PiecewiseLinear, Preferences, Quadratic, Threshold, seconds_of_day
from edgeagents.protocol.utility import Moment, gain, weight_of, worth

COLUMNS: Final = 60
ROWS: Final = 5
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
At = Annotated[str, Parameter(name="--at", help="time of day whose weights count: 21:30")]
Person = Annotated[
    tuple[str, ...], Parameter(name="--person", help="who is there; more than once for more", negative="")
]
Of = Annotated[
    tuple[str, ...], Parameter(name="--of", help="an outcome to judge: sensor-living/Temperature=19.5", negative="")
]


def explain_preferences(*files: Path, at: At = "12:00", person: Person = (), of: Of = ()) -> None:
    """Draw what each agent would like, and judge an outcome by it.

    Args:
        files: preferences files, one an agent.
    """
    moment, outcome = Moment(_second(at), frozenset(person)), dict(_quantity(text) for text in of)
    console = Console(soft_wrap=True, highlight=False)
    if not files:
        raise InvalidInputError("name at least one preferences file: edgex-profiles/home/preferences/comfort.yaml")
    for file in files:
        for line in explained(load_model(Preferences, file), moment, outcome):
            console.print(line)


def _second(text: str) -> float:
    try:
        second = seconds_of_day(text)
    except ValueError as error:
        raise InvalidInputError(f"--at: {error}") from error
    assert isinstance(second, float)  # of a text it is always one
    return second


def _quantity(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise InvalidInputError(f"--of {text!r}: write quantity=number") from error


def explained(preferences: Preferences, moment: Moment, outcome: dict[str, float]) -> Iterator[Text]:
    """Yield a chart for each part, and what an outcome is worth when one is given."""
    weights = {part.of: weight_of(part, moment) for part in preferences.parts}
    total = sum(weights.values())
    yield Text(clean(f"{preferences.agent}: no agreement is worth {preferences.disagreement:g} of 1"), style="bold")
    for part in preferences.parts:
        share = weights[part.of] / total if total else 0.0
        unit = f" in {part.unit}" if part.unit else ""
        yield Text(clean(f"{part.of}{unit}: {share:.0%} of all now (weight {weights[part.of]:g})"), style="cyan")
        yield from chart(part)
    if outcome:
        found = worth(preferences, outcome, moment)
        yield Text(f"that outcome is worth {found.utility:.3f}", style="bold")
        for item in found.shares:
            yield Text(clean(f"  {item.of} = {item.value:g}: gain {item.gain:.3f} × {item.share:.0%}"))


def extent(part: Part) -> tuple[float, float]:
    """Return from where to where a part's chart goes: all that matters, and a margin."""
    match part.shape:
        case PiecewiseLinear(points=points):
            low, high = points[0][0], points[-1][0]
        case Quadratic(best=best, width=width):
            low, high = best - width, best + width
        case Threshold(above=above, below=below):
            edges = [edge for edge in (above, below) if edge is not None]
            low, high = edges[0], edges[-1]
    margin = (high - low) * 0.1 or max(1.0, abs(high) * 0.2)
    return low - margin, high + margin


def chart(part: Part) -> Iterator[Text]:
    """Yield the lines of a chart: the gain from 0 to 1 over the quantity."""
    low, high = extent(part)
    gains = [gain(part.shape, low + (high - low) * place / (COLUMNS - 1)) for place in range(COLUMNS)]
    steps = len(BLOCKS) - 1
    for row in reversed(range(ROWS)):
        filled = (min(steps, max(0, round(value * ROWS * steps) - row * steps)) for value in gains)
        axis = {ROWS - 1: "1", 0: "0"}.get(row, " ")
        yield Text(f"  {axis} │{''.join(BLOCKS[height] for height in filled)}")
    left, right = f"{low:.4g}", f"{high:.4g}"
    yield Text(f"    └{left}{right.rjust(COLUMNS - len(left))}", style="dim")
