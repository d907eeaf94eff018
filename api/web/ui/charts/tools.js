// What a chart can be taken away as: a picture, a table, the whole screen.

import { h, icon } from "../dom.js";

const HEAD_HEIGHT = 56;

/** The buttons of one chart; `chart` has title, columns, series, canvas and element. */
export function chartTools(chart) {
  const { title } = chart.options;
  const name = title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  const button = (label, about, work) =>
    h("button.quiet.small", { type: "button", title: about, "aria-label": `${typeof label === "string" ? `${label}: ` : ""}${about}, ${title}`, onclick: work }, label);
  return h(
    "span.chart-tools",
    null,
    button(icon("expand"), "full screen", () => toggleFullScreen(chart.element)),
    button("PNG", "save as picture", async () => save(await picture(chart), `${name}.png`)),
    button("CSV", "save as table", () => save(new Blob([csv(chart)], { type: "text/csv" }), `${name}.csv`)),
  );
}

function toggleFullScreen(element) {
  if (document.fullscreenElement) document.exitFullscreen();
  else element.requestFullscreen();
}

export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 0);
}

/** As drawn, under title and names of the curves, on the page's own colour. */
function picture(chart) {
  const { canvas } = chart;
  const scale = devicePixelRatio;
  const colors = getComputedStyle(document.documentElement);
  const color = (name) => colors.getPropertyValue(`--${name}`).trim();
  const made = document.createElement("canvas");
  made.width = canvas.width;
  made.height = canvas.height + HEAD_HEIGHT * scale;
  const context = made.getContext("2d");
  context.fillStyle = color("surface");
  context.fillRect(0, 0, made.width, made.height);
  context.drawImage(canvas, 0, HEAD_HEIGHT * scale);
  context.textBaseline = "top";
  context.font = `600 ${15 * scale}px system-ui, sans-serif`;
  context.fillStyle = color("text");
  context.fillText(chart.options.title, 12 * scale, 8 * scale);
  context.font = `${12 * scale}px system-ui, sans-serif`;
  let left = 12 * scale;
  for (const { label, color: hue } of chart.drawnSeries()) {
    context.fillStyle = color(hue);
    context.fillText(label, left, 32 * scale);
    left += context.measureText(label).width + 16 * scale;
  }
  return new Promise((resolve) => made.toBlob(resolve));
}

/** As recorded, without smoothing. */
function csv({ columns, series, options }) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const heads = [options.xLabel ?? "step", ...series.map(({ label }) => label)];
  const [xs, ...rest] = columns;
  const rows = xs.map((x, place) => [options.xOf?.(x) ?? x, ...rest.map((column) => column[place] ?? "")].join(","));
  return `${[heads.map(quoted).join(","), ...rows].join("\n")}\n`;
}
