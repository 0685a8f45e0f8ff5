"""Downloads: whole, verified and in place, or nothing and one message."""

import contextlib
import logging
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from lit_seqlm.data.manifest import Entry
from lit_seqlm.data.progress import ByteBar
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

TIMEOUT = 20  # seconds without a byte
AGENT = "Mozilla/5.0 (compatible; lit_seqlm)"  # wikitext.smerity.com refuses Python's own name


class DownloadError(Exception):
    """No mirror gave the file; says what each of them did."""


def obtain(entry: Entry, data_dir: Path) -> dict[str, Path]:
    """Paths of all files of a corpus; what is missing under `data_dir` is downloaded to it.

    Everything arrives in a hidden folder beside its place, is checked there, and is renamed: an
    interrupted download leaves nothing that looks like data.

    Raises:
        UserError: if files are missing and cannot be downloaded, or not be written.
    """
    paths = entry.paths(data_dir)
    missing = {split: path for split, path in paths.items() if not path.exists()}
    if not missing:
        return paths
    names = _listed([path.name for path in missing.values()])
    where = next(iter(missing.values())).parent
    new = [folder for folder in (where, *where.parents) if not folder.exists()]
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where, prefix=".download-") as arriving:
            _download(entry, missing, Path(arriving))
    except DownloadError as error:
        _remove_empty(new)
        raise UserError(
            f"data={entry.name}: {names} missing in {where}, and could not be downloaded ({error}).\n"
            f"Get them from {entry.home} and put them there, or let paths.data_dir (or "
            f"LIT_SEQLM_DATA) name the folder that has {next(iter(entry.files.values())).path}."
        ) from None
    except OSError as error:
        raise UserError(
            f"data={entry.name}: {names} missing, and {where} cannot be written "
            f"({error.strerror}). Choose another paths.data_dir (or LIT_SEQLM_DATA), or put the "
            f"files there yourself, from {entry.home}."
        ) from None
    return paths


def _download(entry: Entry, missing: dict[str, Path], arriving: Path) -> None:
    log.info("downloading %s (licence: %s)", entry.title, entry.licence)
    if entry.archive:
        archive = _first_of(entry.archive.urls, entry.archive.hash, arriving)
        with zipfile.ZipFile(archive) as opened:
            for split, path in missing.items():
                unpacked = opened.extract(entry.files[split].member, arriving)
                Path(unpacked).replace(path)
        return
    for split, path in missing.items():
        file = entry.files[split]
        _first_of(file.urls, file.hash, arriving).replace(path)


def _first_of(urls: list[str], checksum: str, folder: Path) -> Path:
    """The file from the first mirror that gives it whole."""
    pooch.get_logger().setLevel(logging.ERROR)
    reasons = []
    for url in urls:
        name = Path(urlsplit(url).path).name
        with ByteBar(name) as bar:
            fetcher = pooch.HTTPDownloader(
                progressbar=bar, chunk_size=2**16, timeout=TIMEOUT, headers={"User-Agent": AGENT}
            )
            try:
                return Path(
                    pooch.retrieve(url, checksum, fname=name, path=folder, downloader=fetcher)
                )
            except (requests.RequestException, ValueError) as error:
                reasons.append(f"{urlsplit(url).netloc}: {_reason(error)}")
    raise DownloadError("; ".join(dict.fromkeys(reasons)))


def _remove_empty(folders: list[Path]) -> None:
    """Take back what a failed download made, innermost first; a folder that holds something stays."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "cut short"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if isinstance(error, requests.RequestException):
        return "no connection"
    return "wrong checksum"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
