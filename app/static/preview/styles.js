// What the studio says about styles: how those in the mix are called now, and which can be added.
import { stateOf } from "../dom.js";
import { mix, renewed, setMix } from "./mix.js";

const listeners = new Set();
let known = {};

export const styles = () => known;

export const onStyles = (listener) => listeners.add(listener);

export const attach = ({ element, watch }) => {
  const take = () => {
    known = stateOf(element);
    for (const listener of listeners) listener();
    const next = renewed(mix(), known.facts || {});
    if (JSON.stringify(next) !== JSON.stringify(mix())) setMix(next);
  };
  watch("value", take);
  take();
};
