// Plots of what was done over time. Their numbers come as JSON, in the language of the page, and each
// plot has them as a table too.
"use strict";

(() => {
const section = document.getElementById("plots");
const language = document.documentElement.lang;
const HEIGHT = 200;
const plots = new Map();  // by key: what is drawn, and of what
const probe = section.appendChild(document.createElement("i"));
probe.hidden = true;

// A colour of the style as it is just now, in the light or in the dark.
function colour(name) {
  probe.className = `colour-${name}`;
  return getComputedStyle(probe).color;
}

function number(value) {
  return value == null ? "–" : value.toLocaleString(language, {maximumSignificantDigits: 4});
}

function time(second, every) {
  const at = new Date(second * 1000);
  const day = {month: "short", day: "numeric"};
  if (every >= 86400) return at.toLocaleDateString(language, day);
  const clock = at.toLocaleTimeString(language, {hour: "2-digit", minute: "2-digit", hour12: false});
  return clock === "00:00" ? at.toLocaleDateString(language, day) : clock;
}

function moment(second) {
  return new Date(second * 1000).toLocaleString(language, {dateStyle: "short", timeStyle: "short"});
}

// What stands at the x axis, and in the first column.
function place(told, x) {
  return told.names ? told.names[x] ?? "" : moment(x);
}

function axes(told) {
  const look = {
    stroke: colour("quiet"), font: "12px system-ui, sans-serif",
    grid: {stroke: colour("line"), width: 1}, ticks: {stroke: colour("line"), width: 1},
  };
  const below = told.names
    ? {values: (_, splits) => splits.map((x) => told.names[x] ?? ""), incrs: [1, 2, 5, 10, 20]}
    : {incrs: [1, 2, 5, 10, 30, 60, 180, 360, 720, 1440, 2880, 10080, 43200, 129600, 525600].map((minutes) => 60 * minutes), values: (_, splits, _axis, _space, every) => splits.map((x) => time(x, every))};
  return [
    {...look, ...below},
    {...look, size: 62, values: (_, splits) => splits.map((y) => y?.toLocaleString(language, {notation: "compact", maximumSignificantDigits: 3}))},
  ];
}

// A bar is as wide as the place that it has, and one point alone has a quarter of an hour.
const aroundBars = (plot, first, last) => (plot.data[0].length === 1 ? [-0.5, 0.5] : [first - 0.5, last + 0.5]);
const aroundOne = (plot, first, last) =>
  plot.data[0].length === 1 ? [plot.data[0][0] - 450, plot.data[0][0] + 450] : [first, last];

function options(told, width) {
  const few = told.x.length < 60;
  return {
    width, height: HEIGHT, axes: axes(told),
    scales: {x: {time: !told.names, range: told.names ? aroundBars : aroundOne}, y: {range: (_, least, most) => [0, most > 0 ? most * 1.05 : 1]}},
    hooks: {setCursor: [(plot) => plot.root.classList.toggle("at", plot.cursor.idx != null)]}, cursor: {sync: told.names ? undefined : {key: "time"}, drag: {x: true, y: false}},
    series: [
      {label: told.x_name, value: (_, x) => (x == null ? "–" : place(told, x))},
      ...told.series.map((one) => ({
        label: one.name, stroke: colour(one.colour), width: 1.5, dash: one.dashed ? [6, 4] : undefined,
        fill: told.bars ? colour(one.colour) : undefined, points: {show: few && !told.bars && !one.dashed},
        paths: told.bars ? uPlot.paths.bars({size: [0.8, 40]}) : undefined,
        value: (_, y) => number(y),
      })),
    ],
  };
}

function make(figure, told) {
  const drawing = figure.querySelector(".drawing");
  const plot = new uPlot(options(told, drawing.clientWidth), data(told), drawing);
  plot.over.addEventListener("mousedown", (event) => { plot.pressed_at = event.clientX; });
  plot.over.addEventListener("click", (event) => {
    const link = plots.get(figure.id).told.links?.[plot.cursor.idx];
    if (link && Math.abs(event.clientX - plot.pressed_at) < 3) location.assign(link);
  });
  return plot;
}

const data = (told) => [told.x, ...told.series.map((one) => one.values)];

// Whether the same lines have only got other numbers.
function isAlike(one, other) {
  const shape = (told) => JSON.stringify([told.bars, told.names, told.series.map((line) => line.name)]);
  return shape(one) === shape(other);
}

function draw(told) {
  const figure = document.getElementById(`plot-${told.key}`);
  const before = plots.get(figure.id);
  figure.hidden = !told.x.length;
  figure.classList.toggle("linked", Boolean(told.links));
  if (figure.hidden) return;
  let plot = before?.plot;
  if (plot && isAlike(before.told, told)) {
    const isWhole = plot.scales.x.min <= plot.data[0][0] && plot.scales.x.max >= plot.data[0].at(-1);
    plot.setData(data(told), isWhole);
  } else {
    plot?.destroy();
    plot = make(figure, told);
  }
  plots.set(figure.id, {plot, told});
  figure.plot = plot;
  plot.ctx.canvas.setAttribute("role", "img");
  plot.ctx.canvas.setAttribute("aria-label", told.label);
  fill(figure);
}

// The same numbers as a table, newest first, when somebody looks.
function fill(figure) {
  const details = figure.querySelector("details");
  const known = plots.get(figure.id);
  if (!details.open || !known) return;
  const {told} = known;
  const cell = (name, text, more) => Object.assign(document.createElement(name), {textContent: text}, more);
  const row = (...cells) => {
    const made = cell("tr", "");
    made.append(...cells);
    return made;
  };
  const head = [told.x_name, ...told.series.map((one) => one.name)].map((name) => cell("th", name, {scope: "col"}));
  const rows = told.x.map((x, at) => {
    const values = told.series.map((one) => cell("td", number(one.values[at]), {className: "n"}));
    if (told.links) values.push(cell("td", ""));
    if (told.links?.[at]) values.at(-1).append(cell("a", told.link_name, {href: told.links[at]}));
    return row(cell("th", place(told, x), {scope: "row"}), ...values);
  });
  if (told.links) head.push(cell("td", ""));
  const table = document.createElement("table");
  table.append(cell("caption", told.label), cell("thead", ""), cell("tbody", ""));
  table.tHead.append(row(...head));
  table.tBodies[0].append(...(told.names ? rows : rows.reverse()));
  details.querySelector("div").replaceChildren(table);
}

function drawAnew() {
  for (const [id, {plot, told}] of [...plots]) {
    plot.destroy();
    plots.delete(id);
    draw(told);
  }
  drawn();
}

let loading = false;
async function load() {
  if (loading) return;
  loading = true;
  try {
    const kept = document.getElementById("plots-data");  // of a report, which asks nobody
    const answer = kept ? new Response(kept.textContent) : await ask(section.dataset.series);
    if (answer.ok) {
      const told = await answer.json();
      section.hidden = !told.plots.some((one) => one.x.length) && !told.note;
      document.getElementById("plots-note").textContent = told.note;
      told.plots.forEach(draw);
      if (told.is_whole === false) setTimeout(load);
    }
  } catch {  // the page itself says that there is no answer
  } finally {
    loading = false;
    drawn();
  }
}

new ResizeObserver(() => {
  for (const {plot} of plots.values()) {
    const width = plot.root.parentElement.clientWidth;
    if (width && width !== plot.width) plot.setSize({width, height: HEIGHT});
  }
}).observe(section);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAnew);
section.addEventListener("toggle", (event) => fill(event.target.closest("figure")), true);
document.addEventListener("batchgen:fresh", load);
load();
})();
