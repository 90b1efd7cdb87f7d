// An axis: the range of the data on a scale, and ticks at round numbers with room for their labels.

const NICE = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999];

function axisOf(values, scaleName, length, room) {
  const scale = SCALES[scaleName];
  const places = values.map(scale.there);
  let low = Math.min(...places), high = Math.max(...places);
  // Around a single number, or several that differ by rounding alone, the axis spans a tenth of it each way.
  const alone = high - low <= 1e-6 * Math.max(Math.abs(low), Math.abs(high));
  const pad = scaleName === "linear" ? (alone ? 0.1 * Math.abs(high) || 0.1 : 0.06 * (high - low)) : 0.06 * Math.max(high - low, 0.1);
  low -= pad; high += pad;
  const position = (value) => ((scale.there(value) - low) / (high - low)) * length;
  const ticks = ticksOf(scale.back(low), scale.back(high), scaleName).map((value) => ({ value, at: position(value) }))
    .filter((tick) => tick.at >= -0.5 && tick.at <= length + 0.5);
  const kept = [];
  for (const tick of ticks) if (!kept.length || tick.at - kept[kept.length - 1].at >= room) kept.push(tick);
  return { position, ticks: kept, low, high, scale };
}

function ticksOf(low, high, scaleName) {
  if (scaleName === "log") {
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const f of [1, 2, 5]) ticks.push(f * 10 ** e);
    return ticks.filter((t) => t >= low && t <= high);
  }
  if (scaleName !== "linear") {
    const inside = NICE.filter((p) => p >= low && p <= high);
    if (inside.length >= 3) return inside;
  }
  const raw = (high - low) / 6;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((f) => f * size >= raw) * size;
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(Number((k * step).toPrecision(10)));
  return ticks;
}

function tickText(value, quantity) {
  if (quantity.fraction) return `${Number((100 * value).toPrecision(6))}`;
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(0) : `${Number(value.toPrecision(6))}`;
}
