// The factor heat map: models down, visual factors across; and where the numbers come from.

const HEAT_ROWS = 400;

function heatColour(part) {
  // red below, blue above, the page's own colour at zero
  const strength = Math.min(1, Math.abs(part)) ** 0.8;
  const [r, g, b] = part < 0 ? [200, 60, 45] : [35, 105, 190];
  return `rgba(${r},${g},${b},${(0.6 * strength).toFixed(3)})`;
}

function drawFactors() {
  const n = M(), columns = DATA.quantities.map((q, index) => ({ q, index })).filter(({ q }) => q.metric === "factor_accuracy" && q.factor);
  if (!columns.length) { byId("heat-note").textContent = "This result table has no visual factors: make them with 'analyze factors'."; byId("heat").replaceChildren(); return; }
  const models = shownModels().filter((m) => columns.some((c) => Number.isFinite(DATA.cells.value[c.index * n + m])));
  const order = (m) => GROUP_ORDER.indexOf(DATA.models.group[m]);
  models.sort((a, b) => order(a) - order(b) || overall(b) - overall(a));
  let widest = 1e-9;
  for (const m of models) for (const c of columns) { const d = DATA.cells.value[c.index * n + m] - overall(m); if (Number.isFinite(d)) widest = Math.max(widest, Math.abs(d)); }
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", {}, "Model")), make("th", { scope: "col" }, make("span", {}, "overall")), ...columns.map(({ q }) => make("th", { scope: "col" }, make("span", {}, q.factor.replaceAll("_", " "))))));
  const rows = models.slice(0, HEAT_ROWS).map((m) => {
    const row = make("tr", {}, nameCell(m), make("td", {}, number(overall(m), { fraction: true })));
    for (const { q, index } of columns) {
      const at = index * n + m, d = DATA.cells.value[at] - overall(m);
      const box = make("td", { class: "cell" }, Number.isFinite(d) ? signed(100 * d, 1) : "–");
      if (Number.isFinite(d)) box.style.background = heatColour(d / widest);
      box.addEventListener("pointermove", (event) => showTooltip(event.clientX, event.clientY, make("strong", {}, DATA.models.id[m]), tooltipRow(q.factor.replaceAll("_", " "), number(DATA.cells.value[at], q)), tooltipRow("interval", interval(DATA.cells.low[at], DATA.cells.high[at], q) || "–"), tooltipRow("images", DATA.words.n[DATA.cells.n[at]] || "–")));
      box.addEventListener("pointerleave", hideTooltip);
      row.append(box);
    }
    return row;
  });
  byId("heat").replaceChildren(head, make("tbody", {}, ...rows));
  byId("heat-note").textContent = `${plural(models.length, "model")}${models.length > rows.length ? `, the first ${HEAT_ROWS} shown` : ""}. Blue is above the model's overall accuracy, red below.`;
}

function drawSources() {
  const axis = { measure: byId("source-measure").value, dataset: byId("source-dataset").value }, index = quantityOf(axis), n = M();
  if (index < 0) { byId("sources").replaceChildren(); return; }
  const quantity = DATA.quantities[index];
  byId("source-about").textContent = `${quantity.text} · metric version ${DATA.versions[index].join(", ") || "–"} · ${{ higher: "higher is better", lower: "lower is better" }[quantity.direction] || "no direction"} · table: ${DATA.made_from || "–"}`;
  const names = ["Model", "Value", "Interval", "Images", "Options", "Stores"];
  const head = make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, make("span", {}, name)))));
  const rows = shownModels().slice(0, HEAT_ROWS).map((m) => {
    const at = index * n + m, reason = DATA.reasonOf.get(at);
    const texts = [number(DATA.cells.value[at], quantity), interval(DATA.cells.low[at], DATA.cells.high[at], quantity) || "–", DATA.words.n[DATA.cells.n[at]] || "–", reason || (Number.isFinite(DATA.cells.value[at]) ? DATA.words.options[DATA.cells.options[at]] || "defaults" : "–"), DATA.words.store[DATA.cells.store[at]] || "–"];
    return make("tr", {}, nameCell(m), ...texts.map((text) => make("td", {}, text)));
  });
  byId("sources").replaceChildren(head, make("tbody", {}, ...rows));
}
