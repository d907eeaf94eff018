// Points of several jobs in one picture, with a staircase through those that no other one beats. SVG: few hundred points.

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 760;
const HEIGHT = 400;
const PAD = { left: 56, right: 24, top: 18, bottom: 44 };
const TICKS = 5;

/**
 * points: [{x, y, color, isFilled, label, title}], front: [{x, y}]; xLabel and yLabel name the axes; `format` says a y.
 */
export function scatter(points, front, { title, xLabel, yLabel, format }) {
  const x = scale(points.map((point) => point.x), PAD.left, WIDTH - PAD.right);
  const y = scale(points.map((point) => point.y), HEIGHT - PAD.bottom, PAD.top);
  return s(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "scatter", role: "img", "aria-label": title },
    s("path", { class: "axis", d: `M${PAD.left} ${PAD.top}V${HEIGHT - PAD.bottom}H${WIDTH - PAD.right}` }),
    ...x.ticks.map((value) => words(x.place(value), HEIGHT - PAD.bottom + 16, Number(value.toPrecision(3)), "middle")),
    ...y.ticks.map((value) => words(PAD.left - 6, y.place(value) + 4, format(value), "end")),
    words((PAD.left + WIDTH - PAD.right) / 2, HEIGHT - 8, xLabel, "middle"),
    words(PAD.left + 6, PAD.top - 4, yLabel, "start"),
    front.length ? s("path", { class: "front", d: staircase(front, x.place, y.place) }) : null,
    ...points.map((point) => dot(point, x.place(point.x), y.place(point.y))),
    ...points.filter(({ label }) => label).map((point) => words(x.place(point.x) + 8, y.place(point.y) + 4, point.label, "start")),
  );
}

function dot({ color, isFilled, title }, cx, cy) {
  const circle = s("circle", { cx, cy, r: isFilled ? 5 : 3, class: `${color} ${isFilled ? "filled" : "open"}` });
  circle.append(s("title", {}, title));
  return circle;
}

/** Between two points of the front the accuracy of the lower one can be had. */
function staircase(front, x, y) {
  const [first, ...rest] = front;
  return [`M${x(first.x)} ${y(first.y)}`, ...rest.map((point) => `H${x(point.x)}V${y(point.y)}`)].join("");
}

function scale(values, first, last) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const spread = most - least || Math.abs(most) || 1;
  const [low, high] = [least - spread / 20, most + spread / 20];
  const ticks = Array.from({ length: TICKS }, (_, index) => low + ((high - low) * index) / (TICKS - 1));
  return { ticks, place: (value) => Math.round(10 * (first + ((value - low) / (high - low)) * (last - first))) / 10 };
}

function words(x, y, text, anchor) {
  return s("text", { x, y, "text-anchor": anchor }, String(text));
}

function s(tag, attributes, ...children) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}
