"""The list of a SMILES tokenizer's tokens: read from a file, built from counts, told apart by a digest."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lit_seqlm.errors import UserError

BOS, EOS, PAD, MASK, UNKNOWN = SPECIALS = ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")
MAX_SIZE = 2**16  # an id is two bytes

# bert_vocab.txt of the MoLFormer repository: 2,362 lines, the same in its five folders.
OFFICIAL_SHA256 = "0190ba2e9cf5ef6a44cefbec1519d085e02d9df2c4949eb391d2fbcadca3e3cc"

# Its first lines.
OFFICIAL_HEAD = (
    "<bos>", "<eos>", "<pad>", "<mask>", "C", "c", "(", ")", "1", "O", "N", "2", "=", "n",
    "3", "[C@H]", "[C@@H]", "F", "S", "4", "Cl", "-", "o", "s", "[nH]", "#", "/", "Br",
    "[C@]", "[C@@]", "[N+]", "[O-]", "5", "\\", ".", "I", "6", "[S@]", "[S@@]", "P",
    "[N-]", "[Si]", "7", "[n+]", "[2H]", "8", "[NH+]", "B", "9", "[C-]",
)  # fmt: skip

# In every vocabulary that is built, whatever the corpus: what any other SMILES may need.
LETTERS = ("B", "Br", "C", "Cl", *"NOSPFI", *"bcnosp")
SIGNS = tuple("().=#-+\\/:~@?>*$")
RING_BONDS = (*map(str, range(10)), *(f"%{number}" for number in range(10, 21)))
CLOSED_SET = (*LETTERS, *SIGNS, *RING_BONDS)


def build_vocabulary(
    counts: Mapping[str, int], min_count: int, always: Iterable[str] = ()
) -> list[str]:
    """Tokens in the order (-count, token), between the special ones; the same for any order of the corpus.

    Args:
        counts: how often each token occurs in the corpus.
        min_count: rarer tokens are left out, those of the closed set excepted.
        always: joins the closed set, such as the bracket atoms of molecules to be predicted later.

    Raises:
        UserError: if two bytes do not number them all.
    """
    kept = dict.fromkeys((*CLOSED_SET, *always), 0)
    kept |= {token: n for token, n in counts.items() if n >= min_count or token in kept}
    kept = {token: n for token, n in kept.items() if token not in SPECIALS}
    ranked = sorted(kept, key=lambda token: (-kept[token], token))
    return check([BOS, EOS, PAD, MASK, *ranked, UNKNOWN], "the vocabulary of this corpus")


def read_vocabulary(path: str) -> list[str]:
    """Tokens in the order of their ids.

    Args:
        path: one token a line, or JSON from token to id, as Hugging Face folders have it (either
            the table itself or a ``tokenizer.json`` that holds it).

    Raises:
        UserError: for a file that is missing or is no such list, and for one without the special
        tokens.
    """
    where = f"tokenizer.vocabulary={path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: cannot be read ({error}). Give a file with one token a line, such as "
            "MoLFormer's bert_vocab.txt, or null to build one from the data."
        ) from None
    tokens = _from_json(text, where) if path.endswith(".json") else text.splitlines()
    return check(tokens, where)


def check(tokens: list[str], where: str) -> list[str]:
    """The same list, if it can be a vocabulary.

    Raises:
        UserError: for empty or repeated tokens, too many, or without ``<bos> <eos> <pad> <mask>``.
    """
    if len(tokens) > MAX_SIZE:
        raise UserError(
            f"{where} has {len(tokens):,} tokens, two bytes number {MAX_SIZE:,}. Raise min_count."
        )
    if "" in tokens:
        raise UserError(f"{where}: line {tokens.index('') + 1} is empty; one token a line is read.")
    if len(set(tokens)) < len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise UserError(f"{where}: {twice!r} is there twice, so its id is not known.")
    missing = [token for token in (BOS, EOS, PAD, MASK) if token not in tokens]
    if missing:
        raise UserError(
            f"{where} has no {' '.join(missing)}. A SMILES vocabulary holds {' '.join(SPECIALS)} "
            "beside its chemical tokens."
        )
    return tokens


def digest(tokens: Iterable[str]) -> str:
    """SHA-256 of the tokens in the order of their ids, a newline after each."""
    return hashlib.sha256("".join(f"{token}\n" for token in tokens).encode()).hexdigest()


def is_official(tokens: list[str]) -> bool:
    """Whether these are MoLFormer's 2,362 tokens in their order, which its weights need."""
    without_last_newline = hashlib.sha256("\n".join(tokens).encode()).hexdigest()
    return OFFICIAL_SHA256 in (digest(tokens), without_last_newline)


def _from_json(text: str, where: str) -> list[str]:
    wrong = UserError(
        f"{where}: JSON from token to id is read, the ids 0, 1, 2, ... in some order."
    )
    try:
        table = json.loads(text)
    except json.JSONDecodeError:
        raise wrong from None
    if isinstance(table, dict) and isinstance(table.get("model"), dict):
        table = table["model"].get("vocab")
    if not isinstance(table, dict) or not all(type(number) is int for number in table.values()):
        raise wrong
    if sorted(table.values()) != list(range(len(table))):
        raise wrong
    return sorted(table, key=lambda token: table[token])
