// The leaderboard: models by numbers of one set, or by sets of one measure; every column sorts, best marked.

const BOARD_ROWS = 400;

function boardChoices() {
  const sets = DATA.datasets.filter((d) => DATA.quantities.some((q) => q.dataset === d.id)).map((d) => ({ value: `set:${d.id}`, label: d.title, group: "one set, every number" }));
  const measures = [...MEASURES.values()].filter((m) => m.at.size > 1 && m.usual).map((m) => ({ value: `measure:${m.key}`, label: m.label, group: "one number, every set" }));
  const detectors = DATA.datasets.flatMap((d) => [...new Set(DATA.quantities.filter((q) => q.detector && q.dataset === d.id).map((q) => q.metric))]
    .map((metric) => ({ value: `detectors:${metric}|${d.id}`, label: `${DATA.quantities.find((q) => q.metric === metric).title} on ${d.title}`, group: "one OOD set, every detector" })));
  return [...sets, ...measures, ...detectors];
}

function boardColumns() {
  const [kind, name] = [byId("columns").value.split(":")[0], byId("columns").value.replace(/^\w+:/, "")];
  if (kind === "detectors") {
    const [metric, dataset] = [name.split("|")[0], name.slice(name.indexOf("|") + 1)];
    return DATA.quantities.map((q, index) => ({ q, index })).filter(({ q }) => q.detector && q.metric === metric && q.dataset === dataset)
      .map(({ q, index }) => ({ index, label: q.variant + idSet(q) }));
  }
  if (kind === "measure") {
    const measure = MEASURES.get(name);
    return measure ? [...measure.at].map(([dataset, index]) => ({ index, label: datasetTitle(dataset) })) : [];
  }
  const all = byId("variants").checked;
  const here = DATA.quantities.map((q, index) => ({ q, index })).filter(({ q }) => q.dataset === name);
  const usual = here.filter(({ q }) => q.usual && (!q.score || q.score === "study" || !here.some((other) => other.q.score === "study")));
  return (all || !usual.length ? here : usual).map(({ q, index }) => ({ index, label: q.title + (q.variant ? ` (${q.variant})` : "") }));
}

function drawBoard() {
  const columns = boardColumns(), n = M(), { value, low, high } = DATA.cells;
  const models = shownModels().filter((m) => columns.some((c) => Number.isFinite(value[c.index * n + m])));
  if (!columns.some((c) => String(c.index) === state.sort.column) && state.sort.column !== "model") state.sort = { column: columns.length ? String(columns[0].index) : "model", down: columns.length > 0 && DATA.quantities[columns[0].index].direction !== "lower" };
  const { column, down } = state.sort;
  const key = (m) => value[Number(column) * n + m];
  models.sort((a, b) => {
    if (column === "model") return (down ? -1 : 1) * DATA.models.id[a].localeCompare(DATA.models.id[b]);
    const va = key(a), vb = key(b);
    if (!Number.isFinite(va) || !Number.isFinite(vb)) return Number.isFinite(vb) - Number.isFinite(va);
    return down ? vb - va : va - vb;
  });
  const heading = (name, label) => make("th", { scope: "col", "aria-sort": column === name ? (down ? "descending" : "ascending") : "none" },
    make("button", { type: "button", "data-column": name, onclick: () => sortBy(name) }, `${label}${column === name ? (down ? "\u00a0▼" : "\u00a0▲") : ""}`));
  const arrow = { higher: "\u00a0↑", lower: "\u00a0↓" };
  const head = make("thead", {}, make("tr", {}, heading("model", "Model"), ...columns.map((c) => heading(String(c.index), c.label + (arrow[DATA.quantities[c.index].direction] || "")))));
  const top = columns.map((c) => bestTwo(models.map((m) => value[c.index * n + m]), DATA.quantities[c.index].direction));
  const withIntervals = byId("board-intervals").checked;
  const rows = models.slice(0, BOARD_ROWS).map((m) => make("tr", { "data-model": m }, nameCell(m), ...columns.map((c, i) => {
    const at = c.index * n + m, quantity = DATA.quantities[c.index], place = top[i].indexOf(value[at]);
    const box = make("td", { class: Number.isFinite(value[at]) ? ["best", "second"][place] || "" : "", title: DATA.reasonOf.get(at) }, number(value[at], quantity));
    const range = withIntervals ? interval(low[at], high[at], quantity) : "";
    if (range) box.append(make("span", { class: "low-high" }, range));
    return box;
  })));
  byId("board").replaceChildren(head, make("tbody", {}, ...rows));
  const left = models.length - rows.length;
  byId("board-note").textContent = `${plural(models.length, "model")}${left > 0 ? `, the first ${BOARD_ROWS} shown: narrow them down with the filter` : ""}. Bold is best, underlined second; – has no value (its reason is shown when the mouse rests on it).`;
}

function bestTwo(values, direction) {
  if (direction !== "higher" && direction !== "lower") return [];
  const distinct = [...new Set(values.filter(Number.isFinite))].sort((a, b) => (direction === "higher" ? b - a : a - b));
  return values.filter(Number.isFinite).length > 1 ? distinct.slice(0, 2) : [];
}

function nameCell(model) {
  return make("th", { scope: "row" }, make("button", { class: "name", type: "button", onclick: () => openModel(model) }, coloured(groupColour(DATA.models.group[model])), make("span", {}, DATA.models.id[model])));
}

function sortBy(name) {
  const lower = name !== "model" && DATA.quantities[Number(name)].direction === "lower";
  if (state.sort.column === name) state.sort.down = !state.sort.down;
  else state.sort = { column: name, down: name !== "model" && !lower };
  drawBoard();
  const again = byId("board").querySelector(`button[data-column="${name}"]`);
  if (again) again.focus();
}
