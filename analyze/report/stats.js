// Scales, correlations and lines over the models in view, as analyze.scales, correlations and fits define them.

const CLIP = 1e-4;
const clipped = (p) => Math.min(Math.max(p, CLIP), 1 - CLIP);

function quantile(p) {
  // Inverse normal distribution: Acklam's rational approximation and one Halley step (relative error below 1e-12).
  const a = [-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716, 2.506628277459239];
  const b = [-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572];
  const c = [-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783];
  const d = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416];
  const tail = (q) => (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) / ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
  let x;
  if (p < 0.02425) x = tail(Math.sqrt(-2 * Math.log(p)));
  else if (p > 1 - 0.02425) x = -tail(Math.sqrt(-2 * Math.log(1 - p)));
  else {
    const q = p - 0.5, r = q * q;
    x = ((((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q) / (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
  }
  const e = normal(x) - p, u = e * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
  return x - u / (1 + (x * u) / 2);
}

function normal(x) {
  // Distribution function of the normal: W. J. Cody's erfc by a continued fraction in the tail, a series in the middle.
  const z = Math.abs(x) / Math.SQRT2;
  let upper;
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; n < 80; n++) { term *= (-z * z) / n; sum += term / (2 * n + 1); }
    upper = 0.5 - sum / Math.sqrt(Math.PI);
  } else {
    let f = 0;
    for (let n = 60; n > 0; n--) f = n / 2 / (z + f);
    upper = Math.exp(-z * z) / (z + f) / Math.sqrt(Math.PI) / 2;
  }
  return x > 0 ? 1 - upper : upper;
}

const SCALES = {
  linear: { title: "linear", there: (v) => v, back: (v) => v, fits: () => true },
  probit: { title: "probit", there: (v) => quantile(clipped(v)), back: normal, fits: (v) => v >= 0 && v <= 1 },
  logit: { title: "logit", there: (v) => Math.log(clipped(v) / (1 - clipped(v))), back: (v) => 1 / (1 + Math.exp(-v)), fits: (v) => v >= 0 && v <= 1 },
  log: { title: "log", there: Math.log10, back: (v) => 10 ** v, fits: (v) => v > 0 },
};

const mean = (list) => list.reduce((sum, v) => sum + v, 0) / list.length;
const median = (list) => { const s = [...list].sort((a, b) => a - b), h = s.length >> 1; return s.length % 2 ? s[h] : (s[h - 1] + s[h]) / 2; };

function pearson(x, y) {
  const mx = mean(x), my = mean(y);
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < x.length; i++) { const a = x[i] - mx, b = y[i] - my; xy += a * b; xx += a * a; yy += b * b; }
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : NaN;
}

function midranks(list) {
  const order = list.map((v, i) => [v, i]).sort((a, b) => a[0] - b[0]);
  const ranks = new Array(list.length);
  for (let i = 0; i < order.length;) {
    let j = i;
    while (j < order.length && order[j][0] === order[i][0]) j++;
    for (let k = i; k < j; k++) ranks[order[k][1]] = (i + j + 1) / 2;
    i = j;
  }
  return ranks;
}

const spearman = (x, y) => pearson(midranks(x), midranks(y));

function kendall(x, y) {
  let both = 0, nx = 0, ny = 0;
  for (let i = 0; i < x.length; i++) {
    for (let j = 0; j < i; j++) {
      const a = Math.sign(x[i] - x[j]), b = Math.sign(y[i] - y[j]);
      both += a * b; nx += a * a; ny += b * b;
    }
  }
  return nx && ny ? both / Math.sqrt(nx * ny) : NaN;
}

function leastSquares(x, y, w) {
  let s = 0, sx = 0, sy = 0;
  for (let i = 0; i < x.length; i++) { s += w[i]; sx += w[i] * x[i]; sy += w[i] * y[i]; }
  const mx = sx / s, my = sy / s;
  let xy = 0, xx = 0;
  for (let i = 0; i < x.length; i++) { const a = x[i] - mx; xy += w[i] * a * (y[i] - my); xx += w[i] * a * a; }
  return { slope: xy / xx, intercept: my - (xy / xx) * mx };
}

function fitLine(x, y, method) {
  if (x.length < 3 || new Set(x).size < 2) return null;
  if (method === "theil-sen") {
    const slopes = [];
    for (let i = 0; i < x.length; i++) for (let j = 0; j < i; j++) if (x[i] !== x[j]) slopes.push((y[i] - y[j]) / (x[i] - x[j]));
    const slope = median(slopes);
    return { slope, intercept: median(y.map((v, i) => v - slope * x[i])) };
  }
  let line = leastSquares(x, y, x.map(() => 1));
  for (let round = 0; method === "huber" && round < 200; round++) {
    const off = y.map((v, i) => Math.abs(v - line.slope * x[i] - line.intercept));
    const scale = median(off) / 0.6744897501960817;
    if (scale <= 1e-13) break;
    const next = leastSquares(x, y, off.map((r) => Math.min(1, (1.345 * scale) / r)));
    const moved = Math.max(Math.abs(next.slope - line.slope), Math.abs(next.intercept - line.intercept));
    line = next;
    if (moved < 1e-10) break;
  }
  return line;
}
