// Puts the page together: tabs, pickers, filters, theme; and draws the part that is in view.

const TABS = ["scatter", "leaderboard", "model", "factors", "provenance"];
const DRAW = { scatter: drawScatter, leaderboard: drawBoard, model: drawCard, factors: drawFactors, provenance: drawSources };

function showTab(name, focus = false) {
  state.tab = TABS.includes(name) ? name : "scatter";
  for (const tab of TABS) {
    byId(tab).hidden = tab !== state.tab;
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === state.tab);
    byId(`tab-${tab}`).tabIndex = tab === state.tab ? 0 : -1;
  }
  if (focus) byId(`tab-${state.tab}`).focus();
  refresh();
}

function refresh() {
  DRAW[state.tab]();
  remember();
}

function axisControls(name) {
  const axis = state[name], [measure, dataset, scale] = ["measure", "dataset", "scale"].map((part) => byId(`${name}-${part}`));
  const fill = () => {
    options(measure, measureList(), axis.measure);
    axis.measure = measure.value;
    options(dataset, [...(MEASURES.get(axis.measure)?.at.keys() ?? [])].map((id) => ({ value: id, label: datasetTitle(id) })), axis.dataset);
    axis.dataset = dataset.value;
    options(scale, Object.entries(SCALES).map(([value, s]) => ({ value, label: s.title })), axis.scale);
    axis.scale = scale.value;
  };
  const changed = (part, control) => control.addEventListener("change", () => {
    axis[part] = control.value;
    state.picked = null;
    if (part === "measure") {
      const quantity = DATA.quantities[[...MEASURES.get(axis.measure).at.values()][0]];
      if (!quantity.proportion && axis.scale !== "log") axis.scale = "linear";
    }
    fill();
    refresh();
  });
  changed("measure", measure);
  changed("dataset", dataset);
  changed("scale", scale);
  fill();
}

// What y shows beside accuracy at first, where there is no shifted set: calibration, else OOD detection, else whatever is usual.
const WORTH_SEEING = ["ece", "nll", "brier", "auroc", "top5"];

function chooseDefaults() {
  const n = M(), has = (index) => [...Array(n).keys()].filter((m) => Number.isFinite(DATA.cells.value[index * n + m]));
  const usual = [...MEASURES.values()].filter((measure) => measure.usual);
  const places = (measure) => [...measure.at].map(([dataset, index]) => ({ measure: measure.key, dataset, index }));
  const role = (dataset) => DATA.datasets.find((d) => d.id === dataset)?.role;
  const accuracy = MEASURES.get("top1|") || usual[0] || [...MEASURES.values()][0];
  const x = places(accuracy).find((p) => p.dataset === DATA.ground) || places(accuracy)[0];
  const shifts = places(accuracy).filter((p) => role(p.dataset) === "shift").sort((a, b) => a.dataset.includes("cue") - b.dataset.includes("cue"));
  const rank = (measure) => (WORTH_SEEING.indexOf(measure.metric) + 1 || 99) + (measure.key === `${measure.metric}|` ? 0 : 0.5);
  const others = usual.filter((measure) => measure !== accuracy).sort((a, b) => rank(a) - rank(b))
    .flatMap((measure) => places(measure).sort((a, b) => (b.dataset === x.dataset) - (a.dataset === x.dataset)));
  const shared = new Set(has(x.index));
  const y = [...shifts, ...others].find((p) => has(p.index).some((m) => shared.has(m))) || x;
  const scaleOf = (place) => (DATA.quantities[place.index].proportion ? "probit" : "linear");
  for (const [axis, place] of [[state.x, x], [state.y, y]]) Object.assign(axis, { measure: place.measure, dataset: place.dataset, scale: scaleOf(place) });
}

// One model is a card, not a plot of one dot; without a second number that models share, the numbers are a table.
function openingTab() {
  if (M() === 1) return "model";
  return quantityOf(state.x) === quantityOf(state.y) || pointsShown().length < 2 ? "leaderboard" : "scatter";
}

function groupChips() {
  const chips = GROUP_ORDER.map((index) => make("button", {
    class: "chip", type: "button", "aria-pressed": String(!state.hidden.has(index)), "data-group": DATA.names.group[index],
    onclick: (event) => {
      if (!state.hidden.delete(index)) state.hidden.add(index);
      event.currentTarget.setAttribute("aria-pressed", String(!state.hidden.has(index)));
      refresh();
    },
  }, coloured(groupColour(index)), make("span", {}, groupTitle(index))));
  byId("groups").replaceChildren(...chips);
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  groupChips();
  refresh();
}

async function start() {
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = prefersDark.matches ? "dark" : "light";
  await decodeAll();
  buildStore();
  chooseDefaults();
  const tab = recall();
  byId("title").textContent = DATA.title;
  byId("summary").textContent = [plural(M(), "model"), plural(DATA.datasets.filter((d) => d.id).length, "dataset"), plural(DATA.count, "number")].join(" · ");
  const columns = [["group", "group"], ["source", "training source"], ["family", "architecture"], ["none", "nothing"]].map(([value, label]) => ({ value, label }));
  options(byId("colour"), columns, state.colour);
  options(byId("marker"), columns, state.marker);
  options(byId("fit"), [["none", "none"], ["huber-group", "Huber, each group"], ["huber-all", "Huber, all"], ["ols-group", "OLS, each group"], ["ols-all", "OLS, all"], ["theil-sen-group", "Theil–Sen, each group"], ["theil-sen-all", "Theil–Sen, all"]].map(([value, label]) => ({ value, label })), state.fit);
  for (const name of ["colour", "marker", "fit"]) byId(name).addEventListener("change", (event) => { state[name] = event.target.value; refresh(); });
  for (const name of ["diagonal", "intervals"]) byId(name).addEventListener("change", (event) => { state[name] = event.target.checked; refresh(); });
  axisControls("x");
  axisControls("y");
  options(byId("columns"), boardChoices(), `set:${DATA.ground}`);
  byId("columns").addEventListener("change", refresh);
  byId("board-intervals").addEventListener("change", refresh);
  byId("variants").addEventListener("change", refresh);
  options(byId("model-pick"), GROUP_ORDER.flatMap((g) => [...Array(M()).keys()].filter((m) => DATA.models.group[m] === g).map((m) => ({ value: String(m), label: DATA.models.id[m], group: groupTitle(g) }))), "0");
  state.model = Number(byId("model-pick").value);
  byId("model-pick").addEventListener("change", (event) => { state.model = Number(event.target.value); refresh(); });
  options(byId("source-measure"), measureList(), state.x.measure);
  const sourceSets = () => options(byId("source-dataset"), [...MEASURES.get(byId("source-measure").value).at.keys()].map((id) => ({ value: id, label: datasetTitle(id) })), DATA.ground);
  byId("source-measure").addEventListener("change", () => { sourceSets(); refresh(); });
  byId("source-dataset").addEventListener("change", refresh);
  sourceSets();
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; state.picked = null; refresh(); });
  byId("theme").addEventListener("click", () => setTheme(dark() ? "light" : "dark"));
  let shown = null; // paper is white: print in the light theme
  addEventListener("beforeprint", () => { shown = document.documentElement.dataset.theme; setTheme("light"); });
  addEventListener("afterprint", () => setTheme(shown));
  prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hideTooltip();
    if (state.picked) { state.picked = null; refresh(); }
  });
  TABS.forEach((tab, index) => {
    byId(`tab-${tab}`).addEventListener("click", () => showTab(tab));
    byId(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) showTab(TABS[(index + step + TABS.length) % TABS.length], true);
    });
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (state.tab === "scatter") drawScatter(); } });
  groupChips();
  showTab(tab || openingTab());
  document.documentElement.dataset.ready = "true";
}

start();
