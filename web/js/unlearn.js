// The pack in ComfyUI's page: which node has which panel, and what reaches them.

import { foldAdvanced } from "./advanced.js";
import { addCaptionTable, showCaptions } from "./caption_table.js";
import {
  addToHead, colorLinks, dropSharedId, findNode, fitHeight, graphId, onEvent, register, someNode, typeOf, widgetsOf,
} from "./comfy.js";
import { addComparePanel, showReport } from "./compare_panel.js";
import { h } from "./dom.js";
import { hasShown, markNew } from "./earlier.js";
import { tellWhenLeftOut } from "./left_out.js";
import { addLivePanel, followRuns, restoreRuns, showRun } from "./live_panel.js";
import { followPreset } from "./presets.js";
import { EDITED, addPromptTable, restorePrompts, showPrompts } from "./prompt_table.js";
import { followRecipe } from "./recipes.js";
import { restoreByName } from "./saved_inputs.js";
import { ask } from "./server.js";
import { addTextPanel, showText } from "./text_panel.js";
import { followTheme } from "./theme.js";
import { t } from "./words.js";

const TEXTS = {
  UnlearnLoadModel: { min: 94, max: 94 },
  UnlearnSaveCheckpoint: { min: 60 },
};
const SHOWING = [...Object.keys(TEXTS), "UnlearnRestrictedGradient", "UnlearnEvaluateAlignment"];
const LINKS = ["MODEL", "CONCEPT", "PROMPTS", "PICTURES", "RESULT", "REPORT"].map((name) => `UNLEARN_${name}`);

const isOurs = (node) => typeOf(node).startsWith("Unlearn");

function ourNode(executionId) {
  const node = findNode(executionId);
  return isOurs(node) ? node : null;
}

function showOutput(node, output) {
  markNew(node);
  if (output.unlearn_run) showRun(node, output.unlearn_run[0]);
  if (output.unlearn_report) showReport(node, output.unlearn_report[0]);
  if (output.unlearn_captions) showCaptions(node, output.unlearn_captions);
  if (output.text) showText(node, output.text.join("\n"));
}

const workflows = new Map(); // prompt's id -> promise of its graph's id

// Node ids are unique only within a graph, and the page may show another one than runs.
function isOfThisGraph(prompt) {
  if (!workflows.has(prompt))
    workflows.set(prompt, ask(`workflow?${new URLSearchParams({ prompt })}`));
  return workflows.get(prompt).then((workflow) => workflow === (graphId() ?? null));
}

async function onExecuted({ node: id, display_node: displayed, output, prompt_id: prompt }) {
  const node = ourNode(displayed ?? id);
  if (!node || !output || (prompt && !(await isOfThisGraph(prompt)))) return;
  showOutput(node, output);
  // Not after a reload: the table is to show what the words above it make now.
  if (output.unlearn_prompts) showPrompts(node, output.unlearn_prompts[0]);
}

// Of nodes that have shown nothing yet: what they showed in the last run of this graph. The page
// forgets it on a reload, and the server sends nothing of a node whose result nobody had to look up.
// Returns whether the graph still stands as it was run.
async function restoreOutputs() {
  const workflow = graphId();
  const run = await ask(`last_run?${new URLSearchParams({ workflow })}`);
  if (!run || workflow !== graphId() || !agrees(run.prompt)) return false;
  for (const [id, output] of Object.entries(run.outputs)) {
    const node = ourNode(id);
    if (node && !hasShown(node)) showOutput(node, output);
  }
  return true;
}

// Whether a queued prompt has our nodes as they stand in the graph now: results of other settings
// would only mislead.
function agrees(prompt) {
  return Object.entries(prompt).every(([id, { inputs }]) => {
    const same = ({ name, value }) =>
      !(name in inputs) ||
      Array.isArray(inputs[name]) || // comes along a link
      name === "keep_step" || // which the panel itself sets after a run
      JSON.stringify(inputs[name]) === JSON.stringify(value);
    const node = ourNode(id);
    return node !== null && widgetsOf(node).every(same);
  });
}

const shouldShow = (node) => SHOWING.includes(typeOf(node)) && !hasShown(node);

register({
  name: "unlearn",
  setup() {
    const href = new URL("../css/unlearn.css", import.meta.url).href;
    const paint = () => colorLinks(LINKS); // again with each palette, which resets the colours
    addToHead(h("link", { rel: "stylesheet", href, onload: () => followTheme(paint) }));
    onEvent("executed", onExecuted);
    onEvent("executing", (id) => {
      if (id !== null) return;
      workflows.clear(); // the run has ended
      if (someNode(shouldShow)) restoreOutputs();
    });
    followRuns();
  },
  nodeCreated(node) {
    if (!isOurs(node)) return;
    const type = typeOf(node);
    restoreByName(node);
    foldAdvanced(node, [EDITED]);
    tellWhenLeftOut(node);
    const text = TEXTS[type];
    if (text) addTextPanel(node, { ...text, placeholder: t(`text.${type}`) });
    if (type === "UnlearnRestrictedGradient") addLivePanel(node, followRecipe(node));
    if (type === "UnlearnEvaluateAlignment") addComparePanel(node);
    if (type === "UnlearnOwnPictures") addCaptionTable(node);
    if (type === "UnlearnDiversifyPrompts") {
      followPreset(node);
      addPromptTable(node);
    }
    fitHeight(node); // it was made with all inputs open
  },
  loadedGraphNode(node) {
    if (typeOf(node) === "UnlearnDiversifyPrompts") restorePrompts(node);
  },
  beforeConfigureGraph: dropSharedId,
  async afterConfigureGraph() {
    if (!someNode(isOurs)) return;
    let same = false;
    try {
      same = await restoreOutputs();
    } finally {
      await restoreRuns(same); // last: a run that goes on is newer than any result
    }
  },
});
