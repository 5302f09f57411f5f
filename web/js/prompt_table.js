// The table on Diversify Retain Prompts: the pairs of prompts, to see and to edit before anything is
// drawn. What was edited is kept in the node's own input, and so in the workflow.

import {
  addPanel, hasLink, hideEverywhere, onEvent, setWidget, sourceOf, typeOf, valueWidget, widgetOf,
} from "./comfy.js";
import { h, setText } from "./dom.js";
import { tell } from "./server.js";
import { PAGE, field, table } from "./table.js";
import { Tabs } from "./tabs.js";
import { t } from "./words.js";

const NAME = "unlearn prompts";
export const EDITED = "edited_prompts"; // the table's own store: nobody should have to read JSON
const SIDES = ["train", "test"];
const panels = new WeakMap(); // node -> PromptTable

const SOURCES = [
  "templates",
  "dimensions",
  "train_count",
  "test_count",
  "test_share",
  "seed",
  "preset",
  "invented_names",
  "gibberish_names",
  "neighbours",
  "language_model",
  "prompts_file",
  EDITED,
];

const CONCEPT = ["concept", "kind", "synonyms", "replacements"];

const valuesOf = (node, names) =>
  Object.fromEntries(names.map((name) => [name, valueWidget(node, name)?.value]));

// The first of these inputs whose value comes along a link, and is known only to a run.
const linkedOf = (node, names) => names.find((name) => valueWidget(node, name) === null);

class PromptTable {
  constructor(node) {
    this.node = node;
    this.set = null; // as a file of prompts has it
    this.words = null; // of the widgets when the server was asked last
    this.loading = false;
    this.last = Promise.resolve(); // what the server was asked last
    this.side = "train";
    this.rows = PAGE;
    this.refresh = h("button", { onclick: () => this.load() });
    this.over = h("button", { textContent: t("prompts.over"), onclick: () => this.startOver() });
    this.note = h("span", { className: "quiet", textContent: t("prompts.edited") });
    this.problem = h("div", { className: "bad", role: "alert" });
    this.place = h("div", { className: "scroll prompts" });
    this.tabs = new Tabs(this.place, (i) => this.showSide(SIDES[i]));
    this.empty = h("div", { className: "empty", textContent: t("prompts.empty") });
    const element = h(
      "div",
      {},
      h("div", { className: "row" }, this.refresh, this.tabs.element),
      h("div", { className: "row" }, this.note, this.over),
      this.problem,
      this.empty,
      this.place,
    );
    const removed = onEvent("graphChanged", () => this.follow());
    addPanel(node, NAME, element, { min: 240, removed });
    const store = widgetOf(node, EDITED);
    if (store) hideEverywhere(store);
    this.draw();
  }

  get edited() {
    return Boolean(widgetOf(this.node, EDITED)?.value);
  }

  // One after the other: of two answers either may come first.
  inTurn(work) {
    this.last = this.last.then(work, work);
    return this.last;
  }

  // From the widgets, by the server: nothing is drawn or trained for it.
  load() {
    this.loading = true;
    return this.inTurn(() => this.loadNow());
  }

  // Until the words stay as they were when the server was asked.
  async loadNow() {
    try {
      do await this.ask();
      while (!this.edited && this.words !== this.wordsNow());
    } finally {
      this.loading = false;
    }
  }

  async ask() {
    const words = this.wordsNow();
    this.words = words;
    const source = this.source();
    const linked = linkedOf(this.node, SOURCES) ?? (source && linkedOf(source, CONCEPT));
    const concept = this.concept();
    if (!concept || linked) {
      const problem = linked ? t("prompts.linked", { name: linked }) : this.noConcept();
      setText(this.problem, problem);
      return;
    }
    try {
      const prompts = valuesOf(this.node, SOURCES);
      const set = await tell("prompts", { concept, prompts });
      if (words === this.wordsNow()) this.show(set); // else the words or rows changed meanwhile
    } catch (error) {
      setText(this.problem, error.message);
    }
  }

  // Once asked for, the table tells of the words as they stand, what is wrong with them included.
  follow() {
    if (this.words === null || this.edited || this.loading) return;
    if (this.words !== this.wordsNow()) this.load();
  }

  wordsNow() {
    const source = this.source();
    return JSON.stringify([valuesOf(this.node, SOURCES), source && valuesOf(source, CONCEPT)]);
  }

  // The linked Define Forget Concept.
  source() {
    const source = sourceOf(this.node, "concept");
    return typeOf(source) === "UnlearnForgetConcept" ? source : null;
  }

  // Its widgets, or what a run has told of it.
  concept() {
    const source = this.source();
    if (source && !linkedOf(source, CONCEPT)) return valuesOf(source, CONCEPT);
    const told = this.set?.concept;
    if (!told) return null;
    const [synonyms, replacements] = [told.synonyms, told.replacements].map((words) => words.join(", "));
    return { concept: told.name, kind: told.kind, synonyms, replacements };
  }

  // Why there is none: no link, or one whose end only a run finds.
  noConcept() {
    const linked = hasLink(this.node, "concept");
    return linked ? t("prompts.linked", { name: "concept" }) : t("prompts.link");
  }

  show(set) {
    this.set = set;
    this.words = this.wordsNow();
    setText(this.problem, "");
    this.draw();
  }

  draw() {
    this.refresh.textContent = t(this.set ? "prompts.again" : "prompts.show");
    this.tellEdited();
    this.empty.hidden = Boolean(this.set);
    const labels = this.set ? SIDES.map((side) => this.label(side)) : [];
    this.tabs.show(labels, SIDES.indexOf(this.side));
    this.place.hidden = !this.set;
    if (this.set) this.place.replaceChildren(this.table());
  }

  tellEdited() {
    this.note.hidden = this.over.hidden = !this.edited;
  }

  showSide(side) {
    Object.assign(this, { side, rows: PAGE });
    this.draw();
  }

  label(side) {
    return t(`prompts.${side}`, { n: this.set[side].length }) + this.repeats(side);
  }

  // Words that make fewer pairs than were asked for.
  repeats(side) {
    if (this.set.concept.kind === "class") return ""; // its prompts are for people alone
    const pairs = this.set[side];
    const n = new Set(pairs.map(({ forget, retain }) => JSON.stringify([forget, retain]))).size;
    return n < pairs.length ? t("prompts.different", { n }) : "";
  }

  table() {
    const headings = [t("prompts.forget"), t("prompts.retain"), ""];
    const showMore = () => {
      this.rows += PAGE;
      this.draw();
    };
    return table(headings, this.set[this.side], (pair) => this.row(pair), this.rows, showMore);
  }

  row(pair) {
    const of = (side) =>
      field(t(`prompts.${side}`), pair[side], (area) => {
        pair[side] = area.value.trim();
        area.className = "changed";
        this.store();
      });
    const remove = h("button", {
      textContent: "×",
      title: t("prompts.delete"),
      onclick: () => this.remove(pair),
    });
    remove.setAttribute("aria-label", t("prompts.delete"));
    const cells = [of("forget"), of("retain"), remove];
    return h("tr", {}, ...cells.map((cell) => h("td", {}, cell)));
  }

  remove(pair) {
    const { side } = this;
    if (this.set[side].length === 1) {
      setText(this.problem, t("prompts.last"));
      return;
    }
    this.set[side] = this.set[side].filter((other) => other !== pair);
    this.draw();
    this.store();
  }

  // Into the node's input, also what is wrong: Run is to refuse it, and not to go on without it.
  store() {
    setWidget(this.node, EDITED, JSON.stringify(this.set));
    this.tellEdited(); // the rows stay: somebody may be writing in the next one by now
    return this.inTurn(() => this.check());
  }

  async check() {
    const concept = this.concept();
    try {
      if (!concept) throw new Error(this.noConcept());
      await tell("prompts", { concept, prompts: { [EDITED]: widgetOf(this.node, EDITED).value } });
      setText(this.problem, "");
    } catch (error) {
      setText(this.problem, error.message);
    }
  }

  startOver() {
    return this.inTurn(() => {
      setWidget(this.node, EDITED, "");
      this.show(null);
      return this.loadNow();
    });
  }
}

export function addPromptTable(node) {
  panels.set(node, new PromptTable(node));
}

// What a run has made; it may have been queued before the table was edited.
export function showPrompts(node, set) {
  const panel = panels.get(node);
  if (!panel?.edited) panel?.show(set);
}

// When a workflow is opened: what was edited in it, or else nothing yet.
export function restorePrompts(node) {
  const panel = panels.get(node);
  if (!panel?.edited) {
    panel?.draw();
    return;
  }
  try {
    panel.show(JSON.parse(widgetOf(node, EDITED).value));
  } catch (error) {
    // A stranger's workflow may hold anything there: the table says so, and can start over.
    panel.show(null);
    setText(panel.problem, error.message);
  }
}
