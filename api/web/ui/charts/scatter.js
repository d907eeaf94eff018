// Points of several jobs in one picture, with a staircase through those that no other one beats. SVG: few hundred points.

const NAMESPACE = "http://www.w3.org/2000/svg";
/** In a wide window and on a telephone, where letters would be shrunk with the picture. */
const SIZES = { wide: [760, 400], narrow: [380, 300] };
const PAD = { left: 56, right: 24, top: 18, bottom: 44 };
const TICKS = { wide: 5, narrow: 4 };
/** Places of a label beside its point, the first free one is taken: [x, y, anchor]. */
const PLACES = [[0, -9, "middle"], [0, 18, "middle"], [8, 4, "start"], [-8, 4, "end"]];
const RADIUS = 5;
const LETTER = { width: 7, height: 12 };

/**
 * points: [{x, y, color, isFilled, label, title}], front: [{x, y}]; xLabel and yLabel name the axes; `format` says a y.
 */
export function scatter(points, front, { title, xLabel, yLabel, format }) {
  const form = matchMedia("(max-width: 40rem)").matches ? "narrow" : "wide";
  const [width, height] = SIZES[form];
  const x = scale(points.map((point) => point.x), PAD.left, width - PAD.right, TICKS[form]);
  const y = scale(points.map((point) => point.y), height - PAD.bottom, PAD.top, TICKS[form]);
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "scatter", role: "img", "aria-label": title },
    s("path", { class: "axis", d: `M${PAD.left} ${PAD.top}V${height - PAD.bottom}H${width - PAD.right}` }),
    ...x.ticks.map((value) => words(x.place(value), height - PAD.bottom + 16, Number(value.toPrecision(3)), "middle")),
    ...y.ticks.map((value) => words(PAD.left - 6, y.place(value) + 4, format(value), "end")),
    words((PAD.left + width - PAD.right) / 2, height - 8, xLabel, "middle"),
    words(PAD.left + 6, PAD.top - 4, yLabel, "start"),
    front.length ? s("path", { class: "front", d: staircase(front, x.place, y.place) }) : null,
    ...points.map((point) => dot(point, x.place(point.x), y.place(point.y))),
    ...labels(points.filter(({ label }) => label).map((point) => [x.place(point.x), y.place(point.y), point.label]), width),
  );
}

/** Labels that lie on no point and on no other label; one without a free place is left out, its point's title has it. */
function labels(points, width) {
  const taken = points.map(([x, y]) => ({ left: x - RADIUS, right: x + RADIUS, top: y - RADIUS, bottom: y + RADIUS }));
  return points.map(([left, top, text]) => {
    for (const [dx, dy, anchor] of PLACES) {
      const box = boxOf(left + dx, top + dy, text, anchor);
      if (box.left < 0 || box.right > width || taken.some((other) => overlaps(box, other))) continue;
      taken.push(box);
      return words(left + dx, top + dy, text, anchor);
    }
    return null;
  });
}

function boxOf(x, y, text, anchor) {
  const width = LETTER.width * text.length;
  const left = x - { start: 0, middle: width / 2, end: width }[anchor];
  return { left, right: left + width, top: y - LETTER.height, bottom: y };
}

function overlaps(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

function dot({ color, isFilled, title }, cx, cy) {
  const circle = s("circle", { cx, cy, r: isFilled ? RADIUS : 3, class: `${color} ${isFilled ? "filled" : "open"}` });
  circle.append(s("title", {}, title));
  return circle;
}

/** Between two points of the front the accuracy of the lower one can be had. */
function staircase(front, x, y) {
  const [first, ...rest] = front;
  return [`M${x(first.x)} ${y(first.y)}`, ...rest.map((point) => `H${x(point.x)}V${y(point.y)}`)].join("");
}

function scale(values, first, last, number) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const spread = most - least || Math.abs(most) || 1;
  const low = least >= 0 ? Math.max(0, least - spread / 20) : least - spread / 20;
  const high = most + spread / 20;
  const ticks = Array.from({ length: number }, (_, index) => low + ((high - low) * index) / (number - 1));
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
