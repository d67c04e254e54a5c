"""What an agent answers a person, in English or Chinese: what was done and proven, what not and why, or what it asks.

Pure. Says no more than is known: "proven" is the guard's word after it read the device back; what is not known in time
is said to be on its way.

Source: docs/ask.md.
"""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Any, Final

from edgeagents.model.agent import Intent, Sample
from edgeagents.model.values import Value
from edgeagents.model.words import Language, Role
from services.agent.house import House, Thing
from services.agent.questions import Conversation, Fate, Wanted, Why, described
from services.agent.understanding import AskBack, Cannot, Help, Tell
from services.agent.view import View

MOST_REASON_CHARS: Final = 300
MOST_TOLD_CHARS: Final = 200
_FATES: Final[Mapping[Fate | None, tuple[str, str]]] = {
    "proven": ("Done and proven", "已完成并确认"),
    "unproven": ("Done, but nothing can be read back to prove it", "已执行，但无法回读确认"),
    "settled": ("It is so already", "已经是这样了"),
    "under-way": ("The same is under way already", "相同的命令正在执行"),
    "waits-for-approval": ("Waits for somebody to approve it", "等待批准"),
    None: ("On its way, not proven yet", "正在执行，尚未确认"),
    "refused": ("Not done, refused", "没有执行，被拒绝"),
    "expired": ("Not done, it came too late", "没有执行，已超时"),
    "failed": ("It failed", "执行失败"),
    "uncertain": ("Nobody knows whether it took effect", "无法确定是否生效"),
}
_ORDER: Final = tuple(_FATES)
_GOOD: Final[Set[Fate | None]] = frozenset(("proven", "unproven", "settled"))
_BAD: Final[tuple[Fate, ...]] = ("uncertain", "failed", "expired", "refused")  # what to look after comes first
_QUANTITIES: Final[Mapping[Role, tuple[str, str]]] = {
    "temperature": ("temperature", "温度"), "outdoor": ("outdoor temperature", "室外温度"),
    "humidity": ("humidity", "湿度"), "co2": ("CO2", "二氧化碳"), "power": ("power", "功率"),
    "price": ("price of electricity", "电价"), "target": ("wanted temperature", "设定温度"),
    "level": ("level", "档位"), "brightness": ("brightness", "亮度"),
}  # fmt: skip
_STATES: Final[Mapping[Role, tuple[tuple[str, str], tuple[str, str]]]] = {
    "switch": (("on", "开着"), ("off", "关着")),
    "presence": (("somebody is there", "有人"), ("nobody is there", "没有人")),
    "window": (("the window is open", "窗户开着"), ("the window is closed", "窗户关着")),
}


def reply_of(
    conversation: Conversation, house: House, view: View, site_s: float, agent: str, wall_s: Callable[[float], float]
) -> dict[str, Any]:
    """Return the answer as JSON holds it; `answer` is the text for the person.

    Args:
        conversation: all that is known of it now.
        house: names.
        view: readings to tell.
        site_s: site time now.
        agent: who answers.
        wall_s: turns a span of site time into wall time, seconds: what a reading's age is told in.
    """
    language = conversation.question.language
    speech = _Speech(house, language, view, site_s, wall_s)
    kind, text, more = speech.answer(conversation)
    return {
        "requestId": conversation.question.id, "agent": agent, "language": language, "kind": kind, "answer": text,
        "by": conversation.stage or "", **described(conversation), "readings": [], "options": [], **more,
    }  # fmt: skip


def _kind(fates: Set[Fate | None]) -> str:
    """Return what kind of answer it is, by what became of its commands: never a better one than the worst of them."""
    if fates <= _GOOD:
        return "done"
    if fates & {None, "under-way"}:
        return "pending"
    if "waits-for-approval" in fates:
        return "waits-for-approval"
    return "partly" if fates & _GOOD else next(name for name in _BAD if name in fates)


def _plain(value: Value) -> Value:
    """Return a reading as JSON can hold it, bounded; None: it is no number that means anything."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value[:MOST_TOLD_CHARS] if isinstance(value, str) else value


class _Speech:
    """Words for one answer."""

    def __init__(
        self, house: House, language: Language, view: View, site_s: float, wall_s: Callable[[float], float]
    ) -> None:
        self._house, self._language, self._view = house, language, view
        self._site_s, self._wall_s = site_s, wall_s
        self._things = {thing.device: thing for thing in house.things}

    def answer(self, conversation: Conversation) -> tuple[str, str, dict[str, Any]]:
        """Return what kind of answer it is, its text, and further fields."""
        match conversation.understood:
            case _ if conversation.wanted:
                return self._done(conversation)
            case Tell() as tell:
                return self._told(tell)
            case AskBack() as back:
                return self._asked_back(back)
            case Help():
                return "help", self._help(), {}
            case Cannot() as cannot:
                return self._cannot(cannot)
        if conversation.said:
            return "asked-back", conversation.said, {}
        if not conversation.is_decided:
            return "pending", self._say("I have not got to it yet; nothing was done.", "还没有处理，什么都没有做。"), {}
        if conversation.stage is None:  # nobody could decide on it
            why = self._why(conversation.problem)
            return "refused", self._say(f"Nothing was done: {why}.", f"什么都没有做：{why}。"), {}
        why = self._why(conversation.problem)
        why = why and self._say(f" ({why})", f"（{why}）")
        text = self._say(
            f"I did not understand that{why}. Nothing was done. {self._help()}",
            f"没听懂{why}，什么都没有做。{self._help()}",
        )
        return "not-understood", text, {}

    def _say(self, english: str, chinese: str) -> str:
        return english if self._language == "en" else chinese

    def _pair(self, pair: tuple[str, str]) -> str:
        return pair[0] if self._language == "en" else pair[1]

    def _why(self, why: Why) -> str:
        return why if isinstance(why, str) else self._pair(why)

    def _done(self, conversation: Conversation) -> tuple[str, str, dict[str, Any]]:
        parts = []
        for fate in _ORDER:
            found = [item for item in conversation.wanted if item.fate == fate]
            if found:
                what = self._say("; ", "；").join(self._wanted(item) for item in found)
                parts.append(f"{self._pair(_FATES[fate])}{self._say(': ', '：')}{what}{self._say('.', '。')}")
        return _kind({item.fate for item in conversation.wanted}), " ".join(parts), {}

    def _wanted(self, item: Wanted) -> str:
        text = self._state(item.intent)
        return f"{text} ({item.reason[:MOST_REASON_CHARS]})" if item.reason and item.fate != "proven" else text

    def _state(self, intent: Intent) -> str:
        thing = self._things.get(intent.device)
        if thing is None:
            return f"{intent.device}/{intent.resource} = {intent.value!r}"
        role = next((name for name, resource in thing.roles.items() if resource == intent.resource), None)
        name = self._name(thing)
        if role is None:
            return f"{name}: {intent.resource} = {intent.value!r}"
        return f"{name}{self._say(': ', '')}{self._value(thing, role, intent.value)}"

    def _name(self, thing: Thing) -> str:
        names = thing.names[self._language]
        name = names[0] if names else thing.device
        if not thing.room:
            return name
        room = self._house.room_name(thing.room, self._language)
        return self._say(f"{room} {name}", f"{room}{name}")

    def _value(self, thing: Thing, role: Role, value: Value) -> str:
        if value is None:
            return self._say("unknown", "未知")
        if role in _STATES and isinstance(value, bool):
            return self._pair(_STATES[role][0 if value else 1])
        if role in ("closed", "open") and isinstance(value, (int, float)):
            return self._opened(100 - value if role == "closed" else value)
        shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        unit = thing.units.get(thing.roles[role], "")
        unit = "°C" if unit == "C" else unit
        if role == "level":
            return self._say(f"level {shown}", f"{shown}档")
        return f"{shown} {unit}".strip()

    def _opened(self, percent: float) -> str:
        if percent <= 0:
            return self._say("closed", "关着")
        return self._say("open", "开着") if percent >= 100 else self._say(f"{percent:g} % open", f"打开{percent:g}%")

    def _told(self, tell: Tell) -> tuple[str, str, dict[str, Any]]:
        samples = [(thing, self._view.latest((thing.device, thing.roles[tell.role]))) for thing in tell.things]
        known = [
            (thing, replace(sample, value=_plain(sample.value))) for thing, sample in samples
            if sample is not None and isinstance(sample.value, (bool, int, float, str))  # an image tells nothing
        ]  # fmt: skip
        readings = [
            {
                "deviceName": thing.device, "resourceName": thing.roles[tell.role], "value": sample.value,
                "units": thing.units.get(thing.roles[tell.role], ""), "ageSeconds": self._age_s(sample),
            }
            for thing, sample in known
        ]  # fmt: skip
        if not known:
            return "told", self._say("Nothing was read of that yet.", "还没有相关读数。"), {"readings": []}
        words = _QUANTITIES.get(tell.role)
        parts = [self._reading(thing, tell.role, sample, words) for thing, sample in known]
        text = self._say("; ", "；").join(parts)
        return "told", text[:1].upper() + text[1:] + self._say(".", "。"), {"readings": readings}

    def _reading(self, thing: Thing, role: Role, sample: Sample, words: tuple[str, str] | None) -> str:
        place = self._house.room_name(thing.room, self._language) if thing.room else ""
        if thing.kind != "sensor" or (not place and role == "power"):
            place = self._name(thing)
        value, age = self._value(thing, role, sample.value), f"{self._age_s(sample):g}"
        quantity = self._pair(words) if words else ""
        if self._language == "en":
            return f"{' '.join(part for part in (place, quantity) if part)}: {value} (read {age} s ago)"
        return f"{place}{quantity}{value}（{age}秒前读取）"

    def _age_s(self, sample: Sample) -> float:
        return round(max(0.0, self._wall_s(self._site_s - sample.site_s)), 1)

    def _asked_back(self, back: AskBack) -> tuple[str, str, dict[str, Any]]:
        rooms = [self._house.room_name(label, self._language) for label in back.options if label]
        if back.missing == "room":
            listed = self._say(", ", "、").join(rooms)
            return "asked-back", self._say(f"In which room: {listed}?", f"哪个房间：{listed}？"), {"options": rooms}
        text = self._say("To which value? Say a number, such as 21 degrees.", "设为多少？请说一个数字，例如21度。")
        return "asked-back", text, {"options": rooms}

    def _cannot(self, cannot: Cannot) -> tuple[str, str, dict[str, Any]]:
        if cannot.problem == "out-of-range":
            text = self._say(
                f"That is out of range: {cannot.detail}. Nothing was done.",
                f"超出范围：{cannot.detail}。什么都没有做。",
            )
            return "refused", text, {}
        text = self._say("There is no such device here. Nothing was done.", "这里没有这样的设备，什么都没有做。")
        return "refused", text, {}

    def _help(self) -> str:
        rooms = self._say(", ", "、").join(self._house.room_name(label, self._language) for label in self._house.rooms)
        return self._say(
            f'Say for example "turn on the light", "it is stuffy", "how warm is it", with a room: {rooms}.',
            f"可以说“打开灯”、“太闷了”、“多少度”，并说明房间：{rooms}。",
        )
