// Numbers, sizes and times for people.

const LOCALE = "en-US";
const whole = new Intl.NumberFormat(LOCALE);

export function count(value) {
  return value === null || value === undefined ? "–" : whole.format(value);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A metric: four significant digits, never more than a reader can use. */
export function metric(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  if (size >= 1000) return whole.format(Math.round(value));
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 4).replace(/^-(0\.?0*)$/, "$1");
}

export function signed(value) {
  return value > 0 ? `+${metric(value)}` : metric(value);
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function parameters(value) {
  for (const [size, unit] of [
    [1e9, " B"],
    [1e6, " M"],
    [1e3, " k"],
  ]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return String(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function between(start, end) {
  return start ? duration((new Date(end ?? Date.now()) - new Date(start)) / 1000) : "–";
}

export function time(at) {
  return at ? new Date(at).toLocaleTimeString("en-GB") : "–";
}

export function date(at) {
  if (!at) return "–";
  return new Date(at).toLocaleString("en-GB", {
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
  });
}

/** "3 min ago", or the date when it is long ago. */
export function ago(at) {
  const seconds = (Date.now() - new Date(at)) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return date(at);
}

/** A setting of a spec. */
export function setting(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number")
    return Math.abs(value) >= 1e-3 || value === 0 ? String(value) : value.toExponential().replace("e-", "e−");
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(setting).join(", ") : "none";
  if (typeof value === "object")
    return (
      Object.entries(value)
        .map(([name, inner]) => `${name} ${setting(inner)}`)
        .join(", ") || "none"
    );
  return String(value);
}
