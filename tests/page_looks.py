"""A page in a browser as different readers have it, and scripts that ask what it looks like: contrast, what moves."""

from __future__ import annotations

import time
from typing import Any

CONTRAST = """
const light = c => c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = text => { const v = text.match(/[\\d.]+/g).map(Number); return [v.slice(0, 3), v[3] ?? 1]; };
const over = ([front, alpha], back) => front.map((v, i) => v * alpha + back[i] * (1 - alpha));
const behind = e => { const layers = [];
  for (; e && layers.at(-1)?.[1] !== 1; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((back, layer) => over(layer, back), [255, 255, 255]); };
const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, e = node.parentElement;
  if (!node.data.trim() || !e.checkVisibility({ visibilityProperty: true })) continue;
  if (e.closest("option, .skip, .md-skip, [hidden]")) continue;
  const style = getComputedStyle(e), back = behind(e);
  let [front, alpha] = parse(e instanceof SVGElement ? style.fill : style.color);
  for (let p = e; p; p = p.parentElement) alpha *= getComputedStyle(p).opacity;
  if (!alpha) continue;
  const pair = [light(over([front, alpha], back)), light(back)];
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  found.push([node.data.trim(), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), large ? 3 : 4.5]);
}
return found;
"""
"""WCAG 2.1: each visible text, the ratio of its luminance and that of what lies behind it, the least that AA asks."""

MOVING = """
return [...document.querySelectorAll("*")].filter(e => { const s = getComputedStyle(e);
  return s.transitionDuration.split(",").some(t => parseFloat(t) > 0) || s.animationName !== "none"; }).length
"""
"""How many elements have a transition or an animation."""


def show(browser: Any, address: str, ready: str, *, width: int, dark: bool, still: bool) -> Any:
    """Open a page and wait until it is ready.

    Parameters
    ----------
    browser
        A Selenium driver of Chromium.
    address
        Of the page.
    ready
        JavaScript expression that is true when the page is ready.
    width, dark, still
        Of the window in pixels, below 500 a phone's; whether the reader prefers dark pages, and reduced motion.
    """
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {
        "prefers-color-scheme": "dark" if dark else "light",
        "prefers-reduced-motion": "reduce" if still else "no-preference",
    }
    named = [{"name": name, "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})
    browser.get("about:blank")
    browser.get(address)
    end = time.monotonic() + 60
    while not browser.execute_script(f"return {ready}"):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)
    return browser
