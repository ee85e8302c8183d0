import itertools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epigen_utils import paths
from epigen_utils.data import simulated_cells
from epigen_utils.distillation import browser as student_page
from epigen_utils.distillation import students
from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings, encoding, vocabularies
from epigen_utils.models import batching, presets


@pytest.fixture(scope="module")
def cells():
    """Simulated cells, of whose genes the vocabulary lacks twenty."""
    small = {"n_genes": 600, "n_regulators": 20, "n_targets": 20, "n_housekeeping": 40, "n_types": 3}
    adata = simulated_cells.cell_corpus(n_cells=60, lengths={0.0: 30.0, 1.0: 90.0}, seed=1, **small)
    adata.uns["epigen"] = {"name": "cells"}
    return adata


@pytest.fixture(scope="module")
def encoder(cells):
    rng = np.random.default_rng(0)
    medians = {gene: rng.lognormal() for gene in cells.var_names[20:]}
    vocabulary = vocabularies.vocabulary_from_medians(medians, name="small")
    return encoding.RankValueEncoder.of(vocabulary, max_length=48)


@pytest.fixture(scope="module")
def model(encoder):
    """A student as paper B's 2M, with weights large enough for its states to matter."""
    config = presets.preset("student-2m", vocab_size=encoder.vocabulary.size, initializer_range=0.2)
    config.visible_penalty, config.mask_token_id = 6.0, encoder.vocabulary.tokens[vocabularies.MASK]
    return presets.build(config, "masked-lm", seed=2)


def labels_of(adata):
    return adata.obs["cell_type"].astype(str).to_numpy()


def read_script(path):
    text = path.read_text()
    assert text.startswith("epigenStudent(")
    assert text.endswith(");\n")
    return json.loads(text.removeprefix("epigenStudent(").removesuffix(");\n"))


def numbers(text, dtype):
    return np.frombuffer(student_page.base64.b64decode(text), dtype)


def tensors(script):
    """Weights of a script by name, as the page reads them."""
    floats, integers = numbers(script["floats"], "<f4"), numbers(script["integers"], "i1")
    for name, place in script["tensors"].items():
        shape, size = place["shape"], int(np.prod(place["shape"]))
        if "integers" in place:
            scales = floats[place["floats"] :][: shape[0], None]
            yield name, integers[place["integers"] :][:size].reshape(shape) * scales
        else:
            yield name, floats[place["floats"] :][:size].reshape(shape)


@pytest.mark.parametrize("bits", [32, 8])
def test_a_script_has_the_weights_of_its_model(model, tmp_path, monkeypatch, bits):
    monkeypatch.setattr(student_page, "MOST_BYTES", 3_000_000 if bits == 32 else 600_000)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    written = student_page.write_weights(tmp_path / "w.js", model, max_length=48)
    assert written.bits == bits
    assert written.megabytes == (tmp_path / "w.js").stat().st_size / 1e6 <= student_page.MOST_BYTES / 1e6
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    found, kept = dict(tensors(read_script(tmp_path / "w.js")["model"])), dict(written.model.named_parameters())
    assert set(found) == set(kept)
    for name, weight in found.items():
        assert np.array_equal(weight, kept[name].detach()[: len(weight)]), name
        largest = before[name].abs().amax(dim=-1, keepdim=True)
        off = (kept[name] - before[name]).abs() <= (largest / 254 * 1.001 if bits == 8 else 0)
        assert off.all(), name
    assert len(found[student_page.POSITIONS]) == 48
    assert [path.name for path in tmp_path.iterdir()] == ["w.js"]


def test_the_published_size_fits_in_a_page(tmp_path):
    model = presets.build(presets.preset("student-2m"), "masked-lm")
    written = student_page.write_weights(tmp_path / "w.js", model, max_length=2048)
    assert written.bits == 8
    assert written.megabytes <= 3


def test_a_model_that_a_page_cannot_run_is_refused(model, tmp_path, monkeypatch):
    other = presets.build(presets.preset("student-2m", vocab_size=9, hidden_act="gelu_new"), "masked-lm")
    with pytest.raises(DataError, match="activation 'gelu_new': the page computes gelu, relu"):
        student_page.write_weights(tmp_path / "w.js", other, max_length=8)
    monkeypatch.setattr(student_page, "MOST_BYTES", 100_000)
    with pytest.raises(DataError, match=r"w\.js: 0\.\d MB in 8 bits, 0\.1 at most; take a smaller student"):
        student_page.write_weights(tmp_path / "w.js", model, max_length=8)
    assert not list(tmp_path.iterdir())


def test_a_student_is_found_by_its_name(model, tmp_path):
    run = students.StudentRun("student-2m, CE only", "student-2m", alpha=None)
    students.write_runs(tmp_path, [run])
    model.save_pretrained(tmp_path / "student-2m-CE-only" / "model")
    found = student_page.load_student(tmp_path, run.name)
    assert all(torch.equal(one, other) for one, other in zip(found.parameters(), model.parameters(), strict=True))
    with pytest.raises(DataError, match="no student 'student-3m'; .*student-2m, CE only"):
        student_page.load_student(tmp_path, "student-3m")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_linear_form_has_the_probabilities_of_scikit_learn(n_classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(3, 2, (90, 4)), np.resize(list("abc")[:n_classes], 90)
    X[y == "b"] += 2
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
    linear = student_page.linear_form(student_page.cell_type_probe().fit(X, y))
    logits = X @ linear["weight"].T + linear["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert linear["classes"] == list(reference.classes_)
    assert np.allclose(shares, reference.predict_proba(X), atol=1e-9)


def test_example_cells_are_even_over_classes_and_from_the_candidates():
    labels = np.array(["a"] * 50 + ["b"] * 50 + ["c"] * 4)
    candidates = np.arange(104) % 2 == 0
    chosen = student_page.example_cells(labels, candidates, n_cells=20, seed=3)
    assert len(set(chosen)) == 20
    assert candidates[chosen].all()
    assert labels[chosen].tolist() == ["a"] * 9 + ["b"] * 9 + ["c"] * 2
    assert list(chosen) == list(student_page.example_cells(labels, candidates, n_cells=20, seed=3))
    assert list(chosen) != list(student_page.example_cells(labels, candidates, n_cells=20, seed=4))


def test_cells_that_a_page_cannot_encode_are_refused(cells, encoder, model, tmp_path):
    options = {"probe": None, "score": "", "student": student_page.PageModel(model, 32, 0.0)}
    special = vocabularies.vocabulary_from_medians(encoder.vocabulary.medians, name="like v2", special=True)
    other = encoding.RankValueEncoder.of(special)
    with pytest.raises(DataError, match="vocabulary 'like v2': the page encodes as V1 does"):
        student_page.write_cells(tmp_path / "c.js", cells, labels_of(cells), encoder=other, **options)
    tokenised = cells.copy()
    del tokenised.layers["counts"]
    with pytest.raises(DataError, match=r"cells: no layers\['counts'\]"):
        student_page.write_cells(tmp_path / "c.js", tokenised, labels_of(cells), encoder=encoder, **options)


def write_page(folder, cells, encoder, model):
    """A page with the two scripts, as a chapter has them; the model that it runs, and its probe."""
    written = student_page.write_weights(folder / "student-weights.js", model, max_length=encoder.max_length)
    embedded = embeddings.embed_cells(written.model, encoder.encode(cells), encoder.vocabulary)
    probe = student_page.cell_type_probe().fit(embedded, labels_of(cells))
    shown = cells[:20].copy()
    student_page.write_cells(
        folder / "student-cells.js",
        shown,
        labels_of(shown),
        student=written,
        encoder=encoder,
        probe=probe,
        score="Macro F1 0.50.",
    )
    for name in ("student.js", "epigen.css"):
        shutil.copy(paths.ROOT / "book" / "_static" / name, folder)
    links = "".join(f'<p><a href="{name}">{name}</a></p>' for name in ("student-weights.js", "student-cells.js"))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += '<link rel="stylesheet" href="epigen.css"><script src="student.js"></script>'
    (folder / "page.html").write_text(f"<html><head>{head}</head><body>{links}</body></html>")
    return written.model, probe


@pytest.fixture(scope="module")
def page(browser, cells, encoder, model, tmp_path_factory):
    """The page from a file, with its requests and errors."""
    folder = tmp_path_factory.mktemp("page")
    running, probe = write_page(folder, cells, encoder, model)
    opened = browser.new_page(viewport={"width": 390, "height": 900})
    opened.model, opened.probe, opened.requested, opened.errors = running, probe, [], []
    opened.on("request", lambda asked: opened.requested.append(asked.url))
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
    opened.folder = folder
    opened.goto((folder / "page.html").as_uri())
    opened.get_by_label("Held-out cell").wait_for()
    yield opened
    opened.close()


@pytest.fixture
def at_start(page):
    """The page with its first cell, unchanged."""
    page.get_by_label("Held-out cell").select_option("0")
    page.get_by_role("button", name="Back to the cell").click()
    return page


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()
    return page.get_by_role("status").inner_text()


def rows(page, result):
    """Text of a result's table, row by row."""
    lines = page.locator(f"[data-result={result}] tbody tr").all()
    return [line.locator("td").all_inner_texts() for line in lines]


def ranking(page):
    return [re.sub(r"^\d+\. (\S+):.*", r"\1", line) for line in page.locator("select[size] option").all_inner_texts()]


def masked_logits(page, ids, position, vocabulary):
    masked = ids.copy()
    masked[position] = vocabulary.tokens[vocabularies.MASK]
    with torch.no_grad():
        return page.model(**batching.pad_batch([masked], 0)).logits[0, position].numpy()


def test_the_page_has_pytorch_s_logits(at_start):
    assert press(at_start, "Compare with PyTorch").startswith("Passed")
    found = dict(rows(at_start, "tested"))
    assert float(found["logits of masked genes"]) < 1e-4
    assert float(found["cell embeddings and probabilities"]) < 1e-4
    assert found["rank value encodings"] == "20 of 20 equal"


def test_a_page_in_8_bits_has_the_logits_of_the_rounded_model(browser, cells, encoder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(student_page, "MOST_BYTES", 600_000)
    rounded, _ = write_page(tmp_path, cells, encoder, model)
    assert any(not torch.equal(one, other) for one, other in zip(rounded.parameters(), model.parameters(), strict=True))
    other = browser.new_page()
    other.goto((tmp_path / "page.html").as_uri())
    assert press(other, "Compare with PyTorch").startswith("Passed")
    assert float(dict(rows(other, "tested"))["logits of masked genes"]) < 1e-4
    other.close()


def test_the_comparison_sees_a_wrong_weight(at_start, browser):
    script = at_start.folder / "student-weights.js"
    weights = script.read_text()
    other = browser.new_page()
    script.write_text(weights.replace('"epsilon":1e-12', '"epsilon":0.001'))
    assert script.read_text() != weights
    other.goto((at_start.folder / "page.html").as_uri())
    assert press(other, "Compare with PyTorch").startswith("Failed")
    other.close()
    script.write_text(weights)


def test_nothing_leaves_the_page(at_start):
    for name in ("Mask it", "Delete it", "Compare with PyTorch"):
        press(at_start, name)
    names = sorted(address.removeprefix(at_start.folder.as_uri() + "/") for address in at_start.requested)
    assert names == ["epigen.css", "page.html", "student-cells.js", "student-weights.js", "student.js"]
    assert at_start.errors == []


def test_a_masked_gene_is_predicted_as_by_pytorch(at_start, cells, encoder):
    ids = np.array(encoder.encode(cells[:1].copy())["input_ids"][0])
    at_start.locator("select[size]").select_option("4")
    said = press(at_start, "Mask it")
    logits = masked_logits(at_start, ids, 4, encoder.vocabulary)
    place = 1 + int((logits > logits[ids[4]]).sum())
    assert f"the student puts it at place {place} of {len(logits)}." in said
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    table = rows(at_start, "named")
    expected = [f"{shares[token]:.2%}" for token in np.argsort(-logits)[:8]]
    assert [row[2] for row in table[:8]] == expected
    (truth,) = at_start.locator("[data-result=named] tr.epigen-student-marked").all_inner_texts()
    assert ranking(at_start)[4] in truth
    assert int(re.search(r"\((\d+) ms\)", said)[1]) < 1000


def test_each_gene_is_masked_alone(at_start, cells, encoder):
    ids = np.array(encoder.encode(cells[:1].copy())["input_ids"][0])
    press(at_start, "Mask each")
    at_start.locator("[data-result=named] tbody tr").nth(len(ids) - 1).wait_for()
    table = rows(at_start, "named")
    assert [row[1] for row in table] == ranking(at_start)
    for position in (0, 7, len(ids) - 1):
        logits = masked_logits(at_start, ids, position, encoder.vocabulary)
        assert int(table[position][3]) == 1 + (logits > logits[ids[position]]).sum()
    first = sum(row[3] == "1" for row in table)
    assert f"{first} of {len(ids)} predicted" in at_start.get_by_role("status").inner_text()


@pytest.mark.parametrize(("control", "rank"), [("Delete it", 3), ("Raise it to the front", 9)])
def test_a_changed_cell_moves_as_by_pytorch(at_start, cells, encoder, control, rank):
    ids = np.array(encoder.encode(cells[:1].copy())["input_ids"][0])
    at_start.locator("select[size]").select_option(str(rank))
    press(at_start, control)
    rest = np.delete(ids, rank)
    changed = rest if control == "Delete it" else np.r_[ids[rank], rest]
    before, after = embeddings.embed_cells(at_start.model, {"input_ids": [ids, changed]}, encoder.vocabulary)
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    words = at_start.locator("[data-result=types] > p").inner_text()
    assert float(re.search(r"before and after: ([\d.]+)\.$", words)[1]) == pytest.approx(cosine, abs=2e-6)
    expected = at_start.probe.predict_proba(np.stack([before, after]))
    classes = list(at_start.probe.classes_)
    for name, was, now, _ in rows(at_start, "types"):
        column = classes.index(name)
        assert [was, now] == [f"{share:.2%}" for share in expected[:, column]]
    assert len(ranking(at_start)) == len(changed)


def test_a_gene_that_the_cell_lacks_is_inserted_at_the_front(at_start, encoder):
    present = ranking(at_start)
    names = read_script(at_start.folder / "student-cells.js")["genes"]["symbols"]
    absent = next(name for name in names if name not in present)
    at_start.get_by_label("Gene, of the list or another").fill(absent.lower())
    assert "is not among the cell's ranked genes" in press(at_start, "Delete it")
    assert f"{absent} raised to the front." in press(at_start, "Raise it to the front")
    assert ranking(at_start) == [absent, *present][: encoder.max_length]


def paste(page, text):
    page.locator("details").evaluate("box => { box.open = true; }")
    page.locator("textarea").fill(text)
    return press(page, "Read these counts")


def test_pasted_counts_are_encoded_as_by_the_package(at_start, cells, encoder):
    """Also the genes that the vocabulary lacks, which are part of the depth."""
    counts = cells[30].layers["counts"].toarray().ravel().astype(int)
    separators = itertools.cycle(["\t", ",", " ", ", "])
    lines = [f"{gene}.3{next(separators)}{n}" for gene, n in zip(cells.var_names, counts, strict=True)]
    said = paste(at_start, "gene\tcount\n" + "\r\n".join(lines) + "\n\n")
    assert f"depth {counts.sum()}." in said
    assert f"Not in the vocabulary: {cells.var_names[0]}.3, " in said
    expected = encoder.decode(encoder.encode(cells[30].copy())["input_ids"][0])
    genes = read_script(at_start.folder / "student-cells.js")["genes"]
    symbols = dict(zip(genes["ids"], genes["symbols"], strict=True))
    assert ranking(at_start) == [symbols[gene] for gene in expected]
    values = at_start.locator("select[size] option").all_inner_texts()
    row = dict(zip(cells.var_names, counts, strict=True))
    value = np.float32(np.float32(row[expected[0]]) / np.float32(counts.sum())) * np.float32(10_000)
    shown = re.search(r": ([\d.e+]+), count (\d+)$", values[0])
    assert float(shown[1]) == pytest.approx(value / encoder.vocabulary.medians[expected[0]], rel=1e-3)
    assert int(shown[2]) == row[expected[0]]


def test_the_cell_that_is_copied_into_the_box_is_the_same_cell(at_start):
    before = at_start.locator("select[size] option").all_inner_texts()
    at_start.locator("details").evaluate("box => { box.open = true; }")
    at_start.get_by_role("button", name="Copy the cell above into the box").click()
    press(at_start, "Read these counts")
    assert at_start.locator("select[size] option").all_inner_texts() == before


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "The box is empty: give a gene and its count on each line."),
        ("gene count", "There is a heading and no gene"),
        ("{0}", 'Line 1, "{0}": give a gene and a count.'),
        ("{0} 4 5", 'Line 1, "{0} 4 5": give a gene and a count.'),
        ("{0} 4\n{1} -2", "Line 2, {1}: -2 is no count; give raw counts, whole numbers from 0 on."),
        ("{0} 0.5", "Line 1, {0}: 0.5 is no count"),
        ("{0} many", "Line 1, {0}: many is no count"),
        ("{0} 4\n\n{1} 3\n{0} 1", "Line 4, {0}: given before, on line 1; keep one line, or sum the two."),
        ("{0} 0\n{1} 0", "All counts are 0: give a cell with counts."),
        ("NOSUCH1 4\nNOSUCH2 1", "No gene is in the student's vocabulary (NOSUCH1, NOSUCH2)"),
        ("{0} 1\nNOSUCH 99", "1.0% of the counts are of genes in the student's vocabulary, the encoder needs 20%"),
        ("{0} 0\nNOSUCH 99", "0.0% of the counts are of genes"),
    ],
)
def test_what_is_wrong_with_pasted_counts_is_stated_in_one_line(at_start, encoder, lines, said):
    genes = encoder.vocabulary.genes
    before = ranking(at_start)
    found = paste(at_start, lines.format(*genes))
    assert found.startswith(said.format(*genes))
    assert "\n" not in found
    assert "epigen-student-wrong" in at_start.get_by_role("status").get_attribute("class")
    assert ranking(at_start) == before, "the cell stays"
    press(at_start, "Back to the cell")
    assert "epigen-student-wrong" not in at_start.get_by_role("status").get_attribute("class")


def test_the_page_is_used_by_keyboard_alone(at_start):
    at_start.get_by_label("Held-out cell").focus()
    at_start.keyboard.press("ArrowDown")
    second = at_start.get_by_role("status").inner_text()
    name = read_script(at_start.folder / "student-cells.js")["cells"][1]["name"]
    assert second.startswith(name)
    reached = []
    for _ in range(15):
        at_start.keyboard.press("Tab")
        focused = "document.activeElement"
        reached.append(at_start.evaluate(f"{focused}.textContent.slice(0, 40) || {focused}.tagName"))
        if reached[-1] == "Delete it":
            at_start.keyboard.press("Enter")
            break
    assert "deleted" in at_start.get_by_role("status").inner_text()
    assert any(text.startswith("1. ") for text in reached), "the ranking is on the way"


def test_each_control_has_a_name_and_the_page_does_not_scroll_sideways(at_start):
    for name in ("Mask it", "Delete it", "Compare with PyTorch"):
        press(at_start, name)
    named = "box => box.labels?.length > 0 || box.textContent.trim() !== '' || box.getAttribute('aria-label')"
    controls = at_start.locator(".epigen-student").locator("input, select, textarea, button, [tabindex]")
    assert controls.count() > 12
    assert all(control.evaluate(named) for control in controls.all())
    assert at_start.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_without_a_student_loads_nothing(browser, page, tmp_path):
    shutil.copy(page.folder / "student.js", tmp_path)
    (tmp_path / "page.html").write_text('<html><head><script src="student.js"></script></head><body></body></html>')
    other = browser.new_page()
    requested = []
    other.on("request", lambda asked: requested.append(asked.url))
    other.goto((tmp_path / "page.html").as_uri())
    assert len(requested) == 2
    other.close()


def test_the_references_are_pytorch_s_own(page, encoder):
    content = read_script(page.folder / "student-cells.js")
    for reference in content["expected"]["references"]:
        ids = np.array(content["expected"]["tokens"][reference["cell"]])
        logits = masked_logits(page, ids, reference["position"], encoder.vocabulary)
        assert np.allclose(numbers(reference["logits"], "<f4"), logits, atol=1e-6)
    assert len(content["cells"]) == 20
    assert [reference["cell"] for reference in content["expected"]["references"]] == [0, 9, 19]
