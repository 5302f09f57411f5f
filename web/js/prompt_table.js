// The table on Diversify Retain Prompts, to view and edit the prompt pairs before anything is drawn.
// Edits are stored in an input of the node, and thus in the workflow.

import {
  addPanel, hasLink, hideEverywhere, onEvent, setWidget, sourceOf, typeOf, valueWidget, widgetOf,
} from "./comfy.js";
import { h, setText } from "./dom.js";
import { post } from "./server.js";
import { PAGE, field, table } from "./table.js";
import { Tabs } from "./tabs.js";
import { t } from "./words.js";

const NAME = "unlearn prompts";
export const EDITED = "edited_prompts"; // the input that stores the table as JSON; never shown
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

// The first of these inputs that is linked; only a run knows its value.
const linkedOf = (node, names) => names.find((name) => valueWidget(node, name) === null);

class PromptTable {
  constructor(node) {
    this.node = node;
    this.set = null; // the prompt set, in the format of a prompt file
    this.words = null; // values of the widgets at the last request
    this.loading = false;
    this.last = Promise.resolve(); // the last request
    this.side = "train";
    this.rows = PAGE;
    this.refresh = h("button", { onclick: () => this.load() });
    this.startOverButton = h("button", { textContent: t("prompts.over"), onclick: () => this.startOver() });
    this.note = h("span", { className: "quiet", textContent: t("prompts.edited") });
    this.problem = h("div", { className: "bad", role: "alert" });
    this.place = h("div", { className: "scroll prompts" });
    this.tabs = new Tabs(this.place, (i) => this.showSide(SIDES[i]));
    this.empty = h("div", { className: "empty", textContent: t("prompts.empty") });
    const element = h(
      "div",
      {},
      h("div", { className: "row" }, this.refresh, this.tabs.element),
      h("div", { className: "row" }, this.note, this.startOverButton),
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

  // Runs requests one after the other, because two answers may arrive in either order.
  inTurn(work) {
    this.last = this.last.then(work, work);
    return this.last;
  }

  // Requests the pairs for the widgets' values from the server, which draws and trains nothing for this.
  load() {
    this.loading = true;
    return this.inTurn(() => this.loadNow());
  }

  // Repeats the request while the words change during it.
  async loadNow() {
    try {
      do await this.request();
      while (!this.edited && this.words !== this.wordsNow());
    } finally {
      this.loading = false;
    }
  }

  async request() {
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
      const set = await post("prompts", { concept, prompts });
      if (words === this.wordsNow()) this.show(set); // otherwise they changed meanwhile
    } catch (error) {
      setText(this.problem, error.message);
    }
  }

  // After its first request, the table follows changes of the words and shows errors in them.
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

  // The values of the linked concept's widgets, or the concept of the last set.
  concept() {
    const source = this.source();
    if (source && !linkedOf(source, CONCEPT)) return valuesOf(source, CONCEPT);
    const known = this.set?.concept;
    if (!known) return null;
    const [synonyms, replacements] = [known.synonyms, known.replacements].map((words) => words.join(", "));
    return { concept: known.name, kind: known.kind, synonyms, replacements };
  }

  // The reason for a missing concept: no link, or a link whose source is known only during a run.
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
    this.showEdited();
    this.empty.hidden = Boolean(this.set);
    const labels = this.set ? SIDES.map((side) => this.label(side)) : [];
    this.tabs.show(labels, SIDES.indexOf(this.side));
    this.place.hidden = !this.set;
    if (this.set) this.place.replaceChildren(this.table());
  }

  showEdited() {
    this.note.hidden = this.startOverButton.hidden = !this.edited;
  }

  showSide(side) {
    Object.assign(this, { side, rows: PAGE });
    this.draw();
  }

  label(side) {
    return t(`prompts.${side}`, { n: this.set[side].length }) + this.repeats(side);
  }

  // A note on repeated pairs: there were too few words for the number of pairs.
  repeats(side) {
    if (this.set.concept.kind === "class") return ""; // the model sees only the class, not the words
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

  // Stores invalid edits too: Run must refuse them rather than ignore them.
  store() {
    setWidget(this.node, EDITED, JSON.stringify(this.set));
    this.showEdited(); // the rows are not redrawn: the user may be typing in the next one
    return this.inTurn(() => this.check());
  }

  async check() {
    const concept = this.concept();
    try {
      if (!concept) throw new Error(this.noConcept());
      await post("prompts", { concept, prompts: { [EDITED]: widgetOf(this.node, EDITED).value } });
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

// Shows the result of a run, unless the table was edited after the run was queued.
export function showPrompts(node, set) {
  const panel = panels.get(node);
  if (!panel?.edited) panel?.show(set);
}

// Shows the edits stored in a workflow that was opened.
export function restorePrompts(node) {
  const panel = panels.get(node);
  if (!panel?.edited) {
    panel?.draw();
    return;
  }
  try {
    panel.show(JSON.parse(widgetOf(node, EDITED).value));
  } catch (error) {
    // A workflow from elsewhere may contain anything here: show the error, and allow to start over.
    panel.show(null);
    setText(panel.problem, error.message);
  }
}
