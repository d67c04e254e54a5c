"""Images, sound and embeddings go through the one session class: what comes out is what plain numpy computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagents.errors import InvalidInputError
from edgeagents.inference.folder import open_folder
from edgeagents.inference.session import Port, Session
from tests.unit.inference.graphs import embedder, image_classifier, sound_classifier

CHANCE = np.random.default_rng(3)
KERNELS = CHANCE.standard_normal((4, 3, 3, 3)).astype(np.float32)
HEAD = CHANCE.standard_normal((4, 5)).astype(np.float32)
RATE, WINDOW, STEP = 8_000, 64, 32


def softmaxed(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shares: np.ndarray[Any, Any] = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def expected_scores(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what the image model computes, place by place."""
    real = np.pad(images.astype(np.float32) / 255, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(real, (3, 3), axis=(2, 3))
    seen = np.einsum("bchwij,ocij->bohw", windows, KERNELS)
    return softmaxed(np.maximum(seen, 0).mean((2, 3)) @ HEAD)


def test_an_image_model_gives_its_classes_for_any_size_and_several_at_once(tmp_path: Path) -> None:
    session = Session(open_folder(image_classifier(tmp_path, KERNELS, HEAD)), threads=1)
    real, byte = np.dtype(np.float32), np.dtype(np.uint8)
    session.expect(
        [Port("image", byte, ("n", 3, "h", "w"))], [Port("scores", real, ("n", 5)), Port("rough", byte, ("n", 5))]
    )
    for shape in ((1, 3, 8, 8), (3, 3, 17, 5)):
        images = CHANCE.integers(0, 256, shape, dtype=np.uint8)
        found = session.run({"image": images})
        np.testing.assert_allclose(found["scores"], expected_scores(images), rtol=1e-4)
        assert found["rough"].dtype == np.float32, "bytes with a scale in the manifest come as real numbers"
        np.testing.assert_allclose(found["rough"], found["scores"], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("hertz", [500, 1_250, 3_000])
def test_a_sound_model_hears_the_tone_that_is_played(tmp_path: Path, hertz: int) -> None:
    session = Session(open_folder(sound_classifier(tmp_path, WINDOW, STEP)), threads=1)
    samples = np.sin(2 * np.pi * hertz * np.arange(RATE // 4) / RATE).astype(np.float32)[None]
    found = session.run({"samples": samples})
    assert found["band"].tolist() == [round(hertz * WINDOW / RATE)]
    frames = np.lib.stride_tricks.sliding_window_view(samples[0], WINDOW)[::STEP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    np.testing.assert_allclose(found["energy"][0], power.mean(0), rtol=1e-3, atol=1e-3)


def test_an_embedding_has_length_one_and_like_is_near_like(tmp_path: Path) -> None:
    table = CHANCE.standard_normal((50, 16)).astype(np.float32)
    session = Session(open_folder(embedder(tmp_path, table)), threads=1)
    ids = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [30, 31, 32, 33]])
    found = session.run({"ids": ids})["embedding"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    assert found[0] @ found[1] > found[0] @ found[2]
    with pytest.raises(InvalidInputError, match="embedder"):
        session.run({"ids": np.array([[50]])})  # no such row


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"image": np.zeros((1, 3, 8, 8), np.float32)}, "got float32"),
        ({"image": np.zeros((1, 4, 8, 8), np.uint8)}, "3 is 3|got shape"),
        ({"image": np.zeros((3, 8, 8), np.uint8)}, "got 3 dimensions"),
        ({"picture": np.zeros((1, 3, 8, 8), np.uint8)}, "no input 'picture'"),
        ({"image": np.zeros((1, 3, 10_000, 10_000), np.uint8)}, "in one call"),
    ],
    ids=str,
)
def test_an_image_of_another_form_is_refused_before_anything_is_computed(
    tmp_path: Path, inputs: dict[str, Any], text: str
) -> None:
    session = Session(open_folder(image_classifier(tmp_path, KERNELS, HEAD)), threads=1)
    with pytest.raises(InvalidInputError, match=text):
        session.run(inputs)
