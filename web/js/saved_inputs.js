// Saved values of inputs. A workflow file stores them by position, so an input that moves would get
// another input's value. Therefore each node also saves the names, and restores the values by name.

import { afterConfigure, savedWidgets, saveWithNode, typeOf } from "./comfy.js";

const NAMES = "unlearn inputs";

// The order of version 0.1.0, which saved no names. Never change it.
const UP_TO_0_1_0 = {
  UnlearnLoadModel: "model vae image_size prediction precision",
  UnlearnForgetConcept: "concept kind synonyms replacements",
  UnlearnDiversifyPrompts: [
    "templates dimensions train_count test_count test_share seed preset invented_names",
    "gibberish_names neighbours candidates language_model proposals prompts_file save_as",
    "edited_prompts",
  ].join(" "),
  UnlearnRestrictedGradient: [
    "method objective scope steps learning_rate retain_weight preview_every seed batch_size",
    "retain_batch_factor truncation retain_objective negative_guidance generation_steps",
    "guidance_scale lora_rank lora_alpha schedule restrict_step paired retain_ema npo_beta",
    "saliency weight_decay keep_step warm_start empty_share stratified_timesteps",
    "warm_start_weight",
  ].join(" "),
  UnlearnEvaluateAlignment: "pictures scorer probes report_name seed generation_steps guidance_scale batch_size",
  UnlearnSaveCheckpoint: "name save_as overwrite lora_rank",
  UnlearnOwnPictures: "captions folder alone",
};

// Values of inputs that are newer than the file, computed from the file's values so that the workflow
// behaves as before. Other new inputs get their defaults.
const EARLIER_BEHAVIOUR = {
  UnlearnRestrictedGradient: {
    recipe: ({ method }) => (method === "UCE (closed form)" ? "UCE" : "as saved"),
    generation_seed: ({ seed }) => seed,
    picture_pairs: () => 10000, // all pairs
    picture_steps: ({ generation_steps }) => generation_steps,
    prompt_protection: () => 0,
  },
};

// Values that have another name since. The node still accepts their earlier names.
const RENAMED_VALUES = {
  UnlearnEvaluateAlignment: { probes: { all: "quick" } },
};

// Call this before anything else reads the values from a workflow.
export function restoreByName(node) {
  const widgets = savedWidgets(node);
  const names = widgets.map(({ name }) => name);
  const defaults = widgets.map(({ value }) => value);

  afterConfigure(node, (saved) => {
    const order = saved?.properties?.[NAMES] ?? UP_TO_0_1_0[typeOf(node)]?.split(" ");
    const values = saved?.widgets_values;
    if (Array.isArray(order) && Array.isArray(values) && order.join() !== names.join()) {
      const byName = Object.fromEntries(order.map((name, i) => [name, values[i]]));
      widgets.forEach((widget, i) => {
        const value = byName[widget.name] ?? EARLIER_BEHAVIOUR[typeOf(node)]?.[widget.name]?.(byName);
        widget.value = value === undefined ? defaults[i] : value;
      });
    }
    for (const widget of widgets) {
      widget.value = RENAMED_VALUES[typeOf(node)]?.[widget.name]?.[widget.value] ?? widget.value;
    }
    saveWithNode(node, NAMES, names);
  });
  saveWithNode(node, NAMES, names);
}
