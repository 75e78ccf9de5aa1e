"use strict";
// Text from a run reaches the document through textContent only, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);

  // ---- charts: plotly figures whose colours are CSS variables ----
  const resolve = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };
  const options = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["toImage", "resetScale2d"]], // by name, as plotly's own choice holds an upload to its cloud
    plotlyServerURL: "",
  };
  const drawn = new Set();
  const draw = (id) => {
    const style = getComputedStyle(document.documentElement);
    const figure = resolve(data.figures[id], style);
    figure.layout.font.family = style.getPropertyValue("--sans");
    drawn.add(id);
    return Plotly.react(id, figure.data, figure.layout, options);
  };
  const redraw = () => drawn.forEach(draw);
  for (const id of Object.keys(data.figures)) {
    const folded = document.getElementById(id).closest("details");
    if (!folded) draw(id);
    else folded.addEventListener("toggle", () => folded.open && !drawn.has(id) && draw(id));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const printing = (on) => () => {
    document.documentElement.classList.toggle("printing", on);
    redraw();
  };
  addEventListener("beforeprint", printing(true));
  addEventListener("afterprint", printing(false));

  // ---- copy buttons ----
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  // ---- samples ----
  const form = document.getElementById("filters");
  if (!form) return;
  const PAGE = 25;
  const list = document.getElementById("list");
  const more = document.getElementById("more-samples");
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  // Control, zero-width and direction-changing characters are shown, since a completion may hide behind them.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
  const visible = (text) =>
    text.replace(HIDDEN, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
  const outcomes = { right: "right", wrong: "wrong", could_not_grade: "ungraded" };

  const choices = (name, values, label = String) => {
    const select = form.elements[name];
    for (const value of [...new Set(values)].sort((a, b) => (a > b) - (a < b))) {
      const option = element("option", "", label(value));
      option.value = String(value);
      select.append(option);
    }
  };
  choices("run", data.samples.map((s) => s.run), (i) => data.runs[i]);
  choices("step", data.samples.map((s) => s.step));
  choices("kind", data.samples.map((s) => s.kind));
  choices("outcome", data.samples.map((s) => s.outcome), (o) => outcomes[o] ?? visible(o));
  choices("stop", data.samples.map((s) => s.stop), visible);

  const searched = data.samples.map((s) =>
    [data.prompts[s.prompt], s.text, s.answer, s.reason, s.problem].join("\n").toLowerCase(),
  );
  const find = () => {
    const is = (name, value) => form.elements[name].value === "" || form.elements[name].value === String(value);
    const text = form.elements.text.value.toLowerCase();
    const fields = ["run", "step", "kind", "outcome", "stop"];
    const found = data.samples.filter((s, i) => fields.every((f) => is(f, s[f])) && searched[i].includes(text));
    const order = form.elements.order.value;
    const key = order.replace("-", "");
    const sign = order.startsWith("-") ? -1 : 1;
    const missing = (s) => s[key] === null; // last in either order
    return found.sort((a, b) => missing(a) - missing(b) || sign * (a[key] - b[key]));
  };

  const text = (parent, title, value) => {
    parent.append(element("h4", "", title), element("pre", "", visible(value)));
  };
  const meta = (parent, facts) => {
    const row = element("p", "meta");
    for (const [label, value] of facts) {
      const cell = element("span");
      cell.append(element("b", "", visible(label)), visible(value));
      row.append(cell);
    }
    parent.append(row);
  };
  const body = (s) => {
    const node = element("div", "body");
    text(node, "Prompt", data.prompts[s.prompt]);
    text(node, "Gold answer", s.answer);
    text(node, "Completion", s.text);
    if (s.reason) text(node, "Verdict's reason", s.reason);
    const parts = Object.entries(s.parts).map(([name, value]) => [name, number(value)]);
    meta(node, [["reward", number(s.reward)], ["before shaping", number(s.raw)], ...parts]);
    meta(node, [
      ["stop", s.stop],
      ["tokens", number(s.length)],
      ["version", `${number(s.version)} ${s.digest.slice(0, 12)}`],
      ["problem", s.problem],
      ["sample", number(s.index)],
      ["seed", s.seed],
    ]);
    return node;
  };
  const card = (s) => {
    const node = element("details", "sample");
    const line = element("summary");
    const known = Object.hasOwn(outcomes, s.outcome);
    line.append(
      element("span", known ? `outcome ${s.outcome}` : "outcome", known ? outcomes[s.outcome] : visible(s.outcome)),
      element("span", "reward", `reward ${number(s.reward)}`),
      element("span", "", data.runs.length > 1 ? `${data.runs[s.run]}, step ${s.step}` : `step ${s.step}`),
      element("span", "", `${number(s.length)} tokens`),
      element("span", "preview", visible(s.text.slice(0, 200).replace(/\s+/g, " "))),
    );
    node.append(line);
    node.addEventListener("toggle", () => node.open && node.childElementCount === 1 && node.append(body(s)));
    return node;
  };

  let found = [];
  const show = (count) => {
    const from = list.childElementCount;
    list.append(...found.slice(from, from + count).map(card));
    more.hidden = list.childElementCount >= found.length;
    document.getElementById("count").textContent =
      `${found.length} of ${data.samples.length} match; ${list.childElementCount} listed`;
  };
  const refresh = () => {
    found = find();
    list.replaceChildren();
    show(PAGE);
  };
  form.addEventListener("change", (event) => event.target.name !== "text" && refresh());
  form.elements.text.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => show(PAGE));
  refresh();
})();
