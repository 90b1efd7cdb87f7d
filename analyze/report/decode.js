// From the page's own data block to typed columns: base64, inflate, put the bytes back in order.

const DATA = JSON.parse(document.getElementById("data").textContent);

async function bytesOf(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function columnOf(text, Kind) {
  const planes = await bytesOf(text);
  const width = Kind.BYTES_PER_ELEMENT;
  const n = planes.length / width;
  const bytes = new Uint8Array(planes.length);
  for (let b = 0; b < width; b++) for (let i = 0; i < n; i++) bytes[i * width + b] = planes[b * n + i];
  return new Kind(bytes.buffer);
}

async function decodeAll() {
  const kinds = { value: Float32Array, low: Float32Array, high: Float32Array, n: Uint32Array, store: Uint32Array, options: Uint32Array };
  await Promise.all(Object.entries(kinds).map(async ([name, Kind]) => {
    DATA.cells[name] = await columnOf(DATA.cells[name], Kind);
  }));
  if (DATA.reliability) DATA.reliability.numbers = await columnOf(DATA.reliability.numbers, Float32Array);
  DATA.reasonOf = new Map(DATA.missing.map(([q, m, r]) => [q * DATA.models.id.length + m, DATA.reasons[r]]));
}
