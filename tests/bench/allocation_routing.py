"""Random metric routing with known optimum: tasks are places, each robot drives its best path from where it is."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

SIDE_M: Final = 100.0
Point = tuple[float, float]


@dataclass(frozen=True)
class Routing:
    """Robots and tasks in a square of 100 m."""

    robots: Mapping[str, Point]
    tasks: Mapping[str, Point]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.tasks))

    @cached_property
    def path_m(self) -> dict[str, list[float]]:
        """Return for each robot how long its best path through each set of tasks is (a bit a task)."""
        places = [self.tasks[name] for name in self.names]
        between = [[math.dist(one, other) for other in places] for one in places]
        return {robot: _paths(start, places, between) for robot, start in self.robots.items()}

    def cost(self, robot: str, tasks: tuple[str, ...]) -> float:
        """Return the length of a robot's best path through some tasks, metres."""
        return self.path_m[robot][sum(1 << self.names.index(task) for task in tasks)]

    def optimum(self) -> dict[str, float]:
        """Return the least possible sum and the least possible makespan, over all ways to share the tasks out."""
        full = (1 << len(self.names)) - 1
        least = {"sum": [math.inf] * (full + 1), "makespan": [math.inf] * (full + 1)}
        for name in least:
            least[name][0] = 0.0
        for paths in self.path_m.values():
            for name, join in (("sum", lambda a, b: a + b), ("makespan", max)):
                before, after = least[name], [math.inf] * (full + 1)
                for done in range(full + 1):
                    part = done
                    while True:  # every subset of what is done is this robot's part once
                        cost = join(before[done ^ part], paths[part])
                        after[done] = min(after[done], cost)
                        if part == 0:
                            break
                        part = (part - 1) & done
                least[name] = after
        return {name: values[full] for name, values in least.items()}


def _paths(start: Point, places: list[Point], between: list[list[float]]) -> list[float]:
    """Return the shortest open path from a start through each set of places (Held and Karp 1962)."""
    count = len(places)
    ending = [[math.inf] * count for _ in range(1 << count)]
    for last in range(count):
        ending[1 << last][last] = math.dist(start, places[last])
    for done in range(1, 1 << count):
        for last in range(count):
            length = ending[done][last]
            if length < math.inf:
                for following in range(count):
                    if not done >> following & 1:
                        grown = done | 1 << following
                        ending[grown][following] = min(ending[grown][following], length + between[last][following])
    return [0.0, *(min(row) for row in ending[1:])]


def random_routing(seed: int, robots: int = 4, tasks: int = 9) -> Routing:
    """Return a random instance, the same for one seed."""
    random_ = random.Random(seed)

    def place() -> Point:
        return random_.uniform(0, SIDE_M), random_.uniform(0, SIDE_M)

    return Routing({f"r{n}": place() for n in range(robots)}, {f"t{n}": place() for n in range(tasks)})
