// A table of texts. Whatever is said here is set as text or as an attribute, never read as markup.
import { h } from "vue";

const LONG = 70;

function cut(text) {
  return h("span", { class: "cut", title: text }, text);
}

function link(one) {
  const long = one.long ? { title: one.text } : {};
  return h("a", { href: one.path, class: one.long ? "cut" : one.look, ...long }, one.text);
}

function progress(one) {
  const said = { role: "progressbar", "aria-valuenow": one.percent, "aria-valuemin": 0, "aria-valuemax": 100 };
  return [
    h("div", { class: "small" }, one.text),
    h("div", { class: "meter", "aria-label": one.label, ...said }, [h("div", { style: { width: `${one.percent}%` } })]),
  ];
}

export default {
  props: { columns: Array, rows: Array, about: String },
  methods: {
    inside(cell) {
      if (typeof cell === "string") return cell.length < LONG ? cell : [cut(cell)];
      if (cell.slot) return this.$slots[cell.slot]?.();
      if (cell.path) return [link(cell)];
      if (cell.chip !== undefined) return [h("span", { class: `chip ${cell.tone}` }, cell.chip)];
      return progress(cell);
    },
    head(column) {
      const inside = typeof column === "string" ? column : [link(column)];
      const sorted = column.sorted ? { "aria-sort": column.sorted } : {};
      return h("th", { scope: "col", ...sorted }, inside);
    },
    name(column) {
      return typeof column === "string" ? column : column.name;
    },
  },
  render() {
    const lines = this.rows.map((row) =>
      h("tr", row.map((cell, at) => h("td", { "data-label": this.name(this.columns[at]) }, this.inside(cell)))),
    );
    const list = h("table", { class: "list" }, [
      h("thead", [h("tr", this.columns.map(this.head))]),
      h("tbody", lines),
    ]);
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": this.about }, [list]);
  },
};
