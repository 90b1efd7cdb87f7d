// One model's card: what it is, its numbers, its reliability diagram, and its visual factors.

function openModel(model) {
  state.model = model;
  hideTooltip();
  showTab("model");
}

function drawCard() {
  const model = state.model, models = DATA.models, n = M();
  byId("model-pick").value = String(model);
  const facts = [["Group", groupTitle(models.group[model])], ["Training source", DATA.names.source[models.source[model]]], ["Family", DATA.names.family[models.family[model]]],
    ["Parameters", count(models.parameters[model])], ["Input size", models.input_size[model] ? `${models.input_size[model]} px` : "–"], ["Samples seen", count(models.samples_seen[model])]].filter(([, value]) => value !== "unknown" && value !== "–");
  const list = (rows, kind = "") => make("dl", { class: kind }, ...rows.flatMap(([key, value, range]) => [make("dt", {}, key), make("dd", {}, ...(range ? [make("span", { class: "range" }, range), " "] : []), value)]));
  const numbers = DATA.quantities.map((q, i) => ({ q, at: i * n + model })).filter(({ q, at }) => q.usual && !q.factor && q.dataset === DATA.ground && Number.isFinite(DATA.cells.value[at]));
  const rows = numbers.map(({ q, at }) => {
    const range = interval(DATA.cells.low[at], DATA.cells.high[at], q);
    return [q.title + (q.variant ? ` (${q.variant})` : ""), number(DATA.cells.value[at], q), range];
  });
  const accuracy = MEASURES.get("top1|");
  const sets = accuracy ? [...accuracy.at].map(([dataset, index]) => [dataset, index * n + model]).filter(([, at]) => Number.isFinite(DATA.cells.value[at])) : [];
  const card = make("article", { class: "card" },
    make("header", {}, make("h2", {}, models.id[model])),
    make("div", {}, ...(facts.length ? [make("h3", {}, "Model"), list(facts)] : []), make("h3", {}, `Reliability on ${datasetTitle(DATA.ground)}`), reliability(model)),
    make("div", {}, make("h3", {}, `Numbers on ${datasetTitle(DATA.ground)}`), list(rows, "numbers")),
    make("div", {}, make("h3", {}, "Visual factors"), factorBars(model)),
    make("div", { class: "wide" }, make("h3", {}, "Accuracy on every set"), ...sets.map(([dataset, at]) => bar(datasetTitle(dataset), DATA.cells.value[at], DATA.cells.low[at], DATA.cells.high[at], null, colourOf(model, "group")))));
  const outside = detection(model);
  if (outside) card.append(make("div", { class: "wide" }, make("h3", {}, "OOD detection"), outside));
  byId("card").replaceChildren(card);
}

function detection(model) {
  // Detectors down, AUROC and FPR@95 on each OOD set across; the best of each column is bold.
  const n = M(), found = DATA.quantities.map((q, index) => ({ q, value: DATA.cells.value[index * n + model] }))
    .filter(({ q, value }) => q.detector && (q.metric === "auroc" || q.metric === "fpr95_id") && Number.isFinite(value));
  if (!found.length) return null;
  const columns = new Map(), rows = new Map();
  for (const { q, value } of found) {
    const column = `${q.metric}|${q.dataset}`, row = q.variant + idSet(q);
    if (!columns.has(column)) columns.set(column, { q, values: [] });
    if (!rows.has(row)) rows.set(row, new Map());
    columns.get(column).values.push(value);
    rows.get(row).set(column, value);
  }
  const heads = [...columns].sort((a, b) => (a[1].q.metric < b[1].q.metric ? -1 : a[1].q.metric > b[1].q.metric ? 1 : 0));
  const best = new Map(heads.map(([key, { q, values }]) => [key, bestTwo(values, q.direction)]));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", {}, "Detector")), ...heads.map(([, { q }]) => make("th", { scope: "col" }, make("span", {}, `${q.title}, ${datasetTitle(q.dataset)}`)))));
  const body = [...rows].map(([name, values]) => make("tr", {}, make("th", { scope: "row" }, name), ...heads.map(([key, { q }]) => make("td", { class: ["best", "second"][best.get(key).indexOf(values.get(key))] || "" }, number(values.get(key), q)))));
  return make("div", { class: "table-wrap", tabindex: 0, role: "region", "aria-label": "OOD detection" }, make("table", { id: "detection" }, head, make("tbody", {}, ...body)));
}

function bar(label, value, low, high, mark, colour) {
  const svg = draw("svg", { viewBox: "0 0 200 18", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(draw("rect", { x: 0, y: 4, width: 200, height: 10, fill: "var(--soft)" }), draw("rect", { x: 0, y: 4, width: Math.max(0, 200 * value), height: 10, fill: colour, "fill-opacity": 0.75 }));
  if (Number.isFinite(low) && Number.isFinite(high)) svg.append(draw("line", { x1: 200 * low, x2: 200 * high, y1: 9, y2: 9, stroke: "var(--ink)", "stroke-width": 2 }));
  if (mark !== null && Number.isFinite(mark)) svg.append(draw("line", { x1: 200 * mark, x2: 200 * mark, y1: 0, y2: 18, stroke: "var(--ink)", "stroke-dasharray": "3 2" }));
  return make("div", { class: "bar-row" }, make("span", {}, label), svg, make("span", {}, `${(100 * value).toFixed(1)} %`));
}

function factorBars(model) {
  const n = M();
  const found = DATA.quantities.map((q, i) => ({ q, at: i * n + model })).filter(({ q, at }) => q.metric === "factor_accuracy" && q.factor && Number.isFinite(DATA.cells.value[at]));
  if (!found.length) return make("p", { class: "quiet" }, "No visual factors in this result table (analyze factors).");
  const own = overall(model);
  const rows = found.sort((a, b) => DATA.cells.value[b.at] - DATA.cells.value[a.at])
    .map(({ q, at }) => bar(q.factor.replaceAll("_", " "), DATA.cells.value[at], DATA.cells.low[at], DATA.cells.high[at], own, colourOf(model, "group")));
  return make("div", {}, ...rows, make("p", { class: "quiet" }, "Dashed: accuracy over all images. Dark line: interval."));
}

function overall(model) {
  const measure = MEASURES.get("top1|"), index = measure ? measure.at.get(DATA.ground) : undefined;
  return index === undefined ? NaN : DATA.cells.value[index * M() + model];
}

function reliability(model) {
  const found = DATA.reliability;
  if (!found) return make("p", { class: "quiet" }, "Needs single images: make the report from the cache itself.");
  if (![...Array(found.bins).keys()].some((b) => Number.isFinite(found.numbers[(model * found.series.length * found.bins + b) * found.fields.length])))
    return make("p", { class: "quiet" }, "No single images of this model in the cache that the report was made from.");
  const width = found.fields.length, get = (series, bin, name) => found.numbers[((model * found.series.length + series) * found.bins + bin) * width + found.fields.indexOf(name)];
  const svg = draw("svg", { viewBox: "0 0 330 262", role: "img", "aria-label": "Reliability diagram" }), px = (v) => 52 + 256 * v, py = (v) => 220 - 210 * v;
  for (const v of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(draw("line", { class: "grid", x1: px(0), x2: px(1), y1: py(v), y2: py(v) }), draw("text", { x: 46, y: py(v) + 4, "text-anchor": "end" }, `${100 * v}`), draw("text", { x: px(v), y: 237, "text-anchor": "middle" }, `${100 * v}`));
  }
  const colour = colourOf(model, "group"), after = [];
  for (let b = 0; b < found.bins; b++) {
    const weight = get(0, b, "weight"), y = get(0, b, "y"), x = get(0, b, "x"), from = px(get(0, b, "x_low")), to = px(get(0, b, "x_high"));
    if (Number.isFinite(weight)) svg.append(draw("rect", { x: from + 0.5, width: Math.max(0, to - from - 1), y: py(0.3 * weight), height: 210 * 0.3 * weight, fill: "var(--quiet)", "fill-opacity": 0.35 }));
    if (found.series.length > 1 && Number.isFinite(get(1, b, "y"))) after.push(`${px(get(1, b, "x"))},${py(get(1, b, "y"))}`);
    if (!Number.isFinite(y)) continue;
    svg.append(draw("line", { x1: px(x), x2: px(x), y1: py(get(0, b, "y_low")), y2: py(get(0, b, "y_high")), stroke: colour, "stroke-opacity": 0.5 }), draw("circle", { class: "bin", cx: px(x), cy: py(y), r: 3.4, fill: colour }));
  }
  svg.append(draw("line", { class: "diagonal", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }));
  if (after.length) svg.append(draw("polyline", { points: after.join(" "), fill: "none", stroke: "var(--ink)", "stroke-width": 1.2, "stroke-opacity": 0.7 }));
  svg.append(draw("text", { class: "axis-title", x: px(0.5), y: 256, "text-anchor": "middle" }, "Confidence (%)"));
  svg.append(draw("text", { class: "axis-title", transform: `translate(11,${py(0.5)}) rotate(-90)`, "text-anchor": "middle" }, "Accuracy (%)"));
  return make("div", {}, svg, make("p", { class: "quiet" }, "Dots: accuracy by confidence. Line: after temperature scaling. Grey: share of images. On the diagonal, confidence is right."));
}
