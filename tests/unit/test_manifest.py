"""Finding, downloading and checking the files of a corpus; a local server plays the network."""

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lit_seqlm.data import manifest
from lit_seqlm.data.corpus import SPLITS, Corpus, summarize
from lit_seqlm.data.lines import read_lines
from lit_seqlm.errors import UserError

TEXTS = {
    "train": b"the cat saw the dog\n\na dog saw a cat\n",
    "valid": b"a cat saw a dog\n",
    "test": b"the dog saw the cat\n",
}


@dataclass
class Server:
    """Serves what it is told to: bytes whole, cut short, or a status."""

    address: str
    served: dict[str, bytes] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            state.asked.append(name)
            if name not in state.served:
                self.send_error(404)
                return
            content = state.served[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if name in state.cut_short else content)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}")
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


def describe(split: str, urls: list[str]) -> dict[str, Any]:
    content = TEXTS[split]
    found = summarize(iter(content.decode().splitlines(keepends=True)))
    return {
        "path": f"text/tiny/{split}.txt",
        "member": f"tiny-1/{split}.txt",
        "bytes": len(content),
        "hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "words": found.words,
        "tokens": found.tokens,
        "lines": found.lines,
        "urls": urls,
    }


def publish(monkeypatch: pytest.MonkeyPatch, urls: list[str], **more: Any) -> None:
    """A manifest with one corpus, `tiny`, whose files every URL serves at .../SPLIT.txt."""
    entry = {
        "title": "Tiny",
        "licence": "none",
        "citation": "nobody",
        "home": "https://example.org/tiny",
        "vocabulary": 6,
        "files": {
            split: describe(split, [f"{url}/{split}.txt" for url in urls]) for split in SPLITS
        },
        **more,
    }
    monkeypatch.setattr(manifest, "_manifest", lambda: {"tiny": entry})


def put(root: Path, **texts: bytes) -> None:
    """A data root with the correct files, but for the ones given."""
    folder = root / "text" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    for split, content in {**TEXTS, **texts}.items():
        (folder / f"{split}.txt").write_bytes(content)


def message(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        Corpus("tiny", str(root)).fetch()
    text = str(caught.value)
    assert text.count("\n") <= 1
    return text


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_every_entry_of_the_manifest_is_whole() -> None:
    for name in manifest._manifest():
        entry = manifest.read_manifest(name)
        assert set(entry.files) == set(SPLITS)
        for file in entry.files.values():
            assert file.tokens > file.lines > 0
            assert entry.package or (file.path and file.hash)
            assert entry.package or file.urls or (entry.archive and file.member)
    assert manifest.read_manifest("ptb").files["test"].tokens == 82_430
    with pytest.raises(UserError, match="no corpus 'ptbb'"):
        manifest.read_manifest("ptbb")


def test_files_at_hand_are_used_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, [server.address])
    put(tmp_path)
    corpus = Corpus("tiny", str(tmp_path))
    corpus.fetch()
    assert list(corpus.lines("valid")) == ["a cat saw a dog\n"]
    assert server.asked == []


def test_a_download_arrives_whole_and_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, [server.url("here")])
    server.served = {f"here/{split}.txt": content for split, content in TEXTS.items()}
    corpus = Corpus("tiny", str(tmp_path / "new" / "root"))
    corpus.fetch()
    assert "".join(corpus.lines("train")).encode() == TEXTS["train"]
    assert everything(tmp_path / "new" / "root") == [f"text/tiny/{s}.txt" for s in sorted(SPLITS)]
    asked = len(server.asked)
    Corpus("tiny", str(tmp_path / "new" / "root")).fetch()
    assert len(server.asked) == asked  # not again


@pytest.mark.parametrize("fault", ["missing", "wrong", "cut"])
def test_the_next_mirror_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, fault: str
) -> None:
    publish(monkeypatch, [server.url("bad"), server.url("good")])
    server.served = {f"good/{split}.txt": content for split, content in TEXTS.items()}
    if fault != "missing":
        server.served |= {f"bad/{split}.txt": content for split, content in TEXTS.items()}
    if fault == "wrong":
        server.served["bad/train.txt"] = b"something else\n"
    if fault == "cut":
        server.cut_short = {"bad/train.txt"}
    Corpus("tiny", str(tmp_path)).fetch()
    assert server.asked[:2] == ["bad/train.txt", "good/train.txt"]
    assert everything(tmp_path) == [f"text/tiny/{split}.txt" for split in sorted(SPLITS)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("missing", "HTTP 404"), ("wrong", "wrong checksum"), ("cut", "cut short")],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, fault: str, reason: str
) -> None:
    publish(monkeypatch, [server.address])
    put(tmp_path)
    (tmp_path / "text/tiny/train.txt").unlink()
    if fault != "missing":
        server.served["train.txt"] = b"other\n" if fault == "wrong" else TEXTS["train"]
    if fault == "cut":
        server.cut_short = {"train.txt"}
    text = message(tmp_path)
    assert "train.txt is missing" in text
    assert reason in text
    assert "https://example.org/tiny" in text
    assert "paths.data_dir" in text
    assert everything(tmp_path) == ["text/tiny/test.txt", "text/tiny/valid.txt"]


def test_without_a_server_the_message_names_all_files_and_no_folder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, ["http://127.0.0.1:9"])
    text = message(tmp_path)
    assert "train.txt, valid.txt and test.txt are missing" in text
    assert "no connection" in text
    assert list(tmp_path.iterdir()) == []


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_is_unpacked_to_its_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    archive = zipped(
        {f"tiny-1/{split}.txt": content for split, content in TEXTS.items()} | {"x": b"x"}
    )
    server.served["tiny-1.zip"] = archive
    checksum = f"md5:{hashlib.md5(archive).hexdigest()}"
    urls = [server.url("gone.zip"), server.url("tiny-1.zip")]
    publish(monkeypatch, [], archive={"hash": checksum, "urls": urls})
    put(tmp_path)
    (tmp_path / "text/tiny/valid.txt").unlink()
    Corpus("tiny", str(tmp_path)).fetch()
    assert everything(tmp_path) == [f"text/tiny/{split}.txt" for split in sorted(SPLITS)]


def test_an_unwritable_root_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, ["http://127.0.0.1:9"])
    (tmp_path / "file").write_text("not a folder")
    assert "paths.data_dir" in message(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; runs for other users")
def test_a_read_only_root_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, ["http://127.0.0.1:9"])
    tmp_path.chmod(0o500)
    text = message(tmp_path)
    tmp_path.chmod(0o700)
    assert "cannot be written" in text


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (TEXTS["train"] + b"more\n", "15 tokens in 4 lines, not 13 in 3"),
        (TEXTS["train"].replace(b"the cat", b"the owl"), "vocabulary of 7 words, not 6"),
        (
            TEXTS["train"].replace(b"a dog saw a cat", b"a cat saw a dog"),
            "other words or another order",
        ),
    ],
)
def test_a_wrong_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: bytes, expected: str
) -> None:
    publish(monkeypatch, [])
    put(tmp_path, train=train)
    text = message(tmp_path)
    assert "is not the published train text" in text
    assert expected in text


def test_other_white_space_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, [])
    put(tmp_path, train=TEXTS["train"].replace(b"\n", b" \r\n"))
    corpus = Corpus("tiny", str(tmp_path))
    corpus.fetch()
    assert list(corpus.lines("train"))[-1] == "a dog saw a cat \n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"fine\nna\xefve\n", r"not UTF-8 in line 2 \(byte 0xef\)"),
        (b"\n\n\n", "3 tokens in 3 lines"),
    ],
)
def test_unreadable_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    publish(monkeypatch, [])
    put(tmp_path, train=content)
    with pytest.raises(UserError, match=expected):
        Corpus("tiny", str(tmp_path)).fetch()


def test_a_folder_where_a_file_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, [])
    put(tmp_path)
    (tmp_path / "text/tiny/train.txt").unlink()
    (tmp_path / "text/tiny/train.txt").mkdir()
    assert "is a folder where a text file should be" in message(tmp_path)


def test_articles_begin_at_headings_between_blank_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [" \n", " = One = \n", " \n", " a b \n", " = not one = \n", " c \n"]
    second = [" \n", " = Two = \n", " \n", " = = Section = = \n", " \n", " d \n"]
    monkeypatch.setitem(TEXTS, "train", "".join(first + second).encode())
    publish(monkeypatch, [], heading=manifest.read_manifest("wikitext2").heading)
    put(tmp_path)
    corpus = Corpus("tiny", str(tmp_path))
    assert list(corpus.documents("train")) == [first, second]
    assert list(corpus.documents("valid")) == [["a cat saw a dog\n"]]


def test_a_text_without_headings_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, [])
    put(tmp_path)
    corpus = Corpus("tiny", str(tmp_path))
    assert list(corpus.documents("train")) == [list(corpus.lines("train"))]


def test_lines_lose_a_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\nthree")
    assert list(read_lines(tmp_path / "a.txt", "x")) == ["one\n", "two\n", "three"]
