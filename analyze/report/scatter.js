// The scatter plot: dots with intervals, lines, a brush, a walk over the dots by keyboard, and the numbers of what is shown.

const HEIGHT = 560, MARGIN = { left: 62, right: 16, top: 14, bottom: 50 };
const NAMED = 12;  // up to so many dots bear their names
let dots = [];

function pointsShown() {
  const qx = quantityOf(state.x), qy = quantityOf(state.y);
  if (qx < 0 || qy < 0) return [];
  const { value, low, high } = DATA.cells, n = M();
  const sx = SCALES[state.x.scale], sy = SCALES[state.y.scale], points = [];
  for (const model of shownModels()) {
    const x = value[qx * n + model], y = value[qy * n + model];
    if (!Number.isFinite(x) || !Number.isFinite(y) || !sx.fits(x) || !sy.fits(y)) continue;
    points.push({ model, x, y, xLow: low[qx * n + model], xHigh: high[qx * n + model], yLow: low[qy * n + model], yHigh: high[qy * n + model] });
  }
  return points;
}

const isPicked = (point) => state.picked === null || state.picked.has(point.model);

function drawScatter() {
  const box = byId("plot"), points = pointsShown();
  const qx = DATA.quantities[quantityOf(state.x)], qy = DATA.quantities[quantityOf(state.y)];
  const width = Math.max(300, Math.round(box.clientWidth - 16)), height = width < 520 ? 390 : HEIGHT;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-label": qx && qy ? `${axisTitle(qy)} against ${axisTitle(qx)}, ${plural(points.length, "model")}. Arrow keys go from dot to dot.` : "no numbers" });
  box.replaceChildren(svg);
  dots = [];
  hideTooltip();
  if (!points.length) {
    svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No model has both numbers on these scales."));
    writeStatistics([]);
    return;
  }
  const w = width - MARGIN.left - MARGIN.right, h = height - MARGIN.top - MARGIN.bottom;
  const ax = axisOf(points.map((p) => p.x), state.x.scale, w, 44), ay = axisOf(points.map((p) => p.y), state.y.scale, h, 26);
  const px = (v) => MARGIN.left + ax.position(v), py = (v) => MARGIN.top + h - ay.position(v);
  drawFrame(svg, ax, ay, w, h, qx, qy);
  if (state.diagonal) {
    const from = Math.max(ax.scale.back(ax.low), ay.scale.back(ay.low)), to = Math.min(ax.scale.back(ax.high), ay.scale.back(ay.high));
    const steps = from < to ? [...Array(41).keys()].map((i) => from + ((to - from) * i) / 40) : [];
    svg.append(draw("polyline", { class: "diagonal", fill: "none", points: steps.map((v) => `${px(v)},${py(v)}`).join(" ") }));
  }
  drawFits(svg, points.filter(isPicked), ax, ay, w, h);
  for (const point of [...points].sort((a, b) => a.x - b.x)) dots.push(drawDot(svg, point, px, py, MARGIN.top, MARGIN.top + h, MARGIN.left, MARGIN.left + w));
  if (dots.length <= NAMED) nameDots(svg, w);
  listen(svg, px, py, width, height);
  writeStatistics(points.filter(isPicked));
  writeLegend(points);
}

function nameDots(svg, w) {
  const taken = dots.map((dot) => [dot.x - 6, dot.y - 6, dot.x + 6, dot.y + 6]);
  for (const dot of dots) {
    const name = DATA.models.id[dot.point.model], label = name.length > 40 ? `${name.slice(0, 26)}…${name.slice(-13)}` : name;
    const text = svg.appendChild(draw("text", { class: "name-of-dot", "aria-hidden": "true" }, label)), long = text.getComputedTextLength();
    const box = [[9, 4], [-9 - long, 4], [-long / 2, -10], [-long / 2, 20], [9, -8], [9, 18], [-9 - long, -8], [-9 - long, 18]]
      .map(([dx, dy]) => [dot.x + dx, dot.y + dy - 10, dot.x + dx + long, dot.y + dy + 3])
      .find(([x0, y0, x1, y1]) => x0 >= MARGIN.left && x1 <= MARGIN.left + w && y0 >= 0 && !taken.some((t) => x0 < t[2] && t[0] < x1 && y0 < t[3] && t[1] < y1));
    if (!box) { text.remove(); continue; }
    text.setAttribute("x", box[0]);
    text.setAttribute("y", box[3] - 3);
    taken.push(box);
  }
}

const axisTitle = (quantity) => `${quantity.title}${quantity.variant ? ` (${quantity.variant})` : ""}, ${datasetTitle(quantity.dataset)}${quantity.fraction ? " (%)" : ""}`;

function drawFrame(svg, ax, ay, w, h, qx, qy) {
  const { left, top } = MARGIN;
  for (const tick of ax.ticks) {
    svg.append(draw("line", { class: "grid", x1: left + tick.at, x2: left + tick.at, y1: top, y2: top + h }));
    svg.append(draw("text", { x: left + tick.at, y: top + h + 17, "text-anchor": "middle" }, tickText(tick.value, qx)));
  }
  for (const tick of ay.ticks) {
    svg.append(draw("line", { class: "grid", x1: left, x2: left + w, y1: top + h - tick.at, y2: top + h - tick.at }));
    svg.append(draw("text", { x: left - 8, y: top + h - tick.at + 4, "text-anchor": "end" }, tickText(tick.value, qy)));
  }
  svg.append(draw("path", { class: "frame", fill: "none", d: `M${left},${top}V${top + h}H${left + w}` }));
  svg.append(draw("text", { class: "axis-title", x: left + w / 2, y: top + h + 41, "text-anchor": "middle" }, axisTitle(qx)));
  svg.append(draw("text", { class: "axis-title", transform: `translate(15,${top + h / 2}) rotate(-90)`, "text-anchor": "middle" }, axisTitle(qy)));
}

function drawDot(svg, point, px, py, top, bottom, left, right) {
  const group = draw("g", { class: `point${isPicked(point) ? "" : " faded"}`, "data-model": point.model });
  const colour = colourOf(point.model), x = px(point.x), y = py(point.y);
  const within = (v, low, high) => Math.min(Math.max(v, low), high);
  if (state.intervals) {
    const line = (x1, y1, x2, y2) => group.append(draw("line", { x1, y1, x2, y2, stroke: colour, "stroke-opacity": 0.4 }));
    const usable = (low, high, scale) => Number.isFinite(low) && Number.isFinite(high) && scale.fits(low) && scale.fits(high);
    if (usable(point.yLow, point.yHigh, SCALES[state.y.scale])) line(x, within(py(point.yLow), top, bottom), x, within(py(point.yHigh), top, bottom));
    if (usable(point.xLow, point.xHigh, SCALES[state.x.scale])) line(within(px(point.xLow), left, right), y, within(px(point.xHigh), left, right), y);
  }
  group.append(draw("path", { d: markerOf(point.model), fill: colour, transform: `translate(${x},${y})` }));
  group.addEventListener("click", () => openModel(point.model));
  svg.append(group);
  return { point, group, x, y };
}

function drawFits(svg, points, ax, ay, w, h) {
  if (state.fit === "none") return;
  const [method, each] = state.fit.split(/-(?=all|group)/);
  const parts = new Map();
  for (const point of points) {
    const key = each === "group" ? DATA.models.group[point.model] : -1;
    if (!parts.has(key)) parts.set(key, []);
    parts.get(key).push(point);
  }
  for (const [key, part] of parts) {
    const x = part.map((p) => ax.scale.there(p.x)), y = part.map((p) => ay.scale.there(p.y));
    const line = fitLine(x, y, method);
    if (!line || !Number.isFinite(line.slope)) continue;
    const ends = [Math.min(...x), Math.max(...x)].map((v) => [v, line.slope * v + line.intercept]);
    const place = ([a, b]) => [MARGIN.left + ((a - ax.low) / (ax.high - ax.low)) * w, MARGIN.top + h - ((b - ay.low) / (ay.high - ay.low)) * h];
    const [[x1, y1], [x2, y2]] = ends.map(place);
    const colour = key < 0 ? "currentColor" : groupColour(key);
    svg.append(draw("line", { class: "fit", x1, y1, x2, y2, stroke: colour, "stroke-width": 1.8, "stroke-opacity": 0.8 }));
  }
}

function describe(point) {
  const qx = DATA.quantities[quantityOf(state.x)], qy = DATA.quantities[quantityOf(state.y)], models = DATA.models;
  const rows = [make("strong", {}, models.id[point.model]), make("div", { class: "quiet" }, `${groupTitle(models.group[point.model])} · ${DATA.names.source[models.source[point.model]]}`)];
  for (const [quantity, value, low, high] of [[qx, point.x, point.xLow, point.xHigh], [qy, point.y, point.yLow, point.yHigh]]) {
    const range = interval(low, high, quantity);
    rows.push(tooltipRow(`${quantity.title}, ${datasetTitle(quantity.dataset)}`, number(value, quantity) + (range ? ` (${range})` : "")));
  }
  return rows;
}

function activate(dot, event = null) {
  dots.forEach((other) => other.group.classList.toggle("active", other === dot));
  if (!dot) { hideTooltip(); return; }
  const box = byId("plot").querySelector("svg"), rect = box.getBoundingClientRect(), zoom = rect.width / box.viewBox.baseVal.width;
  showTooltip(event ? event.clientX : rect.left + dot.x * zoom, event ? event.clientY : rect.top + dot.y * zoom, ...describe(dot.point));
}

function listen(svg, px, py, width, height) {
  let start = null, brush = null, current = -1;
  const at = (event) => { const r = svg.getBoundingClientRect(); return [((event.clientX - r.left) / r.width) * width, ((event.clientY - r.top) / r.height) * height]; };
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (start && event.pointerType === "mouse") {
      brush ??= svg.appendChild(draw("rect", { class: "brush" }));
      const put = { x: Math.min(x, start[0]), y: Math.min(y, start[1]), width: Math.abs(x - start[0]), height: Math.abs(y - start[1]) };
      for (const [key, value] of Object.entries(put)) brush.setAttribute(key, value);
      return;
    }
    let best = null, nearest = 14 * 14;
    for (const dot of dots) { const d = (dot.x - x) ** 2 + (dot.y - y) ** 2; if (d < nearest) { nearest = d; best = dot; } }
    activate(best, event);
  });
  svg.addEventListener("pointerdown", (event) => { if (event.button === 0) start = at(event); });
  svg.addEventListener("pointerleave", () => activate(null));
  svg.addEventListener("pointerup", (event) => {
    if (!start) return;
    const [x, y] = at(event), [x0, y0] = start;
    start = null;
    if (!brush) return;
    const inside = dots.filter((d) => d.x >= Math.min(x, x0) && d.x <= Math.max(x, x0) && d.y >= Math.min(y, y0) && d.y <= Math.max(y, y0));
    state.picked = inside.length ? new Set(inside.map((d) => d.point.model)) : null;
    drawScatter();
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (step) { current = (current + step + dots.length) % dots.length; activate(dots[current]); event.preventDefault(); }
    else if (event.key === "Enter" && current >= 0) openModel(dots[current].point.model);
  });
  svg.addEventListener("blur", () => activate(null));
}

function writeStatistics(points) {
  const box = byId("statistics"), x = points.map((p) => SCALES[state.x.scale].there(p.x)), y = points.map((p) => SCALES[state.y.scale].there(p.y));
  const rows = [["Models", points.length, 0]];
  if (points.length >= 3) {
    const r = pearson(x, y);
    rows.push(["Pearson r", r, 2], ["Spearman ρ", spearman(x, y), 2], ["Kendall τ", kendall(x, y), 2], ["R²", r ** 2, 2]);
    const line = fitLine(x, y, "huber");
    if (line) rows.push(["Slope (Huber)", line.slope, 2]);
  }
  const name = state.picked ? "Selected" : "In view";
  box.replaceChildren(make("strong", {}, name), make("dl", {}, ...rows.flatMap(([key, value, digits]) => [make("dt", {}, key), make("dd", { "data-statistic": key, "data-value": String(value) }, signed(value, digits))])),
    make("p", { class: "quiet" }, points.length >= 3 ? "Pearson and the line on the axes' scales." : "Correlations need three models."));
}

function writeLegend(points) {
  const rows = [], seen = new Set(points.map((p) => p.model));
  const entry = (model, label, fill, path) => {
    const icon = draw("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" });
    icon.append(draw("path", { d: path, fill }));
    rows.push(make("div", {}, icon, make("span", {}, label)));
  };
  if (state.colour !== "none" && state.colour !== "group") for (const [name, model] of firstOf(state.colour, seen)) entry(model, name, colourOf(model), MARKERS.circle);
  if (state.marker !== "none" && state.marker !== state.colour) for (const [name, model] of firstOf(state.marker, seen)) entry(model, name, "currentColor", markerOf(model));
  byId("legend").replaceChildren(...(rows.length > 1 ? rows : []));
}

function firstOf(column, models) {
  const found = new Map();
  for (const model of models) {
    const index = DATA.models[column][model], name = column === "group" ? groupTitle(index) : DATA.names[column][index];
    if (!found.has(name)) found.set(name, model);
  }
  return [...found].sort((a, b) => (a[0] < b[0] ? -1 : 1));
}
