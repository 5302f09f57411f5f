// Entry point of the pack in ComfyUI's page: adds the panels to the nodes and passes results to them.

import { foldAdvanced } from "./advanced.js";
import { addCaptionTable, showCaptions } from "./caption_table.js";
import {
  addToHead, colorLinks, dropSharedId, findNode, fitHeight, graphId, onEvent, register, someNode, typeOf, widgetsOf,
} from "./comfy.js";
import { addComparePanel, showReport } from "./compare_panel.js";
import { h } from "./dom.js";
import { hasResult, markNew } from "./earlier.js";
import { warnWhenSkipped } from "./left_out.js";
import { addLivePanel, followRuns, restoreRuns, showRun } from "./live_panel.js";
import { cacheSetting } from "./picture_cache.js";
import { followPreset } from "./presets.js";
import { EDITED, addPromptTable, restorePrompts, showPrompts } from "./prompt_table.js";
import { followRecipe } from "./recipes.js";
import { restoreByName } from "./saved_inputs.js";
import { get } from "./server.js";
import { addTextPanel, showText } from "./text_panel.js";
import { followTheme } from "./theme.js";
import { t } from "./words.js";

const TEXTS = {
  UnlearnLoadModel: { min: 94, max: 94 },
  UnlearnFromComfyUI: { min: 120 },
  UnlearnQuickForget: { min: 60 },
  UnlearnSaveCheckpoint: { min: 60 },
};
const WITH_OUTPUT = [...Object.keys(TEXTS), "UnlearnRestrictedGradient", "UnlearnEvaluateAlignment"];
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

const workflows = new Map(); // prompt id -> promise of the id of its graph

// Node ids are unique only within a graph, and the page may show another graph than the running one.
function isOfThisGraph(prompt) {
  if (!workflows.has(prompt))
    workflows.set(prompt, get(`workflow?${new URLSearchParams({ prompt })}`));
  return workflows.get(prompt).then((workflow) => workflow === (graphId() ?? null));
}

async function onExecuted({ node: id, display_node: displayed, output, prompt_id: prompt }) {
  const node = ourNode(displayed ?? id);
  if (!node || !output || (prompt && !(await isOfThisGraph(prompt)))) return;
  showOutput(node, output);
  // Not after a reload: then the table should show the pairs for the current words.
  if (output.unlearn_prompts) showPrompts(node, output.unlearn_prompts[0]);
}

// Shows the outputs from the last run of this graph on nodes that have none yet: the page forgets them
// on a reload, and the server sends no output for a node whose cached result was not needed. Returns
// whether the graph is unchanged since that run.
async function restoreOutputs() {
  const workflow = graphId();
  const run = await get(`last_run?${new URLSearchParams({ workflow })}`);
  if (!run || workflow !== graphId() || !agrees(run.prompt)) return false;
  for (const [id, output] of Object.entries(run.outputs)) {
    const node = ourNode(id);
    if (node && !hasResult(node)) showOutput(node, output);
  }
  return true;
}

// Whether our nodes have the same values in a prompt as in the graph now; results of other settings
// would be misleading.
function agrees(prompt) {
  return Object.entries(prompt).every(([id, { inputs }]) => {
    const same = ({ name, value }) =>
      !(name in inputs) ||
      Array.isArray(inputs[name]) || // a link
      name === "keep_step" || // the panel itself sets it after a run
      JSON.stringify(inputs[name]) === JSON.stringify(value);
    const node = ourNode(id);
    return node !== null && widgetsOf(node).every(same);
  });
}

const lacksOutput = (node) => WITH_OUTPUT.includes(typeOf(node)) && !hasResult(node);

register({
  name: "unlearn",
  settings: [cacheSetting()],
  setup() {
    const href = new URL("../css/unlearn.css", import.meta.url).href;
    const paint = () => colorLinks(LINKS); // a change of the palette resets the colours
    addToHead(h("link", { rel: "stylesheet", href, onload: () => followTheme(paint) }));
    onEvent("executed", onExecuted);
    onEvent("executing", (id) => {
      if (id !== null) return;
      workflows.clear(); // the run has ended
      if (someNode(lacksOutput)) restoreOutputs();
    });
    followRuns();
  },
  nodeCreated(node) {
    if (!isOurs(node)) return;
    const type = typeOf(node);
    restoreByName(node);
    foldAdvanced(node, [EDITED]);
    warnWhenSkipped(node);
    const text = TEXTS[type];
    if (text) addTextPanel(node, { ...text, placeholder: t(`text.${type}`) });
    if (type === "UnlearnRestrictedGradient") addLivePanel(node, followRecipe(node));
    if (type === "UnlearnEvaluateAlignment") addComparePanel(node);
    if (type === "UnlearnOwnPictures") addCaptionTable(node);
    if (type === "UnlearnDiversifyPrompts") {
      followPreset(node);
      addPromptTable(node);
    }
    fitHeight(node); // it was created with all inputs unfolded
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
      await restoreRuns(same); // last, because a run in progress is newer than any result
    }
  },
});
