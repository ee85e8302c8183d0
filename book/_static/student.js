// A distilled student that runs in the page. Its weights and cells lie in scripts of their own, since a script may be
// loaded from file://, where fetch() may not; nothing leaves the page. The model is BERT as in PyTorch, one cell at a
// time: numbers are kept in 32 bits and summed in 64, so that logits differ from PyTorch's by rounding alone.
(() => {
  const WEIGHTS = "student-weights.js";
  const CELLS = "student-cells.js";
  const TOLERANCE = 1e-4;

  // ---- The model

  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

  // 32-bit tensors by name; a matrix in 8 bits has a scale for each row.
  function readTensors({ tensors, floats, integers }) {
    const [numbers, whole] = [new Float32Array(decode(floats)), new Int8Array(decode(integers))];
    const read = {};
    for (const [name, place] of Object.entries(tensors)) {
      const size = place.shape.reduce((a, b) => a * b);
      if (place.integers === undefined) {
        read[name] = numbers.subarray(place.floats, place.floats + size);
        continue;
      }
      const width = place.shape[1];
      const rounded = whole.subarray(place.integers, place.integers + size);
      read[name] = Float32Array.from(rounded, (value, i) => value * numbers[place.floats + Math.floor(i / width)]);
    }
    return read;
  }

  // rows x inputs times the transposed weight, outputs x inputs.
  function linear(x, weight, bias) {
    const outputs = bias.length;
    const inputs = weight.length / outputs;
    const y = new Float32Array((x.length / inputs) * outputs);
    for (let row = 0, at = 0; row < x.length; row += inputs) {
      for (let output = 0, w = 0; output < outputs; output++) {
        let sum = bias[output];
        for (let i = 0; i < inputs; i++) sum += x[row + i] * weight[w++];
        y[at++] = sum;
      }
    }
    return y;
  }

  // Layer norm of x plus y, a residual.
  function normalise(x, y, weight, bias, epsilon) {
    const width = weight.length;
    const z = new Float32Array(x.length);
    for (let row = 0; row < x.length; row += width) {
      let [mean, variance] = [0, 0];
      for (let i = row; i < row + width; i++) mean += (z[i] = x[i] + y[i]) / width;
      for (let i = row; i < row + width; i++) variance += (z[i] - mean) ** 2 / width;
      const scale = 1 / Math.sqrt(variance + epsilon);
      for (let i = 0; i < width; i++) z[row + i] = (z[row + i] - mean) * scale * weight[i] + bias[i];
    }
    return z;
  }

  // Error function by Abramowitz and Stegun, 7.1.26, which is right to 1.5e-7.
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - sum * Math.exp(-x * x));
  }

  const ACTIVATIONS = {
    gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
    relu: (x) => Math.max(x, 0),
  };

  // In place, by loops: a cell needs one for each of its genes, heads and layers.
  function softmaxInPlace(values) {
    let [most, sum] = [-Infinity, 0];
    for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
    for (let i = 0; i < values.length; i++) sum += (values[i] = Math.exp(values[i] - most));
    for (let i = 0; i < values.length; i++) values[i] /= sum;
    return values;
  }

  const softmax = (values) => softmaxInPlace(Float64Array.from(values));

  class Student {
    constructor(model) {
      Object.assign(this, model, { tensors: readTensors(model), activate: ACTIVATIONS[model.activation] });
      this.genes = this.tensors["bert.embeddings.word_embeddings.weight"];
      this.width = this.tensors["bert.embeddings.LayerNorm.weight"].length;
    }

    dense(x, name) {
      return linear(x, this.tensors[`${name}.weight`], this.tensors[`${name}.bias`]);
    }

    norm(x, y, name) {
      return normalise(x, y, this.tensors[`${name}.weight`], this.tensors[`${name}.bias`], this.epsilon);
    }

    // Attention of some rows of the states to all of them.
    attend(rows, all, name) {
      const query = this.dense(rows, `${name}.self.query`);
      const [key, value] = ["key", "value"].map((part) => this.dense(all, `${name}.self.${part}`));
      const { width, heads } = this;
      const size = width / heads;
      const mixed = new Float32Array(rows.length);
      const scores = new Float64Array(all.length / width);
      const sums = new Float64Array(size);
      for (let head = 0; head < width; head += size) {
        for (let to = head; to < rows.length; to += width) {
          for (let i = 0, from = head; i < scores.length; i++, from += width) {
            let product = 0;
            for (let j = 0; j < size; j++) product += query[to + j] * key[from + j];
            scores[i] = product / Math.sqrt(size);
          }
          softmaxInPlace(scores);
          sums.fill(0);
          for (let i = 0, from = head; i < scores.length; i++, from += width) {
            for (let j = 0; j < size; j++) sums[j] += scores[i] * value[from + j];
          }
          mixed.set(sums, to);
        }
      }
      return this.norm(this.dense(mixed, `${name}.output.dense`), rows, `${name}.output.LayerNorm`);
    }

    // Hidden states of a cell after the first layers, length x width; given a position, the state there alone.
    states(ids, layers, position) {
      const { width, tensors } = this;
      const places = tensors["bert.embeddings.position_embeddings.weight"];
      const kind = tensors["bert.embeddings.token_type_embeddings.weight"];
      const gene = new Float32Array(ids.length * width);
      const place = new Float32Array(gene.length);
      for (let i = 0; i < gene.length; i++) {
        const column = i % width;
        gene[i] = this.genes[ids[Math.floor(i / width)] * width + column] + kind[column];
        place[i] = places[i];
      }
      let x = this.norm(gene, place, "bert.embeddings.LayerNorm");
      for (let layer = 0; layer < layers; layer++) {
        const name = `bert.encoder.layer.${layer}`;
        const isLast = layer === layers - 1 && position !== undefined;
        x = this.attend(isLast ? x.subarray(position * width, (position + 1) * width) : x, x, `${name}.attention`);
        const inner = this.dense(x, `${name}.intermediate.dense`).map(this.activate);
        x = this.norm(this.dense(inner, `${name}.output.dense`), x, `${name}.output.LayerNorm`);
      }
      return x;
    }

    // Logits of all tokens at one position, which shows the mask token.
    logits(ids, position, mask) {
      const masked = ids.map((token, i) => (i === position ? mask : token));
      const state = this.states(masked, this.layers, position);
      const head = "cls.predictions";
      const inner = this.dense(state, `${head}.transform.dense`).map(this.activate);
      const still = new Float32Array(inner.length);
      const normed = this.norm(inner, still, `${head}.transform.LayerNorm`);
      const found = linear(normed, this.genes, this.tensors[`${head}.bias`]);
      for (const token of new Set(masked)) found[token] -= this.penalty;
      return found;
    }

    // A cell's embedding: the mean over its genes of the states before the last layer.
    embed(ids) {
      const states = this.states(ids, this.layers - 1);
      const mean = new Float64Array(this.width);
      states.forEach((value, i) => { mean[i % this.width] += value / ids.length; });
      return mean;
    }
  }

  function cosine(a, b) {
    const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
    return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  }

  const probabilities = (probe, embedding) =>
    softmax(probe.weight.map((row, i) => row.reduce((sum, weight, j) => sum + weight * embedding[j], probe.bias[i])));

  // ---- Cells

  // Genes of a cell in rank value encoding, highest first; 32 and 64 bits, and ties, as in the package's encoder.
  function rank(cell, genes, length) {
    const scaled = cell.tokens.map((token, i) => {
      const share = Math.fround(Math.fround(cell.counts[i]) / Math.fround(cell.depth));
      return { token, count: cell.counts[i], value: Math.fround(share * 10000) / genes.median.get(token) };
    });
    return scaled.sort((a, b) => b.value - a.value || a.token - b.token).slice(0, length);
  }

  const percent = (p, digits = 2) => `${(100 * p).toFixed(digits)}%`;
  const listed = (names) => names.slice(0, 5).join(", ") + (names.length > 5 ? ", ..." : "");

  class Genes {
    constructor({ tokens, ids, symbols, medians }) {
      this.size = tokens.length;
      this.symbol = new Map(tokens.map((token, i) => [token, symbols[i]]));
      this.id = new Map(tokens.map((token, i) => [token, ids[i]]));
      this.median = new Map(tokens.map((token, i) => [token, medians[i]]));
      this.named = new Map();
      // A symbol of several genes names none of them.
      symbols.forEach((symbol, i) => {
        const name = symbol.toUpperCase();
        this.named.set(name, this.named.has(name) ? null : tokens[i]);
      });
      ids.forEach((id, i) => this.named.set(id.toUpperCase(), tokens[i]));
    }

    // Token of a symbol or Ensembl id, with or without its version; undefined if there is none.
    find(name) {
      const upper = name.toUpperCase();
      const token = this.named.get(/^ENS\w*\d{6,}\.\d+$/.test(upper) ? upper.split(".")[0] : upper);
      if (token === null) throw new Error(`${name} is the symbol of several genes: give the Ensembl id.`);
      return token;
    }
  }

  const check = (right, ...words) => {
    if (!right) throw new Error(words.join(""));
  };

  // A cell from pasted lines of a gene and a count; an error states in one line what to correct.
  function parse(text, genes, leastCoverage) {
    const lines = text.split(/\r?\n/).map((line, i) => [line.trim(), i + 1]).filter(([line]) => line);
    check(lines.length, "The box is empty: give a gene and its count on each line.");
    const [found, unknown, seen] = [{ tokens: [], counts: [] }, [], new Map()];
    let [depth, inside] = [0, 0];
    lines.forEach(([line, number], i) => {
      const fields = line.split(/[\s,;]+/);
      check(fields.length === 2 && fields[1], `Line ${number}, "${line.slice(0, 40)}": `, "give a gene and a count.");
      const [name, count] = [fields[0], Number(fields[1])];
      const token = genes.find(name);
      if (i === 0 && Number.isNaN(count) && token === undefined) return; // a heading
      const place = `Line ${number}, ${name}: `;
      const isCount = Number.isSafeInteger(count) && count >= 0;
      check(isCount, place, fields[1], " is no count; give raw counts, whole numbers from 0 on.");
      const key = token ?? name.toUpperCase();
      check(!seen.has(key), place, "given before, on line ", seen.get(key), "; keep one line, or sum the two.");
      seen.set(key, number);
      depth += count;
      if (token === undefined) unknown.push(name);
      else if (count > 0) {
        found.tokens.push(token);
        found.counts.push(count);
        inside += count;
      }
    });
    check(seen.size, "There is a heading and no gene: give a gene and its count on each line.");
    check(unknown.length < seen.size, "No gene is in the student's vocabulary (", listed(unknown),
      "): give symbols or Ensembl ids of human genes.");
    check(depth, "All counts are 0: give a cell with counts.");
    check(inside && inside >= leastCoverage * depth, percent(inside / depth, 1), " of the counts are of genes in the ",
      "student's vocabulary, the encoder needs ", percent(leastCoverage, 0), ": give counts of more of its genes.");
    const note = ` Not in the vocabulary: ${listed(unknown)}; these counts are part of the depth alone.`;
    return { name: "your cell", type: "", depth, note: unknown.length ? note : "", ...found };
  }

  // ---- The page

  const element = (tag, attributes = {}, ...content) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value);
    }
    made.append(...content);
    return made;
  };

  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  const labelled = (text, control) => element("label", {}, element("span", {}, text), control);

  // A table in a box of its own; the caption stands above it, where it wraps with the page.
  function table(caption, columns, rows) {
    const body = rows.map(({ cells, marked }) =>
      element("tr", marked ? { class: "epigen-student-marked" } : {}, ...cells.map((cell) => element("td", {}, cell))));
    const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
    const made = element("table", { class: "table" }, element("thead", {}, head), element("tbody", {}, ...body));
    const box = { class: "epigen-student-rows", tabindex: "0", role: "region", "aria-label": caption };
    return element("div", {}, element("p", { class: "epigen-student-caption" }, caption), element("div", box, made));
  }

  function start(place, { model, ...data }) {
    const student = new Student(model);
    const genes = new Genes(data.genes);
    const { probe, expected, mask, maxLength } = data;
    const symbol = (token) => genes.symbol.get(token) ?? `token ${token}`;
    // The cell that was read, its tokens as they are now, and what was done to them.
    let [cell, ids, done] = [null, [], []];
    let masking = 0; // the run of "Mask each" that may still write

    const picker = element("select", { onchange: () => show(data.cells[picker.value]) });
    const option = (value, text) => element("option", { value }, text);
    picker.append(...data.cells.map(({ name, type }, i) => option(i, `${i + 1}. ${type}, ${name}`)));
    const box = element("textarea", { rows: "5", spellcheck: "false", placeholder: "CD3D 4\nENSG00000090382 12" });
    const said = element("p", { class: "epigen-student-said", role: "status" });
    const ranking = element("select", { size: "8", onchange: () => { gene.value = symbol(ids[ranking.value]); } });
    const gene = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const result = (name) => element("div", { "data-result": name, "aria-live": "polite" });
    const [types, named, tested] = ["types", "named", "tested"].map(result);

    // What a control does: its words and time are said, or what to correct.
    const attempt = (work) => () => {
      said.classList.remove("epigen-student-wrong");
      masking += 1;
      try {
        const began = performance.now();
        const words = work();
        if (words) said.textContent = `${words} (${Math.max(1, Math.round(performance.now() - began))} ms)`;
      } catch (error) {
        said.classList.add("epigen-student-wrong");
        said.textContent = error.message;
      }
    };

    // The cell and what was done to it: its ranking, the probabilities of its types, and how far it moved.
    function draw() {
      const chosen = ranking.value;
      const about = new Map(cell.ranked.map((row) => [row.token, `${row.value.toPrecision(4)}, count ${row.count}`]));
      const lines = ids.map((token) => `${symbol(token)}: ${about.get(token) ?? "inserted"}`);
      ranking.replaceChildren(...lines.map((line, i) => option(i, `${i + 1}. ${line}`)));
      ranking.value = Math.min(chosen || 0, ids.length - 1);
      gene.value = symbol(ids[ranking.value]);
      const now = student.embed(ids);
      const [before, after] = [cell.embedding, now].map((embedding) => probabilities(probe, embedding));
      const order = probe.classes.map((_, i) => i).sort((a, b) => before[b] - before[a]);
      const n = done.length ? 4 : 2;
      const truth = cell.type ? ` Marked: the type in the data, ${cell.type}.` : "";
      const points = (p) => (100 * p).toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−");
      const rows = order.map((i) => ({
        cells: [probe.classes[i], percent(before[i]), percent(after[i]), points(after[i] - before[i])].slice(0, n),
        marked: probe.classes[i] === cell.type,
      }));
      const columns = ["type", "probability", "after", "change, points"].slice(0, n);
      types.replaceChildren(table(`Cell type by the linear probe. ${probe.score}${truth}`, columns, rows));
      const moved = `Cosine of the cell embedding before and after: ${cosine(cell.embedding, now).toFixed(6)}.`;
      if (done.length) types.append(element("p", {}, `${done.join(", then ")}. ${moved}`));
    }

    function show(from) {
      attempt(() => {
        const ranked = rank(from, genes, maxLength);
        [ids, done] = [ranked.map((row) => row.token), []];
        cell = { ...from, ranked, embedding: student.embed(ids) };
        named.replaceChildren();
        ranking.value = 0;
        draw();
        const cut = from.tokens.length > ids.length ? ` of ${from.tokens.length}` : "";
        return `${from.name}: ${ids.length}${cut} genes by rank, depth ${from.depth}.${from.note ?? ""}`;
      })();
    }

    // Token of the gene that is written in the field, and its place in the cell, or -1.
    function asked() {
      const name = gene.value.trim();
      const token = genes.find(name);
      check(name, "No gene is named: choose one of the list, or give a symbol or Ensembl id.");
      check(token !== undefined, name, " is not in the student's vocabulary: give a human symbol or Ensembl id.");
      return { token, at: ids.indexOf(token) };
    }

    function expressed() {
      const { token, at } = asked();
      check(at >= 0, symbol(token), " is not among the cell's ranked genes: choose one of the list, or raise it.");
      return { token, at };
    }

    // Place of a token among all by its logit, from 1.
    const placeOf = (logits, token) => 1 + logits.reduce((n, value) => n + (value > logits[token]), 0);

    const maskOne = attempt(() => {
      const { token, at } = expressed();
      const logits = student.logits(ids, at, mask);
      const p = softmax(logits);
      const top = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 8);
      const place = placeOf(logits, token);
      const rows = (top.includes(token) ? top : [...top, token]).map((one) => ({
        cells: [String(placeOf(logits, one)), symbol(one), percent(p[one])], marked: one === token,
      }));
      const caption = `Genes that the student predicts at rank ${at + 1}. Marked: the truth, ${symbol(token)}.`;
      named.replaceChildren(table(caption, ["place", "gene", "probability"], rows));
      ranking.value = at;
      return `${symbol(token)} masked: the student puts it at place ${place} of ${p.length.toLocaleString("en")}.`;
    });

    // In parts, so that the page answers meanwhile.
    function maskEach() {
      attempt(() => {
        const [run, began, rows] = [masking, performance.now(), []];
        const columns = ["rank", "truth", "predicted", "place"];
        let [first, five] = [0, 0];
        const proceed = () => {
          const until = performance.now() + 100;
          while (run === masking && rows.length < ids.length && performance.now() < until) {
            const at = rows.length;
            const logits = student.logits(ids, at, mask);
            const place = placeOf(logits, ids[at]);
            const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
            first += place === 1;
            five += place <= 5;
            rows.push({ cells: [String(at + 1), symbol(ids[at]), symbol(best), String(place)], marked: place === 1 });
          }
          if (run !== masking) return;
          const summary = `Each gene masked alone: ${first} of ${rows.length} predicted, ${five} among the first five`;
          said.textContent = `${summary} (${Math.round(performance.now() - began)} ms).`;
          if (rows.length < ids.length) setTimeout(proceed);
          else named.replaceChildren(table(`${summary}. Marked: predicted.`, columns, rows));
        };
        proceed();
      })();
    }

    const change = (words, edit) => attempt(() => {
      const { token, at } = edit.inserts ? asked() : expressed();
      ids = edit.of(token, at);
      done.push(`${symbol(token)} ${words}`);
      named.replaceChildren();
      draw();
      return `${symbol(token)} ${words}.`;
    });
    const remove = change("deleted", { of: (token, at) => {
      check(ids.length > 1, "A cell needs a gene: the last one stays.");
      return ids.filter((_, i) => i !== at);
    } });
    const raise = change("raised to the front", { inserts: true, of: (token, at) =>
      [token, ...ids.filter((_, i) => i !== at)].slice(0, maxLength) });

    // Against what PyTorch gave when the book was built.
    const test = attempt(() => {
      const floats = (text) => new Float32Array(decode(text));
      const largest = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
      let [differs, moved, equal] = [0, 0, 0];
      const vectors = floats(expected.embeddings);
      const tokens = data.cells.map((one) => rank(one, genes, maxLength).map((row) => row.token));
      tokens.forEach((found, i) => {
        equal += String(found) === String(expected.tokens[i]);
        const embedding = student.embed(found);
        moved = Math.max(moved, largest(embedding, vectors.subarray(i * student.width)),
          largest(probabilities(probe, embedding), expected.probabilities[i]));
      });
      for (const { cell: row, position, logits } of expected.references) {
        differs = Math.max(differs, largest(student.logits(tokens[row], position, mask), floats(logits)));
      }
      const right = differs < TOLERANCE && moved < TOLERANCE && equal === tokens.length;
      const numbers = [
        ["logits of masked genes", differs.toExponential(1)],
        ["cell embeddings and probabilities", moved.toExponential(1)],
        ["rank value encodings", `${equal} of ${tokens.length} equal`],
      ];
      const verdict = right ? "Passed: all differences are below 1e-4." : "Failed: a difference is 1e-4 or more.";
      const rows = numbers.map((cells) => ({ cells }));
      tested.replaceChildren(table(`Largest difference from PyTorch. ${verdict}`, ["of", "difference"], rows));
      return verdict;
    });

    const asText = () => {
      const rest = cell.depth - cell.counts.reduce((a, b) => a + b, 0);
      const lines = cell.tokens.map((token, i) => `${genes.id.get(token)}\t${cell.counts[i]}`);
      box.value = lines.concat(rest ? [`other_genes\t${rest}`] : []).join("\n");
    };
    const read = () => attempt(() => { show(parse(box.value, genes, data.leastCoverage)); })();
    const row = (...buttons) => element("p", { class: "epigen-student-buttons" }, ...buttons);
    place.before(element("section", { class: "epigen-student", "aria-label": "The student in this page" },
      labelled("Held-out cell", picker),
      element("details", {}, element("summary", {}, "A cell of your own"),
        labelled("A gene (symbol or Ensembl id) and its count on each line, with a tab, comma or blank between", box),
        row(button("Read these counts", read), button("Copy the cell above into the box", asText))),
      said,
      labelled("Rank value encoding: genes, highest value first", ranking),
      labelled("Gene, of the list or another", gene),
      row(button("Mask it", maskOne), button("Mask each", maskEach), button("Delete it", remove),
        button("Raise it to the front", raise), button("Back to the cell", () => show(cell))),
      types, named,
      row(button("Compare with PyTorch", test)), tested));
    show(data.cells[0]);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const links = [WEIGHTS, CELLS].map((name) => document.querySelector(`a[href$="${name}"]`));
    if (links.some((link) => !link)) return;
    const parts = {};
    window.epigenStudent = (part) => {
      Object.assign(parts, part);
      if (parts.model && parts.cells) start(links[0].closest("p") ?? links[0], parts);
    };
    for (const link of links) document.head.append(element("script", { src: link.href }));
  });
})();
