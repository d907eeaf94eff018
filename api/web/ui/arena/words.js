// What a standing says, in words.

/** "62 % of 80 votes (52 to 72 %)" */
export function rateText({ win_rate: rate, low, high }) {
  const percent = (share) => Math.round(100 * share);
  return `better in ${percent(rate)} % (${percent(low)} to ${percent(high)} %)`;
}

/** A name of the voter in this tab: several people may share a key. */
export function voterName() {
  const KEY = "preftune-voter";
  let name = sessionStorage.getItem(KEY);
  if (!name) {
    name = `browser-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
    sessionStorage.setItem(KEY, name);
  }
  return name;
}
