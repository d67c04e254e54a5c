"""One engine in a process of its own: loads a model, computes the same tokens as all others, prints figures as JSON.

    python -m tests.bench.lm_engines ours|llama.cpp|genai --model PLACE [--library FOLDER] [--threads 2]

Prompt and continuation are given tokens, so that every engine does the same work whatever it would have said: prefill
of `PROMPT` tokens, then `ANSWER` tokens one at a time, alone and in batches; first tokens behind a prompt that is
computed anew and behind one whose first `CONSTANT` tokens are kept.

Source: llama.h of llama.cpp, onnxruntime-genai's Python API.
"""

import argparse
import ctypes
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

PROMPT: Final = 440
CONSTANT, EVENT = 405, 39
ANSWER: Final = 64
BATCHES: Final = (1, 2, 4)
LENGTH: Final = 1024
VOCAB: Final = 49_152
# Offsets into llama_context_params of the release in PEER_VERSION; `_LlamaCpp` checks the defaults it finds there.
_CONTEXT, _BATCH, _UBATCH, _SEQUENCES, _THREADS, _THREADS_OF_BATCH, _FLASH = 0, 4, 8, 12, 28, 32, 52
_DEFAULTS: Final = {
    _CONTEXT: 512,
    _BATCH: 2048,
    _UBATCH: 512,
    _SEQUENCES: 1,
    _THREADS: 4,
    _THREADS_OF_BATCH: 4,
    _FLASH: -1,
}
_QUANTISE_DEFAULTS: Final = {4: 7, 8: 43, 12: 43, 16: 256}
_FORMATS: Final = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}


class Engine(Protocol):
    """What is measured; rows are texts at once."""

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Compute a prompt, or the rest of one, and what may follow it."""

    def decode(self, tokens: Sequence[int], length: int) -> None:
        """Compute one token more of each of the first rows, all of which hold `length`."""


class Ours:
    """`edgeagents.inference`."""

    def __init__(self, place: Path, threads: int, *, steady: bool) -> None:
        from edgeagents.inference.folder import open_folder
        from edgeagents.inference.language import LanguageModel
        from edgeagents.inference.prefix import pieces

        self.pieces = pieces
        self.decoder = LanguageModel.load(
            open_folder(place), rows=max(BATCHES), length=LENGTH, threads=threads, steady=steady
        ).decoder
        self.blocks: Any = None

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        for piece in self.pieces(tokens, 0):  # as the token loop does it
            self.decoder.prefill(row, piece, start)
            start += len(piece)

    def decode(self, tokens: Sequence[int], length: int) -> None:
        self.decoder.decode(tokens, [length] * len(tokens))

    def keep(self, length: int) -> None:
        self.blocks = self.decoder.read(0, 0, length)

    def restore(self) -> None:
        self.decoder.write(0, 0, self.blocks)


class _Blob(ctypes.Structure):
    """A C structure of parameters, by value; larger than any of them, which does no harm on the stack."""

    _fields_ = (("bytes", ctypes.c_ubyte * 512),)

    def get(self, offset: int) -> int:
        return ctypes.c_int.from_buffer(self, offset).value

    def put(self, offset: int, value: int) -> None:
        ctypes.c_int.from_buffer(self, offset).value = value


class _Tokens(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embedding", ctypes.c_void_p),
        ("position", ctypes.POINTER(ctypes.c_int32)), ("sequences", ctypes.POINTER(ctypes.c_int32)),
        ("sequence", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
    )  # fmt: skip


def llama_library(folder: Path) -> Any:
    """Return llama.cpp's library of a folder, its CPU backend loaded, silent."""
    for pattern in ("libggml-base.so*", "libggml.*so*", "libllama.*so*"):
        library = ctypes.CDLL(str(sorted(folder.glob(pattern))[0]), mode=ctypes.RTLD_GLOBAL)
    ggml = ctypes.CDLL(str(sorted(folder.glob("libggml.*so*"))[0]))
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    for name in ("llama_model_default_params", "llama_context_default_params", "llama_model_quantize_default_params"):
        getattr(library, name).restype = _Blob
    library.llama_log_set(_SILENT, None)
    return library


_SILENT: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def quantise(folder: Path, source: Path, target: Path, form: str) -> None:
    """Write a GGUF file in another form, every tensor of it, by llama.cpp's own quantiser."""
    library = llama_library(folder)
    how = library.llama_model_quantize_default_params()
    _check(how, _QUANTISE_DEFAULTS)
    how.put(4, _FORMATS[form])
    how.put(16, 256 | 1)  # allow_requantize
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Blob)]
    if library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(how)):
        raise SystemExit(f"llama.cpp cannot write {source} as {form}")


class LlamaCpp:
    """llama.cpp by its C interface, flash attention on."""

    def __init__(self, place: Path, threads: int, folder: Path) -> None:
        self.library = lib = llama_library(folder)
        lib.llama_model_load_from_file.restype = lib.llama_init_from_model.restype = ctypes.c_void_p
        lib.llama_get_memory.restype, lib.llama_get_memory.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        lib.llama_memory_seq_rm.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
        lib.llama_batch_init.restype = _Tokens
        lib.llama_decode.argtypes = [ctypes.c_void_p, _Tokens]
        lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        lib.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        model = ctypes.c_void_p(lib.llama_model_load_from_file(str(place).encode(), lib.llama_model_default_params()))
        how = lib.llama_context_default_params()
        _check(how, _DEFAULTS)
        rows = max(BATCHES)
        for offset, value in (
            (_CONTEXT, LENGTH * rows), (_SEQUENCES, rows), (_THREADS, threads), (_THREADS_OF_BATCH, threads),
            (_FLASH, 1),
        ):  # fmt: skip
            how.put(offset, value)
        self.context = ctypes.c_void_p(lib.llama_init_from_model(model, how))
        self.memory = ctypes.c_void_p(lib.llama_get_memory(self.context))
        self.batch = lib.llama_batch_init(PROMPT + EVENT, 0, 1)

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        self.library.llama_memory_seq_rm(self.memory, row, start, -1)
        last = len(tokens) - 1
        self._run([(token, start + at, row, at == last) for at, token in enumerate(tokens)])

    def decode(self, tokens: Sequence[int], length: int) -> None:
        for row in range(len(tokens)):
            self.library.llama_memory_seq_rm(self.memory, row, length, -1)
        self._run([(token, length, row, True) for row, token in enumerate(tokens)])

    def keep(self, length: int) -> None:
        pass

    def restore(self) -> None:
        pass  # what lies behind a position is cut off; what lies before it stays

    def _run(self, what: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self.batch
        batch.count = len(what)
        for at, (token, position, row, is_wanted) in enumerate(what):
            batch.token[at], batch.position[at], batch.sequences[at] = token, position, 1
            batch.sequence[at][0], batch.logits[at] = row, is_wanted
        if self.library.llama_decode(self.context, batch):
            raise SystemExit("llama.cpp cannot compute")
        self.library.llama_get_logits_ith(self.context, len(what) - 1)


def _check(found: _Blob, defaults: dict[int, int]) -> None:
    if wrong := {offset: found.get(offset) for offset, value in defaults.items() if found.get(offset) != value}:
        raise SystemExit(f"llama.cpp's parameters lie elsewhere in this release: {wrong}")


class Genai:
    """onnxruntime-genai; a text's tokens are appended to a generator, which computes them."""

    def __init__(self, place: Path, threads: int) -> None:
        import onnxruntime_genai as og

        self.og = og
        config = og.Config(str(place))
        self.model = og.Model(config)
        self.generator: Any = None
        self.rows = 0
        assert threads == json.loads((place / "genai_config.json").read_text())["model"]["decoder"]["session_options"][
            "intra_op_num_threads"
        ]  # fmt: skip

    def _begin(self, rows: int) -> None:
        params = self.og.GeneratorParams(self.model)
        params.set_search_options(min_length=LENGTH, max_length=LENGTH, batch_size=rows, past_present_share_buffer=True)
        self.generator, self.rows = self.og.Generator(self.model, params), rows

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        import numpy as np

        if row:  # it computes all rows of a batch at once, with the first one
            return
        if start == 0:
            self._begin(1)
        else:
            self.generator.rewind_to(start)
        self.generator.append_tokens(np.array([tokens], np.int32))
        self.generator.get_logits()

    def decode(self, tokens: Sequence[int], length: int) -> None:
        import numpy as np

        if self.rows != len(tokens):
            self._begin(len(tokens))
            self.generator.append_tokens(np.array([prompt()[:length]] * len(tokens), np.int32))
        if len(tokens) == 1:
            self.generator.append_tokens(np.array([[token] for token in tokens], np.int32))
            self.generator.get_logits()
        else:  # several rows take no tokens from outside: they go on with their own, which costs an argmax more
            self.generator.generate_next_token()

    def keep(self, length: int) -> None:
        pass

    def restore(self) -> None:
        pass


def prompt() -> list[int]:
    """Return the tokens that all engines compute; which ones they are costs no engine more or less."""
    chance = random.Random(7)
    return [chance.randrange(100, VOCAB) for _ in range(PROMPT + ANSWER + EVENT)]


def measure(engine: Any) -> dict[str, Any]:
    """Return tokens a second, milliseconds to a first token, and memory in MiB."""
    tokens = prompt()
    engine.prefill(0, tokens[:64], 0)  # the first run makes what later ones use
    found: dict[str, Any] = {"prefill": PROMPT / _took(lambda: engine.prefill(0, tokens[:PROMPT], 0))}
    found["first_cold_ms"] = 1e3 * _took(lambda: engine.prefill(0, tokens[: CONSTANT + EVENT], 0))
    engine.prefill(0, tokens[:CONSTANT], 0)
    engine.keep(CONSTANT)
    engine.prefill(0, tokens[:EVENT], 0)  # the row is somebody else's meanwhile, where an engine keeps a copy
    if isinstance(engine, LlamaCpp | Genai):
        engine.prefill(0, tokens[:CONSTANT], 0)

    def first() -> None:
        engine.restore()
        engine.prefill(0, tokens[CONSTANT : CONSTANT + EVENT], CONSTANT)

    found["first_cached_ms"] = 1e3 * _took(first)
    found["rss_mib"] = _peak_mib()  # of one text
    for row in range(max(BATCHES)):
        engine.prefill(row, tokens[:PROMPT], 0)
    found["decode"] = {rows: _decoded(engine, rows, tokens) for rows in BATCHES}
    found["rss_of_batches_mib"] = _peak_mib()
    return found


def _decoded(engine: Engine, rows: int, tokens: Sequence[int]) -> float:
    engine.decode([tokens[0]] * rows, PROMPT)
    engine.prefill(0, tokens[:PROMPT], 0) if rows == 1 else None

    def answer() -> None:
        for at in range(ANSWER):
            engine.decode([tokens[PROMPT + at]] * rows, PROMPT + at)

    return rows * ANSWER / _took(answer)


def _took(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure one engine once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["ours", "llama.cpp", "genai"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--library", type=Path, help="folder of llama.cpp's libraries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--free", action="store_true", help="ours: a text alone is computed alone")
    options = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    made: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(options.model, options.threads, steady=not options.free),
        "llama.cpp": lambda: LlamaCpp(options.model, options.threads, options.library),
        "genai": lambda: Genai(options.model, options.threads),
    }
    began = time.perf_counter()
    engine = made[options.engine]()
    load_s = time.perf_counter() - began
    print(json.dumps({"load_s": load_s, **measure(engine)}))
    sys.stdout.flush()
    os._exit(0)  # peers' libraries differ in how they end


if __name__ == "__main__":
    main()
