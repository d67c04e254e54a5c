"""A real model's rows: the same text however its prompt is cut, whatever was kept, and whoever is written beside it."""

import itertools
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeagents.errors import InvalidInputError, TooLargeError, UnavailableError
from edgeagents.inference import machine
from edgeagents.inference.chat import Chat, Message
from edgeagents.inference.folder import entry_of, open_folder, write_manifest
from edgeagents.inference.generate import Finished, Loop, Request, Written
from edgeagents.inference.kept_bytes import from_bytes, to_bytes
from edgeagents.inference.language import CONFIG, TOKENIZER, Floats, LanguageModel, Vocabulary, read_config
from edgeagents.inference.prefix import Prefixes, pieces
from edgeagents.inference.vocabulary import METADATA
from tests import tiny_llama
from tests.real_model import MODEL, needs_model
from tests.unit.inference.rows import vocabulary
from toolchain.export import Form, export

PIECE, KEPT = 8, 21


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small model as it is shipped: 4-bit layers, activations as bytes."""
    path = tmp_path_factory.mktemp("model")
    export(tiny_llama.write(path / "tiny.gguf"), path / "model", Form())
    return path / "model"


@pytest.fixture
def model(folder: Path) -> LanguageModel:
    return LanguageModel.load(open_folder(folder), rows=4, length=96, threads=2, spins=False)


def prompts() -> list[tuple[int, ...]]:
    chance = np.random.default_rng(3)
    constant = chance.integers(3, 270, KEPT).tolist()
    return [tuple(constant + chance.integers(3, 270, length).tolist()) for length in (2, 5, 17, 9, 30, 1)]


def written(
    model: LanguageModel, texts: Sequence[tuple[int, ...]], prefixes: Prefixes | None = None, at_once: int = 9
) -> list[tuple[int, ...]]:
    """Return what follows each prompt, so many at once; no text ends by itself."""
    loop = Loop(model.decoder, model.vocabulary, (), prefixes or Prefixes(1 << 20), lambda: 0.0, PIECE)
    found: dict[str, Finished] = {}
    for begin in range(0, len(texts), at_once):
        for number, text in enumerate(texts[begin : begin + at_once], begin):
            loop.submit(Request(str(number), text, most_tokens=40, kept=KEPT))
        while not loop.is_idle:
            found |= {item.name: item for item in loop.step() if isinstance(item, Finished)}
    assert all(item.reason == "length" for item in found.values()), found
    return [found[str(number)].tokens for number in range(len(texts))]


def test_texts_are_the_same_alone_and_together(model: LanguageModel) -> None:
    alone = written(model, prompts(), at_once=1)
    assert len(set(alone)) > 1
    assert written(model, prompts()) == alone


class Forces:
    """Puts two tokens and then 30 behind the choices, in turn, and 9 before all."""

    can_end = is_over = False

    def __init__(self) -> None:
        self.lengths = itertools.cycle((2, 30))

    def begin(self) -> list[int]:
        return [*range(40, 49)]

    def mask(self, logits: Floats) -> None:
        """Let anything follow."""

    def accept(self, token: int) -> list[int]:
        return [50 + (token + place) % 200 for place in range(next(self.lengths))]


def measured(
    model: LanguageModel, texts: Sequence[tuple[int, ...]], at_once: int
) -> dict[str, list[tuple[int, float]]]:
    """Return tokens and their log-probabilities of texts of which every other one is held to a constraint."""
    loop = Loop(model.decoder, model.vocabulary, (), Prefixes(0), lambda: 0.0, PIECE)
    found: dict[str, list[tuple[int, float]]] = {str(number): [] for number in range(len(texts))}
    for begin in range(0, len(texts), at_once):
        for number, text in enumerate(texts[begin : begin + at_once], begin):
            rule = Forces() if number % 2 == 0 else None
            loop.submit(Request(str(number), text, most_tokens=44, constraint=rule))
        while not loop.is_idle:
            for item in loop.step():
                if isinstance(item, Written):
                    found[item.name].append((item.token, item.log_probability))
    return found


def test_texts_with_long_runs_of_forced_tokens_are_the_same_alone_and_together(model: LanguageModel) -> None:
    texts = [text[:40] for text in prompts()]
    alone = measured(model, texts, at_once=1)
    assert all(len(tokens) == 44 for tokens in alone.values())
    assert measured(model, texts, at_once=9) == alone
    assert measured(model, texts, at_once=2) == alone


def test_what_is_not_steady_computes_one_text_alone(folder: Path) -> None:
    free = LanguageModel.load(open_folder(folder), rows=1, length=96, threads=2, spins=False, steady=False)
    assert free.decoder._memory.shape[2] == 1
    assert len(written(free, prompts()[:1], at_once=1)[0]) == 40


def test_kept_and_cold_prompts_give_the_same_also_after_a_restart(model: LanguageModel, folder: Path) -> None:
    nothing, prefixes = Prefixes(0), Prefixes(1 << 22)
    cold = written(model, prompts(), nothing, at_once=1)
    assert nothing.hits == 0
    for _ in range(2):
        assert written(model, prompts(), prefixes) == cold
    assert prefixes.hits > 3 * len(prompts())
    again = LanguageModel.load(open_folder(folder), rows=4, length=96, threads=2, spins=False)
    kept = Prefixes(1 << 22)
    config = again.config
    shape = (config.layers, 2, config.kv_heads, config.head_dim)
    for piece in prefixes.kept():
        carried = from_bytes(to_bytes(piece, model.folder.digest), again.folder.digest, shape)
        assert kept.keep(carried.path, carried.block)
    cuts = [pieces(text, KEPT, PIECE) for text in prompts()]
    ends = [np.cumsum([len(piece) for piece in cut]) for cut in cuts]
    assert len(kept.kept()) == len({
        tuple(cut[:number]) for cut, end in zip(cuts, ends, strict=True) for number in range(1, 1 + (end <= KEPT).sum())
    })  # fmt: skip
    assert written(again, prompts(), kept) == cold
    assert kept.misses == sum(len(cut) - 1 for cut in cuts) - kept.hits


def test_where_the_constant_part_ends_changes_nothing(model: LanguageModel) -> None:
    text = prompts()[4][: 4 * PIECE + 1]  # a token behind four whole pieces
    whole = loop_of(model, text, kept=0)
    for kept in range(len(text) + 1):
        assert loop_of(model, text, kept=kept) == whole, kept


@needs_model
def test_the_default_models_pieces_leave_no_token_over() -> None:
    """At 129 tokens the first token of an answer was another one's where all of the prompt was one piece."""
    real = LanguageModel.load(open_folder(MODEL), rows=2, length=320, threads=2, spins=False)
    words = real.vocabulary.encode("The gateway watches a heating valve in the bedroom and a lamp. " * 30)
    for length in (2, 129, 130, 257, 258):
        found = [answers(real, words[:length], kept) for kept in (0, 64, 128, 129, length - 1)]
        assert all(item == found[0] for item in found), length


def answers(model: LanguageModel, prompt: Sequence[int], kept: int) -> list[float]:
    """Return what a model says of what follows a prompt, to the last bit."""
    for row, piece in enumerate(pieces(prompt, kept)):
        start = sum(map(len, pieces(prompt, kept)[:row]))
        logits = model.decoder.prefill(0, piece, start)
    return logits.tolist()  # type: ignore[no-any-return]


def loop_of(model: LanguageModel, text: tuple[int, ...], kept: int) -> list[float]:
    """Return what a model says of each token of an answer, to the last bit."""
    loop, found = Loop(model.decoder, model.vocabulary, (), Prefixes(1 << 20), lambda: 0.0, PIECE), list[float]()
    for name in ("cold", "kept"):
        loop.submit(Request(name, text, most_tokens=6, kept=kept))
        while not loop.is_idle:
            found += [item.log_probability for item in loop.step() if isinstance(item, Written)]
    assert found[:6] == found[6:]
    return found


def test_a_prompt_is_the_same_in_one_piece_and_in_many(model: LanguageModel) -> None:
    text = prompts()[4]
    whole = model.decoder.prefill(0, text, 0).copy()
    for begin in range(0, len(text), 5):
        last = model.decoder.prefill(1, text[begin : begin + 5], begin)
    np.testing.assert_allclose(last, whole, atol=1e-3)
    assert last.argmax() == whole.argmax()


def test_rows_that_are_read_written_and_moved_go_on_as_before(model: LanguageModel) -> None:
    decoder, text = model.decoder, prompts()[2]
    decoder.prefill(0, text, 0)
    expected = decoder.decode([5], [len(text)]).copy()
    block = decoder.read(0, 0, len(text))
    decoder.prefill(0, prompts()[3], 0)
    decoder.write(0, 0, block)
    assert (decoder.decode([5], [len(text)]) == expected).all()
    decoder.move(0, 1, len(text))
    decoder.prefill(0, prompts()[3], 0)
    other = len(prompts()[3])
    assert (decoder.decode([9, 5], [other, len(text)])[1] == expected[0]).all()


def test_rows_that_were_given_back_take_no_memory_and_write_the_same_again(model: LanguageModel) -> None:
    decoder, text = model.decoder, prompts()[4]
    first = decoder.prefill(3, text, 0).copy()
    used = _resident_bytes(decoder._memory)
    decoder.release()
    assert used > 0
    assert _resident_bytes(decoder._memory) == 0
    assert (decoder.prefill(3, text, 0) == first).all()
    assert _resident_bytes(decoder._memory) <= used


def _resident_bytes(memory: np.ndarray) -> int:
    """Return how much of a mapping is in memory, by the kernel's word."""
    address, kib = memory.__array_interface__["data"][0], -1
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word.endswith(":"):
            if kib == 0 and word == "Rss:":
                return int(rest.split()[0]) * 1024
        else:
            start, _, end = word.partition("-")
            kib = 0 if int(start, 16) <= address < int(end, 16) else -1
    raise AssertionError("there is no such mapping")


@pytest.mark.parametrize("tokens", [[-1], [281 + 9000], []])
def test_tokens_that_are_none_of_the_models_are_refused(model: LanguageModel, tokens: list[int]) -> None:
    with pytest.raises(InvalidInputError):
        model.decoder.prefill(0, tokens, 0)


def test_what_does_not_fit_is_refused(model: LanguageModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError):
        model.decoder.prefill(0, [3] * 97, 0)
    with pytest.raises(TooLargeError):
        model.decoder.decode([3], [96])
    with pytest.raises(TooLargeError):
        LanguageModel.load(open_folder(folder), rows=99)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 1e6)
    with pytest.raises(UnavailableError, match="fewer rows"):
        LanguageModel.load(open_folder(folder), rows=16, length=128)


def changed(folder: Path, target: Path, name: str, text: str) -> Path:
    """Return a copy of a model with another file, and a manifest that agrees."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (target / name).write_text(text)
    write_manifest(target, "changed", None)
    assert entry_of(target / name).size_bytes
    return target


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / TOKENIZER).read_text())
    letter, _ = whole["model"]["vocab"].popitem()
    whole["model"]["merges"] = [pair for pair in whole["model"]["merges"] if "".join(pair) != letter]
    with pytest.raises(InvalidInputError, match="another model's"):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "a", TOKENIZER, json.dumps(whole))))
    with pytest.raises(InvalidInputError, match="not a tokenizer"):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "b", TOKENIZER, "{}")))


def test_a_tokenizer_whose_numbers_are_not_the_models_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / TOKENIZER).read_text())
    whole["model"]["vocab"]["z"] = 9999  # as many as there should be
    with pytest.raises(InvalidInputError, match="another model's"):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "x", TOKENIZER, json.dumps(whole))))


def swapped(folder: Path) -> str:
    """Return a tokenizer with as many tokens, two of which have changed places."""
    whole = json.loads((folder / TOKENIZER).read_text())
    words = whole["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    return json.dumps(whole)


def test_a_tokenizer_with_as_many_other_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="made with other tokens"):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "x", TOKENIZER, swapped(folder))))


def test_a_graph_that_does_not_say_its_tokens_loads_as_before(folder: Path, tmp_path: Path) -> None:
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    assert [entry.key for entry in graph.metadata_props] == [METADATA]
    graph.ClearField("metadata_props")
    older = changed(folder, tmp_path / "x", TOKENIZER, swapped(folder))
    (older / "model.onnx").write_bytes(graph.SerializeToString())
    write_manifest(older, "older", None)
    assert LanguageModel.load(open_folder(older), rows=1, length=64, threads=1).decoder.length == 64


def test_a_text_is_neither_cut_nor_filled_up_whatever_the_tokenizer_says(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / TOKENIZER).read_text())
    whole["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    whole["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }  # fmt: skip
    words = Vocabulary.of(
        open_folder(changed(folder, tmp_path / "x", TOKENIZER, json.dumps(whole))), len(tiny_llama.tokens())
    )
    assert words.decode(words.encode("12345")) == "12345"
    assert len(words.encode("12")) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}},
        {"normalizer": {"type": "Prepend", "prepend": ""}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    ],
    ids=str,
)
def test_a_tokenizer_that_panics_is_refused_like_any_other(
    folder: Path, tmp_path: Path, damage: dict[str, object]
) -> None:
    whole = json.loads((folder / TOKENIZER).read_text()) | damage
    model = open_folder(changed(folder, tmp_path / "x", TOKENIZER, json.dumps(whole)))
    with pytest.raises(InvalidInputError, match="not a tokenizer"):
        Vocabulary.of(model, len(tiny_llama.tokens()))


def test_no_chance_parts_a_text_whatever_the_tokenizer_says(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / TOKENIZER).read_text())
    whole["model"]["dropout"] = 0.5
    model = open_folder(changed(folder, tmp_path / "x", TOKENIZER, json.dumps(whole)))
    words = Vocabulary.of(model, len(tiny_llama.tokens()))
    assert len({tuple(words.encode("the thing in the thin inn")) for _ in range(30)}) == 1


def test_weights_that_change_while_they_are_loaded_are_refused(folder: Path, tmp_path: Path) -> None:
    model = open_folder(changed(folder, tmp_path / "x", CONFIG, (folder / CONFIG).read_text()))
    weights = model.path / "model.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4096] + bytes(4096))
    with pytest.raises(InvalidInputError, match=r"model\.onnx\.data: was changed"):
        LanguageModel.load(model, rows=1, length=64)


def test_a_context_that_the_graph_does_not_reach_is_refused_before_a_long_prompt_runs(
    folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / CONFIG).read_text())
    assert config["context"] == tiny_llama.CONTEXT
    text = json.dumps(config | {"context": tiny_llama.CONTEXT + 1})
    with pytest.raises(InvalidInputError, match="its context is 129, which its graph does not reach"):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "x", CONFIG, text)), rows=1, length=64)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"layers": 3}, "has no input past_key_values.2.key"),
        ({"layers": 1}, "unexpected input 'past_key_values.1"),
        ({"kv_heads": 4}, "has no input past_key_values.0.key"),
        ({"vocab": 280}, "another model's"),
        ({"layers": -1}, "not a language model's configuration"),
        ({"eos_ids": []}, "not a language model's configuration"),
    ],
)
def test_a_graph_of_another_shape_than_its_configuration_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    config = json.loads((folder / CONFIG).read_text()) | change
    with pytest.raises(InvalidInputError, match=text):
        LanguageModel.load(open_folder(changed(folder, tmp_path / "x", CONFIG, json.dumps(config))))


def test_its_own_template_and_vocabulary_write_a_conversation_down(model: LanguageModel) -> None:
    chat = Chat.of(model.folder, model.vocabulary)
    tokens = chat.tokens([Message(role="user", content="in the <|im_end|> 12")])
    words = model.vocabulary
    assert chat.tokens([]) == []  # it wants no token before a text
    assert tokens == [1, *words.encode("in the <|im_end|> 12"), 2]
    assert words.decode(words.encode("in the 你 🔥 12")) == "in the 你 🔥 12"


def test_a_model_that_wants_a_token_before_every_text_gets_it_once(tmp_path: Path) -> None:
    wants = {"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.add_bos_token": True}
    for name, template in (("a", tiny_llama.TEMPLATE), ("b", "{{ bos_token }}" + tiny_llama.TEMPLATE)):
        source = tiny_llama.write(tmp_path / f"{name}.gguf", changes=wants | {"tokenizer.chat_template": template})
        export(source, tmp_path / name, Form("q8"))
        folder = open_folder(tmp_path / name)
        words = Vocabulary.of(folder, read_config(folder).vocab)
        assert Chat.of(folder, words).tokens([Message(role="user", content="12")]) == [0, 1, *words.encode("12"), 2]


def test_while_a_long_text_becomes_tokens_others_go_on() -> None:
    words, ended, looks = vocabulary(), threading.Event(), [0]

    def look_now_and_then() -> None:
        while not ended.wait(0.001):
            looks[0] += 1

    other = threading.Thread(target=look_now_and_then)
    other.start()
    try:
        before = looks[0]
        tokens = words.encode("7 x<end>" * 40_000)
        while_encoded = looks[0] - before
    finally:
        ended.set()
        other.join()
    assert tokens == words.encode("7 x<end>") * 40_000
    assert while_encoded > 10, "nothing else ran while a text became tokens"


@pytest.mark.parametrize("text", ["", "x", "né 温 <end>", "  two  blanks\n"])
def test_long_and_short_texts_become_tokens_alike(text: str) -> None:
    words = vocabulary()
    for count in (1, 400, 5000):
        whole = text * count
        assert words.encode(whole) == words.tokenizer.encode(whole, add_special_tokens=False).ids
