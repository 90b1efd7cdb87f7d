// What the reader has chosen, and lookups: measures (a metric and its variant) by dataset, colours, who is shown.

const M = () => DATA.models.id.length;
const cell = (q, m) => q * M() + m;
const MEASURES = new Map();
const GROUP_ORDER = [];
const MARKERS = {
  circle: "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0Z", square: "M-3.8,-3.8H3.8V3.8H-3.8Z", diamond: "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
  up: "M0,-5L4.9,3.8H-4.9Z", down: "M0,5L4.9,-3.8H-4.9Z", cross: "M-1.6,-4.9H1.6V-1.6H4.9V1.6H1.6V4.9H-1.6V1.6H-4.9V-1.6H-1.6Z",
  left: "M-5,0L3.8,-4.9V4.9Z", right: "M5,0L-3.8,-4.9V4.9Z", star: "M0,-5.8L1.5,-1.9L5.6,-1.7L2.4,.9L3.5,4.9L0,2.6L-3.5,4.9L-2.4,.9L-5.6,-1.7L-1.5,-1.9Z",
  hexagon: "M-4.9,0L-2.4,-4.3H2.4L4.9,0L2.4,4.3H-2.4Z",
};
const SPARE = ["#4477aa", "#ee7733", "#228833", "#aa3377", "#ccaa22", "#66ccee", "#888888", "#cc3311", "#8866cc", "#44aa99"];
const state = {
  tab: "scatter", search: "", hidden: new Set(), picked: null, model: 0,
  x: { measure: "", dataset: "", scale: "linear" }, y: { measure: "", dataset: "", scale: "linear" },
  colour: "group", marker: "source", fit: "huber-group", diagonal: false, intervals: true,
  sort: { column: "", down: true },
};

function buildStore() {
  DATA.quantities.forEach((quantity, index) => {
    const key = `${quantity.metric}|${quantity.variant}`;
    if (!MEASURES.has(key)) {
      MEASURES.set(key, { key, metric: quantity.metric, usual: quantity.usual, label: quantity.title + (quantity.variant ? ` (${quantity.variant})` : ""), at: new Map() });
    }
    const places = MEASURES.get(key).at;
    if (!places.has(quantity.dataset)) places.set(quantity.dataset, index);
    else places.set(`${quantity.dataset} (ID: ${quantity.id_dataset || "–"})`, index);
  });
  const known = Object.keys(DATA.group_titles);
  const rank = (name) => (known.indexOf(name) + 1 || 99);
  DATA.names.group.map((name, index) => ({ name, index })).sort((a, b) => rank(a.name) - rank(b.name)).forEach((g) => GROUP_ORDER.push(g.index));
}

const datasetTitle = (id) => { const found = DATA.datasets.find((d) => d.id === id); return found ? found.title : id || "means"; };
const idSets = () => new Set(DATA.quantities.filter((q) => q.detector).map((q) => q.id_dataset));
const idSet = (quantity) => (idSets().size > 1 ? ` · ID: ${datasetTitle(quantity.id_dataset)}` : "");
const groupTitle = (index) => DATA.group_titles[DATA.names.group[index]] || DATA.names.group[index];
const dark = () => document.documentElement.dataset.theme === "dark";

function groupColour(index) {
  const colours = DATA.colours[dark() ? "dark" : "light"];
  return colours[DATA.names.group[index]] || colours.unknown;
}

function colourOf(model, by = state.colour) {
  if (by === "none") return getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  const index = DATA.models[by][model];
  return by === "group" ? groupColour(index) : SPARE[index % SPARE.length];
}

function markerOf(model) {
  if (state.marker === "none") return MARKERS.circle;
  const shapes = Object.values(MARKERS);
  return shapes[DATA.models[state.marker][model] % shapes.length];
}

function shown(model) {
  return !state.hidden.has(DATA.models.group[model]) && DATA.models.id[model].toLowerCase().includes(state.search.toLowerCase());
}

function shownModels() {
  return [...Array(M()).keys()].filter(shown);
}

function quantityOf(axis) {
  const measure = MEASURES.get(axis.measure);
  return measure ? measure.at.get(axis.dataset) ?? -1 : -1;
}

function measureList() {
  const list = [...MEASURES.values()];
  return [...list.filter((m) => m.usual), ...list.filter((m) => !m.usual)].map((m) => ({ value: m.key, label: m.label, group: m.usual ? "" : "variants" }));
}

function remember() {
  const text = [state.x, state.y].map((a) => [a.measure, a.dataset, a.scale].map(encodeURIComponent).join("~")).join("&");
  try { history.replaceState(null, "", `#${state.tab}&${text}`); } catch { /* a page in a frame may not have a history */ }
}

function recall() {
  const [tab, ...axes] = location.hash.slice(1).split("&");
  axes.slice(0, 2).forEach((text, i) => {
    const [measure, dataset, scale] = text.split("~").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
    const found = MEASURES.get(measure);
    if (found && found.at.has(dataset) && Object.hasOwn(SCALES, scale)) Object.assign(state[i ? "y" : "x"], { measure, dataset, scale });
  });
  return tab;
}
