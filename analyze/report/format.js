// Elements and numbers as text. Names of models, sets and files only ever become text nodes.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function coloured(colour) {
  const dot = make("span", { class: "dot", "aria-hidden": "true" });
  dot.style.background = colour;
  return dot;
}

function number(value, quantity) {
  if (!Number.isFinite(value)) return "–";
  if (quantity && quantity.fraction) return `${signed(100 * value, 1)} %`;
  const size = Math.abs(value);
  // A p-value is never 0; beyond this the sums that it is made of are rounded.
  if (quantity && quantity.metric?.endsWith("_p") && value < 1e-16) return "< 1e-16";
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(2);
  return Number.isInteger(value) && size < 1e5 ? signed(value, 0) : signed(value, size >= 100 ? 1 : 3);
}

const signed = (value, digits = 2) => (Number.isFinite(value) ? `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}` : "–");

function interval(low, high, quantity) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return "";
  const [from, to] = [low, high].map((v) => number(v, quantity));
  return quantity && quantity.fraction ? `${from.replace(" %", "")} – ${to}` : `${from} – ${to}`;
}

const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

function count(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, " B"], [1e6, " M"], [1e3, " k"]]) if (value >= size) return (value / size).toPrecision(3) + unit;
  return String(value);
}

function options(select, list, chosen) {
  // list: [{value, label, group}]; a group becomes an optgroup
  select.replaceChildren();
  const groups = new Map();
  for (const { value, label, group } of list) {
    let place = select;
    if (group) {
      if (!groups.has(group)) { groups.set(group, make("optgroup", { label: group })); select.append(groups.get(group)); }
      place = groups.get(group);
    }
    place.append(make("option", { value }, label));
  }
  select.value = list.some((item) => item.value === chosen) ? chosen : list.length ? list[0].value : "";
}

const tooltip = byId("tooltip");

function showTooltip(x, y, ...children) {
  tooltip.replaceChildren(...children);
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tooltip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
}

const hideTooltip = () => { tooltip.hidden = true; };

function tooltipRow(name, text) {
  return make("div", { class: "row" }, make("span", { class: "quiet" }, name), make("span", {}, text));
}
