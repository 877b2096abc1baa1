"use strict";
const P = JSON.parse(document.getElementById("payload").textContent);
const LIVES = [...document.querySelectorAll("script.life")].map((e) => JSON.parse(e.textContent));
const $ = (id) => document.getElementById(id);

function unpack(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}
const ids = unpack(P.ids, Int32Array), born = unpack(P.born, Uint8Array);
const nItems = unpack(P.n_items, Int32Array), nUsers = unpack(P.n_users, Int32Array);
const mass = unpack(P.n_behaviors, Float32Array);
const xs = unpack(P.x, Float32Array), ys = unpack(P.y, Float32Array);
const neighbors = unpack(P.neighbors, Int32Array);
const anchor = unpack(P.anchor, Uint8Array), anchorShare = unpack(P.anchor_share, Uint8Array);
const trend = unpack(P.trend, Uint8Array), peak = unpack(P.peak, Float32Array);
const itemInterest = unpack(P.item_interest, Int32Array), itemMass = unpack(P.item_behaviors, Int32Array);
const D = ids.length, N = P.months.length, K = P.n_neighbors;

const whole = (n) => Math.round(n).toLocaleString("en-US");
const name = (i) => P.words[i].slice(0, 3).join(", ") || `interest ${ids[i]}`;
const colourOf = (m) => `hsl(${Math.round((360 * m) / P.n_anchors)} 60% 45%)`;

/** An element with text and children; texts are never read as markup. */
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, options);
  element.append(...children);
  return element;
}
function shape(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
function titled(element, text) {
  element.append(shape("title", {}, text));
  return element;
}
const dot = (m) => {
  const e = make("i", { className: "dot" });
  e.style.background = colourOf(m);
  return e;
};
const link = (i) =>
  make("button", { className: "link", onclick: () => choose(i, true) }, dot(anchor[i]), name(i));

// ---- the map --------------------------------------------------------------------------------------------
const map = $("map"), pen = map.getContext("2d");
let view = { k: 1, x: 0, y: 0 }, chosen = -1, item = -1, size = 1;
const most = mass.reduce((a, b) => Math.max(a, b), 1);
const radius = (i) => (mass[i] > 0 ? 1.2 + 8 * Math.sqrt(mass[i] / most) : 1);
// Large interests are drawn first, so that small ones are not hidden, and named first.
const bySize = Int32Array.from({ length: D }, (_, i) => i).sort((a, b) => mass[b] - mass[a]);
// Cells of the plane, to find what lies under the pointer without asking all interests.
const SIDE = Math.max(1, Math.min(256, Math.round(Math.sqrt(D / 4))));
const cells = Array.from({ length: SIDE * SIDE }, () => []);
const cellOf = (v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v * SIDE)));
for (let i = 0; i < D; i++) cells[cellOf(ys[i]) * SIDE + cellOf(xs[i])].push(i);

const px = (i) => (view.x + (0.03 + 0.94 * xs[i]) * view.k) * size;
const py = (i) => (view.y + (0.03 + 0.94 * ys[i]) * view.k) * size;

/** Mean share of the last quarter of the months against that of the first: log2, cut at two doublings. */
function slope(i) {
  const q = Math.max(1, Math.floor(N / 4));
  let first = 0, last = 0;
  for (let m = 0; m < q; m++) {
    first += trend[i * N + m];
    last += trend[i * N + N - 1 - m];
  }
  return Math.max(-2, Math.min(2, Math.log2((last + 1) / (first + 1))));
}
const slopes = Float32Array.from({ length: D }, (_, i) => slope(i));
const colours = {
  anchor: (i) => colourOf(anchor[i]),
  trend: (i) => (slopes[i] > 0 ? `hsl(150 55% ${62 - 16 * slopes[i]}%)` : `hsl(10 60% ${68 + 12 * slopes[i]}%)`),
  born: (i) => (born[i] ? "#c77d33" : "#a9c6e0"),
};

function draw() {
  const ratio = window.devicePixelRatio || 1;
  size = map.clientWidth;
  map.width = map.height = Math.round(size * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const colour = colours[$("colour").value], zoom = Math.sqrt(view.k);
  pen.globalAlpha = 0.75;
  for (const i of bySize) {
    const x = px(i), y = py(i), r = radius(i) * (D > 20000 ? 0.6 : 1) * zoom;
    if (x < -r || y < -r || x > size + r || y > size + r) continue;
    pen.fillStyle = colour(i);
    if (r < 1.6) pen.fillRect(x - r, y - r, 2 * r, 2 * r);
    else {
      pen.beginPath();
      pen.arc(x, y, r, 0, 7);
      pen.fill();
    }
  }
  pen.globalAlpha = 1;
  if (chosen >= 0) {
    pen.strokeStyle = "#1d2733";
    pen.lineWidth = 1;
    for (const j of nearOf(chosen)) {
      pen.beginPath();
      pen.moveTo(px(chosen), py(chosen));
      pen.lineTo(px(j), py(j));
      pen.stroke();
    }
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.arc(px(chosen), py(chosen), radius(chosen) * zoom + 4, 0, 7);
    pen.stroke();
  }
  nameSome();
}

/** Names of the largest interests in sight, as far as they do not cover each other. */
function nameSome() {
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  const taken = [];
  for (const i of chosen >= 0 ? [chosen, ...bySize] : bySize) {
    if (taken.length >= 28) break;
    const x = px(i), y = py(i) - radius(i) * Math.sqrt(view.k) - 4;
    if (x < 0 || y < 10 || x > size || y > size) continue;
    const text = name(i), w = pen.measureText(text).width / 2 + 3;
    const box = [Math.max(w, Math.min(size - w, x)), y];
    if (taken.some(([a, b, c]) => Math.abs(a - box[0]) < c + w && Math.abs(b - box[1]) < 14)) continue;
    taken.push([...box, w]);
    pen.lineWidth = 3;
    pen.strokeStyle = "#fcfdfe";
    pen.strokeText(text, ...box);
    pen.fillStyle = "#1d2733";
    pen.fillText(text, ...box);
  }
}

function under(event) {
  const box = map.getBoundingClientRect();
  const mx = event.clientX - box.left, my = event.clientY - box.top;
  const back = (v, shift) => ((v / size - shift) / view.k - 0.03) / 0.94;
  const cx = cellOf(back(mx, view.x)), cy = cellOf(back(my, view.y));
  let best = -1, least = 14 * 14;
  for (let a = Math.max(0, cy - 1); a <= Math.min(SIDE - 1, cy + 1); a++)
    for (let b = Math.max(0, cx - 1); b <= Math.min(SIDE - 1, cx + 1); b++)
      for (const i of cells[a * SIDE + b]) {
        const far = (px(i) - mx) ** 2 + (py(i) - my) ** 2;
        if (far < least) [least, best] = [far, i];
      }
  return best;
}

let held = null;
map.onpointerdown = (e) => {
  held = { x: e.clientX, y: e.clientY, view: { ...view }, moved: false };
  map.setPointerCapture(e.pointerId);
};
map.onpointermove = (e) => {
  if (held) {
    const dx = e.clientX - held.x, dy = e.clientY - held.y;
    held.moved ||= Math.hypot(dx, dy) > 4;
    if (held.moved) {
      view = { ...held.view, x: held.view.x + dx / size, y: held.view.y + dy / size };
      draw();
    }
    return;
  }
  const i = under(e), tip = $("tip");
  tip.hidden = i < 0;
  if (i < 0) return;
  tip.textContent = `${name(i)}: ${whole(mass[i])} behaviors`;
  tip.style.left = `${Math.min(e.clientX + 14, innerWidth - 200)}px`;
  tip.style.top = `${e.clientY + 12}px`;
};
map.onpointerup = (e) => {
  const i = held && !held.moved ? under(e) : -1;
  held = null;
  if (i >= 0) choose(i);
};
map.onpointerleave = () => ($("tip").hidden = true);
map.addEventListener(
  "wheel",
  (e) => {
    e.preventDefault();
    const box = map.getBoundingClientRect();
    const mx = (e.clientX - box.left) / size, my = (e.clientY - box.top) / size;
    const k = Math.max(1, Math.min(60, view.k * Math.exp(-e.deltaY / 400)));
    view = { k, x: mx - ((mx - view.x) * k) / view.k, y: my - ((my - view.y) * k) / view.k };
    if (k === 1) view = { k: 1, x: 0, y: 0 };
    draw();
  },
  { passive: false },
);
$("whole").onclick = () => {
  view = { k: 1, x: 0, y: 0 };
  draw();
};
$("colour").onchange = draw;
new ResizeObserver(draw).observe(map);

// ---- what is chosen -------------------------------------------------------------------------------------
const nearOf = (i) => Array.from(neighbors.subarray(i * K, (i + 1) * K));

function choose(i, comeCloser = false, ofItem = -1) {
  chosen = i;
  item = ofItem;
  history.replaceState(null, "", `#interest=${ids[i]}`);
  if (comeCloser && view.k < 4) {
    const k = 4;
    view = { k, x: 0.5 - (0.03 + 0.94 * xs[i]) * k, y: 0.5 - (0.03 + 0.94 * ys[i]) * k };
  } else if (px(i) < 0 || py(i) < 0 || px(i) > size || py(i) > size) {
    view.x = 0.5 - (0.03 + 0.94 * xs[i]) * view.k;
    view.y = 0.5 - (0.03 + 0.94 * ys[i]) * view.k;
  }
  draw();
  tell();
}

function months(i) {
  const w = 420, h = 76, step = w / N;
  const svg = shape("svg", { viewBox: `0 0 ${w} ${h + 18}`, role: "img", "aria-label": "Share of behaviors by month" });
  for (let m = 0; m < N; m++) {
    const value = trend[i * N + m] / 255, share = (100 * value * peak[i]).toPrecision(3);
    const look = P.months[m] <= P.through ? "trained" : "later";
    svg.append(
      titled(
        shape("rect", { class: look, x: m * step + 1, width: step - 2, y: h - h * value, height: h * value + 0.5 }),
        `${P.months[m]}: ${share} % of all behaviors`,
      ),
    );
    if (m === 0 || m === N - 1)
      svg.append(shape("text", { x: m ? w : 0, y: h + 14, "text-anchor": m ? "end" : "start" }, P.months[m]));
  }
  return svg;
}

function tell() {
  const i = chosen, found = $("chosen");
  const ofInterest = [];
  for (let t = 0; t < itemInterest.length && ofInterest.length < 8; t++)
    if (itemInterest[t] === i && t !== item) ofInterest.push(t);
  found.replaceChildren(
    ...(item < 0
      ? []
      : [make("p", { className: "facts" }, make("b", {}, P.items[item]), ` (${whole(itemMass[item])} behaviors in training) lies in`)]),
    make("h3", { id: "chosen-name" }, dot(anchor[i]), P.words[i].slice(0, 6).join(", ") || name(i)),
    make(
      "p",
      { className: "facts" },
      `Interest ${ids[i]}, since ${P.since[i]}${born[i] ? " (new in this release)" : ""}. `,
      `${whole(mass[i])} behaviors until ${P.months[N - 1]}; ${whole(nItems[i])} items and `,
      `${whole(nUsers[i])} users at training. Anchor ${anchor[i] + 1} holds ${Math.round(anchorShare[i] / 2.55)} %.`,
    ),
    months(i),
    make("h3", {}, "Items"),
    make(
      "ul",
      { className: "plain" },
      ...(ofInterest.length ? ofInterest.map((t) => P.items[t]) : P.top_items[i]).map((text) => make("li", {}, text)),
    ),
    make("h3", {}, "Neighbors"),
    make("ul", { className: "plain", id: "neighbors" }, ...nearOf(i).map((j) => make("li", {}, link(j)))),
  );
}

// ---- search ---------------------------------------------------------------------------------------------
let texts = null;
function search(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean), found = $("found");
  if (!words.length) return found.replaceChildren();
  texts ??= {
    interests: P.words.map((w, i) => `${ids[i]} ${w.join(" ")} ${P.top_items[i].join(" ")}`.toLowerCase()),
    items: P.items.map((text) => text.toLowerCase()),
  };
  const matches = (text) => words.every((word) => text.includes(word));
  const rows = [];
  for (const i of bySize) {
    if (rows.length >= 10) break;
    if (matches(texts.interests[i])) rows.push(make("li", {}, link(i)));
  }
  for (let t = 0, n = 0; t < P.items.length && n < 12; t++)
    if (matches(texts.items[t])) {
      n++;
      const pick = () => choose(itemInterest[t], true, t);
      rows.push(make("li", {}, "item ", make("button", { className: "link", onclick: pick }, P.items[t])));
    }
  found.replaceChildren(...(rows.length ? rows : [make("li", { className: "soft" }, "Nothing has all these words.")]));
}
$("search").oninput = (e) => search(e.target.value);
for (const button of document.querySelectorAll("[data-interest]"))
  button.onclick = () => {
    choose(Number(button.dataset.interest), true);
    map.scrollIntoView({ block: "center" });
  };

// ---- a life ---------------------------------------------------------------------------------------------
function showLife(life) {
  const left = 210, step = Math.max(34, 660 / N), line = 24;
  for (const b of document.querySelectorAll("button[data-life]"))
    b.setAttribute("aria-pressed", String(b.dataset.life === life.name));
  $("life-facts").textContent =
    `${whole(life.n_behaviors)} behaviors in ${life.n_interests} interests; confidence of the vector ${life.confidence}.`;
  const rows = [...life.counts.map((counts, r) => ({ counts, i: life.rows[r] })), { counts: life.others, i: -1 }];
  const width = left + step * N + 10, top = 22, base = top + line * rows.length, tall = 90;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${base + tall + 26}`, role: "img", "aria-label": `Life of ${life.name}` });
  svg.style.minWidth = `${Math.min(width, 900)}px`;
  const largest = Math.max(1, ...life.counts.flat());
  P.months.forEach((month, m) => {
    svg.append(shape("text", { class: "mid", x: left + step * (m + 0.5), y: 12 }, N > 14 ? month.slice(2) : month));
    if (month === P.through && m < N - 1)
      svg.append(titled(shape("line", { class: "hair", x1: left + step * (m + 1), x2: left + step * (m + 1), y1: 16, y2: base + tall }), "End of training"));
  });
  rows.forEach(({ counts, i }, r) => {
    const y = top + line * (r + 0.5);
    const label = shape("text", { class: "name", x: left - 10, y: y + 4, "text-anchor": "end" }, i < 0 ? "all others" : name(i).slice(0, 34));
    if (i >= 0) {
      label.style.cursor = "pointer";
      label.onclick = () => { choose(i, true); map.scrollIntoView({ block: "center" }); };
    }
    svg.append(label, shape("line", { class: "hair", x1: left, x2: width - 10, y1: y, y2: y }));
    counts.forEach((count, m) => {
      if (!count) return;
      const r = i < 0 ? 4 : 2.5 + 8 * Math.sqrt(count / largest);
      svg.append(titled(shape("circle", { cx: left + step * (m + 0.5), cy: y, r, fill: i < 0 ? "#d5dce3" : colourOf(anchor[i]) }),
        `${P.months[m]}: ${count} behaviors, ${i < 0 ? "all other interests" : name(i)}`));
    });
  });
  svg.append(shape("text", { class: "name", x: left - 10, y: base + tall / 2 + 14, "text-anchor": "end" }, "held by anchors"));
  life.anchors.forEach((shares, m) => {
    let y = base + 10;
    shares.forEach((share, a) => {
      svg.append(titled(shape("rect", { x: left + step * m + 3, width: step - 6, y, height: share * tall, fill: colourOf(a) }),
        `${P.months[m]}: anchor ${a + 1} holds ${Math.round(100 * share)} %`));
      y += share * tall;
    });
  });
  $("life").replaceChildren(svg);
}
for (const button of document.querySelectorAll("button[data-life]"))
  button.onclick = () => showLife(LIVES.find((life) => life.name === button.dataset.life));
if (LIVES.length) showLife(LIVES[0]);

// ---- anchors --------------------------------------------------------------------------------------------
function drawOutputs() {
  const canvas = $("outputs"), pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  const x = unpack(P.outputs.x, Float32Array), y = unpack(P.outputs.y, Float32Array), m = unpack(P.outputs.anchor, Uint8Array);
  const side = canvas.clientWidth, bound = (v) => [v.reduce((a, b) => Math.min(a, b)), v.reduce((a, b) => Math.max(a, b))];
  const [x0, x1] = bound(x), [y0, y1] = bound(y);
  canvas.width = canvas.height = Math.round(side * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (let i = 0; i < x.length; i++) {
    pen.fillStyle = colourOf(m[i]);
    pen.beginPath();
    pen.arc(8 + ((side - 16) * (x[i] - x0)) / (x1 - x0 || 1), 8 + ((side - 16) * (y[i] - y0)) / (y1 - y0 || 1), 2, 0, 7);
    pen.fill();
  }
}
new ResizeObserver(drawOutputs).observe($("outputs"));
$("anchors").append(
  ...P.anchors.map(({ mass, own }, m) =>
    make("div", {},
      make("p", {}, dot(m), make("b", {}, `Anchor ${m + 1}`), ` ${(100 * mass).toFixed(0)} %`),
      make("ul", { className: "plain" }, ...own.map((i) => make("li", {}, link(i)))),
    ),
  ),
);

// ---- where to begin -------------------------------------------------------------------------------------
const asked = /^#interest=(\d+)$/.exec(location.hash);
const start = asked ? ids.indexOf(Number(asked[1])) : -1;
draw();
choose(start >= 0 ? start : bySize[0]);
document.documentElement.dataset.ready = "yes";
