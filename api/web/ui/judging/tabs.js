// The pages of judging, and the way between them.

import { h } from "../dom.js";

const PAGES = [
  ["judgements", "Judgements"],
  ["generations", "Generations"],
];

/** Title row and tabs of a list; `actions` are the buttons beside the title. */
export function judgingHead(current, ...actions) {
  const link = ([name, label]) => h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, label);
  return [
    h("div.title-row", null, h("h1", { tabindex: "-1" }, PAGES.find(([name]) => name === current)[1]), h("div.actions", null, actions)),
    h("nav.filters", { "aria-label": "Pages of judging" }, PAGES.map(link)),
  ];
}

/** What a list is narrowed to by its address, with a way out; nothing where it shows all. */
export function narrowing(current, query) {
  const given = ["dataset_id", "job_id"].filter((name) => query.get(name));
  const without = (name) => {
    const left = new URLSearchParams(query);
    left.delete(name);
    return left.size ? `#/${current}?${left}` : `#/${current}`;
  };
  const tags = given.map((name) =>
    h("a.tag", { href: without(name), title: "Remove this filter" }, `${name.replace("_id", "")}: ${query.get(name)} ✕`),
  );
  return tags.length ? h("div.tools", null, h("div.tags", null, tags)) : null;
}
