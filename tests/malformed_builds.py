"""Lists of data sets, profiles, results and models for `malformed_kinds`."""

import json
import pickle
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import malformed
import numpy as np
import yaml
from malformed import EITHER, REFUSED, SAME, Damage, written
from malformed_examples import CELL_GENES, ODD_NAMES, as_csv, count_rows, epigen, with_samples

from epigen_utils import paths
from epigen_utils.book import claims, runs
from epigen_utils.geneformer import vocabularies

# Lists, profiles and results of a build


def write_batch(folder: Path) -> Path:
    with_samples(folder, "counts.csv", as_csv(count_rows()))
    entry = {"dataset": "counts.csv", "metadata": "samples.csv", "group": "condition"}
    listed = [{"name": name} | entry for name in ("one", "two")]
    (folder / "sets.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
    return folder / "sets.yml"


def plan_batch(path: Path) -> list[dict]:
    """`epigen build --batch`, as far as its plan."""
    from epigen_utils.commands import own_data

    epigen("build", "--batch", path, "--plan")
    return own_data.read_list(path)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML_CONTENTS = {
    "a number": "7",
    "a word": "sets",
    "a list of words": "- a\n- b\n",
    "a list of lists": "- [a, b]\n",
    "half a list": "- {name: one, dataset: ",
    "a tab": "a:\n\t- b\n",
    "a class of Python": "!!python/object/apply:os.system ['touch CANARY']\n",
    "two documents": "--- a\n--- b\n",
    "an anchor of itself": "&a [*a]\n",
    "an alias of nothing": "- *nobody\n",
    "a date that is none": "- {name: 2020-13-45, dataset: x}\n",
    "a control character": "a: \x07\n",
    "deep": "[" * 5000,
    "a list of a list of a list": "- name: [[a]]\n  dataset: {x: y}\n",
    "a key that is a list": "? [a, b]\n: c\n",
}


def batch_damages(path: Path, rng: random.Random) -> list[Damage]:
    def entry(kind: str, what: str, expected: object = REFUSED, place: str = "", **changes: object) -> Damage:
        given = {"name": "one", "dataset": "counts.csv", "metadata": "samples.csv", "group": "condition"} | changes
        return Damage(kind, what, written(yaml.safe_dump([given], sort_keys=False).encode()), expected, place)

    found = [Damage("content", what, written(text.encode()), REFUSED) for what, text in YAML_CONTENTS.items()]
    found += [
        Damage("bomb", "aliases of aliases", written(LAUGHS.encode()), place="aliases"),
        Damage(
            "bomb",
            "as a name",
            written(f"- {{name: one}}\n- name:\n{re.sub('^', '    ', LAUGHS, flags=re.M)}".encode()),
            place="aliases",
        ),
        entry("names", "an unknown option", datset="x", place="datset"),
        entry("names", "no data set", dataset="", place="one"),
        entry("names", "no such file", dataset="nowhere.csv", place="nowhere.csv"),
        entry("names", "a name too long", dataset="x" * 5000 + ".csv"),
        entry("names", "a zero in a name", dataset="a\0b.csv"),
        entry("value", "a list", group=["a", "b"], place="group"),
        entry("value", "a mapping", metadata={"a": "b"}, place="metadata"),
        entry("value", "neither true nor false", round_counts="perhaps", place="round_counts"),
        Damage("names", "twice", written(path.read_bytes() * 2), place="one"),
    ]
    for name in (*ODD_NAMES, "a b", "", "."):
        found.append(entry("names", f"name {name[:30]!r}", name=name, place="entry 1"))
    return found


def write_profile(folder: Path) -> Path:
    for path in paths.PROFILES.glob("*.yml"):
        (folder / path.name).write_bytes(path.read_bytes())
    content = {"epilepsy/02_table_two": {"main": {"dataset": "airway", "group": "dex", "seed": 3}}}
    (folder / "mine.yml").write_text(yaml.safe_dump(content))
    return folder / "mine.yml"


def plan_profile(path: Path) -> list:
    """The runs of a profile and their parameters."""
    known, paths.PROFILES = paths.PROFILES, path.parent.absolute()
    try:
        return [[run.key, run.parameters] for run in runs.plan_runs(path.stem)]
    finally:
        paths.PROFILES = known


def profile_damages(path: Path, rng: random.Random) -> list[Damage]:
    key = "epilepsy/02_table_two"

    def profile(kind: str, what: str, content: object, expected: object = REFUSED, place: str = "") -> Damage:
        return Damage(kind, what, written(yaml.safe_dump(content).encode()), expected, place)

    found = [Damage("content", what, written(text.encode()), REFUSED) for what, text in YAML_CONTENTS.items()]
    found += [
        Damage("bomb", "aliases of aliases", written(LAUGHS.encode()), place="aliases"),
        profile("names", "no such chapter", {"epilepsy/99_none": {"main": {}}}, place="99_none"),
        profile("names", "a chapter elsewhere", {"/etc/passwd": {"main": {}}}, place="passwd"),
        profile("names", "a chapter too long", {"x" * 5000: {"main": {}}}),
        profile("names", "a number", {7: {"main": {}}}),
        profile("names", "a run that is a number", {key: {7: {}}}),
        profile("names", "a run with HTML", {key: {"<b>": {}}}, place="<b>"),
        profile("names", "no such parameter", {key: {"main": {"datset": "airway"}}}, place="datset"),
        profile("names", "a parameter that is a number", {key: {"main": {7: 7}}}),
        profile("names", "no such data set", {key: {"main": {"dataset": "airwy"}}}, place="airwy"),
        profile("value", "words for a number", {key: {"main": {"seed": "many"}}}, place="seed"),
        profile("value", "a list for a number", {key: {"main": {"seed": [1, 2]}}}, place="seed"),
        profile("value", "a number that is none", {key: {"main": {"seed": float("nan")}}}, place="seed"),
        profile("value", "a list for a word", {key: {"main": {"dataset": ["a", "b"]}}}),
        profile("value", "nothing", {key: {"main": {"dataset": None, "seed": 3, "group": "dex"}}}, EITHER),
        profile("shape", "a list of runs", {key: ["main"]}, place=key),
        profile("shape", "a word for a run", {key: {"main": "airway"}}, place=key),
        profile("shape", "of nothing", {"of": "nobody"}, place="nobody"),
        profile("shape", "of a list", {"of": ["real"]}),
        profile("shape", "of itself", {"of": "mine"}),
    ]
    return found


def _some_metric() -> tuple[str, str]:
    metric = claims.read_claims()["metric"].iloc[0].partition(claims.READING)[0]
    key, _, name = metric.partition(":")
    return key, name


def write_metrics(folder: Path) -> Path:
    key, name = _some_metric()
    path = folder / "results" / "demo" / key / "main" / "metrics.json"
    path.parent.mkdir(parents=True)
    data = {"airway": {"nature": "real", "sha256": {}, "matrix": True}}
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 12.0, "of": "airway", "at": "fig"}
    path.write_text(json.dumps({"notebook": key, "model": "", "datasets": data, "metrics": {name: metric}}))
    return path


def judge(path: Path) -> list:
    """`epigen claims` on the results of a former build."""
    known, paths.RESULTS = paths.RESULTS, path.absolute().parents[4]
    try:
        epigen("claims")
        judged = claims.table("demo")
        return judged[["id", "verdict", "readings", "shown"]].to_numpy().tolist()
    finally:
        paths.RESULTS = known


def metrics_damages(path: Path, rng: random.Random) -> list[Damage]:
    _, name = _some_metric()
    good = json.loads(path.read_text())

    def metrics(kind: str, what: str, expected: object = REFUSED, **changes: object) -> Damage:
        return Damage(kind, what, written(json.dumps(good | changes).encode()), expected)

    contents = {"a list": b"[]", "a number": b"7", "nothing": b"null", "deep": b"[" * 100_000, "a word": b'"x"'}
    found = [Damage("content", what, written(content), REFUSED) for what, content in contents.items()]
    for value in ("many", None, [1], {"a": 1}, True):
        found.append(
            metrics("value", f"{value!r}", EITHER if value is True else REFUSED, metrics={name: {"value": value}})
        )
        found.append(
            metrics(
                "value",
                f"low {value!r}",
                EITHER if value in (None, True) else REFUSED,
                metrics={name: {"value": 1, "low": value}},
            )
        )
    return [
        *found,
        metrics("content", "a list of metrics", metrics=[1]),
        metrics("content", "metrics that are words", metrics={name: "0.5"}),
        metrics("content", "a list of data sets", datasets=["airway"]),
        metrics("content", "data sets that are words", datasets={"airway": "real"}),
        metrics("content", "a model that is a list", model=["x"]),
        metrics("value", "not a number", EITHER, metrics={name: {"value": float("nan")}}),
        metrics(
            "value",
            "infinite",
            EITHER,
            metrics={name: {"value": float("inf"), "low": float("-inf"), "high": float("inf")}},
        ),
    ]


# Models


def small_vocabulary() -> vocabularies.Vocabulary:
    return vocabularies.vocabulary_from_medians({gene: 1.5 + i for i, gene in enumerate(CELL_GENES)}, name="own")


def write_vocabulary(folder: Path) -> Path:
    vocabularies.save_vocabulary(small_vocabulary(), folder / "vocabulary.json")
    return folder / "vocabulary.json"


def load_vocabulary(path: Path) -> list:
    found = vocabularies.load_vocabulary(path)
    return [found.tokens, found.medians, found.size, found.sha256]


def vocabulary_damages(path: Path, rng: random.Random) -> list[Damage]:
    good = json.loads(path.read_text())

    def vocabulary(kind: str, what: str, expected: object = REFUSED, **changes: object) -> Damage:
        return Damage(kind, what, written(json.dumps(good | changes).encode()), expected)

    tokens, medians, first = good["tokens"], good["medians"], CELL_GENES[0]
    found = [
        Damage("content", what, written(content))
        for what, content in {
            "a list": b"[]",
            "deep": b"[" * 100_000,
            "a number": b"7",
            "other keys": b'{"a": 1}',
        }.items()
    ]
    for value in ("five", None, [1], {"a": 1}, 1.5, True, -1, 0, float("nan")):
        found.append(vocabulary("value", f"token {value!r}", tokens=tokens | {first: value}))
    for value in ("five", None, [1], -1, 0, float("nan"), float("inf"), True):
        found.append(vocabulary("value", f"median {value!r}", medians=medians | {first: value}))
    return [
        *found,
        vocabulary("content", "a list of tokens", tokens=list(tokens)),
        vocabulary("content", "a list of medians", medians=list(medians)),
        vocabulary("content", "a list for the mapping", mapping=["x"]),
        vocabulary("content", "no tokens", tokens={}),
        vocabulary("content", "one key too many", extra=1),
        vocabulary("value", "an absurd token", EITHER, tokens=tokens | {first: 10**30}),
    ]


def write_pickles(folder: Path) -> Path:
    made = folder / "published"
    made.mkdir()
    vocabulary = small_vocabulary()
    for name, content in {"token_dictionary": vocabulary.tokens, "gene_median_dictionary": vocabulary.medians}.items():
        (made / f"{name}_gc30M.pkl").write_bytes(pickle.dumps(content))
    return made


def load_pickles(path: Path) -> list:
    found = vocabularies.official_vocabulary("v1", path)
    return [found.tokens, found.medians]


def pickles_damages(path: Path, rng: random.Random) -> list[Damage]:
    def tokens(content: object, protocol: int = 4) -> Callable[[Path], object]:
        data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
        return lambda path: (path / "token_dictionary_gc30M.pkl").write_bytes(data)

    good, evil = small_vocabulary().tokens, malformed.Evil()
    contents = {
        "code": {"<pad>": evil},
        "code in a list": good | {"x": [evil]},
        "code in a NumPy array": good | {"x": np.array([evil], object)},
        "a type of NumPy": good | {"x": np.datetime64("2020-01-01")},
        "an array": good | {"x": np.arange(3)},
        "a class": good | {"x": Path},
        "a list": list(good),
        "numbers for names": {1: 2},
        "a word for a token": good | {CELL_GENES[0]: "five"},
        "nothing for a token": good | {CELL_GENES[0]: None},
        "infinity": good | {CELL_GENES[0]: float("inf")},
        "a memo without end": b"\x80\x04}r\xff\xff\xff\x7f.",
        "a word without end": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
        "system": b"cos\nsystem\n(S'touch CANARY'\ntR.",
        "a name of Python 2": b"c__builtin__\neval\n(S'1'\ntR.",
        "deep": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep tuples": b"\x80\x04}(" + b")" + b"\x85" * 100_000 + b"K\x01u.",
        "a stack that is empty": b"\x80\x04.",
    }
    found = [Damage("pickle", what, tokens(content), REFUSED) for what, content in contents.items()]
    found += [Damage("pickle", f"protocol {protocol}", tokens(good, protocol), SAME) for protocol in range(6)]
    missing = lambda path: (path / "token_dictionary_gc30M.pkl").unlink()  # noqa: E731
    return [*found, Damage("shape", "no tokens", missing)]


def write_checkpoint(folder: Path) -> Path:
    from epigen_utils.models import presets

    vocabulary = small_vocabulary()
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 16}
    shape |= {"num_attention_heads": 2, "vocab_size": vocabulary.size}
    presets.build(presets.preset("bert-tiny", **shape), "masked-lm").save_pretrained(folder / "model")
    vocabularies.save_vocabulary(vocabulary, folder / "model" / "vocabulary.json")
    return folder / "model"


def load_checkpoint(path: Path) -> list:
    from epigen_utils.geneformer import published_settings

    model, vocabulary, _ = published_settings.load_pretrained(str(path))
    sums = {name: round(float(values.double().sum()), 9) for name, values in model.state_dict().items()}
    return [sums, vocabulary.sha256]


def checkpoint_damages(path: Path, rng: random.Random) -> list[Damage]:
    def config(kind: str, what: str, expected: object = REFUSED, **changes: object) -> Damage:
        def apply(path: Path) -> None:
            content = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps(content | changes))

        return Damage(kind, what, apply, expected)

    def pickled(path: Path) -> None:
        (path / "model.safetensors").unlink()
        (path / "pytorch_model.bin").write_bytes(malformed.evil_pickle())

    def index(weights: str) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            (path / "model.safetensors").unlink()
            (path / "evil.bin").write_bytes(malformed.evil_pickle())
            content = {"metadata": {"total_size": 1}, "weight_map": {"bert.embeddings.word_embeddings.weight": weights}}
            (path / "model.safetensors.index.json").write_text(json.dumps(content))

        return apply

    def header(n: int) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            data = (path / "model.safetensors").read_bytes()
            (path / "model.safetensors").write_bytes(struct.pack("<Q", n) + data[8:])

        return apply

    found = [
        config("content", f"{key} {value!r}", **{key: value})
        for key in ("hidden_size", "num_hidden_layers", "vocab_size")
        for value in ("many", None, -1, [8], 10**9)
    ]
    return [
        *found,
        config("content", "more heads than width", num_attention_heads=7),
        config("content", "another model", model_type="gpt2"),
        config("content", "a model that is a list", model_type=["bert"]),
        config("content", "code from elsewhere", EITHER, auto_map={"AutoModel": "evil.Evil"}),
        config("content", "another activation", hidden_act="__import__('os')"),
        Damage("content", "a list", lambda path: (path / "config.json").write_text("[]")),
        Damage("pickle", "weights that are a pickle", pickled, place="pickle"),
        Damage("pickle", "an index of a pickle", index("evil.bin")),
        Damage("pickle", "an index of a file elsewhere", index("../../../../etc/passwd")),
        Damage("shape", "a header of no byte", header(0)),
        Damage("shape", "a header without end", header(2**62)),
        Damage("shape", "no weights", lambda path: (path / "model.safetensors").unlink()),
        Damage("shape", "no vocabulary", lambda path: (path / "vocabulary.json").unlink()),
    ]


def write_encoded(folder: Path) -> Path:
    import pyarrow as pa

    from epigen_utils.geneformer import encoded_cells

    vocabulary = small_vocabulary()
    tokens = [vocabulary.gene_tokens[i % 9 : i % 9 + 5].tolist() for i in range(12)]
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "length": pa.int64(), "cell_id": pa.string()})
    batch = pa.record_batch(
        [pa.array(tokens, pa.list_(pa.int32())), pa.array([5] * 12), pa.array([f"c{i}" for i in range(12)])],
        schema=schema,
    )
    card = {"vocabulary": "own", "tokens": vocabulary.size, "sha256": vocabulary.sha256}
    encoded_cells.write_arrow(folder / "encoded", [batch], schema, card)
    return folder / "encoded"


def load_encoded(path: Path) -> list:
    from epigen_utils.geneformer import encoded_cells

    return (
        encoded_cells.load_encoded_cells(path, small_vocabulary(), max_length=16)
        .to_pandas()
        .to_numpy()
        .astype(str)
        .tolist()
    )


def encoded_damages(path: Path, rng: random.Random) -> list[Damage]:
    def file(name: str, content: object) -> Callable[[Path], object]:
        text = content if isinstance(content, str) else json.dumps(content)
        return lambda path: (path / name).write_text(text)

    state = json.loads((path / "state.json").read_text())
    info = json.loads((path / "dataset_info.json").read_text())
    card = json.loads((path / "vocabulary.json").read_text())
    return [
        *(
            Damage("content", f"{name}: {content}", file(name, content))
            for name in ("state.json", "dataset_info.json", "vocabulary.json")
            for content in ("[]", "7", "null", "[" * 50_000)
        ),
        Damage(
            "content", "another file", file("state.json", state | {"_data_files": [{"filename": "../../etc/passwd"}]})
        ),
        Damage("content", "no files", file("state.json", state | {"_data_files": []})),
        Damage("content", "files that are words", file("state.json", state | {"_data_files": "data"})),
        Damage(
            "content",
            "another type",
            file("dataset_info.json", info | {"features": {"input_ids": {"_type": "Nobody"}}}),
        ),
        Damage(
            "content",
            "tokens that are words",
            file(
                "dataset_info.json",
                info | {"features": info["features"] | {"input_ids": {"dtype": "string", "_type": "Value"}}},
            ),
        ),
        Damage(
            "content", "of another vocabulary", file("vocabulary.json", card | {"sha256": "0" * 64}), place="vocabulary"
        ),
        Damage("content", "no hash of the vocabulary", file("vocabulary.json", {}), place="vocabulary"),
        Damage("shape", "no cells", lambda path: next(path.glob("*.arrow")).unlink()),
    ]
